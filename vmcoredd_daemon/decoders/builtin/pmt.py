# SPDX-License-Identifier: LGPL-2.1-or-later
"""Intel PMT: the records of a crash log.

Headers of records as in Intel's own decoder, https://github.com/intel/crashlog: ``header.rs``, ``region.rs`` and
``errata.rs`` in ``lib/src``. What a record has after its header depends on the product: here it is hexadecimal,
``iclg decode`` of that project knows it. Linux ``drivers/platform/x86/intel/pmt/crashlog.c``: the GUID is in
another file, ``Documentation/ABI/testing/sysfs-class-intel_pmt``, and not in the device dump.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from ...errors import InvalidDump
from ...text import counted
from ..decoded import Decoded, Field, Part, Section, Text
from ..structure import Item, fields, hexadecimal, named, number

MAX_SIZE = 16 << 20
"""Bytes that are looked at."""

MAX_RECORDS = 256

SHOWN = 1024
"""Bytes of a record that are shown."""

TERMINATORS = (0, 0xDEADBEEF)
"""What a header begins with if there is none."""

RECORD_TYPES = {
    0x01: "PMC",
    0x02: "PMC_FW_TRACE",
    0x03: "PUNIT",
    0x04: "PCORE",
    0x06: "ECORE",
    0x08: "UNCORE",
    0x11: "PMC_TRACE",
    0x16: "TCSS",
    0x17: "PMC_RST",
    0x19: "PCODE",
    0x1C: "CRASHLOG_AGENT",
    0x3D: "BOX",
    0x3E: "MCA",
}
PCORE, ECORE, BOX = 0x04, 0x06, 0x3D

LEGACY_SERVERS = (0x2F, 0x82, 0x8E)
"""Product IDs whose header of type 0 has another layout; their PCORE is a BOX."""


def _complete(value: int) -> str:
    return f"{value & 0x7FFFFFFF:#x}, {'complete' if value >> 31 else 'not complete'}"


COMMON = (
    Item("timestamp", 8, 8),
    Item("agent_version", 16, 4, hex),
    Item("reason", 20, 4, hex),
)
COMPLETION = Item("completion_status", 24, 4, _complete)

HEADERS: Mapping[int, tuple[Item, ...]] = {
    0: (),
    1: (),
    2: COMMON,
    3: (*COMMON, COMPLETION),
    4: (*COMMON, Item("whoami", 24, 4, hex), Item("misc", 28, 4, hex)),
    5: (*COMMON, COMPLETION, Item("error_status", 28, 4, hex)),
    6: (*COMMON, Item("die_id", 24, 1), Item("socket_id", 25, 1)),
}
"""By header type, what follows version and size."""

HEADER_SIZES = {0: 8, 1: 8, 2: 24, 3: 28, 4: 32, 5: 32}

LEGACY_HEADER = (
    Item("reason", 4, 4, hex),
    Item("timestamp", 8, 8),
    Item("agent_version", 20, 4, hex),
    Item("socket_id", 24, 1),
    Item("completion_status", 28, 4, _complete),
)


@dataclass(frozen=True, slots=True)
class _Version:
    value: int

    @property
    def revision(self) -> int:
        return self.value & 0xFF

    @property
    def header_type(self) -> int:
        return self.value >> 8 & 0xF

    @property
    def product(self) -> int:
        return self.value >> 12 & 0xFFF

    @property
    def record_type(self) -> int:
        return self.value >> 24 & 0x3F

    @property
    def is_consumed(self) -> bool:
        return bool(self.value >> 31)

    @property
    def is_legacy(self) -> bool:
        return self.header_type == 0 and self.product in LEGACY_SERVERS

    @property
    def is_box(self) -> bool:
        return self.record_type == BOX or (self.is_legacy and self.record_type == PCORE)

    @property
    def unit(self) -> int:
        """Bytes that its size counts: dwords, except in records of cores of some products."""
        if self.is_legacy:
            return 4
        limit = {ECORE: 0x96, PCORE: 0x71}.get(self.record_type, 0)
        return 1 if self.product < limit else 4


@dataclass(frozen=True, slots=True)
class _Record:
    version: _Version
    offset: int
    size: int
    """As its header says."""
    data: bytes


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode ``crashlog0`` and others. Raises InvalidDump if it does not begin with the header of a record."""
    log = data.read(MAX_SIZE)
    if not log.strip(b"\0"):
        return Decoded("Intel crash log", facts=("empty",))
    if log.count(b"\xff") == len(log):
        return Decoded("Intel crash log", facts=("not readable: all bytes are ff",))
    problems: list[str] = []
    found: list[_Record] = []
    for record in _records(0, log, problems):
        found.append(record)
        # A box has records of its own; boxes are in no box.
        if record.version.is_box and (size := _header_size(record.version, record.data)) < len(record.data):
            found += islice(_records(record.offset + size, record.data[size:], problems), MAX_RECORDS)
        if len(found) >= MAX_RECORDS:
            problems.append(f"only the first {MAX_RECORDS} records are shown")
            del found[MAX_RECORDS:]
            break
    if not found:
        raise InvalidDump(problems[0] if problems else "no record of a crash log")
    # If there is nothing in a box, it is one itself.
    records = [record for record in found if not record.version.is_box] or found
    kinds = dict.fromkeys(_kind(record.version) for record in records)
    new = sum(not record.version.is_consumed for record in records)
    text = counted(new, "crash log record")
    return Decoded(
        "Intel crash log",
        (f"{text}: {', '.join(kinds)}",) if new else (),
        () if new else ("all records were read by the firmware",),
        tuple(Section(_name(record), tuple(_parts(record, problems))) for record in found),
        tuple(problems),
    )


