# SPDX-License-Identifier: LGPL-2.1-or-later
"""ACPI's error tables, and what firmware recorded about the reset before: the device dump ``acpi_apei``.

ACPI Specification 6.5, 5.2.6 (header) and 18.3 to 18.6; ``actbl1.h`` of ACPICA has the same layouts. The members
are BERT, EINJ, ERST and HEST, and in data/ what they point to: data/BERT is the boot error region.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO

from ...errors import InvalidDump
from ...text import counted
from ..decoded import Decoded, Field, Part, Section, Table
from ..members import Member, Members, read_members
from ..structure import Item, ascii_text, bits, bits_of, fields, named, number, part_of
from .aer import CORRECTABLE, UNCORRECTABLE
from .cper import Error, decode_error, findings, severity, severity_is_wrong, timestamp
from .cper_section import address, code, guid, hex32, hexadecimal_text

MAX_SOURCES = 1024
"""Error sources that are decoded; a large server has some hundred."""

MAX_INSTRUCTIONS = 1024
"""Serialization instructions that are shown; a table has some thirty."""

MAX_BLOCKS = 64
"""Error status blocks of the boot error region that are decoded."""

MAX_ERRORS = 256
"""Errors of the boot error region that are decoded."""

# 5.2.6, table 5.4: System Description Table Header.
_HEADER_SIZE = 36
_HEADER = (
    Item("Signature", 0, 4, kind=str),
    Item("Length", 4, 4),
    Item("Revision", 8, 1),
    Item("OEMID", 10, 6, kind=str),
    Item("OEM Table ID", 16, 8, kind=str),
    Item("OEM Revision", 24, 4, hex32),
    Item("Creator ID", 28, 4, kind=str),
    Item("Creator Revision", 32, 4, hex32),
)


@dataclass(frozen=True, slots=True)
class _Decoded:
    """What one member says."""

    sections: tuple[Section, ...]
    errors: tuple[Error, ...] = ()
    findings: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode the archive. Raises InvalidDump if it is none."""
    members = read_members(data)
    decoded: list[_Decoded] = []
    problems = list(members.problems)
    for member in members.files.values():
        try:
            decoded.append(_MEMBERS.get(member.name, _unknown)(member))
        except InvalidDump as error:
            problems.append(f"{member.name}: {error}")
    errors = [error for each in decoded for error in each.errors]
    return Decoded(
        _title(members),
        (*findings(errors), *(finding for each in decoded for finding in each.findings)),
        tuple(fact for each in decoded for fact in each.facts),
        tuple(section for each in decoded for section in each.sections),
        (*problems, *(problem for each in decoded for problem in each.problems)),
    )


def _title(members: Members) -> str:
    """Return the tables, and whose they are: ``ACPI BERT, HEST of DELL PE_SC3``."""
    tables = [name for name in ("BERT", "EINJ", "ERST", "HEST") if name in members.files]
    oem = ""
    if tables:
        header = members.files[tables[0]].read(_HEADER_SIZE)
        oem = " ".join(filter(None, (ascii_text(header[10:16]), ascii_text(header[16:24]))))
    return f"ACPI {', '.join(tables) or 'error data'}{f' of {oem}' if oem else ''}"


def _unknown(member: Member) -> _Decoded:
    content = member.read()
    return _Decoded((Section(member.name, (hexadecimal_text("Content", content),)),))


def _table_header(member: Member) -> tuple[bytes, list[Part], tuple[str, ...], tuple[str, ...]]:
    """Return the bytes of a table, its header's fields, and findings and problems of them."""
    content = member.read()
    part_of(content, 0, _HEADER_SIZE, "table header")
    length = number(content, 4, 4, "Length")
    problems: tuple[str, ...] = ()
    if length != len(content):
        problems = (f"{member.name}: has {len(content)} bytes, its Length says {length}",)
    table = content[: max(length, _HEADER_SIZE)]
    total = sum(table) & 0xFF
    header: list[Part] = [*fields(_HEADER, table)]
    header.insert(
        3,
        Field(
            "Checksum", table[9], f"{table[9]:#04x} ({f'wrong by {total}' if total else 'ok'})", wrong=bool(total)
        ),
    )
    return table, header, ((f"{member.name} has a wrong checksum",) if total else ()), problems


# Tables 18.1 and 18.2: Boot Error Record Table.
_BERT = (
    Item("Boot Error Region Length", 36, 4),
    Item("Boot Error Region", 40, 8, address),
)


def _bert(member: Member) -> _Decoded:
    table, header, found, problems = _table_header(member)
    section = Section(member.name, (*header, *fields(_BERT, table)))
    return _Decoded((section,), findings=found, problems=problems)


