# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls for a source that may never return: each has a deadline, and a thread that is left to itself.

Nothing ends a thread in D state, neither a signal nor a close. So the thread that writes the vmcore does not read
the source: it has another do that, waits for so long and no longer, and goes on with a new one. That other thread
may also write what it has read, in turns; only while it reads, it can be given up.
"""

import errno
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
from .mmap_reader import Windows

_P = ParamSpec("_P")
_T = TypeVar("_T")
TIMEOUT = 30.0
"""Seconds that a call may take."""

RETRY_TIMEOUT = 2.0
"""Seconds for a read of a page, where a read of more has not returned."""

MAX_BLOCKED = 16
"""Calls that have not returned, with which no more are made: each has a thread."""


Preadv = Callable[[int, memoryview, int], int]
"""As :func:`os.preadv`, with one buffer; may raise BlockedCall and BlockedSource."""


class BlockedCall(OSError):
    """A call did not return in time."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.ETIME, text)


class BlockedSource(BlockedCall):
    """So many calls have not returned that no more are made."""


class Reads:
    """Reads that nobody watches."""

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Do as :func:`os.preadv`, with one *buffer*."""
        return os.preadv(fd, [buffer], offset)

    def run(self, fd: int, copy: Callable[[Preadv], None]) -> None:
        """Call *copy* with what reads the file *fd* for it, again and again."""
        copy(self.preadv)


class TimedCalls:
    """Makes calls in a thread that runs from the start, because later there may be no memory for one."""

    def __init__(self) -> None:
        self.blocked = 0
        """Calls that did not return in time, since :meth:`restart`."""
        self._blocking: set[int] = set()
        self._thread: WatchedThread | None = None
        with suppress(RuntimeError):
            self._thread = WatchedThread()

    def restart(self) -> None:
        """Count from 0: somebody tries again, and what did not return may have returned."""
        self.blocked = 0

    def call(self, seconds: float, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what *function* returns. Where no thread can be had, nobody watches how long that takes.

        Raises BlockedCall when it takes longer than *seconds*, BlockedSource, without calling it, when too many
        have not returned, and what it raises.
        """
        thread = self._ready()
        if thread is None:
            return function(*args, **kwargs)
        try:
            return thread.call(seconds, function, *args, **kwargs)
        except Empty:
            raise self._give_up(thread, f"did not return within {seconds:g} s") from None

    def run(self, function: Callable[[Turn], None]) -> None:
        """Call *function*, which makes those calls that may never return by :meth:`Turn.call`.

        Raises BlockedCall when one of these takes too long, the rest as :meth:`call`.
        """
        thread, turn = self._ready(), Turn()
        if thread is None:
            function(turn)
            return
        try:
            thread.run(turn, function)
        except Empty:
            raise self._give_up(thread, "did not return in time") from None

    def _ready(self) -> "WatchedThread | None":
        """Return the thread, or None where there is none, and never was. Raises BlockedSource."""
        thread, blocking = self._thread, len(self._blocking)
        if blocking >= MAX_BLOCKED:
            raise BlockedSource(f"{blocking} calls have not returned")
        if thread is not None and thread.running():
            return thread
        if blocking:
            raise BlockedSource(f"{blocking} calls have not returned, and there is no thread for another")
        return None

    def _give_up(self, thread: "WatchedThread", text: str) -> BlockedCall:
        """Leave *thread* to itself, and have another; return the error that says so."""
        self.blocked += 1
        self._blocking.add(id(thread))
        thread.end(lambda: self._blocking.discard(id(thread)))
        self._thread = None
        with suppress(RuntimeError):
            self._thread = WatchedThread()
        return BlockedCall(text)

    def open(self, path: Path) -> int:
        """Open the source for reading. Raises OSError."""
        # Who takes the token has to care for the descriptor.
        opened: list[int] = []
        token = [True]

        def open_it() -> int:
            # Nobody need be at the other end of a pipe.
            opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
            try:
                token.pop()
            except IndexError:
                os.close(opened[0])
            return opened[0]

        try:
            return self.call(TIMEOUT, open_it)
        except BlockedCall:
            try:
                token.pop()
            except IndexError:
                os.close(opened[0])
            raise

    def size(self, path: Path) -> int:
        """Return the bytes of the source, 0 where nobody knows."""
        try:
            return self.call(TIMEOUT, os.stat, path).st_size
        except OSError:
            return 0

    def close(self, fd: int) -> None:
        """Close the source, which is open at *fd*: some file systems wait there, too. An error does no harm."""
        with suppress(OSError):
            self.call(TIMEOUT, os.close, fd)

    def stop(self) -> None:
        """Let the thread end."""
        if self._thread is not None:
            self._thread.end(lambda: None)
            self._thread = None


