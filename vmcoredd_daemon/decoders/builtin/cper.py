# SPDX-License-Identifier: LGPL-2.1-or-later
"""Common Platform Error Records: UEFI Specification 2.10, appendix N.

Layouts and GUIDs: Linux ``include/linux/cper.h`` and ``drivers/firmware/efi/cper.c``. A record has a header,
section descriptors and sections; in ACPI's Generic Error Status Block the headers are others (acpi_apei.py).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO
from uuid import UUID

from ...errors import InvalidDump
from ...text import counted
from ..decoded import Decoded, Field, Part, Section
from ..structure import Item, ascii_text, bits, bits_of, fields, named, number, part_of
from .cper_memory import memory_error, memory_error_2
from .cper_pci import pci_bus_error, pci_component_error, pcie_error
from .cper_processor import arm_processor_error, ia_processor_error, processor_generic_error
from .cper_section import Body, address, code, guid, hex16, hexadecimal_text

SEVERITY = {0: "Recoverable", 1: "Fatal", 2: "Corrected", 3: "Informational"}
"""Error Severity, N.2.1: also that of ACPI 6.5, 18.3.2.7.1, where 3 is None."""

_WORST_FIRST = (1, 0, 2, 3)
_WRONG_SEVERITIES = (0, 1, 2)

SIGNATURE = b"CPER"

MAX_SIZE = 16 << 20
"""Bytes of a device dump that are read."""

MAX_RECORDS = 1024
"""Records that are decoded."""

MAX_FINDINGS = 32
"""Findings about errors; what had an error may be different in each."""

MAX_ERRORS = 2048
"""Errors after which no record is decoded."""

MAX_SECTIONS = 256
"""Sections of a record that are decoded: Section Count has 16 bits, records have a few."""


def severity(value: int) -> str:
    """Return a severity for a person: ``1, Fatal``."""
    return code(value, SEVERITY)


def severity_is_wrong(value: int) -> bool:
    """Return whether an error of this severity needs attention: an informational one does not."""
    return value in _WRONG_SEVERITIES


# N.2.10: Firmware Error Record Reference.
_FIRMWARE_TYPE = {
    0: "IPF SAL Error Record",
    1: "SOC Firmware Error Record Type1 (Legacy CrashLog Support)",
    2: "SOC Firmware Error Record Type2",
}
_FIRMWARE = (
    Item("Firmware Error Record Type", 0, 1, lambda value: code(value, _FIRMWARE_TYPE)),
    Item("Revision", 1, 1),
    Item("Record Identifier", 8, 8, address),
)
_FIRMWARE_SIZE = 32


def firmware_error(data: bytes) -> Body:
    """Decode a Firmware Error Record Reference, N.2.10. Raises InvalidDump if it is incomplete."""
    part_of(data, 0, 16, "Firmware Error Record Reference")
    parts: list[Part] = [*fields(_FIRMWARE, data)]
    if len(data) >= _FIRMWARE_SIZE:
        parts.append(Field("Record identifier GUID extension", guid(data[16:32])))
    if record := data[_FIRMWARE_SIZE:]:
        parts.append(hexadecimal_text("Firmware Error Record", record))
    return Body(tuple(parts))


def unknown_error(data: bytes) -> Body:
    """Show a section without a decoder in hexadecimal."""
    return Body((hexadecimal_text("Section", data),))


@dataclass(frozen=True, slots=True)
class SectionType:
    """A kind of section."""

    name: str
    """As the specification calls it."""
    error: str
    """In a finding: ``memory error``."""
    decode: Callable[[bytes], Body] = unknown_error


# N.2.2, Section Type; the last three are of Linux drivers/acpi/apei/erst.c.
SECTION_TYPES: Mapping[UUID, SectionType] = {
    UUID(key): value
    for key, value in {
        "9876ccad-47b4-4bdb-b65e-16f193c4f3db": SectionType(
            "Processor Generic", "processor error", processor_generic_error
        ),
        "dc3ea0b0-a144-4797-b95b-53fa242b6e1d": SectionType("IA32/X64", "processor error", ia_processor_error),
        "e429faf1-3cb7-11d4-bca7-0080c73c8881": SectionType("IPF", "processor error"),
        "e19e3d16-bc11-11e4-9caa-c2051d5d46b0": SectionType("ARM", "processor error", arm_processor_error),
        "a5bc1114-6f64-4ede-b863-3e83ed7c83b1": SectionType("Platform Memory", "memory error", memory_error),
        "61ec04fc-48e6-d813-25c9-8daa44750b12": SectionType("Platform Memory 2", "memory error", memory_error_2),
        "d995e954-bbc1-430f-ad91-b44dcb3c6f35": SectionType("PCIe", "PCIe error", pcie_error),
        "81212a96-09ed-4996-9471-8d729c8e69ed": SectionType(
            "Firmware Error Record Reference", "firmware error", firmware_error
        ),
        "c5753963-3b84-4095-bf78-eddad3f9c9dd": SectionType("PCI/PCI-X Bus", "PCI bus error", pci_bus_error),
        "eb5e4685-ca66-4769-b6a2-26068b001326": SectionType(
            "PCI Component/Device", "PCI device error", pci_component_error
        ),
        "5b51fef7-c79d-4434-8f1b-aa62de3e2c64": SectionType("DMAr Generic", "DMA remapping error"),
        "71761d37-32b2-45cd-a7d0-b0fedd93e8cf": SectionType(
            "Intel VT for Directed I/O specific DMAr section", "DMA remapping error"
        ),
        "036f84e1-7f37-428c-a79e-575fdfaa84ec": SectionType("IOMMU specific DMAr section", "DMA remapping error"),
        "91335ef6-ebfb-4478-a6a6-88b728cf75d7": SectionType("CCIX PER Log Error", "CCIX error"),
        "80b9efb4-52b5-4de3-a777-68784b771048": SectionType("CXL Protocol Error", "CXL protocol error"),
        "fbcd0a77-c260-417f-85a9-088b1621eba6": SectionType("CXL General Media Event", "CXL media error"),
        "601dcbb3-9c06-4eab-b8af-4e9bfb5c9624": SectionType("CXL DRAM Event", "CXL memory error"),
        "fe927475-dd59-4339-a586-79bab113b774": SectionType("CXL Memory Module Event", "CXL memory module error"),
        "bf32d4d5-b427-4025-8495-8a9e5d4030e4": SectionType("ARM RAS", "ARM RAS error"),
        "c197e04e-d545-4a70-9c17-a5549419eb12": SectionType("Linux kernel log", "kernel log"),
        "4f118707-04dd-4055-b5dd-956d34ddfac6": SectionType("Linux kernel log, compressed", "kernel log"),
        "fe08ffbe-95e4-4be7-bc73-4096044a38fc": SectionType("Linux machine check", "machine check"),
    }.items()
}


@dataclass(frozen=True, slots=True)
class Error:
    """One error of a record."""

    severity: int
    type_name: str
    """Of its section: ``PCIe``."""
    kind: str
    """In a finding: ``PCIe error``."""
    subject: str
    """What had it, or nothing."""
    parts: tuple[Part, ...]
    problems: tuple[str, ...] = ()


def decode_error(section_type: bytes, level: int, fru: str, body: bytes) -> Error:
    """Return the error of a section.

    *fru* is the text of the field replaceable unit, which is the best name of a memory module. A section that
    cannot be decoded is shown in hexadecimal, with a problem.
    """
    known = SECTION_TYPES.get(UUID(bytes_le=section_type), SectionType(guid(section_type), "unknown error"))
    try:
        decoded = known.decode(body)
    except InvalidDump as error:
        decoded = Body(unknown_error(body).parts, problems=(str(error),))
    # A PCI address is exact, the text of a board rarely is.
    subject = decoded.subject if known.error == "PCIe error" and decoded.subject else fru or decoded.subject
    return Error(level, known.name, known.error, subject, decoded.parts, decoded.problems)


def findings(errors: Iterable[Error]) -> tuple[str, ...]:
    """Return what needs attention: ``1 fatal PCIe error of 0000:03:00.0``, the worst first."""
    counts = Counter((error.severity, error.kind, error.subject) for error in errors)

    def rank(key: tuple[int, str, str]) -> int:
        return _WORST_FIRST.index(key[0]) if key[0] in _WORST_FIRST else len(_WORST_FIRST)

    said = [
        counted(count, f"{named(key[0], SEVERITY).lower()} {key[1]}") + (f" of {key[2]}" if key[2] else "")
        for key, count in sorted(counts.items(), key=lambda each: rank(each[0]))
    ]
    more = len(said) - MAX_FINDINGS
    return (*said[:MAX_FINDINGS], *([f"{more} more kinds of errors"] if more > 0 else []))


NOTIFICATION_TYPE = {
    UUID(key): value
    for key, value in {
        "2dce8bb1-bdd7-450e-b9ad-9cf4ebd4f890": "CMC",
        "4e292f96-d843-4a55-a8c2-d481f27ebeee": "CPE",
        "e8f56ffe-919c-4cc5-ba88-65abe14913bb": "MCE",
        "cf93c01f-1a16-4dfc-b8bc-9c4daf67c104": "PCIe",
        "cc5263e8-9308-454a-89d0-340bd39bc98e": "INIT",
        "5bad89ff-b7e6-42c9-814a-cf2485d6e98a": "NMI",
        "3d61a466-ab40-409a-a698-f362d464b38f": "BOOT",
        "667dd791-c6b3-4c27-8a6b-0f8e722deb41": "DMAr",
        "9a78788a-bbe8-11e4-809e-67611e5d46b0": "SEA",
        "5c284c81-b0ae-4e87-a322-b04c85624323": "SEI",
        "09a9d5ac-5204-4214-96e5-94992e752bcd": "PEI",
        "69293bc9-41df-49a3-b4bd-4fb79db3d3c0": "CXL Component",
    }.items()
}
"""Notification Type, N.2.1.1."""

_CREATORS = {UUID("75a574e3-5052-4b29-8a8e-be2c6490b89d"): "Linux pstore"}

_FLAGS = {0: "HW_ERROR_FLAGS_RECOVERED", 1: "HW_ERROR_FLAGS_PREVERR", 2: "HW_ERROR_FLAGS_SIMULATED"}
_SECTION_FLAGS = {
    0: "Primary",
    1: "Containment Warning",
    2: "Reset",
    3: "Error threshold exceeded",
    4: "Resource not accessible",
    5: "Latent error",
    6: "Propagated",
    7: "Overflow",
}

_HEADER_SIZE = 128
_DESCRIPTOR_SIZE = 72
_HEADER = (
    Item("Revision", 4, 2, hex16),
    Item("Section Count", 10, 2),
    Item("Error Severity", 12, 4, severity, severity_is_wrong),
    Item("Record Length", 20, 4),
)
_DESCRIPTOR = (
    Item("Section Severity", 48, 4, severity, severity_is_wrong),
    Item("Flags", 12, 4, bits_of(_SECTION_FLAGS)),
)


def timestamp(data: bytes) -> str:
    """Return the 8 bytes of a Timestamp, N.2.1, in BCD: ``2026-05-04 13:14:15``; nothing if they are no time."""
    seconds, minutes, hours, flags, day, month, year, century = data
    numbers = (century, year, month, day, hours, minutes, seconds)
    if any(value >> 4 > 9 or value & 0xF > 9 for value in numbers) or not month or not day:
        return ""
    text = "{:02x}{:02x}-{:02x}-{:02x} {:02x}:{:02x}:{:02x}".format(*numbers)
    return text if flags & 1 else f"{text} (when it was collected)"


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode records, one after the other. Raises InvalidDump if there is none."""
    data.seek(0)
    content = data.read(MAX_SIZE)
    sections: list[Section] = []
    errors: list[Error] = []
    problems: list[str] = []
    start = 0
    records = 0
    while content.startswith(SIGNATURE, start) and records < MAX_RECORDS and len(errors) < MAX_ERRORS:
        records += 1
        name = f"record {records}"
        try:
            length = max(number(content, start + 20, 4, name), _HEADER_SIZE)
            sections.append(Section(name, record_header(part_of(content, start, _HEADER_SIZE, name))))
            found = record_errors(content[start : start + length])
        except InvalidDump as damage:
            problems.append(str(damage))
            break
        for index, error in enumerate(found, 1):
            sections.append(Section(f"{name} section {index}", error.parts))
            problems += (f"{name} section {index}: {problem}" for problem in error.problems)
        errors += found
        start += length
    if not records:
        raise InvalidDump("no record: it does not begin with CPER")
    if any(content[start:]) and not problems:
        problems.append(
            f"only the first {records} records are decoded"
            if content.startswith(SIGNATURE, start)
            else f"byte {start}: is no record"
        )
    count = counted(records, "error record")
    return Decoded(count, findings(errors), sections=tuple(sections), problems=tuple(problems))


