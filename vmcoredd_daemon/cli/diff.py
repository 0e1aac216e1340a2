# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand diff: which device dumps of two vmcores differ, and in which decoded fields."""

import argparse
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any

from ..decoders.decoded import Decoded, Field, Table, Text, Value
from ..decoders.registry import Decoders
from ..manifest import MANIFEST_NAME
from ..terminal.exit import SUCCESS
from ..terminal.progress_line import progress
from ..terminal.stdio import complain
from ..terminal.view import Cell, Mark, Size, View
from ..vmcore.image import Image
from ..vmcore.inspect.inspect import FoundDump, copy_data, find
from .operands import open_vmcore
from .show import decoders_of

COLUMNS = ("CHANGE", "NAME", "BEFORE", "AFTER")
FIELD_COLUMNS = ("PART", "FIELD", "BEFORE", "AFTER")
_SHRINK = ("BEFORE", "AFTER", "FIELD", "PART", "NAME")

_ATTENTION = "Attention"
_FIRST = ("Device", _ATTENTION, "State", "Problem")
"""What sums up a device dump."""
MAX_DIFFERENCES = 1000
"""Differences of one device dump that are shown."""


@dataclass(frozen=True, slots=True)
class _One:
    """A device dump of one of the files."""

    image: Image
    dump: FoundDump
    sha256: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A decoded value, and the value for a person."""

    value: Value
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs; None is what the other vmcore does not have."""

    part: str
    """Member of the archive, and table, if it is in one."""
    row: str
    """Of a table."""
    field: str
    before: Shown | None
    after: Shown | None


@dataclass(frozen=True, slots=True)
class _Pair:
    """The device dumps of one name, the first with the first."""

    name: str
    before: _One | None
    after: _One | None

    @property
    def change(self) -> str:
        if self.before is None:
            return "added"
        if self.after is None:
            return "removed"
        same = (self.before.dump.data_size, self.before.sha256) == (self.after.dump.data_size, self.after.sha256)
        return "same" if same else "changed"


def run(options: argparse.Namespace) -> int:
    """Show what differs; return the exit status, which does not tell whether anything does."""
    view = View.of(options)
    with ExitStack() as stack:
        before, after = (_read(path, stack) for path in (options.before, options.after))
        pairs = [*_pairs(before, after)]
        decoders = decoders_of(options.config)
        differences = {
            id(pair): [*islice(_compare(decoders, pair), MAX_DIFFERENCES + 1)]
            for pair in pairs
            if pair.change == "changed"
        }
        found = [(pair, differences.get(id(pair), [])) for pair in pairs]
        if view.as_json:
            view.show_json([_json(pair, fields[:MAX_DIFFERENCES]) for pair, fields in found])
        else:
            view.show(_text(view, found))
    return SUCCESS


def _read(path: str, stack: ExitStack) -> list[_One]:
    """Return the device dumps of a vmcore, which is open until *stack* is closed."""
    found = find(stack.enter_context(open_vmcore(path)), path)
    for problem in found.problems:
        complain(f"{path}: {problem}")
    dumps = [dump for dump in found.device_dumps if dump.name != MANIFEST_NAME]
    total = sum(dump.data_size for dump in dumps)
    ones = []
    with progress("comparing", total) as shown:
        for dump in dumps:
            # Not that of the manifest: the data may have been altered.
            digest = hashlib.sha256()

            def update(block: bytes, digest: Any = digest) -> None:
                digest.update(block)
                shown.advance(len(block))

            copy_data(found.image, dump, update)
            ones.append(_One(found.image, dump, digest.hexdigest()))
    return ones


