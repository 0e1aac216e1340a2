# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the sections of a Common Platform Error Record have in common: fields with validation bits, GUIDs, status.

UEFI Specification 2.10, appendix N.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from ..decoded import Field, Part, Text
from ..structure import Item, hexadecimal, hexadecimal_digits, named

MAX_HEXADECIMAL = 16 << 10
"""Bytes that are shown in hexadecimal: a section without a decoder can be megabytes of a vendor's log."""

ValidItem = tuple[int, Item]
"""The validation bit of a field, and the field."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a section says."""

    parts: tuple[Part, ...]
    subject: str = ""
    """What had the error: ``0000:03:00.0``."""
    problems: tuple[str, ...] = ()


def valid_fields(items: Iterable[ValidItem], data: bytes, valid: int) -> tuple[Field, ...]:
    """Return the fields whose bit is set in *valid*; those beyond the end of *data* are left out."""
    return tuple(
        item.field(data, "little")
        for bit, item in items
        if valid >> bit & 1 and item.offset + item.size <= len(data)
    )


address = hexadecimal_digits(16)
"""Shows a number of 64 bits as Linux prints it."""
hex16 = hexadecimal_digits(4)
hex32 = hexadecimal_digits(8)
"""As the specifications print numbers of so many bits."""


def code(value: int, names: Mapping[int, str]) -> str:
    """Return a code and its name: ``4, root port``."""
    return f"{value}, {named(value, names)}"


def guid(data: bytes) -> str:
    """Return 16 bytes as a GUID."""
    return str(UUID(bytes_le=data))


def hexadecimal_text(name: str, data: bytes) -> Text:
    """Return the beginning of *data* in hexadecimal."""
    text = hexadecimal(data[:MAX_HEXADECIMAL])
    if len(data) > MAX_HEXADECIMAL:
        text += f"... {len(data) - MAX_HEXADECIMAL} bytes more\n"
    return Text(name, text)


# Error Status, of memory and PCI sections.
_ERROR_TYPE = {
    1: "ERR_INTERNAL: Error detected internal to the component",
    4: "ERR_MEM: Storage error in memory (DRAM)",
    5: "ERR_TLB: Storage error in TLB",
    6: "ERR_CACHE: Storage error in cache",
    7: "ERR_FUNCTION: Error in one or more functional units",
    8: "ERR_SELFTEST: component failed self test",
    9: "ERR_FLOW: Overflow or Undervalue of internal queue",
    16: "ERR_BUS: Error detected in the bus",
    17: "ERR_MAP: Virtual address not found on IO-TLB or IO-PDIR",
    18: "ERR_IMPROPER: Improper access error",
    19: "ERR_UNIMPL: Access to a memory address which is not mapped to any component",
    20: "ERR_LOL: Loss of Lockstep",
    21: "ERR_RESPONSE: Response not associated with a request",
    22: "ERR_PARITY: Bus parity error",
    23: "ERR_PROTOCOL: Detection of a protocol error",
    24: "ERR_ERROR: Detection of a PATH_ERROR",
    25: "ERR_TIMEOUT: Bus operation timeout",
    26: "ERR_POISONED: A read was issued to data that has been poisoned",
}
_ERROR_STATUS_BITS = {
    16: "Address",
    17: "Control",
    18: "Data",
    19: "Responder",
    20: "Requestor",
    21: "First Error",
    22: "Overflow",
}


def error_status(value: int) -> str:
    """Return the Error Status field of memory and PCI sections for a person."""
    names = [name for bit, name in _ERROR_STATUS_BITS.items() if value >> bit & 1]
    return f"{address(value)}: {', '.join([named(value >> 8 & 0xFF, _ERROR_TYPE), *names])}"
