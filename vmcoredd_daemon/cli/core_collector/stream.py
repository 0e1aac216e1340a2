# SPDX-License-Identifier: LGPL-2.1-or-later
"""makedumpfile -F through a filter that puts device dumps into the flattened vmcore."""

import os
import signal
from io import BufferedReader, FileIO
from typing import BinaryIO, cast

from ...errors import VmcoreddError
from ...files import BLOCK_SIZE, write_all
from ...manifest import PRODUCER
from ...note import VMCOREDD_HEADER_SIZE
from ...terminal.exit import FAILURE
from ...terminal.stdio import complain
from ...vmcore.attach.dump_files import FileAdditions, OpenFile
from ...vmcore.attach.stream import attach_stream
from .attach import machine_of_source, report
from .gather import GatheredDumps
from .makedumpfile import Call, reason, start, wait

_STDOUT, _NAME = 1, "standard output"


def run(call: Call, gathered: GatheredDumps) -> int:
    """Run makedumpfile and put the device dumps into its output; return its exit status."""
    gathered.drop_excess()
    reader, writer = os.pipe()
    with BufferedReader(FileIO(reader), BLOCK_SIZE) as output:
        process = start(call, writer)
        os.close(writer)
        # Nothing comes if it fails.
        problem = _filter(output, _additions(call, gathered), gathered) if output.peek(1) else 0
    status = wait(process)
    # It succeeded, but its output did not all get to standard output.
    return problem if status in {0, -signal.SIGPIPE} and problem else status


def _filter(output: BinaryIO, additions: FileAdditions, gathered: GatheredDumps) -> int:
    """Pass on the vmcore, with device dumps if that works; return an exit status, 0 if all was passed on."""
    source = _Source(output)
    sink = _Sink(source)
    try:
        try:
            problems = attach_stream(
                cast(BinaryIO, source), cast(BinaryIO, sink), additions, _NAME, directory=gathered.directory
            )
        except _SinkError:
            raise
        except VmcoreddError as error:
            # attach_stream has passed on everything nevertheless.
            complain(f"no device dumps attached to {error}")
            return 0
        except Exception as error:
            complain(f"no device dumps attached to {_NAME}: {reason(error)}")
            return _pass_on(source, sink)
    except _SinkError as error:
        if isinstance(error.reason, BrokenPipeError):
            return -signal.SIGPIPE
        complain(f"{_NAME}: {error.reason.strerror}")
        return FAILURE
    for problem in problems:
        complain(f"{_NAME}: {problem}")
    report(gathered, _NAME)
    return 0


def _pass_on(source: "_Source", sink: "_Sink") -> int:
    """Pass on what was read so far, unless some of it is written already, and the rest; return an exit status."""
    kept = source.kept
    source.forget()
    for data in kept or ():
        sink.write(data)
    while data := source.read(BLOCK_SIZE):
        sink.write(data)
    return 0 if kept is not None else FAILURE


def _additions(call: Call, gathered: GatheredDumps) -> FileAdditions:
    dumps = tuple(
        OpenFile(
            record.name,
            record.collector,
            note.fd,
            record.size,
            VMCOREDD_HEADER_SIZE,
            described=record,
            note_size=note.note_size,
        )
        for record, note in zip(gathered.records, gathered.notes, strict=True)
    )
    machine = machine_of_source(call)
    return FileAdditions(dumps, tuple(gathered.failures), PRODUCER, machine, tuple(gathered.idle_collectors))


class _SinkError(Exception):
    """Standard output cannot be written to."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Source:
    """The output of makedumpfile, kept in memory until the first byte is passed on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.kept: list[bytes] | None = []

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if self.kept is not None:
            self.kept.append(data)
        return data

    def forget(self) -> None:
        self.kept = None


class _Sink:
    """Standard output, without a buffer."""

    def __init__(self, source: _Source) -> None:
        self._source = source

    def write(self, data: bytes) -> int:
        self._source.forget()
        try:
            write_all(_STDOUT, data)
        except OSError as error:
            raise _SinkError(error) from error
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered."""
