# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processor errors in a Common Platform Error Record: UEFI Specification 2.10, appendix N.2.4.

Layouts: ``struct cper_sec_proc_generic``, ``cper_sec_proc_ia`` and ``cper_sec_proc_arm`` in Linux
``include/linux/cper.h``; the check structures as in ``drivers/firmware/efi/cper-x86.c`` and ``cper-arm.c``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from ...errors import InvalidDump
from ..decoded import Field, Part, Table
from ..structure import Item, bits, bits_of, named, number, part_of
from .cper_section import Body, ValidItem, address, code, guid, hex16, hexadecimal_text, valid_fields

_T = TypeVar("_T")

# N.2.4.1: Processor Generic Error Section.
_PROCESSOR_TYPE = {0: "IA32/X64", 1: "IA64", 2: "ARM", 3: "RISC-V", 4: "LoongArch"}
_ISA = {0: "IA32", 1: "IA64", 2: "X64", 3: "ARM A32/T32", 4: "ARM A64"}
_GENERIC_ERROR = {0: "Cache Error", 1: "TLB Error", 2: "Bus Error", 3: "Micro-Architectural Error"}
_GENERIC_OPERATION = {0: "Unknown or generic", 1: "Data Read", 2: "Data Write", 3: "Instruction Execution"}
_GENERIC_FLAGS = {0: "Restartable", 1: "Precise IP", 2: "Overflow", 3: "Corrected"}

_GENERIC: tuple[ValidItem, ...] = (
    (0, Item("Processor Type", 8, 1, lambda value: code(value, _PROCESSOR_TYPE))),
    (1, Item("Processor ISA", 9, 1, lambda value: code(value, _ISA))),
    (2, Item("Processor Error Type", 10, 1, bits_of(_GENERIC_ERROR))),
    (3, Item("Operation", 11, 1, lambda value: code(value, _GENERIC_OPERATION))),
    (4, Item("Flags", 12, 1, bits_of(_GENERIC_FLAGS))),
    (5, Item("Level", 13, 1)),
    (6, Item("CPU Version Info", 16, 8, address)),
    (7, Item("CPU Brand String", 24, 128, kind=str)),
    (8, Item("Processor ID", 152, 8, address)),
    (9, Item("Target Address", 160, 8, address)),
    (10, Item("Requestor Identifier", 168, 8, address)),
    (11, Item("Responder Identifier", 176, 8, address)),
    (12, Item("Instruction IP", 184, 8, address)),
)


def processor_generic_error(data: bytes) -> Body:
    """Decode a Processor Generic Error Section, N.2.4.1. Raises InvalidDump if it has no validation bits."""
    valid = number(data, 0, 8, "Processor Generic Error")
    fields = valid_fields(_GENERIC, data, valid)
    subject = next((f"ID {field.value:#x}" for field in fields if field.name == "Processor ID"), "")
    return Body(fields, subject)


@dataclass(frozen=True, slots=True)
class _CheckItem:
    """A field of a check structure: bits of a number of 64, of which the lowest 16 are validation bits."""

    valid: int
    """Its validation bit."""
    name: str
    low: int
    """Its lowest bit."""
    width: int = 1
    """Bits; one bit without names is a flag."""
    names: Mapping[int, str] | None = None

    def text(self, value: int) -> str:
        """Return what the field says; nothing if it is not valid, or a flag that is not set."""
        field = value >> self.low & (1 << self.width) - 1
        if not value >> self.valid & 1:
            return ""
        if self.names is not None:
            return f"{self.name}: {named(field, self.names)}"
        if self.width == 1:
            return self.name if field else ""
        return f"{self.name} {field:#x}"


def _check(value: int, items: Iterable[_CheckItem]) -> str:
    said = ", ".join(filter(None, (item.text(value) for item in items)))
    return f"{address(value)} ({said})" if said else address(value)


# N.2.4.2: IA32/X64 Processor Error Section, and its check structures.
_TRANSACTION = {0: "Instruction", 1: "Data Access", 2: "Generic"}
_OPERATION = {
    0: "generic error",
    1: "generic read",
    2: "generic write",
    3: "data read",
    4: "data write",
    5: "instruction fetch",
    6: "prefetch",
}
_CACHE_OPERATION = {**_OPERATION, 7: "eviction", 8: "snoop"}
_PARTICIPATION = {
    0: "Local Processor originated request",
    1: "Local Processor responded to request",
    2: "Local Processor Observed",
    3: "Generic",
}
_ADDRESS_SPACE = {0: "Memory Access", 1: "Reserved", 2: "I/O", 3: "Other Transaction"}
_MS_ERROR_TYPE = {
    0: "No Error",
    1: "Unclassified",
    2: "Microcode ROM Parity Error",
    3: "External Error",
    4: "FRC Error",
    5: "Internal Unclassified",
}