class TimedNotes(Reads):
    """Reads of files in the spool: one that does not answer is given up as a whole, and not waited for again."""

    def __init__(self, calls: TimedCalls) -> None:
        self._calls = calls
        self._given_up: set[int] = set()

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Do as :func:`os.preadv`. Raises BlockedCall, too; then *buffer* may yet change."""
        if fd in self._given_up:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        # Where one hangs, the next one may, too.
        timeout = RETRY_TIMEOUT if self._given_up else TIMEOUT
        try:
            return self._calls.call(timeout, os.preadv, fd, [buffer], offset)
        except BlockedSource as error:
            raise OSError(errno.EIO, error.strerror) from error
        except BlockedCall:
            self._given_up.add(fd)
            raise

    def run(self, fd: int, copy: Callable[[Preadv], None]) -> None:
        """Call *copy* with :meth:`preadv`."""
        copy(self.preadv)


class TimedFile(Reads):
    """Reads of the source, open at *fd*; what is read of *others* has deadlines of its own."""

    def __init__(self, calls: TimedCalls, fd: int, others: Reads | None = None) -> None:
        self._calls = calls
        self._fd = fd
        self._others = others or Reads()
        self._doubtful = range(0)

    def image(self, path: str) -> Image:
        """Return the bytes of the source. Raises InvalidVmcore."""
        try:
            image = self._calls.call(TIMEOUT, file_image, self._fd, path)
        except BlockedCall as error:
            raise InvalidVmcore(f"{path}: cannot tell its size: {error.strerror}") from error
        return replace(image, pread=self.pread)

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Do as :func:`os.preadv`. Raises BlockedCall and BlockedSource, too; then *buffer* may yet change."""
        if fd != self._fd:
            return self._others.preadv(fd, buffer, offset)
        try:
            return self._calls.call(self._timeout(offset), os.preadv, fd, [buffer], offset)
        except BlockedCall:
            self._doubt(offset, buffer)
            raise

    def run(self, fd: int, copy: Callable[[Preadv], None]) -> None:
        """Call *copy* with what reads the file *fd* for it; only a read can be given up.

        Raises BlockedCall and BlockedSource, too; then the buffer of the last read may yet change.
        """
        if fd != self._fd:
            self._others.run(fd, copy)
            return
        last = (0, memoryview(b""))

        def run(turn: Turn) -> None:
            def preadv(fd: int, buffer: memoryview, offset: int) -> int:
                nonlocal last
                last = offset, buffer
                return turn.call(self._timeout(offset), windows.preadv, buffer, offset)

            with turn.call(TIMEOUT, Windows, fd) as windows:
                copy(preadv)

        try:
            self._calls.run(run)
        except BlockedSource:
            raise
        except BlockedCall:
            self._doubt(*last)
            raise

    def _timeout(self, offset: int) -> float:
        return RETRY_TIMEOUT if offset in self._doubtful else TIMEOUT

    def _doubt(self, offset: int, buffer: memoryview) -> None:
        """Remember what a read has not returned: for that, and what is right behind it, the wait is shorter."""
        end = offset + len(buffer)
        if end not in self._doubtful:
            self._doubtful = range(offset, end + 1)

    def pread(self, size: int, offset: int) -> bytes:
        """Do as :func:`os.pread`, but return fewer bytes only at the end of the file."""
        data = b""
        while size and (more := self._calls.call(TIMEOUT, os.pread, self._fd, size, offset)):
            data, size, offset = data + more if data else more, size - len(more), offset + len(more)
        return data
