# SPDX-License-Identifier: LGPL-2.1-or-later
"""Logs that earlier kernels left in persistent memory: the device dump ``pstore``.

A member is a file of ``/sys/fs/pstore``: TYPE-BACKEND-ID, with .enc.z if the kernel could not unpack it; its time
is that of the record (Linux ``fs/pstore/inode.c``). A kernel log is written from its end, in parts that begin with
a line as ``Panic#1 Part1``: Part 1 is the newest (``pstore_dump()`` in ``fs/pstore/platform.c``).
"""

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ...text import counted, printable, utc
from ..decoded import Decoded, Field, Part, Section, Text
from ..members import Member, read_members
from ..structure import Item, bits, fields
from .cper_section import address, hex32, hexadecimal_text

MAX_TEXT = 1 << 20
"""Bytes of a log that are shown: its end, which is where a kernel died."""

MAX_ALL_TEXT = 16 << 20
"""Bytes of all logs that are shown."""

MAX_UNPACKED = 256 << 10
"""Bytes that a compressed record is unpacked into; the kernel packs some 10 kB into one."""

MAX_PAUSE = 60
"""Seconds between two records of one event: a kernel writes them without a pause."""

BACKENDS = {
    "efi": "EFI variables",
    "efi_pstore": "EFI variables",
    "erst": "ACPI ERST",
    "ramoops": "ramoops",
    "nvram": "NVRAM",
}

_NAME = re.compile(r"(?P<kind>.+)-(?P<backend>[a-z_0-9]+)-(?P<id>\d{1,20})(?P<packed>\.enc\.z)?")
_HEADER = re.compile(rb"(?P<reason>[A-Z][A-Za-z]{2,15})#(?P<count>\d{1,10}) Part(?P<part>\d{1,10})\n")
_KERNEL_LOG = "dmesg"
_TEXT_KINDS = ("console", "ftrace")


