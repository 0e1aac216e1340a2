# SPDX-License-Identifier: LGPL-2.1-or-later
"""How much of a device dump is in the page: a browser must open it, and a ticket must take it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...decoders.decoded import Decoded, Field, Part, Section, Table, Text, Value
from .markup import lines, short, text

MAX_DUMP = 1 << 20
"""Bytes of HTML that a device dump may take."""

MAX_DECODED = 12 << 20
"""Bytes that all device dumps may take. The rest of the page, of 256 device dumps, stays below 4 MiB."""

MAX_TEXT = 1 << 18
"""Bytes of one text: of a log, or of a dump in hexadecimal."""

MAX_NAME = 200
"""Characters of the name of a section, field, table or column, of a title, a finding or a fact."""

MAX_VALUE = 4000
"""Characters of a value."""

MAX_LIST = 32
"""Findings, facts and problems of a device dump."""

_TAGS = 160
"""No element of the page has longer tags than this."""
_CELL_TAGS = 40


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left of a device dump."""

    decoded: Decoded
    cost: int
    """Bytes of HTML that it takes, at most."""
    left_out: int
    """Bytes of values and texts that it lacks."""


def cut(decoded: Decoded, limit: int = MAX_DUMP) -> Cut:
    """Return as much of *decoded* as takes *limit* bytes of HTML; title, findings and facts are in addition."""
    budget = _Budget(limit)
    sections = tuple(_cut_section(section, budget) for section in decoded.sections)
    kept = replace(
        decoded,
        findings=_cut_list(decoded.findings, budget),
        facts=_cut_list(decoded.facts, budget),
        sections=tuple(section for section in sections if section.parts),
        problems=_cut_list(decoded.problems, budget),
    )
    return Cut(kept, limit - budget.left, budget.left_out)


class _Budget:
    def __init__(self, left: int) -> None:
        self.left = left
        self.left_out = 0

    def take(self, taken: int, size: int) -> bool:
        """Return whether *taken* bytes fit; *size* bytes are left out if not."""
        if taken > self.left:
            self.left_out += size
            return False
        self.left -= taken
        return True


def _cut_list(items: tuple[str, ...], budget: _Budget) -> tuple[str, ...]:
    budget.left_out += sum(_size(item) for item in items[MAX_LIST:])
    return items[:MAX_LIST]


def _cut_section(section: Section, budget: _Budget) -> Section:
    if not budget.take(_TAGS + 6 * MAX_NAME, 0):
        budget.left_out += sum(map(_part_size, section.parts))
        return Section(section.name, ())
    return Section(section.name, tuple(_cut_parts(section.parts, budget)))


def _cut_parts(parts: Iterable[Part], budget: _Budget) -> Iterable[Part]:
    for part in parts:
        match part:
            case Field():
                shown = part.text or as_text(part.value)
                taken = 2 * _TAGS + _cost(short(part.name, MAX_NAME)) + _cost(short(shown, MAX_VALUE))
                if budget.take(taken, _part_size(part)):
                    budget.left_out += _size(shown[MAX_VALUE:])
                    yield replace(part, text=shown[: MAX_VALUE + 1])
            case Table():
                yield from _cut_table(part, budget)
            case Text():
                yield from _cut_text(part, budget)


def _cut_table(table: Table, budget: _Budget) -> Iterable[Table]:
    head = 4 * _TAGS + sum(_CELL_TAGS + _cost(short(name, MAX_NAME)) for name in (table.name, *table.columns))
    if not budget.take(head, _part_size(table)):
        return
    rows = []
    for row in table.rows:
        cells = (short(as_text(value), MAX_VALUE) for value in row)
        if budget.take(_CELL_TAGS + sum(_CELL_TAGS + _cost(cell) for cell in cells), _row_size(row)):
            rows.append(row)
    yield replace(table, rows=tuple(rows))


def _cut_text(part: Text, budget: _Budget) -> Iterable[Text]:
    name = 3 * _TAGS + _cost(short(part.name, MAX_NAME))
    room = min(budget.left - name, MAX_TEXT)
    if room < _TAGS:
        budget.left_out += _size(part.text)
        return
    shown, left_out = shorten(part.text, room - _TAGS)
    budget.left_out += left_out
    budget.take(name + _cost(lines(shown)), 0)
    yield replace(part, text=shown)


def shorten(whole: str, limit: int) -> tuple[str, int]:
    """Return the beginning and the end of a text, of *limit* bytes of HTML at most; and how much is left out.

    A line in the text says so, too, in bytes. Logs have what matters at their end, others at their beginning.
    """
    # No character takes less than a byte.
    if len(whole) <= limit and _cost(lines(whole)) <= limit:
        return whole, 0
    half = limit // 2
    begin, end = whole[: _fitting(whole[:half], half)], whole[-_fitting(whole[-half:][::-1], half) :]
    # Between lines, unless they are very long.
    if (last := begin.rfind("\n") + 1) > len(begin) // 2:
        begin = begin[:last]
    if 0 < (first := end.find("\n") + 1) < len(end) // 2:
        end = end[first:]
    left_out = _size(whole) - _size(begin) - _size(end)
    separator = "" if begin.endswith("\n") else "\n"
    return f"{begin}{separator}[{left_out:,} bytes are left out here]\n{end}", left_out


def _fitting(letters: str, limit: int) -> int:
    """Return how many of *letters* fit, at least one."""
    size, left = 0, limit
    # In smaller and smaller steps: each is counted by one call.
    for step in (4096, 64, 1):
        while size < len(letters) and (taken := _cost(lines(letters[size : size + step]))) <= left:
            size, left = size + step, left - taken
    return max(1, min(size, len(letters)))


def as_text(value: Value) -> str:
    """Return a value for a person, if its decoder has not done that."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
    try:
        return str(value)
    except ValueError:
        # Python converts no integers of thousands of digits.
        return hex(value) if isinstance(value, int) else "?"


def _part_size(part: Part) -> int:
    match part:
        case Field():
            return _size(part.name) + _size(part.text or as_text(part.value))
        case Table():
            return _size(part.name) + sum(map(_size, part.columns)) + sum(map(_row_size, part.rows))
        case Text():
            return _size(part.name) + _size(part.text)


def _row_size(row: tuple[Value, ...]) -> int:
    return sum(_size(as_text(value)) for value in row)


def _size(value: str) -> int:
    return len(value.encode("utf-8", "surrogatepass"))


def _cost(value: str) -> int:
    return _size(text(value))
