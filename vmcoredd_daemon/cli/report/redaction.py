# SPDX-License-Identifier: LGPL-2.1-or-later
"""Leaves out what identifies a machine or its owner: values that decoders call private, wherever they occur."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import islice
from typing import Any, TypeVar

from ...decoders.decoded import Decoded, Field, Table, Text
from .content import REDACTED
from .limits import as_text

SHORTEST = 3
"""Characters of a value that is looked for in other texts."""

LONGEST = 64
"""Characters of a value that are looked for."""

MOST = 10_000
"""Values that are looked for."""

_LONG = 6
"""Characters of a value that is found inside a word, too."""

_NO_SECRETS = frozenset(
    {
        *("none", "not specified", "not provided", "not available", "unknown", "n/a", "default string", "default"),
        *("to be filled by o.e.m.", "system serial number", "chassis serial number", "base board serial number"),
        *("serial number", "asset tag", "no asset tag", "no asset information", "invalid", "empty", "localhost"),
    }
)
"""What manufacturers write in the place of a value."""

_ADDRESS = r"(?<![0-9a-z])(?:(?:[0-9a-f]{2}[:-]){5,19}[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4})(?![0-9a-z])"
"""A MAC address, or a longer one: of InfiniBand, or a PCI device's serial number, which lspci has with dashes."""

_NAMED = r"(?<=serial number)[ :=]+(?!is\b)[^\s,;]+(?=[\s,;]|$)"
"""What a log calls a serial number."""

_HEXADECIMAL = re.compile(r"\s*(?:0x)?[0-9a-f]{2,16}:?\s+(?:[0-9a-f]{2,16}\s+){4,}", re.IGNORECASE)
"""The first line of a dump as of xxd(1), hexdump(1), lspci(8) or dmidecode(8)."""

_END = ""
"""Stands for the end of a word."""

_T = TypeVar("_T")


def private_values(decoded: Decoded) -> Iterator[str]:
    """Yield the private values of a device dump."""
    for section in decoded.sections:
        for part in section.parts:
            match part:
                case Field(private=True):
                    yield from (as_text(part.value), part.text)
                case Table(private=private) if private:
                    places = [place for place, column in enumerate(part.columns) if column in private]
                    yield from (as_text(row[place]) for row in part.rows for place in places)


class Redaction:
    """Replaces known values in all texts of a record."""

    def __init__(self, hosts: Iterable[str], values: Iterable[str]) -> None:
        """*hosts* are the machine's names, *values* its serial numbers and the like."""
        long, short = set[str](), set[str]()
        cut = set[str]()
        for host in hosts:
            name, _, domain = host.lower().partition(".")
            short.update((host.lower(), name, domain if "." in domain else ""))
        for value in islice(filter(_identifies, {value.strip() for value in values}), MOST):
            if len(value) > LONGEST:
                cut.add(re.escape(value[:LONGEST]))
            else:
                (long if len(value) >= _LONG else short).update(_variants(value))
        patterns = [_ADDRESS, _NAMED]
        # The end of a long one, too, of which not all is looked for.
        patterns += (f"{start}\\S*" for start in sorted(cut))
        if long:
            patterns.append(_any_of(long))
        if short := short - {""} - _NO_SECRETS:
            patterns.append(f"(?<![0-9a-z]){_any_of(short)}(?![0-9a-z])")
        self._pattern = re.compile("|".join(patterns), re.IGNORECASE)

    def text(self, value: str) -> str:
        """Return *value* without them."""
        return self._pattern.sub(REDACTED, value)

    def record(self, value: _T) -> _T:
        """Return a record, a tuple or a text without them."""
        redacted: Any = value
        match value:
            case Field():
                redacted = self._field(value)
            case Table():
                redacted = self._table(value)
            case Text():
                redacted = Text(self.text(value.name), self._block(value.text))
            case tuple():
                redacted = tuple(self.record(each) for each in value)
            case str() if type(value) is str:
                redacted = self.text(value)
            case _ if is_dataclass(value) and not isinstance(value, type):
                parts = ((field.name, getattr(value, field.name)) for field in fields(value))
                redacted = replace(value, **{name: self.record(part) for name, part in parts})
        return redacted  # type: ignore[no-any-return]

    def _field(self, field: Field) -> Field:
        name = self.text(field.name)
        if field.private:
            return replace(field, name=name, value=REDACTED, text=REDACTED)
        return replace(field, name=name, value=self.record(field.value), text=self.text(field.text))

    def _table(self, table: Table) -> Table:
        private = [column in table.private for column in table.columns]
        return Table(
            self.text(table.name),
            tuple(map(self.text, table.columns)),
            tuple(
                tuple(REDACTED if hide else self.record(value) for value, hide in zip(row, private, strict=True))
                for row in table.rows
            ),
        )

    def _block(self, value: str) -> str:
        # Any serial number may be in there, cut in two by the end of a row.
        if _HEXADECIMAL.match(value):
            return f"[{len(value):,} bytes in hexadecimal are left out: they may have serial numbers]"
        return self.text(value)


def _identifies(value: str) -> bool:
    return len(value) >= SHORTEST and len(set(value)) > 1 and value.lower() not in _NO_SECRETS


def _variants(value: str) -> set[str]:
    """Return the ways to write *value*: as it is, with other separators or none, and its bytes in hexadecimal."""
    code = value.encode("utf-8", "surrogatepass").hex()
    variants = {value.lower(), code, _pairs(code, " ")}
    digits = re.sub(r"[:.-]", "", value.lower())
    if len(digits) in {12, 16, 32, 40} and re.fullmatch("[0-9a-f]+", digits):
        variants |= {digits, _pairs(digits, ":"), _pairs(digits, "-")}
    return variants


def _pairs(digits: str, separator: str) -> str:
    return separator.join(digits[i : i + 2] for i in range(0, len(digits), 2))


def _any_of(words: set[str]) -> str:
    """Return a regular expression of *words* that branches letter by letter: of thousands it is still fast."""
    tree: dict[str, Any] = {}
    for word in words:
        node = tree
        for letter in word:
            node = node.setdefault(letter, {})
        node[_END] = {}
    return _branches(tree)


def _branches(node: dict[str, Any]) -> str:
    ways = []
    for letter, following in sorted(node.items()):
        if letter == _END:
            continue
        run, rest = letter, following
        # What does not branch is one way.
        while len(rest) == 1 and _END not in rest:
            ((more, rest),) = rest.items()
            run += more
        ways.append(re.escape(run) + _branches(rest))
    if not ways:
        return ""
    return f"(?:{'|'.join(ways)}){'?' if _END in node else ''}"