def _ia_check(operations: Mapping[int, str]) -> tuple[_CheckItem, ...]:
    return (
        _CheckItem(0, "Transaction Type", 16, 2, _TRANSACTION),
        _CheckItem(1, "Operation", 18, 4, operations),
        _CheckItem(2, "Level", 22, 3),
        _CheckItem(3, "Processor Context Corrupt", 25),
        _CheckItem(4, "Uncorrected", 26),
        _CheckItem(5, "Precise IP", 27),
        _CheckItem(6, "Restartable IP", 28),
        _CheckItem(7, "Overflow", 29),
    )


_BUS_CHECK = (
    *_ia_check(_OPERATION),
    _CheckItem(8, "Participation Type", 30, 2, _PARTICIPATION),
    _CheckItem(9, "Time Out", 32),
    _CheckItem(10, "Address Space", 33, 2, _ADDRESS_SPACE),
)
_MS_CHECK = (
    _CheckItem(0, "Error Type", 16, 3, _MS_ERROR_TYPE),
    _CheckItem(1, "Processor Context Corrupt", 19),
    _CheckItem(2, "Uncorrected", 20),
    _CheckItem(3, "Precise IP", 21),
    _CheckItem(4, "Restartable IP", 22),
    _CheckItem(5, "Overflow", 23),
)
_IA_ERROR_TYPE: Mapping[UUID, tuple[str, tuple[_CheckItem, ...]]] = {
    UUID("a55701f5-e3ef-43de-ac72-249b573fad2c"): ("Cache Check", _ia_check(_CACHE_OPERATION)),
    UUID("fc06b535-5e1f-4562-9f25-0a3b9adb63c3"): ("TLB Check", _ia_check(_OPERATION)),
    UUID("1cf3f8b3-c5b1-49a2-aa59-5eef92ffa63c"): ("Bus Check", _BUS_CHECK),
    UUID("48ab7f57-dc34-4f6c-a7d3-b0b5b0a74314"): ("Micro-architecture Specific Check", _MS_CHECK),
}
_IA_ADDRESSES = (
    (1, Item("Target Identifier", 32, 8, address)),
    (2, Item("Requestor Identifier", 40, 8, address)),
    (3, Item("Responder Identifier", 48, 8, address)),
    (4, Item("Instruction Pointer", 56, 8, address)),
)
_IA_CONTEXT_TYPE = {
    0: "Unclassified Data",
    1: "MSR Registers (Machine Check and other MSRs)",
    2: "32-bit Mode Execution Context",
    3: "64-bit Mode Execution Context",
    4: "FXSAVE Context",
    5: "32-bit Mode Debug Registers (DR0-DR7)",
    6: "64-bit Mode Debug Registers (DR0-DR7)",
    7: "Memory Mapped Registers",
}
_MSR_CONTEXT = 1
_IA_HEADER_SIZE = 64
_IA_ERROR_SIZE = 64
_IA_CONTEXT_SIZE = 16


def ia_processor_error(data: bytes) -> Body:
    """Decode an IA32/X64 Processor Error Section, N.2.4.2. Raises InvalidDump if it has no validation bits."""
    valid = number(data, 0, 8, "IA32/X64 Processor Error")
    parts: list[Part] = [*valid_fields(((0, Item("Local APIC_ID", 8, 8, hex)),), data, valid)]
    if valid >> 1 & 1 and len(data) > 16:
        parts.append(hexadecimal_text("CPUID Info", data[16:_IA_HEADER_SIZE]))
    subject = f"APIC {number(data, 8, 8, 'Local APIC_ID'):#x}" if parts and isinstance(parts[0], Field) else ""
    errors = valid >> 2 & 0x3F
    problems: tuple[str, ...] = ()
    rows = []
    try:
        for index in range(errors):
            at = _IA_HEADER_SIZE + index * _IA_ERROR_SIZE
            rows.append(_ia_error(part_of(data, at, _IA_ERROR_SIZE, "Processor Error Information")))
        contexts = _ia_contexts(data, _IA_HEADER_SIZE + errors * _IA_ERROR_SIZE, valid >> 8 & 0x3F)
    except InvalidDump as error:
        contexts, problems = (), (str(error),)
    if rows:
        columns = ("Error Structure Type", "Check Information", *(item.name for _, item in _IA_ADDRESSES))
        parts.append(Table("Processor Error Information", columns, tuple(rows)))
    return Body((*parts, *contexts), subject, problems)


