# SPDX-License-Identifier: LGPL-2.1-or-later
"""The timeline of the collectors: a table, whose bars are SVG, so that it can be read without seeing them, too.

Positions are percentages: the bars fit any width, and texts keep their size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...text import utc
from .markup import Html, element, end, short, start

LONGEST_AXIS = 3600 * 10**6
"""Microseconds that the axis covers: what is attached a day later would make the others too small to see."""

_SECOND = 10**6
_MOST_TICKS = 4
_NEAR_END = 94
"""Percent of the axis after which a label in the middle of its mark would go beyond it."""


@dataclass(frozen=True, slots=True)
class Span:
    """The work of one collector. Times are microseconds since the epoch; one that is not known is 0."""

    name: str
    anchor: str
    """Where in the page its device dump is; empty for a collector that failed."""
    started_usec: int
    finished_usec: int
    state: str


@dataclass(frozen=True, slots=True)
class _Scale:
    origin: int
    length: int

    def place(self, usec: int) -> str:
        """Return where in the bar the time *usec* is."""
        return f"{min(100.0, max(0.0, 100 * (usec - self.origin) / self.length)):.2f}%"


def timeline(spans: Sequence[Span]) -> Iterator[str]:
    """Yield the table of *spans*, in the order in which they started; nothing if no time is known."""
    known = [span for span in spans if utc(span.finished_usec)]
    if not known:
        return
    scale = _scale(known)
    yield start("table", class_="timeline")
    origin = utc(scale.origin)
    yield element("caption", f"Times count from the first collector, {origin} UTC.")
    yield start("thead") + start("tr")
    yield element("th", "Device dump", scope="col")
    yield element("th", "Start", scope="col", class_="number")
    yield element("th", "Took", scope="col", class_="number")
    yield element("th", _axis(scale), class_="bar", aria_hidden="true")
    yield end("tr") + end("thead")
    yield start("tbody")
    for span in sorted(known, key=_first):
        yield _row(span, scale)
    yield end("tbody") + end("table")


def _first(span: Span) -> int:
    return span.started_usec if utc(span.started_usec) else span.finished_usec


def _scale(spans: Sequence[Span]) -> _Scale:
    origin = min(map(_first, spans))
    near = [span.finished_usec for span in spans if 0 <= span.finished_usec - origin <= LONGEST_AXIS]
    return _Scale(origin, max(1000, *(usec - origin for usec in [origin, *near])))


def _row(span: Span, scale: _Scale) -> Html:
    began = _first(span)
    took = max(0, span.finished_usec - began) if span.started_usec else None
    name = (
        element("a", short(span.name), href=f"#{span.anchor}")
        if span.anchor
        else element("span", short(span.name))
    )
    state = element("span", short(span.state, 20), class_="bad" if span.state == "failed" else "warn")
    return element(
        "tr",
        element("th", name, *(() if span.state == "complete" else (" ", state)), scope="row"),
        element("td", f"+{duration(began - scale.origin)}", class_="number"),
        element("td", "-" if took is None else duration(took), class_="number"),
        element("td", _bar(span, scale, began), class_="bar", aria_hidden="true"),
        class_=f"is-{span.state}" if span.state in {"complete", "truncated", "failed"} else None,
    )


def _bar(span: Span, scale: _Scale, began: int) -> Html:
    lines = [element("line", x1=f"{place}%", x2=f"{place}%", y1="0", y2="100%") for place in _places(scale)]
    if began - scale.origin > LONGEST_AXIS:
        shapes = [element("text", "later", x="100%", y="13", class_="end")]
    elif not span.started_usec or span.state == "failed":
        cross = element("path", d="M-4,-4 4,4 M-4,4 4,-4")
        shapes = [element("svg", cross, x=scale.place(span.finished_usec), y="9", overflow="visible")]
    else:
        first, last = scale.place(began), scale.place(span.finished_usec)
        width = f"{max(0.0, float(last[:-1]) - float(first[:-1])):.2f}%"
        shapes = [element("rect", x=first, y="4", width=width, height="10", rx="1")]
    return element("svg", *lines, *shapes, height="18", focusable="false")


def _axis(scale: _Scale) -> Html:
    labels = [
        element(
            "text",
            duration(round(place * scale.length / 100)),
            x=f"{place}%",
            y="13",
            class_="end" if place > _NEAR_END else None,
        )
        for place in _places(scale)
    ]
    return element("svg", *labels, height="18", focusable="false")


def _places(scale: _Scale) -> list[float]:
    """Return where the axis has marks, in percent: at a round number of microseconds."""
    step = 1
    while scale.length // step > _MOST_TICKS:
        # 1, 2, 5, 10, 20, 50
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    return [round(100 * usec / scale.length, 2) for usec in range(0, scale.length + 1, step)]


def duration(usec: int) -> str:
    """Return a number of microseconds in the unit that reads best: ``140 ms``, ``2.05 s``, ``3 min 5 s``."""
    if usec < 1000:
        return "0" if usec <= 0 else "< 1 ms"
    if usec < _SECOND:
        return f"{usec // 1000} ms"
    if usec < 60 * _SECOND:
        return f"{usec / _SECOND:.2f}".rstrip("0").rstrip(".") + " s"
    minutes, seconds = divmod(usec // _SECOND, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)
