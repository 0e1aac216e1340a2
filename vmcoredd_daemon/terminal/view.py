# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a command shows what it has found: aligned tables that fit the terminal, lists of fields, JSON.

The manners are systemd's (``src/shared/format-table.c``, ``src/shared/pager.c``): sizes with one decimal and
powers of 1024, an underlined header, an ellipsis where the terminal is too narrow, everything in full where the
output is no terminal. Other than there, columns are left out before those that remain say nothing any more. Names
and messages come from files and from the bus: nothing of them reaches a terminal that is not printable.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ..progress import human_size
from .stdio import printable, show

_ENOUGH = {"ERROR": 24, "MESSAGE": 24}
"""Columns of the terminal with which an ellipsized column still says something; others have 12."""
_LEAST = 4
"""Columns of the terminal that it keeps where nothing else can be left out."""
_RED, _GREEN, _UNDERLINE, _RESET = "\033[0;1;31m", "\033[0;32m", "\033[0;4m", "\033[0m"


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes, shown as people read them unless exact ones are asked for."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A word that is good or bad news."""

    text: str
    good: bool


Cell = str | int | Size | Mark | None
"""None is shown as a dash."""


@dataclass(frozen=True, slots=True)
class View:
    """The options of a command that shows something, and where its output goes."""

    json: str = "off"
    """``off``, ``short``, ``pretty``, or ``auto``: pretty on a terminal."""
    exact: bool = False
    """Whether sizes are shown in bytes."""
    legend: bool = True
    """Whether tables have a header."""
    full: bool = False
    """Whether nothing is ellipsized."""
    pager: bool = True
    """Whether what is longer than the terminal goes through a pager."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> "View":
        """Return the view that *options* ask for."""
        return cls(options.json, options.bytes, options.legend, options.full, options.pager)

    @property
    def as_json(self) -> bool:
        """Whether JSON is asked for."""
        return self.json != "off"

    @property
    def width(self) -> int | None:
        """Columns of the terminal, None where lines may have any length."""
        return None if self.full or not is_terminal() else shutil.get_terminal_size().columns

    def size(self, size: int) -> str:
        """Return a number of bytes in words: ``981B``, ``87.8K``; exact where that is asked for."""
        return f"{size} bytes" if self.exact else human_size(size)

    def table(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        shrink: Sequence[str] = (),
        drop: Sequence[str] = (),
    ) -> str:
        """Return an aligned table: a column of numbers to the right, any other to the left.

        Where it is too wide for the terminal, the columns *shrink* are ellipsized, one after the other; where they
        would say nothing any more, the columns *drop* are left out, one after the other.
        """
        cells = [list(row) for row in rows]
        kinds = [{type(row[i]) for row in cells} for i in range(len(header))]
        numbers = [bool(kind & {int, Size}) and kind <= {int, Size, type(None)} for kind in kinds]
        texts = [list(header), *([self._text(cell) for cell in row] for row in cells)]
        styles = [[_UNDERLINE] * len(header), *([_style(cell) for cell in row] for row in cells)]
        natural = {name: max(len(row[i]) for row in texts) for i, name in enumerate(header)}
        widths = _fitting(natural, self.width, shrink, drop)
        shown = [(i, widths[name]) for i, name in enumerate(header) if name in widths]
        lines = []
        for row, style in zip(texts, styles, strict=True):
            fitted = [_fit(row[i], width, numbers[i]) for i, width in shown]
            # No line ends in spaces.
            fitted[-1] = fitted[-1].rstrip()
            lines.append("  ".join(map(_coloured, fitted, (style[i] for i, _ in shown))).rstrip())
        return "".join(f"{line}\n" for line in (lines if self.legend else lines[1:]))

    def fields(self, values: Iterable[tuple[str, Cell]]) -> str:
        """Return one line for each field, aligned at the colon; one without a name goes on with the one before."""
        fields = list(values)
        width = max(len(name) for name, _ in fields)
        return "".join(
            f"{name.rjust(width)}{':' if name else ' '} {_coloured(self._text(value), _style(value))}\n"
            for name, value in fields
        )

    def show(self, text: str) -> None:
        """Print *text*, through a pager where the terminal is too short. Raises as :func:`.console.show`."""
        # A pager can do nothing on a dumb terminal, as on a serial console, but ask for a key at every screen.
        if self.pager and is_terminal() and not is_dumb() and text.count("\n") >= shutil.get_terminal_size().lines:
            from .pager import page

            if page(text):
                return
        show(text)

    def show_json(self, value: object) -> None:
        """Print *value* as JSON. Raises as :func:`.console.show`."""
        import json

        pretty = self.json == "pretty" or (self.json == "auto" and is_terminal())
        dump = partial(json.dumps, indent=2) if pretty else partial(json.dumps, separators=(",", ":"))
        self.show(dump(value) + "\n")

    def _text(self, cell: Cell) -> str:
        match cell:
            case None:
                return "-"
            case Size():
                return str(cell.bytes) if self.exact else human_size(cell.bytes)
            case Mark():
                return printable(cell.text)
        return printable(str(cell))


def is_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def is_dumb() -> bool:
    """Tell whether the terminal, if there is one, can do no more than print lines."""
    return os.environ.get("TERM", "dumb") in {"", "dumb"}


def colours() -> bool:
    """Tell whether output may have colours: on a terminal that is not dumb, unless NO_COLOR is set."""
    return is_terminal() and not os.environ.get("NO_COLOR") and not is_dumb()


def utc(usec: int) -> str | None:
    """Return a time, in microseconds since the epoch, in UTC; None for 0 and for what is no time."""
    if not 0 < usec < 253402300800 * 10**6:
        return None
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(usec // 10**6))


def _style(cell: Cell) -> str:
    return (_GREEN if cell.good else _RED) if isinstance(cell, Mark) else ""


def _coloured(text: str, style: str) -> str:
    return f"{style}{text}{_RESET}" if text and style and colours() else text


def _fitting(
    natural: Mapping[str, int], limit: int | None, shrink: Sequence[str], drop: Sequence[str]
) -> dict[str, int]:
    """Return which of the columns *natural* are shown, and how wide, so that they fit *limit* if they can."""
    if limit is None:
        return dict(natural)
    for left_out in range(len(drop) + 1):
        widths = {name: width for name, width in natural.items() if name not in drop[:left_out]}
        for name in filter(widths.__contains__, shrink):
            enough = min(widths[name], _ENOUGH.get(name, 12))
            widths[name] = max(enough, widths[name] - max(0, _line(widths) - limit))
        if _line(widths) <= limit:
            return widths
    # What is left shrinks on, the widest first.
    while _line(widths) > limit and (others := [name for name in shrink if widths.get(name, 0) > _LEAST]):
        widths[max(others, key=widths.__getitem__)] -= 1
    return widths


def _line(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + 2 * (len(widths) - 1)


def _fit(text: str, width: int, number: bool) -> str:
    if len(text) > width:
        dots = "…" if _has_ellipsis() else "..."
        return text[: width - len(dots)] + dots
    return text.rjust(width) if number else text.ljust(width)


def _has_ellipsis() -> bool:
    # In the locale C, Python has UTF-8 all the same (PEP 540); whoever sets it wants ASCII, as systemd sees it.
    asked_for = os.environ.get("LC_ALL") or os.environ.get("LANG")
    if sys.flags.utf8_mode and asked_for in {"C", "POSIX"}:
        return False
    return (sys.stdout.encoding or "").lower().startswith("utf")