# 18.3.2.7.1: Generic Error Status Block and Generic Error Data Entry.
_BLOCK_STATUS = {
    0: "Uncorrectable Error Valid",
    1: "Correctable Error Valid",
    2: "Multiple Uncorrectable Errors",
    3: "Multiple Correctable Errors",
}
_NO_ERROR = (0, 0xFFFFFFFF)
"""Block Status of a block without errors, and of memory that is not there."""
_BLOCK_SIZE = 20
_BLOCK = (
    Item(
        "Block Status",
        0,
        4,
        lambda value: f"{bits(value & 0xF, _BLOCK_STATUS)}; Error Data Entry Count {value >> 4 & 0x3FF}",
    ),
    Item("Raw Data Offset", 4, 4),
    Item("Raw Data Length", 8, 4),
    Item("Data Length", 12, 4),
    Item("Error Severity", 16, 4, severity, severity_is_wrong),
)
_ENTRY_SIZE = 64
_ENTRY_SIZE_3 = 72
"""With the timestamp, as of revision 0x300."""
_ENTRY = (
    Item("Error Severity", 16, 4, severity, severity_is_wrong),
    Item("Revision", 20, 2, lambda value: f"{value >> 8}.{value & 0xFF}"),
    Item(
        "Flags",
        23,
        1,
        bits_of({0: "Primary", 1: "Containment Warning", 2: "Reset", 3: "Threshold Exceeded"}),
    ),
    Item("Error Data Length", 24, 4),
)


def _boot_error_region(member: Member) -> _Decoded:
    """Decode blocks until one says that it has no error, as ``bert_print_all()`` in Linux does."""
    content = member.read()
    sections: list[Section] = []
    errors: list[Error] = []
    problems: list[str] = []
    start = 0
    for _ in range(MAX_BLOCKS):
        block = content[start : start + _BLOCK_SIZE]
        if len(block) < _BLOCK_SIZE or number(block, 0, 4, "Block Status") in _NO_ERROR:
            break
        name = f"{member.name} block {start:#x}" if sections else member.name
        data_end = _BLOCK_SIZE + number(block, 12, 4, "Data Length")
        raw_start = number(block, 4, 4, "Raw Data Offset")
        end = max(data_end, raw_start + number(block, 8, 4, "Raw Data Length"))
        parts: list[Part] = [*fields(_BLOCK, block)]
        if raw := content[start + max(raw_start, data_end) : start + end]:
            parts.append(hexadecimal_text("Raw Data", raw))
        sections.append(Section(name, tuple(parts)))
        if start + end > len(content):
            problems.append(f"{name}: {start + end - len(content)} bytes are missing at its end")
        for error in _entries(content[start + _BLOCK_SIZE : start + data_end], MAX_ERRORS - len(errors)):
            errors.append(error)
            sections.append(Section(f"{member.name} error {len(errors)}", error.parts))
            problems += (f"{member.name} error {len(errors)}: {problem}" for problem in error.problems)
        start += end
    if not sections:
        return _Decoded((Section(member.name, fields(_BLOCK[:1], content)),), facts=("no boot error",))
    return _Decoded(tuple(sections), tuple(errors), problems=tuple(problems))


def _entries(data: bytes, limit: int) -> list[Error]:
    """Return the errors of a block; their parts begin with the fields of the entry."""
    errors: list[Error] = []
    start = 0
    while len(data) - start >= _ENTRY_SIZE and len(errors) < limit:
        entry = data[start : start + _ENTRY_SIZE_3]
        revision = number(entry, 20, 2, "Revision")
        body_start = start + (_ENTRY_SIZE_3 if revision >= 0x300 else _ENTRY_SIZE)
        end = body_start + number(entry, 24, 4, "Error Data Length")
        valid = entry[22]
        fru = ascii_text(entry[44:64]) if valid >> 1 & 1 else ""
        error = decode_error(entry[:16], number(entry, 16, 4, "Error Severity"), fru, data[body_start:end])
        parts: list[Part] = [Field("Section Type", guid(entry[:16]), error.type_name), *fields(_ENTRY, entry)]
        if valid & 1:
            parts.append(Field("FRU Id", guid(entry[28:44]), private=True))
        if fru:
            parts.append(Field("FRU Text", fru))
        if valid >> 2 & 1 and revision >= 0x300 and len(entry) == _ENTRY_SIZE_3:
            raw = number(entry, 64, 8, "Timestamp")
            parts.append(Field("Timestamp", raw, timestamp(entry[64:72]) or address(raw)))
        problems = error.problems
        if end > len(data):
            problems = (f"{end - len(data)} bytes are missing at its end", *problems)
        errors.append(replace(error, parts=(*parts, *error.parts), problems=problems))
        start = end
    return errors