def _ia_error(data: bytes) -> tuple[str, ...]:
    valid = number(data, 16, 8, "Processor Error Information")
    name, check = _IA_ERROR_TYPE.get(UUID(bytes_le=data[:16]), (guid(data[:16]), ()))
    information = _check(number(data, 24, 8, "Check Information"), check) if valid & 1 else ""
    values = [item.field(data, "little").text if valid >> bit & 1 else "" for bit, item in _IA_ADDRESSES]
    return (name, information, *values)


def _ia_contexts(data: bytes, start: int, count: int) -> tuple[Part, ...]:
    parts: list[Part] = []
    for _ in range(count):
        kind = number(data, start, 2, "Processor Context Information")
        size = number(data, start + 2, 2, "Processor Context Information")
        registers = part_of(data, start + _IA_CONTEXT_SIZE, size, "Processor Context Information")
        name = named(kind, _IA_CONTEXT_TYPE)
        if kind == _MSR_CONTEXT:
            parts.append(_registers(name, number(data, start + 4, 4, name), registers))
        else:
            parts.append(hexadecimal_text(name, registers))
        # The next one begins on a multiple of 16 bytes; Linux, too, takes it right after this.
        start += _IA_CONTEXT_SIZE + size
    return tuple(parts)


def _registers(name: str, first: int, data: bytes) -> Table:
    """Return registers of 64 bits that follow each other."""
    rows = tuple(
        (f"{first + at // 8:#010x}", address(number(data, at, 8, name))) for at in range(0, len(data) - 7, 8)
    )
    return Table(name, ("MSR", "Value"), rows)


# N.2.4.4: ARM Processor Error Section.
_ARM: tuple[ValidItem, ...] = (
    (0, Item("MPIDR_EL1", 16, 8, address)),
    (1, Item("Error affinity level", 12, 1)),
    (2, Item("Running State", 32, 4, bits_of({0: "Processor running"}))),
    (2, Item("PSCI State", 36, 4, hex)),
)
_ARM_MIDR = Item("MIDR_EL1", 24, 8, address)
_ARM_ERROR_TYPE = {1: "Cache Error", 2: "TLB Error", 3: "Bus Error", 4: "Micro-architectural Error"}
_ARM_FLAGS = {0: "First error captured", 1: "Last error captured", 2: "Propagated", 3: "Overflow"}
_ARM_CACHE_OPERATION = {
    **_CACHE_OPERATION,
    8: "snooping",
    9: "snooped",
    10: "management",
}
_ARM_TLB_OPERATION = {**_OPERATION, 7: "local management operation", 8: "external management operation"}
_ARM_ADDRESS_SPACE = {
    0: "External Memory Access",
    1: "Internal Memory Access",
    3: "Device Memory Access",
}


def _arm_check(operations: Mapping[int, str]) -> tuple[_CheckItem, ...]:
    return (
        _CheckItem(0, "Transaction Type", 16, 2, _TRANSACTION),
        _CheckItem(1, "Operation", 18, 4, operations),
        _CheckItem(2, "Level", 22, 3),
        _CheckItem(3, "Processor context corrupt", 25),
        _CheckItem(4, "Corrected", 26),
        _CheckItem(5, "Precise PC", 27),
        _CheckItem(6, "Restartable PC", 28),
    )


