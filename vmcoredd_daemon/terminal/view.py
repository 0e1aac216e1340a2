# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a command shows its results: aligned tables that fit the terminal, lists of fields, JSON.

It follows systemd (``src/shared/format-table.c``, ``src/shared/pager.c``): sizes with one decimal and powers of
1024, an underlined header, an ellipsis if the terminal is too narrow, everything in full if the output is no
terminal. Unlike systemd, it drops columns before the remaining ones become too narrow to read. Names and messages
come from files and from the bus: only printable characters of them reach a terminal.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

from ..progress import human_size
from ..text import counted, printable, valid_json
from .stdio import show

_ENOUGH = {"ERROR": 24, "MESSAGE": 24, "FILE": 48}
"""Characters that keep an ellipsized column readable; others need 12."""
_LEAST = 4
"""Characters that it keeps when nothing else can be dropped."""
_VALUE = 24
"""Columns that values need beside the names of fields; with less, the names are not aligned."""
_RED, _GREEN, _UNDERLINE, _BOLD = "\033[0;1;31m", "\033[0;32m", "\033[0;4m", "\033[0;1m"
_RESET = "\033[0m"


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes, shown as ``87.8K`` unless the exact number is asked for."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A word that is good or bad news."""

    text: str
    good: bool


Cell = str | int | float | Size | Mark | None
"""None is shown as a dash."""


@dataclass(frozen=True, slots=True)
class View:
    """How a command shows its results, by its options."""

    json: str = "off"
    """``off``, ``short``, ``pretty``, ``lines``, or ``auto``: pretty on a terminal."""
    exact: bool = False
    """Whether sizes are shown in bytes."""
    legend: bool = True
    """Whether tables have a header."""
    full: bool = False
    """Whether nothing is ellipsized."""
    pager: bool = True
    """Whether output longer than the terminal goes through a pager."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> "View":
        """Return the view that *options* ask for."""
        return cls(options.json, options.bytes, options.legend, options.full, options.pager)

    @property
    def as_json(self) -> bool:
        """Whether JSON is asked for."""
        return self.json != "off"

    @property
    def as_lines(self) -> bool:
        """Whether JSON is asked for, one object a line."""
        return self.json == "lines"

    @property
    def width(self) -> int | None:
        """Width of the terminal in characters, None if lines may have any length."""
        return None if self.full or not is_terminal() else shutil.get_terminal_size().columns

    def size(self, size: int) -> str:
        """Return a number of bytes as ``981B`` or ``87.8K``, or exact if that is asked for."""
        return f"{size} bytes" if self.exact else human_size(size)

    def table(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        shrink: Sequence[str] = (),
        drop: Sequence[str] = (),
        indent: int = 0,
        count_dropped: bool = False,
        below: Sequence[str] = (),
    ) -> str:
        """Return an aligned table: columns of numbers to the right, others to the left; *indent* spaces before it.

        If it is too wide for the terminal, the columns *shrink* are ellipsized, one after the other; before they
        become unreadable, the columns *drop* are left out, one after the other; with *count_dropped*, a last line
        says how many. Each row is followed by its text of *below*, if it has one, which is never ellipsized.
        """
        cells = [list(row) for row in rows]
        kinds = [{type(row[i]) for row in cells} for i in range(len(header))]
        numbers = [bool(kind & {int, Size}) and kind <= {int, Size, type(None)} for kind in kinds]
        texts = [list(map(printable, header)), *([self._text(cell) for cell in row] for row in cells)]
        styles = [[_UNDERLINE] * len(header), *([_style(cell) for cell in row] for row in cells)]
        natural = {name: max(len(row[i]) for row in texts) for i, name in enumerate(header)}
        limit = None if self.width is None else self.width - indent
        widths = _fitting(natural, limit, shrink, drop)
        shown = [(i, widths[name]) for i, name in enumerate(header) if name in widths]
        left_out = [name for name in header if name not in widths]
        lines = []
        for row, style, more in zip_longest(texts, styles, ["", *below], fillvalue=""):
            fitted = [_fit(row[i], width, numbers[i]) for i, width in shown]
            # No line ends in spaces.
            fitted[-1] = fitted[-1].rstrip()
            lines.append(" " * indent + "  ".join(map(_coloured, fitted, (style[i] for i, _ in shown))).rstrip())
            lines += self.wrapped(more, " " * (indent + 2))
        if count_dropped and left_out:
            count = counted(len(left_out), "column")
            lines.append(f"{' ' * indent}({count} left out: see --full)")
        return "".join(f"{line}\n" for line in (lines if self.legend else lines[1:]))

    def wrapped(self, text: str, indent: str = "") -> list[str]:
        """Return *text* as lines that fit the terminal, each after *indent*; one line if there is none."""
        return self._lines(printable(text), indent, indent)

    def _lines(self, text: str, first: str, others: str) -> list[str]:
        if self.width is None or len(first) + len(text) <= self.width:
            return [f"{first}{text}"] if text else []
        # Imported late: few results have such lines.
        from textwrap import wrap

        width = max(self.width, len(others) + 10)
        # A path is copied as one word, even if the terminal breaks it.
        return wrap(
            text,
            width,
            initial_indent=first,
            subsequent_indent=others,
            break_on_hyphens=False,
            break_long_words=False,
        )

    def fields(self, values: Iterable[tuple[str, Cell]], indent: int = 0) -> str:
        """Return the fields, aligned at the colon, after *indent*; one without a name continues the one before.

        A value that does not fit the terminal goes on below its beginning.
        """
        fields = [(f"{printable(name)}:" if name else "", value) for name, value in values]
        width = max(len(name) for name, _ in fields)
        narrow = self.width is not None and self.width - indent - width < _VALUE
        text = ""
        for name, value in fields:
            before = " " * indent + (f"{name} " if narrow and name else f"{name:>{width}} ")
            shown = self._text(value)
            if narrow and len(before) + len(shown) > (self.width or 0):
                text += f"{before.rstrip()}\n" if name else ""
                before = " " * (indent + 4)
            after = " " * len(before)
            for line in self._lines(shown, before, after) or [before]:
                start = before if line.startswith(before) else after
                text += f"{start}{_coloured(line.removeprefix(start), _style(value))}\n"
        return text

    def heading(self, text: str) -> str:
        """Return the heading of a part."""
        return _coloured(printable(text), _BOLD)

    def show(self, text: str) -> None:
        """Print *text*, through a pager if the terminal is too short. Raises as :func:`.stdio.show`."""
        # On a dumb terminal, as on a serial console, a pager can only ask for a key at every screen.
        if self.pager and is_terminal() and not is_dumb() and text.count("\n") >= shutil.get_terminal_size().lines:
            # Imported late: it needs subprocess, which takes time and memory.
            from .pager import page

            if page(text):
                return
        show(text)

    def show_json(self, value: object) -> None:
        """Print *value* as JSON, or of a list each entry on a line. Raises as :func:`.stdio.show`."""
        pretty = self.json == "pretty" or (self.json == "auto" and is_terminal())
        dump = partial(json.dumps, indent=2) if pretty else partial(json.dumps, separators=(",", ":"))
        entries = value if self.as_lines and isinstance(value, list | tuple) else [value]
        self.show("".join(f"{dump(valid_json(entry))}\n" for entry in entries))

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
    """Return whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def is_dumb() -> bool:
    """Return whether the terminal, if there is one, can only print lines."""
    return os.environ.get("TERM", "dumb") in {"", "dumb"}