def record_header(data: bytes) -> tuple[Field, ...]:
    """Return the fields of a record header, N.2.1. Raises InvalidDump if it is none."""
    if not data.startswith(SIGNATURE) or len(data) < _HEADER_SIZE:
        raise InvalidDump("it has no record header")
    valid = number(data, 16, 4, "Validation Bits")
    header = list(fields(_HEADER, data))
    if valid >> 1 & 1:
        raw = number(data, 24, 8, "Timestamp")
        # Linux writes seconds since the epoch, see erst_writer() in drivers/acpi/apei/erst.c.
        header.append(Field("Timestamp", raw, timestamp(data[24:32]) or address(raw)))
    if valid & 1:
        header.append(Field("Platform ID", guid(data[32:48]), private=True))
    if valid >> 2 & 1:
        header.append(Field("Partition ID", guid(data[48:64]), private=True))
    header += (
        _named_guid("Creator ID", data[64:80], _CREATORS),
        _named_guid("Notification Type", data[80:96], NOTIFICATION_TYPE),
        Field("Record ID", number(data, 96, 8, "Record ID"), address(number(data, 96, 8, "Record ID"))),
        Field("Flags", number(data, 104, 4, "Flags"), bits(number(data, 104, 4, "Flags"), _FLAGS)),
    )
    return tuple(header)


