# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device dumps for a vmcore that somebody else writes: those of the service or, where it cannot be had, our own.

Gathered in a process of its own: whatever hangs or fails there, and the memory that it takes, is gone with it.
What it has found by then, it has sent: one message for each device dump, with a descriptor of its note.
"""

import json
import os
import select
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

from ...dumps.device_dump import Snapshot
from ...errors import InvalidVmcore, VmcoreddError
from ...manifest import Failure, ManifestDump
from ...note import (
    VMCOREDD_HEADER_SIZE,
    DeviceDumpNote,
    check_dump_name,
    pack_vmcoredd_header,
    system_byteorder,
    system_page_size,
)
from ...progress import Progress
from .messages import Wanted, failure

MARGIN = 15.0
"""Seconds beyond that, in which what is begun is ended."""
_INTERVAL = 0.5
"""Seconds without a message, after which it is shown that it goes on."""
_MESSAGE = 1 << 17
"""Bytes of one message at most."""


@dataclass(slots=True)
class Gathered:
    """What was found; close it."""

    records: list[ManifestDump] = field(default_factory=list)
    notes: list[DeviceDumpNote] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Each in one line."""
    finished: bool = False

    @property
    def snapshot(self) -> Snapshot:
        """The same as a dump list would have it."""
        return Snapshot(0, tuple(self.records), tuple(self.notes), tuple(self.failures), 0)

    def close(self) -> None:
        """Close all notes."""
        for note in self.notes:
            os.close(note.fd)
        self.notes.clear()


def gather(wanted: Wanted, progress: Progress) -> Gathered:
    """Return the device dumps that there are within the timeout; *progress* counts their bytes.

    Blocks; raises OSError without a process.
    """
    gathered = Gathered()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process = os.fork()
        if process == 0:
            _child(wanted, ours, theirs)
        theirs.close()
        try:
            _receive(ours, time.monotonic() + wanted.timeout + MARGIN, gathered, progress)
        except BaseException:
            gathered.close()
            raise
        finally:
            _end(process)
    if not gathered.finished:
        gathered.problems.append(
            "the device dumps could not be had, or not all: the program that asks for them failed"
        )
    return gathered


def _child(wanted: Wanted, ours: socket.socket, theirs: socket.socket) -> None:
    """Gather, and never return."""
    status = 1
    try:
        ours.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

        def send(kind: str, content: object, fd: int | None = None) -> None:
            message = json.dumps({"kind": kind, "content": content}).encode("ascii")
            socket.send_fds(theirs, [message], [] if fd is None else [fd])

        from . import sources as gatherers

        try:
            gatherers.run(wanted, send)
        except Exception as error:
            send("problem", str(error) if isinstance(error, VmcoreddError) else f"{type(error).__name__}: {error}")
        send("end", None)
        status = 0
    except (Exception, KeyboardInterrupt) as error:
        # It has nobody left to tell but the one who reads our messages.
        with suppress(OSError):
            os.write(2, f"vmcoredd: device dumps: {type(error).__name__}\n".encode("ascii", "replace"))
    finally:
        os._exit(status)


def _end(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + 1
    # In D state it cannot even be killed: then it is left to itself.
    while os.waitpid(process, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)


def _receive(ours: socket.socket, deadline: float, gathered: Gathered, progress: Progress) -> None:
    """Take messages until the last one, the end of the process, or *deadline*."""
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    progress.start("gathering device dumps")
    while (left := deadline - time.monotonic()) > 0:
        progress.advance()
        if not poll.poll(min(left, _INTERVAL) * 1000):
            continue
        try:
            data, fds, _, _ = socket.recv_fds(ours, _MESSAGE, 4, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return
        if not data:
            return
        message = json.loads(data)
        content = message["content"]
        match message["kind"]:
            case "end":
                gathered.finished = True
                return
            case "problem":
                gathered.problems.append(str(content))
            case "failure":
                gathered.failures.append(Failure(**content))
            case "dump":
                _take_dump(content, fds, gathered)
                progress.advance(content["record"]["size"])


def _take_dump(content: dict[str, dict[str, int | str] | int], fds: list[int], gathered: Gathered) -> None:
    record = ManifestDump(**content["record"])  # type: ignore[arg-type]
    note_size = int(content["note_size"])  # type: ignore[arg-type]
    fd = fds.pop() if fds else -1
    try:
        check(record, note_size, fd)
    except (OSError, VmcoreddError) as error:
        if fd >= 0:
            os.close(fd)
        gathered.failures.append(failure(record.name, record.collector, VmcoreddError(str(error))))
        return
    gathered.records.append(record)
    gathered.notes.append(DeviceDumpNote(record.name, fd, note_size, record.size, record.sha256))


def check(record: ManifestDump, note_size: int, fd: int) -> None:
    """Raise InvalidVmcore or InvalidArgs unless *fd* has the whole note that *record* describes, OSError."""
    check_dump_name(record.name)
    if note_size % system_page_size() or not 0 <= record.size <= note_size - VMCOREDD_HEADER_SIZE:
        raise InvalidVmcore(f"device dump {record.name}: {record.size} bytes in a note of {note_size} cannot be")
    header = pack_vmcoredd_header(record.name.encode("ascii"), note_size, system_byteorder())
    if os.fstat(fd).st_size < note_size or os.pread(fd, VMCOREDD_HEADER_SIZE, 0) != header:
        raise InvalidVmcore(f"device dump {record.name}: its note is not whole")