def colours() -> bool:
    """Return whether to use colours: on a terminal that is not dumb, unless NO_COLOR is set."""
    return is_terminal() and not os.environ.get("NO_COLOR") and not is_dumb()


def _style(cell: Cell) -> str:
    return (_GREEN if cell.good else _RED) if isinstance(cell, Mark) else ""


def _coloured(text: str, style: str) -> str:
    return f"{style}{text}{_RESET}" if text and style and colours() else text


def _fitting(
    natural: Mapping[str, int], limit: int | None, shrink: Sequence[str], drop: Sequence[str]
) -> dict[str, int]:
    """Return which of the columns *natural* are shown, and their widths, so that they fit *limit* if possible."""
    if limit is None:
        return dict(natural)
    for left_out in range(len(drop) + 1):
        widths = {name: width for name, width in natural.items() if name not in drop[:left_out]}
        for name in filter(widths.__contains__, shrink):
            enough = min(widths[name], _ENOUGH.get(name, 12))
            widths[name] = max(enough, widths[name] - max(0, _line(widths) - limit))
        if _line(widths) <= limit:
            return widths
    # The remaining ones shrink further, the widest first.
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
    # In the C locale Python still uses UTF-8 (PEP 540); systemd takes the C locale as a wish for ASCII.
    locale = os.environ.get("LC_ALL") or os.environ.get("LANG")
    if sys.flags.utf8_mode and locale in {"C", "POSIX"}:
        return False
    return (sys.stdout.encoding or "").lower().startswith("utf")
