# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads another program's descriptor into a buffer, in one thread, while the disk writes what was read before.

The last fsync(2) waits for all dirty pages, and a capture kernel has few pages: write-back of each window begins
as soon as it is written. SHA-256, which takes longer than both, is computed meanwhile: :mod:`..digest`.
"""

import asyncio
import fcntl
import os
import select
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from types import TracebackType

from ..errors import InvalidArgs, of_storage
from ..files import begin_write_back, pwrite
from ..note import VMCOREDD_HEADER_SIZE
from ..threads.batches import Batches, each
from ..threads.loop import READ_POLL, run_with_duplicate

PIECE = 1 << 16
"""Bytes that each transfer has in memory: as many as a pipe holds."""

LARGE_PIECE = 1 << 18
"""Bytes that the transfer of a large file has in memory. With smaller pieces it takes 5 % longer than SHA-256."""

MAX_LARGE_PIECES = 4
"""Transfers that have large pieces at the same time; those of 64 would take 16 MiB."""

WINDOW = 8 << 20
"""Bytes that are written back together."""

ANONYMOUS_INODE = "anon_inode:"
"""How the kernel's name of such a file begins (Linux fs/anon_inodes.c); a path begins with a slash."""

POLLED_BY_KERNEL = ("pipe:[", "socket:[")
"""The same of those for which the kernel itself answers poll(2): a server of FUSE or CUSE may never."""

PIPE_POLL = 0.01
"""Seconds that a thread waits for the writer of a pipe or a socket. The loop waits for a slower one: that keeps no
thread busy."""


class Rest(Enum):
    """What is behind the bytes that were read."""

    NONE = auto()
    MORE = auto()
    UNKNOWN = auto()


class Reading:
    """Reads as read(2) does, what is there now or soon, unless *abandoned*.

    Another reader may take what poll(2) has announced, and then a thread would wait for as long as the writer
    likes: pipes and sockets are read without waiting. O_NONBLOCK would hold for all who share the file
    description: so a pipe is opened again, and a socket is read with MSG_DONTWAIT.
    """

    def __init__(self, fd: int, abandoned: threading.Event | None = None) -> None:
        """Does not own *fd*. Raises OSError, and InvalidArgs if it is not known to be data."""
        self._fd = fd
        self._abandoned = abandoned or threading.Event()
        self._polled = select.poll()
        self._polled.register(fd, select.POLLIN)
        self._writes_only = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        self._ours = -1
        self._socket: socket.socket | None = None
        mode, kernel_name = os.fstat(fd).st_mode, kernel_name_of(fd)
        _check_data(fd, mode, kernel_name)
        self.regular = stat.S_ISREG(mode)
        self.is_pipe = stat.S_ISFIFO(mode)
        self._poll_seconds = PIPE_POLL if kernel_name.startswith(POLLED_BY_KERNEL) else READ_POLL
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        # Opened again, a descriptor that is only for writing could be read.
        elif stat.S_ISFIFO(mode) and not self._writes_only:
            self._ours = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> "Reading":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close what was opened; the descriptor that was given stays open."""
        if self._socket is not None:
            self._socket.close()
        if self._ours >= 0:
            os.close(self._ours)

    def read(self, size: int) -> bytes:
        """Return at most *size* bytes, none at the end. Raises BlockingIOError when none came, or OSError."""
        self._check()
        if self._socket is not None or self._ours >= 0:
            # Mostly there is data, and poll(2) is not needed.
            with suppress(BlockingIOError):
                if data := self._read(size):
                    return data
                # The end, if poll(2) says so, too: a FIFO opened with O_NONBLOCK may have had no writer yet.
        if not self._writes_only and not self._polled.poll(self._poll_seconds * 1000):
            raise BlockingIOError
        self._check()
        return self._read(size)

    def _check(self) -> None:
        if self._abandoned.is_set():
            # What comes now is for another reader.
            raise BlockingIOError

    def _read(self, size: int) -> bytes:
        if self._socket is not None:
            return self._socket.recv(size, socket.MSG_DONTWAIT)
        return os.read(self._fd if self._ours < 0 else self._ours, size)

    def rest(self) -> Rest:
        """Return what is left: a regular file says that it has no more bytes, but not one of procfs. Blocks."""
        if self.regular and os.lseek(self._fd, 0, os.SEEK_CUR) >= os.fstat(self._fd).st_size > 0:
            return Rest.NONE
        return Rest.UNKNOWN


def _check_data(fd: int, mode: int, kernel_name: str) -> None:
    """Raise InvalidArgs unless *fd*, of that file *mode* and name, is known to be data. May block.

    A read(2) of a signalfd takes the signals of the process that reads, one of a fanotify or userfaultfd
    descriptor installs another descriptor there, and one of a terminal stops a process in the background:
    signalfd(2), fanotify(7), userfaultfd(2), termios(3).
    """
    anonymous = kernel_name.startswith(ANONYMOUS_INODE)
    if not anonymous and (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISBLK(mode)):
        return
    if not anonymous and stat.S_ISCHR(mode) and not os.isatty(fd):
        return
    kinds = {stat.S_IFCHR: "a terminal", stat.S_IFDIR: "a directory"}
    raise InvalidArgs(f"its data is {kinds.get(stat.S_IFMT(mode), 'an anonymous inode')}, which is never read")


def kernel_name_of(fd: int) -> str:
    """Return what the kernel calls the file *fd*: its path, or a name of ours above, if it has none.

    Does not block: fstat(2) would ask its file system, which may be that of a server of FUSE. Raises OSError.
    """
    return os.readlink(f"/proc/self/fd/{fd}")


def read_now(fd: int, size: int) -> bytes:
    """Read once as :class:`Reading` does. Raises BlockingIOError or OSError."""
    with Reading(fd) as reading:
        return reading.read(size)


def is_memory(fd: int) -> bool:
    """Tell whether *fd* is a memfd or a file of a tmpfs: to ask that, or to read it, never waits for a server."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True