def _records(start: int, region: bytes, problems: list[str]) -> Iterator[_Record]:
    at = 0
    while at < len(region):
        where = f"the record at {start + at:#x}"
        try:
            version = _Version(number(region, at, 4, where))
            if version.value in TERMINATORS:
                return
            if version.header_type not in HEADERS:
                problems.append(f"{where}: header type {version.header_type} is unknown")
                return
            size = _size(version, region[at : at + 24], where)
        except InvalidDump as error:
            problems.append(str(error))
            return
        if size < 8:
            problems.append(f"{where}: its size is {size}")
            return
        data = region[at : at + size]
        if len(data) < size:
            problems.append(f"{where}: it has {size} bytes, of which {len(data)} are there")
        yield _Record(version, start + at, size, data)
        at += size


def _size(version: _Version, header: bytes, where: str) -> int:
    if version.is_legacy:
        return number(header, 16, 2, where) * 4
    return (number(header, 4, 2, where) + number(header, 6, 2, where)) * version.unit


def _header_size(version: _Version, data: bytes) -> int:
    if version.is_legacy:
        return 32
    if version.header_type == 6:
        return 28 + 4 * _statuses(data)
    return HEADER_SIZES[version.header_type]


def _statuses(data: bytes) -> int:
    """Return how many completion statuses the header *data* of type 6 has."""
    return data[26] & 0x7F if len(data) >= 28 else 0


def _parts(record: _Record, problems: list[str]) -> Iterator[Part]:
    version, data = record.version, record.data
    yield Field("version", version.value, f"{version.value:#010x}")
    yield Field("revision", version.revision)
    yield Field("header_type", version.header_type)
    yield Field("product_id", version.product, f"{version.product:#x}")
    yield Field("record_type", version.record_type, _kind(version))
    yield Field("consumed", version.is_consumed, "yes" if version.is_consumed else "no")
    yield Field("record_size", record.size, f"{record.size} bytes")
    size = _header_size(version, data)
    if len(data) < size:
        problems.append(f"the record at {record.offset:#x}: its header is cut off")
    yield from fields(LEGACY_HEADER if version.is_legacy else HEADERS[version.header_type], data)
    if version.header_type == 6 and len(data) >= 28:
        complete = bool(data[27] & 0x80)
        yield Field("record_collection_completed", complete, "yes" if complete else "no")
        items = (Item(f"completion_status{index}", 28 + 4 * index, 4, hex) for index in range(_statuses(data)))
        yield from fields(items, data)
    # The records of a box follow it.
    if data[size:] and not version.is_box:
        shown = data[size : size + SHOWN]
        more = f", first {SHOWN} of {len(data) - size} bytes" if len(shown) < len(data) - size else ""
        yield Text(f"data{more}", hexadecimal(shown, record.offset + size))


def _kind(version: _Version) -> str:
    return named(version.record_type, RECORD_TYPES)


def _name(record: _Record) -> str:
    return f"{_kind(record.version)} at {record.offset:#x}"
