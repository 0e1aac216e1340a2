# SPDX-License-Identifier: LGPL-2.1-or-later
"""Structures of specifications as tables: a line for each field, with the name, offset and size printed there."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ..errors import InvalidDump
from .decoded import Field

Order = Literal["little", "big"]


@dataclass(frozen=True, slots=True)
class Item:
    """One field of a structure: an integer without sign, or text."""

    name: str
    offset: int
    """Bytes from the start of the structure."""
    size: int
    """Bytes."""
    show: Callable[[int], str] = str
    """Returns the value for a person."""
    wrong: Callable[[int], bool] = lambda value: False
    """Returns whether the value needs attention."""
    kind: type = int
    """``int``, or ``str`` for ASCII that ends with zeros or blanks."""
    private: bool = False
    """Whether it identifies a machine or its owner."""

    def field(self, data: bytes, order: Order) -> Field:
        """Return the field of the structure *data*."""
        part = data[self.offset : self.offset + self.size]
        if self.kind is str:
            return Field(self.name, ascii_text(part), private=self.private)
        value = int.from_bytes(part, order)
        return Field(self.name, value, self.show(value), self.wrong(value), self.private)


def fields(items: Iterable[Item], data: bytes, order: Order = "little") -> tuple[Field, ...]:
    """Return the fields of the structure *data*. Those beyond its end are left out, as of an older revision."""
    return tuple(item.field(data, order) for item in items if item.offset + item.size <= len(data))


def number(data: bytes, offset: int, size: int, what: str, order: Order = "little") -> int:
    """Return an integer without sign. Raises InvalidDump, which names *what*, if the data end before it."""
    return int.from_bytes(part_of(data, offset, size, what), order)


def part_of(data: bytes, offset: int, size: int, what: str) -> bytes:
    """Return *size* bytes. Raises InvalidDump, which names *what*, if the data end before that."""
    part = data[offset : offset + size]
    if offset < 0 or len(part) != size:
        raise InvalidDump(f"{what}: the data end at byte {len(data)}, {size} bytes at {offset} are missing")
    return part


def ascii_text(data: bytes) -> str:
    """Return text of a device: what is no printable ASCII is escaped, blanks and zeros around it are left out."""
    text = data.partition(b"\0")[0].strip().decode("ascii", "backslashreplace")
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)


def bits(value: int, names: Mapping[int, str]) -> str:
    """Return the names of the bits that are set in *value*, by their number: ``0x05: spare, reliability``."""
    known = [name for bit, name in names.items() if value >> bit & 1]
    unknown = value & ~sum(1 << bit for bit in names)
    if unknown:
        known.append(f"unknown {unknown:#x}")
    return f"{value:#x}: {', '.join(known)}" if known else f"{value:#x}"


def named(value: int, names: Mapping[int, str]) -> str:
    """Return the name of a code, ``unknown 0x7`` if it has none."""
    return names.get(value, f"unknown {value:#x}")


def bits_of(names: Mapping[int, str]) -> Callable[[int], str]:
    """Return a way to show the names of the bits that are set."""
    return partial(bits, names=names)


def code_of(names: Mapping[int, str]) -> Callable[[int], str]:
    """Return a way to show the name of a code."""
    return partial(named, names=names)


def hexadecimal_digits(digits: int) -> Callable[[int], str]:
    """Return a way to show values with *digits* hexadecimal digits."""
    return lambda value: f"{value:#0{digits + 2}x}"


def hexadecimal(data: bytes, start: int = 0) -> str:
    """Return lines as of ``xxd``: offset, 16 bytes, and their ASCII."""
    lines = []
    for offset in range(0, len(data), 16):
        row = data[offset : offset + 16]
        pairs = " ".join(row[index : index + 2].hex() for index in range(0, len(row), 2))
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{start + offset:08x}: {pairs:<39}  {letters}\n")
    return "".join(lines)
