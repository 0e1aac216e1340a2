# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand show: what the device dumps of a vmcore say."""

import argparse
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..collectors import settings
from ..collectors.settings import Settings
from ..decoders.decoded import Decoded, Field, Part, Section, Text, Value, to_json
from ..decoders.members import read_members
from ..decoders.registry import Decoders
from ..decoders.stock_tools import decode_by_stock_tool
from ..decoders.structure import hexadecimal
from ..errors import InvalidDump, UnknownDump
from ..files import write_all
from ..manifest import MANIFEST_NAME, State, reason
from ..terminal.exit import FAILURE, SUCCESS, UsageError
from ..terminal.stdio import complain, show, standard_output
from ..terminal.view import Cell, Mark, View
from ..text import printable, printable_lines
from ..vmcore.image import Image, slice_of
from ..vmcore.inspect.inspect import READ_SIZE, FoundDump, Inspection, data_of, find
from .inspect import check_with_progress
from .operands import chosen_dumps, open_vmcore

COLUMNS = ("NAME", "SAYS")
_INDENT = "  "
_SHORT = 20
"""Characters of a value, a time for example, that is not ellipsized."""
_NAMED = 10
"""Members that are named if another is asked for."""
_PREVIEW = 4096
"""Bytes of a member that no decoder knows."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A device dump that is asked for, and perhaps a member of it."""

    dump: FoundDump
    member: str = ""

    @property
    def name(self) -> str:
        """NAME, or NAME/MEMBER."""
        return f"{self.dump.name}/{self.member}" if self.member else self.dump.name


def run(options: argparse.Namespace) -> int:
    """Show them; return the exit status."""
    view = View.of(options)
    if (options.raw or options.hex) and not options.names:
        raise UsageError("--hex and --raw need NAME (see vmcoredd show --help)")
    with open_vmcore(options.vmcore) as fd:
        found = check_with_progress(find(fd, options.vmcore))
        for problem in found.problems:
            complain(f"{options.vmcore}: {problem}")
        asked = [one for name in options.names for one in _asked(found, options.vmcore, name)]
        if options.raw:
            _write_raw(found.image, asked)
            return SUCCESS
        if options.hex:
            for one in asked:
                _show_hex(found.image, one)
            return SUCCESS
        decoders = decoders_of(options.config)
        if view.as_json:
            view.show_json(_json(found, decoders, asked))
        elif asked:
            view.show("\n".join(_details(view, found.image, decoders, one) for one in asked))
        else:
            return _overview(view, found, options.vmcore, decoders)
    return SUCCESS


def decoders_of(config: Path | None) -> Decoders:
    """Return the decoders of this machine; *config* is that of the service. Blocks.

    A file of collectors.d that cannot be read costs its own decoder only.
    """
    loaded = settings.load(settings.directories(config))
    return Decoders.load(
        {name: each.decoder for name, each in loaded.items() if isinstance(each, Settings) and each.decoder}
    )


def _asked(found: Inspection, path: str, name: str) -> Iterator[Shown]:
    """Yield what NAME, INDEX or GLOB, or one of them with /MEMBER, stands for. Raises UnknownDump."""
    try:
        yield from map(Shown, chosen_dumps(found, path, [name]))
    except UnknownDump:
        # A dump name may have slashes, too: the longest one wins.
        owners = [dump.name for dump in found.device_dumps if name.startswith(f"{dump.name}/")]
        owner = max(owners, key=len, default=name.partition("/")[0])
        member = name.removeprefix(owner)[1:]
        if not member:
            raise
        for dump in chosen_dumps(found, path, [owner]):
            yield Shown(dump, member)


def _overview(view: View, found: Inspection, path: str, decoders: Decoders) -> int:
    rows: list[list[Cell]] = []
    for dump in found.device_dumps:
        if dump.name != MANIFEST_NAME:
            rows.append([dump.name, _line(_decoded(found.image, decoders, Shown(dump)))])
    reasons = ["" for _ in rows] + [reason(failure.message, failure.name) for failure in found.failures]
    rows += [[failure.name, Mark("FAILED", False)] for failure in found.failures]
    if not rows:
        complain(f"{path}: has no device dumps")
        return FAILURE
    view.show(view.table(COLUMNS, rows, ("SAYS", "NAME"), below=reasons))
    return SUCCESS


def _line(decoded: Decoded) -> Cell:
    text = "; ".join(filter(None, (decoded.summary, *decoded.problems))) or "nothing"
    return Mark(text, False) if decoded.findings or decoded.problems else text


def _json(found: Inspection, decoders: Decoders, asked: Iterable[Shown]) -> list[dict[str, Any]]:
    shown = list(asked) or [Shown(dump) for dump in found.device_dumps if dump.name != MANIFEST_NAME]
    return [
        {"name": one.dump.name, "index": one.dump.index, "kind": decoders.kind(one.dump)}
        | to_json(_decoded(found.image, decoders, one))
        for one in shown
    ]


