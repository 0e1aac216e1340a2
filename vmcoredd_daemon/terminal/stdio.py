# SPDX-License-Identifier: LGPL-2.1-or-later
"""Standard input, output and error of both programs; ``view`` makes tables for it.

Names and messages come from files and from the bus: only printable characters of them reach a terminal.
"""

import os
import sys
from contextlib import suppress
from typing import TextIO

from ..errors import InvalidArgs, WriteFailed
from ..text import printable


def show(text: str) -> None:
    """Print *text* and flush. Raises BrokenPipeError if the reader is gone, WriteFailed if that fails."""
    if sys.stdout is None:
        raise WriteFailed("standard output is closed")
    with suppress(AttributeError):
        # A locale may lack characters of the text.
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
    """Return its descriptor. Raises InvalidArgs if it is closed: another file may have its number."""
    if sys.stdin is None:
        raise InvalidArgs("standard input is closed")
    return sys.stdin.fileno()


def standard_output() -> int:
    """Return its descriptor. Raises WriteFailed if it is closed."""
    if sys.stdout is None:
        raise WriteFailed("standard output is closed")
    return sys.stdout.fileno()


def discard(stream: TextIO) -> None:
    """Redirect a standard stream to /dev/null, or flushing it would fail when the interpreter exits."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, stream.fileno())
        os.close(null)


def complain(message: object, program: str = "vmcoredd") -> None:
    """Print one line on stderr."""
    # With stderr closed, only the exit status is left.
    if sys.stderr is None:
        return
    try:
        print(f"{program}: {printable(str(message))}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        discard(sys.stderr)
