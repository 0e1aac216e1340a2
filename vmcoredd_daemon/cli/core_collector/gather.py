# SPDX-License-Identifier: LGPL-2.1-or-later
"""Gathers device dumps for a vmcore that another program writes: in a child process, which sends them one by one.

What hangs or fails there, and the memory that it takes, ends with the child; what it has sent by then is kept. A
message is JSON, and brings a descriptor of the note if it is a device dump.
"""

import array
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ...dumps.device_dump import Snapshot
from ...errors import InvalidVmcore, QuotaExceeded, VmcoreddError
from ...manifest import Failure, IdleCollector, ManifestDump, now_usec
from ...note import (
    MAX_DEVICE_DUMPS,
    VMCOREDD_HEADER_SIZE,
    DeviceDumpNote,
    check_dump_name,
    pack_vmcoredd_header,
    system_byteorder,
    system_page_size,
)
from ...progress import Progress

GATHER_TIMEOUT = 60.0
"""Seconds for all device dumps, by default."""
CHILD_EXIT_TIMEOUT = 15.0
"""Seconds that the child may take beyond that, to end what it has begun."""
MAX_TEXT = 1000
"""Characters of a name or of a reason that are sent."""
_PROGRESS_INTERVAL = 0.5
"""Seconds without a message after which progress is shown anyway."""
_MAX_MESSAGE = 1 << 17
"""Bytes."""

Send = Callable[..., None]
"""Sends one message: ``send(kind, content)``, for a device dump ``send("dump", content, fd)``."""


@dataclass(frozen=True, slots=True)
class Request:
    """Where to look for device dumps, and for how long."""

    bus_address: str | None = None
    config: Path | None = None
    timeout: float = GATHER_TIMEOUT
    """Seconds."""
    directory: Path | None = None
    """Where device dumps of collectors that run here are kept; None: in the target, or in memory."""
    spool: Path | None = None
    """The spool of the service, if the one that it configures has nothing of this boot."""


@dataclass(slots=True)
class GatheredDumps:
    """The device dumps that were found. To be closed."""

    records: list[ManifestDump] = field(default_factory=list)
    notes: list[DeviceDumpNote] = field(default_factory=list)
    """One for each record."""
    failures: list[Failure] = field(default_factory=list)
    idle_collectors: list[IdleCollector] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """One line each."""
    finished: bool = False
    directory: Path | None = None
    """On a disk, for temporary files; None if none is known."""

    @property
    def snapshot(self) -> Snapshot:
        """The same as a dump list returns it."""
        idle = tuple(self.idle_collectors)
        return Snapshot(0, tuple(self.records), tuple(self.notes), tuple(self.failures), 0, idle)

    def drop_excess(self) -> None:
        """Keep as many device dumps as crash reads; the others become failures."""
        most = MAX_DEVICE_DUMPS
        for record, note in zip(self.records[most:], self.notes[most:], strict=True):
            os.close(note.fd)
            error = QuotaExceeded(f"device dump {record.name}: crash reads no more than {most}")
            self.failures.append(failure(record.name, record.collector, error))
        del self.records[most:], self.notes[most:]

    def close(self) -> None:
        """Close all notes."""
        for note in self.notes:
            os.close(note.fd)
        self.notes.clear()


def gather(request: Request, find: Callable[[Request, Send], None], progress: Progress) -> GatheredDumps:
    """Return the device dumps that *find* sends within the timeout; *progress* counts their bytes.

    Blocks. Raises OSError when no process can be started.
    """
    gathered = run_in_child(request, find, progress)
    if not gathered.finished:
        gathered.problems.append("some device dumps may be missing: the process that gathers them failed")
    return gathered


def run_in_child(request: Request, find: Callable[[Request, Send], None], progress: Progress) -> GatheredDumps:
    """Do as :func:`gather`, without a word if the process does not finish."""
    gathered = GatheredDumps()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process = os.fork()
        if process == 0:
            _child(request, find, ours, theirs)
        theirs.close()
        try:
            _receive(ours, time.monotonic() + request.timeout + CHILD_EXIT_TIMEOUT, gathered, progress)
        except BaseException:
            gathered.close()
            raise
        finally:
            _kill(process)
    return gathered