# 18.3.2: error sources, by type.
_SOURCE_TYPE = {
    0: "IA-32 Architecture Machine Check Exception",
    1: "IA-32 Architecture Corrected Machine Check",
    2: "IA-32 Architecture Non-Maskable Interrupt",
    6: "PCI Express Root Port AER",
    7: "PCI Express Device AER",
    8: "PCI Express/PCI-X Bridge AER",
    9: "Generic Hardware Error Source",
    10: "Generic Hardware Error Source version 2",
    11: "IA-32 Architecture Deferred Machine Check",
}
_SOURCE_FLAGS = {0: "FIRMWARE_FIRST", 1: "GLOBAL", 2: "GHES_ASSIST"}
_NOTIFICATION_TYPE = {
    0: "Polled",
    1: "External Interrupt",
    2: "Local Interrupt",
    3: "SCI",
    4: "NMI",
    5: "CMCI",
    6: "MCE",
    7: "GPIO-Signal",
    8: "ARMv8 SEA",
    9: "ARMv8 SEI",
    10: "External Interrupt - GSIV",
    11: "Software Delegated Exception",
}
_SPACE = {
    0: "System Memory",
    1: "System I/O",
    2: "PCI Configuration",
    3: "Embedded Controller",
    4: "SMBus",
    5: "System CMOS",
    6: "PciBarTarget",
    7: "IPMI",
    8: "General Purpose I/O",
    9: "GenericSerialBus",
    10: "Platform Communications Channel",
    0x7F: "Functional Fixed Hardware",
}


def _flags(value: int) -> str:
    return bits(value, _SOURCE_FLAGS)


def _register(data: bytes) -> str:
    """Return a Generic Address Structure, 5.2.3.2: ``System Memory 0x00000000fed00000, 64 bits``."""
    space, width, offset, _, at = (*data[:4], int.from_bytes(data[4:12], "little"))
    return f"{named(space, _SPACE)} {address(at)}, {width} bits{f' at bit {offset}' if offset else ''}"


def _register_field(value: int) -> str:
    return _register(value.to_bytes(12, "little"))


_SOURCE = (
    Item("Number of Records to Pre-allocate", 8, 4),
    Item("Max Sections Per Record", 12, 4),
)
_ENABLED = (Item("Flags", 6, 1, _flags), Item("Enabled", 7, 1), *_SOURCE)


def _notification(start: int) -> tuple[Item, ...]:
    """Return the Hardware Error Notification Structure, 18.3.2.9."""
    return (
        Item("Notification Type", start, 1, lambda value: code(value, _NOTIFICATION_TYPE)),
        Item("Configuration Write Enable", start + 2, 2, hex),
        Item("Poll Interval", start + 4, 4, lambda value: f"{value} ms"),
        Item("Vector", start + 8, 4),
        Item("Switch To Polling Threshold Value", start + 12, 4),
        Item("Switch To Polling Threshold Window", start + 16, 4, lambda value: f"{value} ms"),
        Item("Error Threshold Value", start + 20, 4),
        Item("Error Threshold Window", start + 24, 4, lambda value: f"{value} ms"),
    )


_AER = (
    *_ENABLED,
    Item("Bus", 16, 4, lambda value: f"{value >> 8 & 0xFFFF:04x}:{value & 0xFF:02x}"),
    Item("Device", 20, 2),
    Item("Function", 22, 2),
    Item("Device Control", 24, 2, hex),
    Item("Uncorrectable Error Mask", 28, 4, bits_of(UNCORRECTABLE)),
    Item("Uncorrectable Error Severity", 32, 4, bits_of(UNCORRECTABLE)),
    Item("Correctable Error Mask", 36, 4, bits_of(CORRECTABLE)),
    Item("Advanced Error Capabilities and Control", 40, 4, hex32),
)
_GENERIC = (
    Item("Related Source Id", 4, 2, lambda value: "none" if value == 0xFFFF else str(value)),
    Item("Enabled", 7, 1),
    *_SOURCE,
    Item("Max Raw Data Length", 16, 4),
    Item("Error Status Address", 20, 12, _register_field),
    *_notification(32),
    Item("Error Status Block Length", 60, 4),
)
_CORRECTED = (*_ENABLED, *_notification(16), Item("Number Of Hardware Banks", 44, 1))

