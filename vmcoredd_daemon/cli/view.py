# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a command shows what it has found: aligned tables that fit the terminal, lists of fields, JSON.

The manners are systemd's (``src/shared/format-table.c``, ``src/shared/pager.c``): sizes with one decimal and
powers of 1024, an underlined header, an ellipsis where the terminal is too narrow, everything in full where the
output is no terminal. Names and messages come from files and from the bus: nothing of them reaches a terminal that
is not printable.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from ..how_far import human_size
from .console import printable, show

_MIN_WIDTH = 8
"""Columns of the terminal that an ellipsized column keeps."""
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

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Cell]], shrink: Sequence[str] = ()) -> str:
        """Return an aligned table: a column of numbers to the right, any other to the left.

        Where it is too wide for the terminal, the columns *shrink* are ellipsized, one after the other.
        """
        cells = [list(row) for row in rows]
        columns = range(len(header))
        kinds = [{type(row[i]) for row in cells} for i in columns]
        numbers = [bool(kind & {int, Size}) and kind <= {int, Size, type(None)} for kind in kinds]
        texts = [list(header), *([self._text(cell) for cell in row] for row in cells)]
        widths = [max(len(row[i]) for row in texts) for i in columns]
        self._shrink(widths, [header.index(name) for name in shrink if name in header])
        styles = [[_UNDERLINE] * len(header), *([_style(cell) for cell in row] for row in cells)]
        lines = []
        for row, style in zip(texts, styles, strict=True):
            fitted = [*map(_fit, row, widths, numbers)]
            # No line ends in spaces.
            fitted[-1] = fitted[-1].rstrip()
            lines.append("  ".join(map(_coloured, fitted, style)).rstrip())
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
        if self.pager and is_terminal() and text.count("\n") >= shutil.get_terminal_size().lines:
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

    def _shrink(self, widths: list[int], candidates: Sequence[int]) -> None:
        width = self.width
        if width is None:
            return
        for i in candidates:
            excess = max(0, sum(widths) + 2 * (len(widths) - 1) - width)
            widths[i] = min(widths[i], max(_MIN_WIDTH, widths[i] - excess))


def is_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def colours() -> bool:
    """Tell whether output may have colours: on a terminal that is not dumb, unless NO_COLOR is set."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def utc(usec: int) -> str | None:
    """Return a time, in microseconds since the epoch, in UTC; None for 0 and for what is no time."""
    if not 0 < usec < 253402300800 * 10**6:
        return None
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(usec // 10**6))


def _style(cell: Cell) -> str:
    return (_GREEN if cell.good else _RED) if isinstance(cell, Mark) else ""


def _coloured(text: str, style: str) -> str:
    return f"{style}{text}{_RESET}" if text and style and colours() else text


def _fit(text: str, width: int, number: bool) -> str:
    if len(text) > width:
        dots = "…" if (sys.stdout.encoding or "").lower().startswith("utf") else "..."
        return text[: width - len(dots)] + dots
    return text.rjust(width) if number else text.ljust(width)
