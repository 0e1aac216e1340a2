# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls for a source that may never return: each has a deadline, after which its thread is abandoned.

Nothing ends a thread in D state, neither a signal nor a close. So the thread that writes the vmcore does not read
the source: another one does, and if that does not return in time, a new one takes its place. The other thread also
writes what it has read, which needs no hand-over; it is abandoned only while it reads.
"""

import errno
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty
from typing import ParamSpec, TypeVar

from ...errors import InvalidVmcore
from ...threads.watched import Turn, WatchedThread
from ..image import Image, file_image
from .mmap_reader import MmapReader

_P = ParamSpec("_P")
_T = TypeVar("_T")

Preadv = Callable[[int, memoryview, int], int]
"""As :func:`os.preadv`, with one buffer; may raise BlockedCall and BlockedSource."""


class BlockedCall(OSError):
    """A call did not return in time."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.ETIME, text)


class BlockedSource(BlockedCall):
    """Too many calls have not returned: no more are made."""


class Reads:
    """Reads without a deadline."""

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Do as :func:`os.preadv`, with one *buffer*."""
        return os.preadv(fd, [buffer], offset)

    def run(self, fd: int, copy: Callable[[Preadv], None]) -> None:
        """Call *copy* with a function that reads the file *fd*."""
        copy(self.preadv)


class TimedCalls:
    """Makes calls in a thread that runs from the start, because later there may be no memory for one."""

    def __init__(self, timeout: float = 30.0, retry_timeout: float = 2.0, max_blocked: int = 16) -> None:
        """A call may take *timeout* seconds; a read of one page, after a read of more has not returned,
        *retry_timeout*. When *max_blocked* calls have not returned, each of which has a thread, no more are made.
        """
        self.timeout = timeout
        self.retry_timeout = retry_timeout
        self._max_blocked = max_blocked
        self.blocked = 0
        """Calls that did not return in time, since :meth:`restart`."""
        self._blocking: set[int] = set()
        self._thread: WatchedThread | None = None
        with suppress(RuntimeError):
            self._thread = WatchedThread()

    def restart(self) -> None:
        """Count from 0 for another attempt: calls that did not return may have returned."""
        self.blocked = 0

    def call(self, seconds: float, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do as :meth:`run` with one call, which may take *seconds*."""
        return self.run(lambda turn: function(*args, **kwargs), seconds)

    def run(self, function: Callable[[Turn], _T], seconds: float = math.inf) -> _T:
        """Return what *function* returns, which makes those calls that may never return by :meth:`Turn.call`.

        Until the first of these, all of it may take *seconds*. Without a thread from the start, nothing has a
        deadline. Raises BlockedCall when one passes, BlockedSource, without calling *function*,
        when too many calls have not returned, and what *function* raises.
        """
        thread = self._ready()
        turn = Turn(seconds)
        if thread is None:
            return function(turn)
        try:
            return thread.run(turn, function)
        except Empty:
            raise self._abandon(thread, f"did not return within {turn.seconds:g} s") from None

    def _ready(self) -> WatchedThread | None:
        """Return the thread, or None if there never was one. Raises BlockedSource."""
        thread, blocking = self._thread, len(self._blocking)
        if blocking >= self._max_blocked:
            raise BlockedSource(f"{blocking} calls have not returned")
        if thread is not None and thread.running():
            return thread
        if blocking:
            raise BlockedSource(f"{blocking} calls have not returned, and there is no thread for another")
        return None

    def _abandon(self, thread: WatchedThread, text: str) -> BlockedCall:
        """Start another thread in the place of *thread*; return the error that says so."""
        self.blocked += 1
        self._blocking.add(id(thread))
        thread.end(lambda: self._blocking.discard(id(thread)))
        self._thread = None
        with suppress(RuntimeError):
            self._thread = WatchedThread()
        return BlockedCall(text)

    def open(self, path: Path) -> int:
        """Open the source for reading. Raises OSError."""
        # The thread and its caller race when the deadline passes: that which finds no token closes the descriptor.
        opened: list[int] = []
        token = [True]

        def open_it() -> int:
            # O_NONBLOCK: a pipe may have no writer.
            opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
            try:
                token.pop()
            except IndexError:
                os.close(opened[0])
            return opened[0]

        try:
            return self.call(self.timeout, open_it)
        except BlockedCall:
            try:
                token.pop()
            except IndexError:
                os.close(opened[0])
            raise

    def size(self, path: Path) -> int:
        """Return the bytes of the source, 0 if it is not known."""
        try:
            # /proc/vmcore can say more than an off_t holds.
            return max(0, self.call(self.timeout, os.stat, path).st_size)
        except OSError:
            return 0

    def close(self, fd: int) -> None:
        """Close the source, which is open at *fd*: that can block as well. An error does no harm."""
        with suppress(OSError):
            self.call(self.timeout, os.close, fd)

    def stop(self) -> None:
        """Let the thread end."""
        if self._thread is not None:
            self._thread.end(lambda: None)
            self._thread = None


