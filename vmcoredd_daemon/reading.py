# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads somebody else's descriptor, and waits no longer for its bytes than it was told to."""

import fcntl
import os
import select
import socket
import stat
import threading
from contextlib import suppress
from types import TracebackType

from .threads import POLL

PATIENCE = 0.01
"""Seconds that a thread waits for who writes to a pipe or a socket. A slower one is awaited on the loop: no thread
is busy with it."""


class Reading:
    """Reads as read(2) does, what is there now or soon, if not *given_up*.

    Somebody else may take what poll(2) has announced, and then a thread would wait for as long as the writer
    likes: pipes and sockets are read without waiting. The file description is not ours to be made non-blocking.
    """

    def __init__(self, fd: int, given_up: threading.Event | None = None) -> None:
        """Does not own *fd*. Raises OSError."""
        self._fd = fd
        self._given_up = given_up or threading.Event()
        self._polled = select.poll()
        self._polled.register(fd, select.POLLIN)
        self._writes_only = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        self._ours = -1
        self._socket: socket.socket | None = None
        mode = os.fstat(fd).st_mode
        self.regular = stat.S_ISREG(mode)
        self._patience = PATIENCE if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else POLL
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        # Opened again, what is for writing only could be read.
        elif stat.S_ISFIFO(mode) and not self._writes_only:
            self._ours = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> "Reading":
        """Close what was opened at the end."""
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
        """Return at most *size* bytes, none at the end. Raises BlockingIOError when there are none, or OSError."""
        self._check()
        if self._socket is not None or self._ours >= 0:
            # Most often there is something.
            with suppress(BlockingIOError):
                return self._read(size)
        if not self._writes_only and not self._polled.poll(self._patience * 1000):
            raise BlockingIOError
        self._check()
        return self._read(size)

    def _check(self) -> None:
        if self._given_up.is_set():
            # Who types at a terminal types for somebody else by now.
            raise BlockingIOError

    def _read(self, size: int) -> bytes:
        if self._socket is not None:
            return self._socket.recv(size, socket.MSG_DONTWAIT)
        return os.read(self._fd if self._ours < 0 else self._ours, size)

    def at_end(self) -> bool:
        """Tell whether a file says that it has no more bytes; others, and those of the kernel, do not. Blocks."""
        if not self.regular:
            return False
        return os.lseek(self._fd, 0, os.SEEK_CUR) >= os.fstat(self._fd).st_size > 0


def read_now(fd: int, size: int) -> bytes:
    """Read once as :class:`Reading` does. Raises BlockingIOError or OSError."""
    with Reading(fd) as reading:
        return reading.read(size)


def is_memory(fd: int) -> bool:
    """Tell whether *fd* is a memfd, or a file of a tmpfs: nobody else is asked, now or to read it."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True
