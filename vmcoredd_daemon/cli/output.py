# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file that a command writes: of a temporary name until it is complete, unless it is a device or a pipe."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import InvalidArgs, WriteFailed
from ..files import new_file, write_all
from ..terminal.exit import UsageError
from ..terminal.stdio import standard_output

Write = Callable[[bytes], None]


def check_output(output: str, vmcore: str) -> None:
    """Raise UsageError if *output* is a terminal by way of ``-``, or the file *vmcore*.

    Raises WriteFailed if that cannot be told.
    """
    if output == "-":
        if os.isatty(standard_output()):
            raise UsageError("this is not for a terminal: redirect the output, or use -o FILE")
        return
    with writing(output):
        if _state(output) is not None and os.path.samefile(output, vmcore):
            raise UsageError(f"{output}: is the vmcore itself")


def check_replaceable(output: str) -> os.stat_result | None:
    """Return the state of the file *output*, None if it is missing. Raises InvalidArgs if it is no regular file.

    For a directory that may be /tmp: another user's symbolic link in it must not lead us elsewhere. If one appears
    later, the rename of :func:`open_replacement` replaces the link itself.
    """
    try:
        state = os.lstat(output)
    except OSError:
        # It is missing, or cannot be written either.
        return None
    if not stat.S_ISREG(state.st_mode):
        raise InvalidArgs(f"{output}: is not a regular file, and is not replaced")
    return state


@contextmanager
def open_output(output: str) -> Iterator[Write]:
    """Provide a function that writes to the file *output*, or to standard output if that is ``-``.

    Raises WriteFailed and BrokenPipeError, also for an OSError that is raised in the context.
    """
    if output == "-":
        yield _writer(standard_output(), "standard output")
        return
    with writing(output):
        state = _state(output)
        if state is not None and not stat.S_ISREG(state.st_mode):
            out = os.open(output, os.O_WRONLY | os.O_CLOEXEC)
            try:
                yield _writer(out, output)
            finally:
                os.close(out)
            return
    # The rename must replace the target of a symbolic link, not the link.
    with open_replacement(os.path.realpath(output), output) as write:
        yield write


@contextmanager
def open_replacement(path: str, shown: str | None = None) -> Iterator[Write]:
    """Provide a function that writes to a new file, which replaces what is at *path* when it is complete.

    Raises as :func:`open_output`; errors name *shown*, by default *path*.
    """
    with writing(shown or path), new_file(path) as out:
        yield _writer(out, shown or path)


def _state(output: str) -> os.stat_result | None:
    try:
        return os.stat(output)
    except FileNotFoundError:
        return None


def _writer(fd: int, output: str) -> Write:
    def write(block: bytes) -> None:
        with writing(output):
            write_all(fd, block)

    return write


@contextmanager
def writing(output: str) -> Iterator[None]:
    """Raise WriteFailed, which names *output*, for an OSError in the context."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WriteFailed(f"{output}: {error.strerror}") from error