def _named_guid(name: str, data: bytes, names: Mapping[UUID, str]) -> Field:
    known = names.get(UUID(bytes_le=data))
    return Field(name, guid(data), f"{known} ({guid(data)})" if known else "")


def record_errors(record: bytes) -> tuple[Error, ...]:
    """Return the errors of a record, N.2.2: those whose descriptors are complete.

    Raises InvalidDump if it has no header.
    """
    count = number(record, 10, 2, "Section Count")
    errors = []
    for index in range(min(count, MAX_SECTIONS)):
        start = _HEADER_SIZE + index * _DESCRIPTOR_SIZE
        descriptor = record[start : start + _DESCRIPTOR_SIZE]
        if len(descriptor) < _DESCRIPTOR_SIZE:
            break
        errors.append(_section_error(record, descriptor))
    return tuple(errors)


def _section_error(record: bytes, descriptor: bytes) -> Error:
    offset = number(descriptor, 0, 4, "Section Offset")
    length = number(descriptor, 4, 4, "Section Length")
    valid = descriptor[10]
    fru = ascii_text(descriptor[52:72]) if valid >> 1 & 1 else ""
    body = record[offset : offset + length]
    error = decode_error(descriptor[16:32], number(descriptor, 48, 4, "Section Severity"), fru, body)
    parts: list[Part] = [Field("Section Type", guid(descriptor[16:32]), error.type_name)]
    parts += fields(_DESCRIPTOR, descriptor)
    if valid & 1:
        parts.append(Field("FRU Id", guid(descriptor[32:48]), private=True))
    if fru:
        parts.append(Field("FRU Text", fru))
    problems = error.problems
    if len(body) < length:
        problems = (f"{length} bytes at {offset} of the record are not all there", *problems)
    return Error(error.severity, error.type_name, error.kind, error.subject, (*parts, *error.parts), problems)
