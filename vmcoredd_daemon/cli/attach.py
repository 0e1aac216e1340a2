# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand attach: put files into a finished vmcore, as device dumps.

With ``--stream`` a flattened vmcore goes from standard input to standard output. Whatever is wrong, all of it is
passed on first: it is the memory that the program behind the pipe saves.
"""

import argparse
import io
import os
import select
import signal
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, cast

from ..errors import InvalidArgs, VmcoreddError, WriteFailed
from ..files import BLOCK_SIZE
from ..manifest import PRODUCER, Failure, now_usec
from ..note import MAX_PAGE_SIZE, VMCOREDD_HEADER_SIZE, note_size
from ..progress import Progress
from ..terminal.exit import FAILURE, SUCCESS, UsageError
from ..terminal.progress_line import progress
from ..terminal.stdio import complain, standard_input, standard_output
from ..vmcore.attach.attach import STDIN, attach_files
from ..vmcore.attach.dump_files import COLLECTOR, FileAdditions, NamedFile, OpenFile, check_files, open_file
from ..vmcore.attach.stream import attach_stream, pass_on
from .operands import named_files, refuse_compressed

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STDIN, _STDOUT = "standard input", "standard output"
_SMALL = 1 << 16
"""Bytes; a file no larger is copied to learn its size: files of /proc and /sys give none, or a wrong one."""
_MAX_SIZE = 256 << 20
"""Bytes that are read from a file that does not give its size; MaxDumpSize= of the service."""
_READ_TIMEOUT = 30.0
"""Seconds to read a pipe."""


def run(options: argparse.Namespace) -> int:
    """Attach; return the exit status. Prints nothing unless something is wrong."""
    if options.stream and options.force:
        raise UsageError("attach --stream has no --force: it looks at the memory only as it passes")
    if options.stream:
        return _stream(options.arguments)
    vmcore, *dumps = options.arguments
    if not dumps:
        raise UsageError(
            "the following arguments are required: NAME=FILE or SPOOL.note (see vmcoredd attach --help)"
        )
    files = named_files(dumps)
    from_stdin = sum(file.path == STDIN for file in files)
    if from_stdin > 1:
        raise UsageError("standard input can be only one device dump")
    if from_stdin:
        standard_input()
    refuse_compressed(vmcore)
    with progress() as shown:
        attached = attach_files(vmcore, files, PRODUCER, ignore_interrupts, shown, force=options.force)
    for warning in attached.warnings:
        complain(f"{vmcore}: {warning}")
    for name in attached.altered:
        complain(f"{vmcore}: device dump {name} is attached, but its file changed while it was read")
    return SUCCESS


def ignore_interrupts() -> None:
    """Ignore the signals that would end this process, from here on."""
    # A signal before this point leaves the vmcore as it was. The rest takes a moment, and must complete.
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


def _stream(arguments: list[str]) -> int:
    """Attach to the flattened vmcore on standard input; return the exit status."""
    stdin, stdout = standard_input(), standard_output()
    if os.isatty(stdin) or os.isatty(stdout):
        raise UsageError("attach --stream needs a pipe or file: its input and output are a flattened vmcore")
    with ExitStack() as stack:
        source = stack.enter_context(open(stdin, "rb", BLOCK_SIZE, closefd=False))
        try:
            output = _Output(stdout, stack.enter_context(_progress(stdin)))
            return _attach_to_stream(source, cast(BinaryIO, output), arguments, stack)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise WriteFailed(f"{_STDOUT}: {error.strerror}") from error


@contextmanager
def _progress(stdin: int) -> Iterator[Progress | None]:
    """Show progress if a file is read; makedumpfile at the other end of a pipe shows its own in the same line."""
    state = os.fstat(stdin)
    if not stat.S_ISREG(state.st_mode):
        yield None
        return
    with progress("attaching", state.st_size) as shown:
        yield shown


def _attach_to_stream(source: BinaryIO, sink: BinaryIO, arguments: list[str], stack: ExitStack) -> int:
    try:
        files = named_files(arguments)
        check_files(files)
        additions, problems = open_files(files, stack)
    except (VmcoreddError, UsageError):
        pass_on(source, sink, _STDIN)
        raise
    problems += attach_stream(source, sink, additions, _STDIN)
    if problems:
        complain("; ".join(problems))
    return FAILURE if problems else SUCCESS


def open_files(files: Iterable[NamedFile], stack: ExitStack) -> tuple[FileAdditions, list[str]]:
    """Open *files* until *stack* is closed; return them, and problems, one line each.

    A file that cannot be read is a failure in the manifest, and a problem; the others are added.
    """
    opened, failures, problems = [], [], []
    for file in files:
        try:
            opened.append(_open(file, stack))
        except (OSError, VmcoreddError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            kind = error.dbus_name if isinstance(error, VmcoreddError) else VmcoreddError.dbus_name
            message = f"{file.path}: {reason}"
            failures.append(Failure(file.dump_name, COLLECTOR, kind, message, now_usec()))
            problems.append(f"device dump {file.dump_name} is not attached: {message}")
    return FileAdditions(tuple(opened), tuple(failures), PRODUCER), problems


def _open(file: NamedFile, stack: ExitStack) -> OpenFile:
    fd = open_file(file.path)
    stack.callback(os.close, fd)
    if file.described is not None:
        return OpenFile(
            file.dump_name,
            file.path,
            fd,
            file.described.size,
            VMCOREDD_HEADER_SIZE,
            described=file.described,
            note_size=file.note_size,
        )
    state = os.fstat(fd)
    size = state.st_size
    if not stat.S_ISREG(state.st_mode) or size <= _SMALL:
        temporary = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        size = _copy(fd, cast(BinaryIO, temporary))
        fd = temporary.fileno()
    if size == 0:
        raise InvalidArgs("is empty")
    # The vmcore, and its pages, come later.
    note_size(size, MAX_PAGE_SIZE)
    return OpenFile(file.dump_name, file.path, fd, size)


def _copy(fd: int, file: BinaryIO) -> int:
    deadline, size = time.monotonic() + _READ_TIMEOUT, 0
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        try:
            block = os.read(fd, BLOCK_SIZE)
        except BlockingIOError:
            poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if time.monotonic() >= deadline:
                raise InvalidArgs(f"did not end within {_READ_TIMEOUT:.0f} seconds") from None
            continue
        if not block:
            file.flush()
            return size
        file.write(block)
        size += len(block)
        if size > _MAX_SIZE:
            raise InvalidArgs(f"has more than {_MAX_SIZE} bytes and does not give its size")


class _Output(io.RawIOBase):
    """Standard output, without a buffer."""

    def __init__(self, fd: int, shown: Progress | None) -> None:
        self._fd = fd
        self._shown = shown

    def write(self, data: bytes) -> int:  # type: ignore[override]
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            view = view[written:]
            if self._shown is not None:
                self._shown.advance(written)
        return len(data)