_SOURCES: Mapping[int, tuple[int, tuple[Item, ...]]] = {
    0: (
        40,
        (
            *_ENABLED,
            Item("Global Capability Init Data", 16, 8, address),
            Item("Global Control Init Data", 24, 8, address),
            Item("Number Of Hardware Banks", 32, 1),
        ),
    ),
    1: (48, _CORRECTED),
    2: (20, (*_SOURCE, Item("Max Raw Data Length", 16, 4))),
    6: (48, (*_AER, Item("Root Error Command", 44, 4, hex32))),
    7: (44, _AER),
    8: (
        56,
        (
            *_AER,
            Item("Secondary Uncorrectable Error Mask", 44, 4, hex32),
            Item("Secondary Uncorrectable Error Severity", 48, 4, hex32),
            Item("Secondary Advanced Error Capabilities and Control", 52, 4, hex32),
        ),
    ),
    9: (64, _GENERIC),
    10: (
        92,
        (
            *_GENERIC,
            Item("Read Ack Register", 64, 12, _register_field),
            Item("Read Ack Preserve", 76, 8, address),
            Item("Read Ack Write", 84, 8, address),
        ),
    ),
    11: (48, _CORRECTED),
}
"""By type: bytes without banks, and fields."""

_BANK_COUNT = {0: 32, 1: 44, 11: 44}
"""Where types with Machine Check Error Banks have their number."""
_BANK_SIZE = 28
_BANK = (
    Item("Bank Number", 0, 1),
    Item("Clear Status On Initialization", 1, 1),
    Item(
        "Status Data Format", 2, 1, lambda value: code(value, {0: "IA-32 MCA", 1: "Intel 64 MCA", 2: "AMD64 MCA"})
    ),
    Item("Control Register MSR Address", 4, 4, hex32),
    Item("Control Init Data", 8, 8, address),
    Item("Status Register MSR Address", 16, 4, hex32),
    Item("Address Register MSR Address", 20, 4, hex32),
    Item("Misc Register MSR Address", 24, 4, hex32),
)


def _hest(member: Member) -> _Decoded:
    table, header, found, problems = _table_header(member)
    count = number(table, _HEADER_SIZE, 4, "Error Source Count")
    sections = [Section(member.name, (*header, Field("Error Source Count", count)))]
    start = _HEADER_SIZE + 4
    damage = []
    try:
        for _ in range(min(count, MAX_SOURCES)):
            parts, start = _source(table, start)
            identity = parts[1].value if isinstance(parts[1], Field) else len(sections)
            sections.append(Section(f"{member.name} source {identity}", parts))
    except InvalidDump as error:
        damage.append(f"{member.name}: {error}")
    if count > MAX_SOURCES:
        damage.append(f"{member.name}: only {MAX_SOURCES} of its {count} error sources are decoded")
    sources = len(sections) - 1
    fact = counted(sources, "error source")
    return _Decoded(tuple(sections), findings=found, facts=(fact,), problems=(*problems, *damage))


def _source(table: bytes, start: int) -> tuple[tuple[Part, ...], int]:
    """Return the fields of an error source, and where the next one begins."""
    kind = number(table, start, 2, "error source")
    if kind not in _SOURCES:
        raise InvalidDump(f"byte {start}: an error source of unknown type {kind}, and thus of unknown size")
    size, items = _SOURCES[kind]
    source = part_of(table, start, size, "error source")
    parts: list[Part] = [
        Field("Type", kind, code(kind, _SOURCE_TYPE)),
        Field("Source Id", number(source, 2, 2, "Source Id")),
        *fields(items, source),
    ]
    end = start + size
    banks = source[_BANK_COUNT[kind]] if kind in _BANK_COUNT else 0
    if banks:
        rows = []
        for index in range(banks):
            bank = part_of(table, end + index * _BANK_SIZE, _BANK_SIZE, "Machine Check Error Bank")
            rows.append(tuple(field.text for field in fields(_BANK, bank)))
        parts.append(Table("Machine Check Error Banks", tuple(item.name for item in _BANK), tuple(rows)))
    return tuple(parts), end + banks * _BANK_SIZE


