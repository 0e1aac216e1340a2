# SPDX-License-Identifier: LGPL-2.1-or-later
"""A device dump in the page: its summary, and folded what its decoder made of it."""

from collections.abc import Iterator
from itertools import filterfalse, groupby

from ...decoders.decoded import Decoded, Field, Part, Section, Table, Text
from ...progress import human_size
from ...text import counted, utc
from .content import Entry
from .elements import command_line, pair, scrolled, start_scrolled
from .limits import MAX_NAME, MAX_VALUE, as_text
from .markup import Html, element, end, joined, lines, short, start

MAX_STATE = 20
"""Characters of the state of a device dump: it may be any text."""

SHOWN_SECTIONS = 6
"""Sections of a device dump, besides those that need attention; more are folded as one."""


def card(entry: Entry, command: str) -> Iterator[str]:
    """Yield what a device dump is and says; *command* extracts it."""
    dump, decoded, place = entry.dump, entry.decoded, anchor(entry)
    yield start("article", id=place, aria_labelledby=f"{place}-name")
    yield element(
        "header",
        element("h3", short(dump.name), id=f"{place}-name"),
        element("span", human_size(entry.dump.data_size), class_="size"),
        _state(entry),
    )
    if decoded.title:
        yield element("p", short(decoded.title, MAX_NAME), class_="title")
    says = [findings(decoded), joined([short(fact, MAX_NAME) for fact in decoded.facts], ", ")]
    if says := [part for part in says if part]:
        yield element("p", joined(says, ", "), class_="says")
    if decoded.problems:
        yield element("ul", *(element("li", short(problem)) for problem in decoded.problems), class_="problems")
    yield from _sections(decoded.sections)
    if entry.left_out:
        said = f"{entry.left_out:,} bytes of what it says are left out of this page. This shows all: "
        name = command.split(" extract ", 1)[1].rsplit(" -o ", 1)[0]
        yield element("p", said, element("code", f"vmcoredd show {name}"), class_="left-out")
    yield from _origin(entry, command)
    yield end("article")


def findings(decoded: Decoded) -> Html:
    """Return what needs attention."""
    found = [element("span", short(finding, MAX_NAME), class_="finding") for finding in decoded.findings]
    return joined(found, ", ")


def anchor(entry: Entry) -> str:
    """Return the name of the place of a device dump in the page."""
    return f"dump-{entry.dump.index}"


def link(entry: Entry) -> Html:
    """Return its name, as a link to its place."""
    return element("a", short(entry.dump.name), href=f"#{anchor(entry)}")


def _state(entry: Entry) -> Html:
    states: list[Html] = []
    if entry.incomplete and entry.dump.entry is not None:
        states.append(element("span", short(entry.dump.entry.state, MAX_STATE), class_="warn"))
    if entry.dump.verified is False:
        states.append(element("span", "altered", class_="bad"))
    return joined(states)


def _sections(sections: tuple[Section, ...]) -> Iterator[str]:
    shown, folded = [section for section in sections if _wrong(section)], [*filterfalse(_wrong, sections)]
    if len(folded) <= SHOWN_SECTIONS:
        shown, folded = list(sections), []
    for section in shown:
        yield from _section(section)
    if folded:
        yield start("details")
        yield element("summary", f"{len(folded)} more" if shown else f"{len(folded)} sections")
        yield start("div", class_="parts")
        for section in folded:
            yield from _section(section)
        yield end("div") + end("details")


def _wrong(section: Section) -> int:
    return sum(isinstance(part, Field) and part.wrong for part in section.parts)


def _section(section: Section) -> Iterator[str]:
    wrong = _wrong(section)
    note = (
        element("span", f"{wrong} need{'s' if wrong == 1 else ''} attention", class_="warn") if wrong else Html()
    )
    about = element("span", _about(section), class_="about")
    yield start("details")
    yield element("summary", short(section.name or "Contents", MAX_NAME), about, note)
    yield start("div", class_="parts")
    for kind, parts in groupby(section.parts, type):
        if kind is Field:
            yield start("dl", class_="fields")
            yield from (_field(part) for part in parts if isinstance(part, Field))
            yield end("dl")
        else:
            for part in parts:
                yield from _table_or_text(part)
    yield end("div") + end("details")


def _about(section: Section) -> str:
    numbers = ((kind, sum(isinstance(part, kind) for part in section.parts)) for kind in (Field, Table, Text))
    return ", ".join(counted(number, kind.__name__.lower()) for kind, number in numbers if number)


def _field(field: Field) -> Html:
    name, value = short(field.name, MAX_NAME), short(field.text or as_text(field.value), MAX_VALUE)
    if field.wrong:
        return pair(name, element("span", "needs attention: ", class_="unseen"), value, class_="wrong")
    return pair(name, value)


def _table_or_text(part: Part) -> Iterator[str]:
    if part.name:
        yield element("h4", short(part.name, MAX_NAME))
    match part:
        case Table():
            yield start_scrolled(part.name or "Table")
            yield from _table(part)
            yield end("div")
        case Text():
            yield scrolled(element("pre", lines(part.text)), part.name or "Text")


def _table(table: Table) -> Iterator[str]:
    numbers = [
        all(isinstance(row[place], int | float | None) for row in table.rows)
        for place in range(len(table.columns))
    ]
    classes = ["number" if number else None for number in numbers]
    heads = zip(table.columns, classes, strict=True)
    yield start("table") + start("thead") + start("tr")
    yield from (element("th", short(name, MAX_NAME), scope="col", class_=class_) for name, class_ in heads)
    yield end("tr") + end("thead") + start("tbody")
    for row in table.rows:
        cells = zip(row, classes, strict=True)
        yield element(
            "tr", *(element("td", short(as_text(value), MAX_VALUE), class_=class_) for value, class_ in cells)
        )
    yield end("tbody") + end("table")


_VERIFIED = {True: "is that of its collector", False: "differs: the data were altered", None: "was not checked"}


def _origin(entry: Entry, command: str) -> Iterator[str]:
    described = entry.dump.entry
    known: list[tuple[str, str]] = [("Size", f"{entry.dump.data_size:,} bytes")]
    if described is not None:
        times = " to ".join(filter(None, (utc(described.started_usec), (utc(described.finished_usec) or "")[11:])))
        known += [("Collector", described.collector), ("Collected", times and f"{times} UTC")]
    if entry.dump.sha256:
        digest = element("span", short(entry.dump.sha256), class_="hash")
        known.append(("SHA-256", joined([digest, _VERIFIED[entry.dump.verified]], " ")))
    pairs = [pair(name, short(value)) for name, value in known if value]
    yield start("details")
    yield element("summary", "Origin and extraction", class_="quiet")
    yield element(
        "div", element("dl", *pairs, pair("Extract", command_line(command)), class_="fields one"), class_="parts"
    )
    yield end("details")
