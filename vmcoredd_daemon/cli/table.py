# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the program prints: tables, lists of fields, JSON; and its one line on stderr.

Names and messages come from files and from the bus: nothing of them reaches a terminal that is not printable.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from ..errors import WriteFailed

Cell = str | int | None
"""None is shown as a dash."""


def printable(text: str) -> str:
    """Return *text* on one line: whatever is not printable is escaped as in Python, a backslash stays."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return an aligned table: a column of numbers to the right, any other to the left."""
    cells = [list(row) for row in rows]
    numbers = [bool(cells) and all(not isinstance(row[i], str) for row in cells) for i in range(len(header))]
    texts = [list(header), *([_text(cell) for cell in row] for row in cells)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(header))]
    lines = (
        "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, numbers, strict=True)
        )
        for row in texts
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def fields(values: Mapping[str, Cell]) -> str:
    """Return one line for each field, aligned at the colon."""
    width = max(len(name) for name in values)
    return "".join(f"{name.rjust(width)}: {_text(value)}\n" for name, value in values.items())


def show_json(value: object) -> None:
    """Print *value* as JSON. Raises as :func:`show`."""
    import json

    show(json.dumps(value, indent=2) + "\n")


def show(text: str) -> None:
    """Print *text* now. Raises BrokenPipeError when nobody reads it, WriteFailed when it cannot be printed."""
    if sys.stdout is None:
        raise WriteFailed("standard output is closed")
    with suppress(AttributeError):
        # Not every locale has every character of a message.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        discard_output()
        if isinstance(error, BrokenPipeError):
            raise
        raise WriteFailed(f"standard output: {error.strerror}") from error


def discard_output() -> None:
    """Give up standard output, so that the interpreter does not fail at its end to print what is left."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def complain(message: object) -> None:
    """Print one line on stderr."""
    # Where there is no stderr either, the exit status must do.
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(f"vmcoredd: {printable(str(message))}", file=sys.stderr)


def _text(cell: Cell) -> str:
    return "-" if cell is None else printable(str(cell))
