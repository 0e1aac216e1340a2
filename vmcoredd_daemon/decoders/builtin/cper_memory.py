# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory errors in a Common Platform Error Record: UEFI Specification 2.10, appendix N.2.5 and N.2.6.

Layouts: ``struct cper_sec_mem_err`` in Linux ``include/linux/cper.h``, and ``EFI_PLATFORM_MEMORY2_ERROR_DATA`` in
EDK II ``MdePkg/Include/Guid/Cper.h``.
"""

from ..decoded import Field
from ..structure import Item, named, number
from .cper_section import Body, ValidItem, address, code, error_status, hex16, hex32, valid_fields

MEMORY_ERROR_TYPE = {
    0: "Unknown",
    1: "No error",
    2: "Single-bit ECC",
    3: "Multi-bit ECC",
    4: "Single-symbol ChipKill ECC",
    5: "Multi-symbol ChipKill ECC",
    6: "Master abort",
    7: "Target abort",
    8: "Parity Error",
    9: "Watchdog timeout",
    10: "Invalid address",
    11: "Mirror Broken",
    12: "Memory Sparing",
    13: "Scrub corrected error",
    14: "Scrub uncorrected error",
    15: "Physical Memory Map-out event",
}


def _error_type(value: int) -> str:
    return code(value, MEMORY_ERROR_TYPE)


_COMMON: tuple[ValidItem, ...] = (
    (0, Item("Error Status", 8, 8, error_status)),
    (1, Item("Physical Address", 16, 8, address)),
    (2, Item("Physical Address Mask", 24, 8, address)),
    (3, Item("Node", 32, 2)),
    (4, Item("Card", 34, 2)),
    (5, Item("Module", 36, 2)),
    (6, Item("Bank", 38, 2)),
)
"""Of both sections."""

_MEMORY: tuple[ValidItem, ...] = (
    *_COMMON,
    (20, Item("Bank Address", 38, 1)),
    (19, Item("Bank Group", 39, 1)),
    (7, Item("Device", 40, 2)),
    (8, Item("Row", 42, 2)),
    (9, Item("Column", 44, 2)),
    (10, Item("Bit Position", 46, 2)),
    (11, Item("Requestor ID", 48, 8, address)),
    (12, Item("Responder ID", 56, 8, address)),
    (13, Item("Target ID", 64, 8, address)),
    (14, Item("Memory Error Type", 72, 1, _error_type)),
    (15, Item("Rank Number", 74, 2)),
    (16, Item("Card Handle", 76, 2, hex16)),
    (17, Item("Module Handle", 78, 2, hex16)),
)
_MEMORY_SIZE_2_1 = 73
"""Bytes of the section in UEFI 2.1 and 2.2, which has the validation bits up to 14."""
_EXTENDED = 73
_EXTENDED_ROW_VALID = 18
_CHIP_ID_VALID = 21

_MEMORY_2: tuple[ValidItem, ...] = (
    *_COMMON,
    (21, Item("Bank Address", 38, 1)),
    (20, Item("Bank Group", 39, 1)),
    (7, Item("Device", 40, 4)),
    (8, Item("Row", 44, 4)),
    (9, Item("Column", 48, 4)),
    (10, Item("Rank", 52, 4)),
    (11, Item("Bit Position", 56, 4)),
    (12, Item("Chip Identification", 60, 1)),
    (13, Item("Memory Error Type", 61, 1, _error_type)),
    (14, Item("Status", 62, 1, lambda value: named(value & 1, {0: "Corrected", 1: "Uncorrected"}))),
    (15, Item("Requestor ID", 64, 8, address)),
    (16, Item("Responder ID", 72, 8, address)),
    (17, Item("Target ID", 80, 8, address)),
    (18, Item("Card Handle", 88, 4, hex32)),
    (19, Item("Module Handle", 92, 4, hex32)),
)

_LOCATION = ("Node", "Card", "Module", "Rank Number", "Rank")


def memory_error(data: bytes) -> Body:
    """Decode a Memory Error Section, N.2.5. Raises InvalidDump if it has no validation bits."""
    valid = number(data, 0, 8, "Memory Error")
    problems: tuple[str, ...] = ()
    if len(data) == _MEMORY_SIZE_2_1 and valid >> 15:
        problems = ("Memory Error: validation bits are set for fields beyond its end",)
        valid &= (1 << 15) - 1
    fields = valid_fields(_MEMORY, data, valid)
    if len(data) > _EXTENDED:
        fields = (*fields, *_extended(fields, data[_EXTENDED], valid))
    return Body(fields, _location(fields), problems)


def _extended(fields: tuple[Field, ...], extended: int, valid: int) -> tuple[Field, ...]:
    """Return what the field Extended adds: bits 16 and 17 of the row, and the chip."""
    added = []
    if valid >> _EXTENDED_ROW_VALID & 1:
        row = next((field.value for field in fields if field.name == "Row"), 0)
        added.append(Field("Extended Row", (extended & 3) << 16 | int(row or 0)))
    if valid >> _CHIP_ID_VALID & 1:
        added.append(Field("Chip Identification", extended >> 5))
    return tuple(added)


def memory_error_2(data: bytes) -> Body:
    """Decode a Memory Error Section 2, N.2.6. Raises InvalidDump if it has no validation bits."""
    fields = valid_fields(_MEMORY_2, data, number(data, 0, 8, "Memory Error 2"))
    return Body(fields, _location(fields))


def _location(fields: tuple[Field, ...]) -> str:
    """Return where the module is, as far as the section says: ``node 0 card 1 module 2``."""
    return " ".join(
        f"{field.name.removesuffix(' Number').lower()} {field.value}"
        for field in fields
        if field.name in _LOCATION
    )
