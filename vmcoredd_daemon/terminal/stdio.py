# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the program prints, and its one line on stderr; ``view`` makes tables of it.

Names and messages come from files and from the bus: nothing of them reaches a terminal that is not printable.
"""

import os
import sys
from contextlib import suppress
from typing import TextIO

from ..errors import InvalidArgs, WriteFailed


def printable(text: str) -> str:
    """Return *text* on one line: whatever is not printable is escaped as in Python, a backslash stays."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


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
        discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise WriteFailed(f"standard output: {error.strerror}") from error


def standard_input() -> int:
    """Return its descriptor. Raises InvalidArgs where it is closed: another file may have its number."""
    if sys.stdin is None:
        raise InvalidArgs("standard input is closed")
    return sys.stdin.fileno()


def standard_output() -> int:
    """Return its descriptor. Raises WriteFailed where it is closed."""
    if sys.stdout is None:
        raise WriteFailed("standard output is closed")
    return sys.stdout.fileno()


def discard(stream: TextIO) -> None:
    """Give up a standard stream, so that the interpreter does not fail at its end to print what is left."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def complain(message: object, program: str = "vmcoredd") -> None:
    """Print one line on stderr."""
    # Where there is no stderr either, the exit status must do.
    if sys.stderr is None:
        return
    try:
        print(f"{program}: {printable(str(message))}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        discard(sys.stderr)