def _decoded(image: Image, decoders: Decoders, one: Shown) -> Decoded:
    """Return what the device dump says, or its part *member*. Raises UnknownDump if there is no such member."""
    decoded = decoders.decode(image, one.dump)
    entry = one.dump.entry
    if entry is not None and entry.state != State.COMPLETE:
        why = reason(entry.error, one.dump.name) or "its source had more than it may hold"
        problem = f"it is not complete: {why}"
        decoded = replace(decoded, problems=(problem, *decoded.problems))
    if not one.member:
        return decoded
    below = f"{one.member}/"
    sections = [
        section for section in decoded.sections if section.name == one.member or section.name.startswith(below)
    ]
    if not sections:
        text = Text("", hexadecimal(_data(image, one).pread(_PREVIEW, 0)))
        sections = [Section(one.member, (text,))]
    # What is said of the whole is not of this part.
    return Decoded(decoded.title, sections=tuple(sections))


def _data(image: Image, one: Shown) -> Image:
    """Return the bytes of the device dump, or of its member. Raises UnknownDump if there is no such member."""
    data = data_of(image, one.dump)
    if not one.member:
        return data
    try:
        members = read_members(data.stream()).files
    except InvalidDump:
        members = {}
    member = members.get(one.member)
    if member is None:
        known = f": it has {', '.join(map(printable, islice(members, _NAMED)))}" if members else ""
        raise UnknownDump(f"{image.path}: has no {printable(one.name)}{known}")
    return slice_of(data, member.offset, member.size, one.name)


def _details(view: View, image: Image, decoders: Decoders, one: Shown) -> str:
    decoded = _decoded(image, decoders, one)
    if not one.member and (tool := decode_by_stock_tool(one.dump.name, data_of(image, one.dump).stream())):
        # Without a name: the list of what is in it, with the findings.
        own = (section for section in decoded.sections if not section.name)
        decoded = replace(decoded, sections=(*own, *tool.sections))
    known: list[tuple[str, Cell]] = [("Name", one.name)]
    if decoded.title:
        known.append(("Device", decoded.title))
    known += [("Attention" if not index else "", Mark(text, False)) for index, text in enumerate(decoded.findings)]
    if decoded.facts:
        known.append(("State", ", ".join(decoded.facts)))
    known += [("Problem" if not index else "", Mark(text, False)) for index, text in enumerate(decoded.problems)]
    return view.fields(known) + "".join(_section(view, section) for section in decoded.sections)


def _section(view: View, section: Section) -> str:
    heading = f"\n{view.heading(section.name)}\n" if section.name else "\n"
    return heading + "".join(_parts(view, section.parts))


def _parts(view: View, parts: Iterable[Part]) -> Iterator[str]:
    fields: list[tuple[str, Cell]] = []
    for part in parts:
        if isinstance(part, Field):
            fields.append((part.name, _value(part)))
            continue
        if fields:
            yield view.fields(fields, len(_INDENT))
            fields = []
        if isinstance(part, Text):
            yield _named(part.name) + _indented(printable_lines(part.text))
        elif part.rows:
            columns = [name.upper() for name in part.columns]
            texts = [
                name
                for index, name in enumerate(columns)
                if any(len(str(row[index])) > _SHORT for row in part.rows)
            ]
            # The last columns say the least.
            drop = columns[:1:-1]
            rows = [[_yes_or_no(value) for value in row] for row in part.rows]
            table = view.table(columns, rows, texts, drop, indent=len(_INDENT), count_dropped=True)
            yield _named(part.name) + table
    if fields:
        yield view.fields(fields, len(_INDENT))


def _value(field: Field) -> Cell:
    value = _yes_or_no(field.value)
    text = field.text if field.text and field.text != str(field.value) else str(value)
    return Mark(text, False) if field.wrong else text


def _yes_or_no(value: Value) -> Value:
    return ("no", "yes")[value] if isinstance(value, bool) else value


def _named(name: str) -> str:
    return f"{_INDENT}{printable(name)}:\n" if name else ""


def _indented(text: str) -> str:
    return "".join(f"{_INDENT}{line}" if line.strip() else line for line in text.splitlines(keepends=True))


def _blocks(image: Image, one: Shown) -> Iterator[tuple[int, bytes]]:
    """Yield offset and content of each block of the data. Raises InvalidVmcore and UnknownDump."""
    data = _data(image, one)
    for offset in range(0, data.size, READ_SIZE):
        size = min(READ_SIZE, data.size - offset)
        yield offset, data.read(size, offset, f"device dump {printable(one.name)}")


def _show_hex(image: Image, one: Shown) -> None:
    for offset, block in _blocks(image, one):
        show(hexadecimal(block, offset))


def _write_raw(image: Image, asked: Iterable[Shown]) -> None:
    stdout = standard_output()
    if os.isatty(stdout):
        raise UsageError("raw data are not for a terminal: redirect the output")
    for one in asked:
        for _, block in _blocks(image, one):
            write_all(stdout, block)