def failure(name: str, collector: str, error: VmcoreddError) -> Failure:
    """Return the manifest's entry for a device dump that failed with *error* now."""
    return Failure(name, collector, error.dbus_name, str(error), now_usec())


# In the child.


def _child(
    request: Request, find: Callable[[Request, Send], None], ours: socket.socket, theirs: socket.socket
) -> None:
    """Send what *find* finds, and exit."""
    status = 1
    try:
        ours.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

        def send(kind: str, content: object, fd: int | None = None) -> None:
            message = json.dumps({"kind": kind, "content": content}).encode("ascii")
            socket.send_fds(theirs, [message], [] if fd is None else [fd])

        try:
            find(request, send)
        except Exception as error:
            send("problem", str(error) if isinstance(error, VmcoreddError) else f"{type(error).__name__}: {error}")
        send("end", None)
        status = 0
    except (Exception, KeyboardInterrupt) as error:
        # The parent takes no message: standard error is all that is left.
        with suppress(OSError):
            os.write(2, f"vmcoredd: no device dumps: {type(error).__name__}\n".encode("ascii", "replace"))
    finally:
        os._exit(status)


def send_dump(send: Send, record: ManifestDump, note_size: int, fd: int) -> None:
    """Send a device dump."""
    send("dump", {"record": asdict(record), "note_size": note_size}, fd)


def send_failure(send: Send, failed: Failure) -> None:
    """Send a device dump that failed, its texts cut to what fits a message."""
    send("failure", asdict(replace(failed, name=failed.name[:MAX_TEXT], message=failed.message[:MAX_TEXT])))


def send_idle(send: Send, idle: IdleCollector) -> None:
    """Send a collector that made no device dump, its texts cut to what fits a message."""
    send("idle", asdict(replace(idle, name=idle.name[:MAX_TEXT], reason=idle.reason[:MAX_TEXT])))


# In the parent.


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + 1
    # In D state not even SIGKILL ends it: then it is left behind.
    while os.waitpid(process, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)


def _receive(ours: socket.socket, deadline: float, gathered: GatheredDumps, progress: Progress) -> None:
    """Receive messages until the last one, the end of the child, or *deadline*."""
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    progress.start("gathering device dumps")
    while (left := deadline - time.monotonic()) > 0:
        progress.advance()
        if not poll.poll(min(left, _PROGRESS_INTERVAL) * 1000):
            continue
        try:
            data, fds = _receive_message(ours)
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
            case "directory":
                gathered.directory = Path(content)
            case "problem":
                gathered.problems.append(str(content))
            case "failure":
                gathered.failures.append(Failure(**content))
            case "idle":
                gathered.idle_collectors.append(IdleCollector(**content))
            case "dump":
                _take_dump(content, fds, gathered)
                progress.advance(content["record"]["size"])


def _receive_message(ours: socket.socket) -> tuple[bytes, list[int]]:
    """Return a message, and the descriptors in it, which no program inherits. Raises OSError."""
    fds = array.array("i")
    # socket.recv_fds() ignores its flags (python/cpython#128881).
    data, ancillary, *_ = ours.recvmsg(_MAX_MESSAGE, socket.CMSG_LEN(fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) // fds.itemsize * fds.itemsize])
    return data, list(fds)


def _take_dump(content: dict[str, dict[str, int | str] | int], fds: list[int], gathered: GatheredDumps) -> None:
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
    """Check that *fd* has all of the note that *record* describes. Raises InvalidVmcore, InvalidArgs, OSError."""
    check_dump_name(record.name)
    if note_size % system_page_size() or not 0 <= record.size <= note_size - VMCOREDD_HEADER_SIZE:
        raise InvalidVmcore(f"device dump {record.name}: a note of {note_size} bytes cannot hold {record.size}")
    header = pack_vmcoredd_header(record.name.encode("ascii"), note_size, system_byteorder())
    found = os.pread(fd, VMCOREDD_HEADER_SIZE, 0)
    # Of n_descsz, a note that an older version left in the spool has the size that was reserved.
    if os.fstat(fd).st_size < note_size or (found[:4], found[8:]) != (header[:4], header[8:]):
        raise InvalidVmcore(f"device dump {record.name}: its note is incomplete")