@dataclass(frozen=True, slots=True)
class Record:
    """A file of pstore."""

    name: str
    kind: str
    """``dmesg``, ``console``, ``pmsg``, ``mce``; the name itself if it is no name of pstore."""
    backend: str
    number: int
    """The number in its name: of EFI variables the time, part and count, of ERST the record's."""
    packed: bool
    """Whether it is compressed still."""
    time: int
    """Seconds since the epoch."""
    content: bytes
    """At most its last MAX_TEXT bytes."""
    left_out: int
    """Bytes before them."""
    reason: str = ""
    """Of a part of a kernel log: ``Panic``."""
    count: int = 0
    """The number of the event since that kernel started."""
    part: int = 0
    """1 is the newest."""


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode the archive. Raises InvalidDump if it is none."""
    members = read_members(data)
    problems = list(members.problems)
    records: list[Record] = []
    left = MAX_ALL_TEXT
    for member in members.files.values():
        content = member.read()
        if len(content) < member.size:
            problems.append(f"{member.name}: only {len(content)} of its {member.size} bytes are there")
        record = _record(member, content, min(left, MAX_TEXT))
        left -= len(record.content)
        records.append(record)
        if record.packed:
            problems.append(f"{record.name}: is compressed, and could not be unpacked")
    events = _events(record for record in records if record.part)
    sections = [_event_section(event) for event in events]
    sections += (_section(record) for record in records if not record.part)
    return Decoded(
        _title(records),
        tuple(_findings(events, records)),
        tuple(_facts(events)),
        tuple(sections),
        tuple(problems),
    )


def _record(member: Member, content: bytes, limit: int) -> Record:
    found = _NAME.fullmatch(member.name)
    packed = bool(found and found["packed"])
    if packed and (unpacked := _unpack(content)):
        content, packed = unpacked, False
    kind = found["kind"] if found else member.name
    header = _HEADER.match(content) if kind == _KERNEL_LOG and not packed else None
    text = content[header.end() :] if header else content
    shown = text[max(0, len(text) - limit) :]
    return Record(
        name=member.name,
        kind=kind,
        backend=found["backend"] if found else "",
        number=int(found["id"]) if found else 0,
        packed=packed,
        time=member.mtime,
        content=shown,
        left_out=len(text) - len(shown),
        reason=header["reason"].decode() if header else "",
        count=int(header["count"]) if header else 0,
        part=int(header["part"]) if header else 0,
    )


def _unpack(content: bytes) -> bytes:
    """Return an unpacked record, or nothing: the capture kernel may lack deflate, which is the usual way."""
    # Older kernels wrote zlib's header before it.
    for window in (-zlib.MAX_WBITS, zlib.MAX_WBITS):
        try:
            unpacked = zlib.decompressobj(window).decompress(content, MAX_UNPACKED)
        except zlib.error:
            continue
        if _HEADER.match(unpacked):
            return unpacked
    return b""


def _events(records: Iterable[Record]) -> list[list[Record]]:
    """Return the parts of each event from the oldest text to the newest, the newest event first.

    Parts of one event have its reason and count, and were written one after the other, Part 1 first; the numbers
    in their names ascend. Each boot counts from 1, so that a part that comes again begins another event.
    """
    same: dict[tuple[str, str, int], list[Record]] = defaultdict(list)
    for record in records:
        same[record.backend, record.reason, record.count].append(record)
    events: list[list[Record]] = []
    for parts in same.values():
        event: list[Record] = []
        for record in sorted(parts, key=lambda record: (record.number, record.part)):
            if event and (record.part <= event[-1].part or abs(record.time - event[-1].time) > MAX_PAUSE):
                events.append(event)
                event = []
            event.append(record)
        events.append(event)
    return [event[::-1] for event in sorted(events, key=lambda event: -event[0].time)]


# Most telling first: what a panic says, then what an oops begins with.
_DEATHS = (
    re.compile(rb"Kernel panic - not syncing: [^\n]*"),
    re.compile(rb"BUG: [^\n]*"),
    re.compile(rb"Oops: [^\n]*|Oops - [^\n]*|Internal error: [^\n]*"),
    re.compile(rb"general protection fault[^\n]*|Unable to handle kernel [^\n]*"),
)
MAX_FINDING = 120
"""Letters of a finding: the line of a kernel can be longer."""

MAX_FINDINGS = 16
"""Reasons of deaths that are findings, the panics first."""


def _death(text: bytes) -> str:
    """Return the line that says why the kernel died, or nothing."""
    for pattern in _DEATHS:
        if found := pattern.search(text):
            line = printable(found[0].decode("utf-8", "backslashreplace")).strip()
            return line if len(line) <= MAX_FINDING else line[: MAX_FINDING - 3] + "..."
    return ""


def _joined(event: list[Record]) -> bytes:
    return b"".join(record.content for record in event)


def _findings(events: list[list[Record]], records: list[Record]) -> Iterator[str]:
    """Return why kernels died, each reason once, and how many machine checks there are."""
    deaths = Counter(filter(None, (_death(_joined(event)) for event in events)))
    consoles = (record.content for record in records if record.kind == "console")
    # A console has the same lines as the kernel log of its event.
    for death in filter(None, (_death(content) for content in consoles)):
        if death not in deaths:
            deaths[death] += 1
    panics = sorted(deaths, key=lambda death: not death.startswith("Kernel panic"))
    for death in panics[:MAX_FINDINGS]:
        yield death if deaths[death] == 1 else f"{death} ({deaths[death]} times)"
    if checks := sum(record.kind == "mce" for record in records):
        yield counted(checks, "machine check")


def _facts(events: list[list[Record]]) -> Iterator[str]:
    reasons = Counter(event[0].reason for event in events)
    plurals = {"Panic": ("panic", "panics"), "Oops": ("oops", "oopses"), "Emergency": ("emergency", "emergencies")}
    for reason, count in reasons.items():
        one, many = plurals.get(reason, (reason.lower(), reason.lower()))
        yield counted(count, one, many)
    if events and (newest := max(event[-1].time for event in events)):
        yield f"the last at {_time(newest)}"


def _title(records: list[Record]) -> str:
    backends = dict.fromkeys(BACKENDS.get(record.backend, record.backend) for record in records if record.backend)
    return f"pstore of {', '.join(backends)}" if backends else "pstore"


def _time(seconds: int) -> str:
    time = utc(seconds * 10**6)
    return f"{time} UTC" if time else str(seconds)


def _time_field(seconds: int) -> Field:
    return Field("Time", seconds, _time(seconds))


def _shown(content: bytes, left_out: int = 0) -> str:
    """Return a log as text: what is not printable is escaped, for it may have come from anything."""
    lines = content.decode("utf-8", "backslashreplace").expandtabs().split("\n")
    text = "\n".join(printable(line.rstrip("\r")) for line in lines)
    return f"... {left_out} bytes before\n{text}" if left_out else text


def _event_section(event: list[Record]) -> Section:
    """Return an event, its parts in the order of the log."""
    newest = event[-1]
    parts: list[Part] = [
        Field("Reason", newest.reason),
        Field("Count", newest.count),
        _time_field(newest.time),
        Field("Files", " ".join(record.name for record in event)),
    ]
    numbers = [record.part for record in event]
    missing = sorted(set(range(1, min(max(numbers), len(event) + 64) + 1)) - set(numbers))
    if missing:
        parts.append(Field("Missing parts", ", ".join(map(str, missing)), wrong=True))
    text = "".join(_shown(record.content, record.left_out) for record in event)
    parts.append(Text("Kernel log", text))
    return Section(f"{newest.reason}#{newest.count} {newest.name}", tuple(parts))


# struct mce, arch/x86/include/uapi/asm/mce.h; status bits: Intel SDM volume 3, 16.3.2.2.
_STATUS = {
    63: "VAL",
    62: "OVER",
    61: "UC",
    60: "EN",
    59: "MISCV",
    58: "ADDRV",
    57: "PCC",
    56: "S",
    55: "AR",
}
_STATUS_FLAGS = sum(1 << bit for bit in _STATUS)


def _status(value: int) -> str:
    return f"{address(value)} ({bits(value & _STATUS_FLAGS, _STATUS).partition(': ')[2] or 'no flags'})"


_MACHINE_CHECK = (
    Item("bank", 65, 1),
    Item("status", 0, 8, _status, bool),
    Item("misc", 8, 8, address),
    Item("addr", 16, 8, address),
    Item("mcgstatus", 24, 8, address),
    Item("ip", 32, 8, address),
    Item("tsc", 40, 8, address),
    Item("time", 48, 8, _time),
    Item("cpuvendor", 56, 1),
    Item("cpuid", 60, 4, hex32),
    Item("cs", 64, 1, hex),
    Item("extcpu", 68, 4),
    Item("socketid", 72, 4),
    Item("apicid", 76, 4, hex),
    Item("mcgcap", 80, 8, address),
    Item("synd", 88, 8, address),
    Item("ipid", 96, 8, address),
    Item("ppin", 104, 8, address, private=True),
    Item("microcode", 112, 4, hex32),
)
_MIN_MACHINE_CHECK = 88


def _section(record: Record) -> Section:
    """Return a file that is no part of a kernel log."""
    time = _time_field(record.time)
    if record.packed:
        packed = Field("Compressed", True, f"{len(record.content)} bytes", wrong=True)
        return Section(record.name, (time, packed))
    if record.kind == "mce" and len(record.content) >= _MIN_MACHINE_CHECK:
        return Section(record.name, (time, *fields(_MACHINE_CHECK, record.content)))
    if record.kind in (_KERNEL_LOG, *_TEXT_KINDS) or b"\0" not in record.content:
        return Section(record.name, (time, Text("Content", _shown(record.content, record.left_out))))
    return Section(record.name, (time, hexadecimal_text("Content", record.content)))