def _pairs(before: Iterable[_One], after: Iterable[_One]) -> Iterator[_Pair]:
    """Yield those of *before* in their order, then what *after* has besides."""
    rest: dict[str, list[_One]] = {}
    for one in after:
        rest.setdefault(one.dump.name, []).append(one)
    for one in before:
        others = rest.get(one.dump.name)
        yield _Pair(one.dump.name, one, others.pop(0) if others else None)
    for name, others in rest.items():
        for other in others:
            yield _Pair(name, None, other)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value is."""

    part: str
    field: str
    row: str = ""
    """Of a table."""
    line: str = ""
    """Of a text: it has no other name than itself, as one that is inserted moves all others."""
    number: int = 1
    """If others have all of these, too."""


def _compare(decoders: Decoders, pair: _Pair) -> Iterator[Difference]:
    """Yield which decoded values of a device dump differ, in the order of the decoder."""
    assert pair.before is not None
    assert pair.after is not None
    before, after = (_values(decoders.decode(one.image, one.dump)) for one in (pair.before, pair.after))
    for place in sorted({**before, **after}, key=lambda place: place.part != "" or place.field not in _FIRST):
        old, new = before.get(place), after.get(place)
        if old != new:
            field = f"{place.field} ({place.number})" if place.number > 1 else place.field
            yield Difference(place.part, place.row, field, old, new)


def _values(decoded: Decoded) -> dict[_Place, Shown]:
    values: dict[_Place, Shown] = {}
    numbers = Counter[_Place]()

    def add(place: _Place, value: Value, text: str = "") -> None:
        numbers[place] += 1
        values[replace(place, number=numbers[place])] = Shown(value, text or str(value))

    summary = (decoded.title, "; ".join(decoded.findings), ", ".join(decoded.facts), "; ".join(decoded.problems))
    for name, text in zip(_FIRST, summary, strict=True):
        if text:
            add(_Place("", name), text)
    for section in decoded.sections:
        for part in section.parts:
            match part:
                case Field():
                    add(_Place(section.name, part.name), part.value, part.text)
                case Table():
                    for row, column, value in _cells(part):
                        add(_Place(_joined(section.name, part.name), column, row), value)
                case Text():
                    for line, count in Counter(part.text.splitlines()).items():
                        place = _Place(_joined(section.name, part.name), "text", line=line)
                        add(place, line if count == 1 else f"{line} ({count} times)")
    return values


def _cells(table: Table) -> Iterator[tuple[str, str, Value]]:
    """Yield row, column and value. A row is named by its first value, if no other has that, else by its number."""
    first = [row[0] for row in table.rows if row]
    named = len(set(first)) == len(first)
    for number, row in enumerate(table.rows, 1):
        name = str(row[0]) if named and row else f"row {number}"
        cells = list(zip(table.columns, row, strict=True))
        for column, value in cells[1:] if named and len(cells) > 1 else cells:
            if value is not None:
                yield name, column, value


def _joined(*names: str) -> str:
    return ": ".join(filter(None, names))


def _json(pair: _Pair, fields: Iterable[Difference]) -> dict[str, Any]:
    return {
        "name": pair.name,
        "change": pair.change,
        "before": _json_one(pair.before),
        "after": _json_one(pair.after),
        "fields": [
            {
                "part": field.part,
                "row": field.row,
                "field": field.field,
                "before": field.before and field.before.value,
                "after": field.after and field.after.value,
            }
            for field in fields
        ],
    }


def _json_one(one: _One | None) -> dict[str, Any] | None:
    return None if one is None else {"index": one.dump.index, "size": one.dump.data_size, "sha256": one.sha256}


def _text(view: View, found: Sequence[tuple[_Pair, list[Difference]]]) -> str:
    differing = [(pair, fields) for pair, fields in found if pair.change != "same"]
    if not differing:
        count = len(found)
        return (
            f"The {count} device dump{'s are' if count != 1 else ' is'} the same.\n"
            if found
            else "No device dumps.\n"
        )
    rows: list[list[Cell]] = [
        [pair.change, pair.name, _size(pair.before), _size(pair.after)] for pair, _ in differing
    ]
    text = view.table(COLUMNS, rows, _SHRINK)
    for pair, fields in differing:
        if pair.change == "changed":
            text += f"\n{view.heading(pair.name)}\n{_fields(view, fields)}"
    return text


def _size(one: _One | None) -> Size | None:
    return None if one is None else Size(one.dump.data_size)


def _fields(view: View, fields: Sequence[Difference]) -> str:
    if not fields:
        return "The data differ, but no decoded field does.\n"
    lines = [*map(_row, _with_whole_rows(fields[:MAX_DIFFERENCES]))]
    # Without members and tables the column would be empty.
    columns = [name for name in FIELD_COLUMNS if name != "PART" or any(line[name] for line in lines)]
    rows = [[line[name] for name in columns] for line in lines]
    more = f"Only the first {MAX_DIFFERENCES} differences are shown.\n" if len(fields) > MAX_DIFFERENCES else ""
    return view.table(columns, rows, _SHRINK) + more


def _with_whole_rows(fields: Iterable[Difference]) -> Iterator[Difference]:
    """Yield *fields*; of a row of a table that only one vmcore has, one with all its values."""
    for (part, row, added, removed), group in groupby(fields, key=_group):
        cells = list(group)
        if not row or (added is removed):
            yield from cells
            continue
        text = ", ".join(f"{cell.field} {shown.text}" for cell in cells if (shown := cell.before or cell.after))
        all_of_it = Shown(text, text)
        yield Difference(part, "", row, None if added else all_of_it, all_of_it if added else None)


def _group(field: Difference) -> tuple[str, str, bool, bool]:
    return field.part, field.row, field.before is None, field.after is None


def _row(field: Difference) -> dict[str, Cell]:
    before, after = (None if shown is None else shown.text for shown in (field.before, field.after))
    return {
        "PART": field.part,
        "FIELD": _joined(field.row, field.field),
        "BEFORE": before,
        "AFTER": Mark(after, False) if after is not None and field.field == _ATTENTION else after,
    }