@dataclass(slots=True)
class Transfer:
    """Copies bytes into a buffer: *size* bytes behind the header in the file *fd*."""

    dump_name: str
    fd: int
    size: int
    position: int
    """Bytes that are there already."""
    reached: Callable[[int], None]
    """The thread calls it with the position."""
    window_written: Callable[[], None]
    """The thread calls it when another window is written."""
    abandoned: threading.Event = field(default_factory=threading.Event)
    """Set when no caller waits any more: then no more is read."""

    def run(self, large_pieces: threading.Semaphore, source: int) -> Rest:
        """Read *source* until its end, no data now, or no space; return what is left of it. Blocks.

        Raises OSError when it cannot be read, NoSpace or WriteFailed when the buffer cannot be written.
        """
        with Reading(source, self.abandoned) as reading:
            large = reading.regular and self.size >= WINDOW and large_pieces.acquire(blocking=False)
            try:
                return self._copy(reading, LARGE_PIECE if large else PIECE)
            except BlockingIOError:
                return Rest.UNKNOWN
            finally:
                if large:
                    large_pieces.release()

    def _copy(self, reading: Reading, piece: int) -> Rest:
        started = self.position
        while space := self.size - self.position:
            # A piece is not kept in a variable while the next one is read: 64 transfers should take few MiB.
            # A read of less than a packet drops the rest of it, and leaves no trace: O_DIRECT in pipe(2).
            size = self._write(reading.read(piece if reading.is_pipe else min(piece, space)))
            if not size:
                return Rest.NONE
            if size > space:
                return Rest.MORE
            if self.position - started >= WINDOW:
                self._write_back(started)
                started = self.position
        return reading.rest()

    def _write(self, data: bytes) -> int:
        """Write as much of *data* as fits; return the size of all of it."""
        fits = memoryview(data)[: self.size - self.position]
        try:
            pwrite(self.fd, fits, VMCOREDD_HEADER_SIZE + self.position)
        except OSError as error:
            raise of_storage(error, f"device dump {self.dump_name}: cannot be kept in the spool") from error
        if data:
            self.position += len(fits)
            self.reached(self.position)
        return len(data)

    def _write_back(self, started: int) -> None:
        self.window_written()
        begin_write_back(self.fd, VMCOREDD_HEADER_SIZE + started, self.position - started)


class Transfers:
    """Begins transfers: from memory in batches, from all else, which may block, in threads of their own."""

    def __init__(self) -> None:
        self._large_pieces = threading.Semaphore(MAX_LARGE_PIECES)
        self._from_memory = Batches[Callable[[], Rest], Rest](each(lambda read: read()))

    def begin(self, transfer: Transfer, source: int) -> "asyncio.Future[Rest]":
        """Run *transfer*; return what :meth:`Transfer.run` will. Raises OSError when *source* cannot be read."""
        run = partial(transfer.run, self._large_pieces)
        if transfer.size <= PIECE and is_memory(source):
            return run_with_duplicate(run, source, self._from_memory.add)
        return run_with_duplicate(run, source)
