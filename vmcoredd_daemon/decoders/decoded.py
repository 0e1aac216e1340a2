# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a decoder makes of a device dump: named values, tables and text, for people and for programs.

A decoder is a function ``decode(dump_name: str, data: BinaryIO) -> Decoded``. *data* has the bytes of the device
dump; it can be read and sought, and holds what a hostile device may have written. It returns what it could decode,
with one line in *problems* for each part that it could not, and raises InvalidDump if that is nothing.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from ..errors import InvalidDump

MAX_SUMMARY = 2000
"""Characters of a line."""

Value = str | int | float | bool | None
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Field:
    """One named value."""

    name: str
    """As its specification calls it: ``Composite Temperature``."""
    value: Value
    text: str = ""
    """The value for a person, with its unit: ``354 K (81 C)``; by default the value itself."""
    wrong: bool = False
    """Whether it needs attention."""
    private: bool = False
    """Whether it identifies a machine or its owner: a serial number, a MAC address, a host name."""


@dataclass(frozen=True, slots=True)
class Table:
    """Values of many things of one kind."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    private: tuple[str, ...] = ()
    """Columns that identify a machine or its owner."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text that has no fields: a log, a dump in hexadecimal."""

    name: str
    text: str


Part = Field | Table | Text


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a device dump: a member of its archive, or one of many devices in it."""

    name: str
    """The name of the member; empty for a device dump that is no archive."""
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A device dump as a person reads it. Title, findings and facts make one line."""

    title: str = ""
    """What the device is, without serial numbers: ``Samsung SSD 980 PRO 1TB``."""
    findings: tuple[str, ...] = ()
    """What needs attention, the worst first, in a few words each: ``2 media errors``."""
    facts: tuple[str, ...] = ()
    """What else is worth a word: ``38 C``, ``3 % used``."""
    sections: tuple[Section, ...] = ()
    problems: tuple[str, ...] = ()
    """What could not be decoded, and why, one line each."""

    @property
    def summary(self) -> str:
        """The line of this device dump in a list."""
        return ", ".join(filter(None, (self.title, *self.findings, *self.facts)))[:MAX_SUMMARY]


Decode = Callable[[str, BinaryIO], Decoded]


def key(name: str) -> str:
    """Return the key of the field or column *name* in JSON: ``composite_temperature``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "unnamed"


def to_json(decoded: Decoded) -> dict[str, Any]:
    """Return *decoded* as JSON has it, see vmcoredd-json(5)."""
    return {
        "title": decoded.title,
        "findings": list(decoded.findings),
        "facts": list(decoded.facts),
        "problems": list(decoded.problems),
        "sections": [_section_json(section) for section in decoded.sections],
    }


def _section_json(section: Section) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    numbers = Counter[str](), Counter[str](), Counter[str]()
    for part in section.parts:
        match part:
            case Field():
                fields[_unused(fields, numbers[0], key(part.name))] = part.value
            case Table():
                columns = [key(column) for column in part.columns]
                rows = [dict(zip(columns, row, strict=True)) for row in part.rows]
                tables[_unused(tables, numbers[1], key(part.name))] = rows
            case Text():
                texts[_unused(texts, numbers[2], key(part.name))] = part.text
    return {"name": section.name, "fields": fields, "tables": tables, "texts": texts}


def _unused(taken: Mapping[str, Any], numbers: Counter[str], name: str) -> str:
    """Return *name*, or with a number that none in *taken* has; *numbers* has the last one of each name."""
    while True:
        numbers[name] += 1
        unused = name if numbers[name] == 1 else f"{name}_{numbers[name]}"
        if unused not in taken:
            return unused


def pack(decoded: Decoded) -> dict[str, Any]:
    """Return *decoded* as plain lists and dictionaries, of which :func:`unpack` makes it again."""
    return {
        "title": decoded.title,
        "findings": decoded.findings,
        "facts": decoded.facts,
        "problems": decoded.problems,
        "sections": [[section.name, [_pack_part(part) for part in section.parts]] for section in decoded.sections],
    }


def _pack_part(part: Part) -> list[Any]:
    match part:
        case Field():
            return ["field", part.name, part.value, part.text, part.wrong, part.private]
        case Table():
            return ["table", part.name, part.columns, part.rows, part.private]
        case Text():
            return ["text", part.name, part.text]


def unpack(packed: object) -> Decoded:
    """Make what :func:`pack` has packed. Raises InvalidDump if it is something else: a decoder may be broken."""
    match packed:
        case {
            "title": str(title),
            "findings": findings,
            "facts": facts,
            "problems": problems,
            "sections": sections,
        }:
            return Decoded(
                title,
                tuple(_strings(findings)),
                tuple(_strings(facts)),
                tuple(_unpack_section(section) for section in _list(sections)),
                tuple(_strings(problems)),
            )
    raise InvalidDump("the decoder's answer has no title, findings, facts, problems and sections")


def _unpack_section(packed: object) -> Section:
    match packed:
        case [str(name), parts]:
            return Section(name, tuple(_unpack_part(part) for part in _list(parts)))
    raise InvalidDump("the decoder's answer has a section that is no name with parts")


def _unpack_part(packed: object) -> Part:
    match packed:
        case ["field", str(name), str() | int() | float() | None as value, str(text), bool(wrong), bool(private)]:
            return Field(name, value, text, wrong, private)
        case ["table", str(name), columns, rows, private]:
            names = tuple(_strings(columns))
            if not names:
                raise InvalidDump("the decoder's answer has a table without columns")
            return Table(
                name, names, tuple(_row(row, len(names)) for row in _list(rows)), tuple(_strings(private))
            )
        case ["text", str(name), str(text)]:
            return Text(name, text)
    raise InvalidDump("the decoder's answer has a part that is no field, table or text")


def _row(packed: object, width: int) -> tuple[Value, ...]:
    row = tuple(_list(packed))
    if len(row) != width or not all(isinstance(value, str | int | float | None) for value in row):
        raise InvalidDump(f"the decoder's answer has a row that is not of {width} values")
    return row


def _strings(packed: object) -> Iterator[str]:
    for each in _list(packed):
        if not isinstance(each, str):
            raise InvalidDump("the decoder's answer has a list that is not of texts")
        yield each


def _list(packed: object) -> Sequence[Any]:
    if not isinstance(packed, list | tuple):
        raise InvalidDump("the decoder's answer lacks a list")
    return packed