# 18.5.1: Error Record Serialization Table.
_ERST_ACTION = {
    0: "BEGIN_WRITE_OPERATION",
    1: "BEGIN_READ_OPERATION",
    2: "BEGIN_CLEAR_OPERATION",
    3: "END_OPERATION",
    4: "SET_RECORD_OFFSET",
    5: "EXECUTE_OPERATION",
    6: "CHECK_BUSY_STATUS",
    7: "GET_COMMAND_STATUS",
    8: "GET_RECORD_IDENTIFIER",
    9: "SET_RECORD_IDENTIFIER",
    10: "GET_RECORD_COUNT",
    11: "BEGIN_DUMMY_WRITE_OPERATION",
    13: "GET_ERROR_LOG_ADDRESS_RANGE",
    14: "GET_ERROR_LOG_ADDRESS_RANGE_LENGTH",
    15: "GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES",
    16: "GET_EXECUTE_OPERATION_TIMINGS",
}
_ERST_INSTRUCTION = {
    0: "READ_REGISTER",
    1: "READ_REGISTER_VALUE",
    2: "WRITE_REGISTER",
    3: "WRITE_REGISTER_VALUE",
    4: "NOOP",
    5: "LOAD_VAR1",
    6: "LOAD_VAR2",
    7: "STORE_VAR1",
    8: "ADD",
    9: "SUBTRACT",
    10: "ADD_VALUE",
    11: "SUBTRACT_VALUE",
    12: "STALL",
    13: "STALL_WHILE_TRUE",
    14: "SKIP_NEXT_INSTRUCTION_IF_TRUE",
    15: "GOTO",
    16: "SET_SRC_ADDRESS_BASE",
    17: "SET_DST_ADDRESS_BASE",
    18: "MOVE_DATA",
}
# 18.6.1: Error Injection Table.
_EINJ_ACTION = {
    0: "BEGIN_INJECTION_OPERATION",
    1: "GET_TRIGGER_ERROR_ACTION_TABLE",
    2: "SET_ERROR_TYPE",
    3: "GET_ERROR_TYPE",
    4: "END_OPERATION",
    5: "EXECUTE_OPERATION",
    6: "CHECK_BUSY_STATUS",
    7: "GET_COMMAND_STATUS",
    8: "SET_ERROR_TYPE_WITH_ADDRESS",
    9: "GET_EXECUTE_OPERATION_TIMINGS",
    0x10: "EINJV2_SET_ERROR_TYPE",
    0x11: "EINJV2_GET_ERROR_TYPE",
    0xFF: "TRIGGER_ERROR",
}
_EINJ_INSTRUCTION = {
    0: "READ_REGISTER",
    1: "READ_REGISTER_VALUE",
    2: "WRITE_REGISTER",
    3: "WRITE_REGISTER_VALUE",
    4: "NOOP",
}
_INSTRUCTION_FLAGS = {0: "PRESERVE_REGISTER"}
_INSTRUCTION_SIZE = 32
_INSTRUCTIONS = 48
"""Bytes before the instructions: the table's header, and 12 bytes."""
_COLUMNS = ("Action", "Instruction", "Flags", "Register Region", "Value", "Mask")


def _instructions(
    what: str, header: tuple[Item, ...], actions: Mapping[int, str], instructions: Mapping[int, str]
) -> Callable[[Member], _Decoded]:
    """Return a decoder of ERST or EINJ, tables of instructions: *what* is the name of their number."""

    def decode_table(member: Member) -> _Decoded:
        table, parts, found, problems = _table_header(member)
        parts += fields(header, table)
        count = number(table, 44, 4, what)
        complete = min(count, max(0, len(table) - _INSTRUCTIONS) // _INSTRUCTION_SIZE)
        shown = min(complete, MAX_INSTRUCTIONS)
        if shown < count:
            problems = (*problems, f"{member.name}: only {shown} of its {count} instructions are decoded")
        rows = []
        for index in range(shown):
            start = _INSTRUCTIONS + index * _INSTRUCTION_SIZE
            entry = table[start : start + _INSTRUCTION_SIZE]
            rows.append(
                (
                    named(entry[0], actions),
                    named(entry[1], instructions),
                    bits(entry[2], _INSTRUCTION_FLAGS),
                    _register(entry[4:16]),
                    address(number(entry, 16, 8, "Value")),
                    address(number(entry, 24, 8, "Mask")),
                )
            )
        parts.append(Table("Instruction Entries", _COLUMNS, tuple(rows)))
        return _Decoded((Section(member.name, tuple(parts)),), findings=found, problems=problems)

    return decode_table


_ERST = (
    Item("Serialization Header Size", 36, 4),
    Item("Instruction Entry Count", 44, 4),
)
_EINJ = (
    Item("Injection Header Size", 36, 4),
    Item("Injection Flags", 40, 1, hex),
    Item("Injection Entry Count", 44, 4),
)

_MEMBERS: Mapping[str, Callable[[Member], _Decoded]] = {
    "BERT": _bert,
    "HEST": _hest,
    "ERST": _instructions("Instruction Entry Count", _ERST, _ERST_ACTION, _ERST_INSTRUCTION),
    "EINJ": _instructions("Injection Entry Count", _EINJ, _EINJ_ACTION, _EINJ_INSTRUCTION),
    "data/BERT": _boot_error_region,
}