class TimedNotes(Reads):
    """Reads of files in the spool: after one that did not return, no more of that file is read."""

    def __init__(self, calls: TimedCalls) -> None:
        self._calls = calls
        self._abandoned: set[int] = set()

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Do as :func:`os.preadv`. Raises BlockedCall, too; *buffer* may then still change."""
        if fd in self._abandoned:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        # If one hangs, the next one may hang, too.
        timeout = self._calls.retry_timeout if self._abandoned else self._calls.timeout
        try:
            return self._calls.call(timeout, os.preadv, fd, [buffer], offset)
        except BlockedSource as error:
            raise OSError(errno.EIO, error.strerror) from error
        except BlockedCall:
            self._abandoned.add(fd)
            raise


class TimedFile(Reads):
    """Reads of the source, open at *fd*; *others* reads all other files."""

    def __init__(self, calls: TimedCalls, fd: int, others: Reads | None = None) -> None:
        self._calls = calls
        self._fd = fd
        self._others = others or Reads()
        self._doubtful = range(0)

    def image(self, path: str) -> Image:
        """Return the bytes of the source. Raises InvalidVmcore."""
        try:
            image = self._calls.call(self._calls.timeout, file_image, self._fd, path)
        except BlockedCall as error:
            raise InvalidVmcore(f"{path}: cannot tell its size: {error.strerror}") from error
        return replace(image, pread=self.pread)

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Do as :func:`os.preadv`. Raises BlockedCall and BlockedSource, too; *buffer* may then still change."""
        if fd != self._fd:
            return self._others.preadv(fd, buffer, offset)
        try:
            return self._calls.call(self._timeout(offset), os.preadv, fd, [buffer], offset)
        except BlockedCall:
            self._doubt(offset, buffer)
            raise

    def run(self, fd: int, copy: Callable[[Preadv], None]) -> None:
        """Call *copy* with a function that reads the file *fd*; only its reads have deadlines.

        Raises BlockedCall and BlockedSource, too; the buffer of the last read may then still change.
        """
        if fd != self._fd:
            self._others.run(fd, copy)
            return
        last = (0, memoryview(b""))

        def run(turn: Turn) -> None:
            def preadv(fd: int, buffer: memoryview, offset: int) -> int:
                nonlocal last
                last = offset, buffer
                return turn.call(self._timeout(offset), reader.preadv, buffer, offset)

            with turn.call(self._calls.timeout, MmapReader, fd) as reader:
                copy(preadv)

        try:
            self._calls.run(run)
        except BlockedSource:
            raise
        except BlockedCall:
            self._doubt(*last)
            raise

    def _timeout(self, offset: int) -> float:
        return self._calls.retry_timeout if offset in self._doubtful else self._calls.timeout

    def _doubt(self, offset: int, buffer: memoryview) -> None:
        """Remember what a read has not returned: the wait for that, and for what follows it, is shorter."""
        end = offset + len(buffer)
        if end not in self._doubtful:
            self._doubtful = range(offset, end + 1)

    def pread(self, size: int, offset: int) -> bytes:
        """Do as :func:`os.pread`, but return fewer bytes only at the end of the file."""
        data = b""
        while size and (more := self._calls.call(self._calls.timeout, os.pread, self._fd, size, offset)):
            data, size, offset = data + more if data else more, size - len(more), offset + len(more)
        return data