_ARM_CHECK: Mapping[int, tuple[_CheckItem, ...]] = {
    1: _arm_check(_ARM_CACHE_OPERATION),
    2: _arm_check(_ARM_TLB_OPERATION),
    3: (
        *_arm_check(_OPERATION),
        _CheckItem(7, "Participation Type", 29, 2, _PARTICIPATION),
        _CheckItem(8, "Time Out", 31),
        _CheckItem(9, "Address Space", 32, 2, _ARM_ADDRESS_SPACE),
        _CheckItem(10, "Memory Access Attributes", 34, 9),
        _CheckItem(11, "Access Mode", 43, 1, {0: "Secure", 1: "Normal"}),
    ),
}
_ARM_ERROR_COLUMNS = (
    "Type",
    "Errors",
    "Flags",
    "Error Information",
    "Virtual fault address",
    "Physical fault address",
)
_ARM_CONTEXT_TYPE = {
    0: "AArch32 general purpose registers",
    1: "AArch32 EL1 context registers",
    2: "AArch32 EL2 context registers",
    3: "AArch32 secure context registers",
    4: "AArch64 general purpose registers",
    5: "AArch64 EL1 context registers",
    6: "AArch64 EL2 context registers",
    7: "AArch64 EL3 context registers",
    8: "Misc. System Register Structure",
}
_ARM_HEADER_SIZE = 40
_ARM_ERROR_SIZE = 32
_ARM_CONTEXT_SIZE = 8
_ARM_MAX_STRUCTURES = 256
"""Errors and contexts of one section that are shown; the field has 16 bits, a processor has a few."""


def arm_processor_error(data: bytes) -> Body:
    """Decode an ARM Processor Error Section, N.2.4.4. Raises InvalidDump if its header is incomplete."""
    part_of(data, 0, _ARM_HEADER_SIZE, "ARM Processor Error")
    valid = number(data, 0, 4, "ARM Processor Error")
    parts: list[Part] = [_ARM_MIDR.field(data, "little"), *valid_fields(_ARM, data, valid)]
    subject = f"MPIDR {number(data, 16, 8, 'MPIDR_EL1'):#x}" if valid & 1 else ""
    errors = number(data, 4, 2, "ERR_INFO_NUM")
    contexts = number(data, 6, 2, "CONTEXT_INFO_NUM")
    problems = []
    if max(errors, contexts) > _ARM_MAX_STRUCTURES:
        problems.append(f"ARM Processor Error: only {_ARM_MAX_STRUCTURES} of its structures are decoded")
    # A section may be followed by others, so that its own length counts, if it is one.
    end = number(data, 8, 4, "Section Length")
    data = data[:end] if _ARM_HEADER_SIZE <= end <= len(data) else data
    try:
        rows, start = _each(data, _ARM_HEADER_SIZE, errors, _arm_error)
        parts.append(Table("Processor Error Information", _ARM_ERROR_COLUMNS, tuple(rows)))
        registers, start = _each(data, start, contexts, _arm_context)
        parts += registers
        if valid >> 3 & 1 and data[start:]:
            parts.append(hexadecimal_text("Vendor Specific Error Info", data[start:]))
    except InvalidDump as error:
        problems.append(str(error))
    return Body(tuple(parts), subject, tuple(problems))


def _each(
    data: bytes, start: int, count: int, decode: Callable[[bytes, int], tuple[_T, int]]
) -> tuple[list[_T], int]:
    found = []
    for _ in range(min(count, _ARM_MAX_STRUCTURES)):
        each, start = decode(data, start)
        found.append(each)
    return found, start


def _arm_error(data: bytes, start: int) -> tuple[tuple[str, ...], int]:
    error = part_of(data, start, _ARM_ERROR_SIZE, "Processor Error Information")
    valid = number(error, 2, 2, "Processor Error Information")
    kind = error[4]
    check = next((items for bit, items in _ARM_CHECK.items() if kind >> bit & 1), ())
    values = (
        bits(kind, _ARM_ERROR_TYPE),
        _multiple(number(error, 5, 2, "Multiple Error")) if valid & 1 else "",
        bits(error[7], _ARM_FLAGS) if valid >> 1 & 1 else "",
        _check(number(error, 8, 8, "Error Information"), check) if valid >> 2 & 1 else "",
        address(number(error, 16, 8, "Virtual fault address")) if valid >> 3 & 1 else "",
        address(number(error, 24, 8, "Physical fault address")) if valid >> 4 & 1 else "",
    )
    return values, start + max(error[1], _ARM_ERROR_SIZE)


def _multiple(value: int) -> str:
    return {0: "Single Error", 1: "Multiple Errors"}.get(value, str(value))


def _arm_context(data: bytes, start: int) -> tuple[Part, int]:
    kind = number(data, start + 2, 2, "Processor Context Information")
    size = number(data, start + 4, 4, "Processor Context Information")
    registers = part_of(data, start + _ARM_CONTEXT_SIZE, size, "Processor Context Information")
    name = _ARM_CONTEXT_TYPE.get(kind, f"Register context {hex16(kind)}")
    return hexadecimal_text(name, registers), start + _ARM_CONTEXT_SIZE + size
