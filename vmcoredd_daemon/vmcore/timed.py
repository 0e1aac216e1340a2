# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls for a source that may never return: each has a deadline, and a thread that is left to itself.

Nothing ends a thread in D state, neither a signal nor a close. So the thread that writes the vmcore does not read
the source: it has another do that, waits for so long and no longer, and goes on with a new one.
"""

import _thread
import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from ..errors import InvalidVmcore
from .image import Image, file_image

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Request = Callable[[], None] | None

TIMEOUT = 30.0
"""Seconds that a call may take."""

RETRY_TIMEOUT = 2.0
"""Seconds for a read of a page, where a read of more has not returned."""

MAX_BLOCKED = 16
"""Calls that have not returned, with which no more are made: each has a thread."""

_START_TIMEOUT = 5.0
"""Seconds that a thread may take to begin."""


class BlockedCall(OSError):
    """A call did not return in time."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.ETIME, text)


class BlockedSource(BlockedCall):
    """So many calls have not returned that no more are made."""


class TimedCalls:
    """Makes calls in a thread that runs from the start, because later there may be no memory for one."""

    def __init__(self) -> None:
        self.blocked = 0
        """Calls that did not return in time, since :meth:`restart`."""
        self._blocking: set[int] = set()
        self._thread: _Thread | None = None
        with suppress(RuntimeError):
            self._thread = _Thread()

    def restart(self) -> None:
        """Count from 0: somebody tries again, and what did not return may have returned."""
        self.blocked = 0

    def call(self, seconds: float, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what *function* returns. Where no thread can be had, nobody watches how long that takes.

        Raises BlockedCall when it takes longer than *seconds*, BlockedSource, without calling it, when too many
        have not returned, and what it raises.
        """
        thread, blocking = self._thread, len(self._blocking)
        if blocking >= MAX_BLOCKED:
            raise BlockedSource(f"{blocking} calls have not returned")
        if thread is None or not thread.running():
            if blocking:
                raise BlockedSource(f"{blocking} calls have not returned, and there is no thread for another")
            return function(*args, **kwargs)
        try:
            return thread.call(seconds, function, *args, **kwargs)
        except Empty:
            self.blocked += 1
            self._blocking.add(id(thread))
            thread.end(lambda: self._blocking.discard(id(thread)))
            self._thread = None
            with suppress(RuntimeError):
                self._thread = _Thread()
            raise BlockedCall(f"did not return within {seconds:g} s") from None

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


class TimedNotes:
    """Reads of files in the spool: one that does not answer is given up as a whole, and not waited for again."""

    def __init__(self, calls: TimedCalls) -> None:
        self._calls = calls
        self._given_up: set[int] = set()

    def preadv(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        """Do as :func:`os.preadv`. Raises BlockedCall, too; then *buffers* may yet change."""
        if fd in self._given_up:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        # Where one hangs, the next one may, too.
        timeout = RETRY_TIMEOUT if self._given_up else TIMEOUT
        try:
            return self._calls.call(timeout, os.preadv, fd, buffers, offset)
        except BlockedSource as error:
            raise OSError(errno.EIO, error.strerror) from error
        except BlockedCall:
            self._given_up.add(fd)
            raise


class TimedFile:
    """Reads of the source, open at *fd*; what is read of *others* has deadlines of its own."""

    def __init__(self, calls: TimedCalls, fd: int, others: TimedNotes | None = None) -> None:
        self._calls = calls
        self._fd = fd
        self._others = os.preadv if others is None else others.preadv
        self._doubtful = range(0)

    def image(self, path: str) -> Image:
        """Return the bytes of the source. Raises InvalidVmcore."""
        try:
            image = self._calls.call(TIMEOUT, file_image, self._fd, path)
        except BlockedCall as error:
            raise InvalidVmcore(f"{path}: cannot tell its size: {error.strerror}") from error
        return replace(image, pread=self.pread)

    def preadv(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        """Do as :func:`os.preadv`. Raises BlockedCall and BlockedSource, too; then *buffers* may yet change."""
        if fd != self._fd:
            return self._others(fd, buffers, offset)
        timeout = RETRY_TIMEOUT if offset in self._doubtful else TIMEOUT
        try:
            return self._calls.call(timeout, os.preadv, fd, buffers, offset)
        except BlockedCall:
            end = offset + sum(map(len, buffers))
            if end not in self._doubtful:
                self._doubtful = range(offset, end + 1)
            raise

    def pread(self, size: int, offset: int) -> bytes:
        """Do as :func:`os.pread`, but return fewer bytes only at the end of the file."""
        data = b""
        while size and (more := self._calls.call(TIMEOUT, os.pread, self._fd, size, offset)):
            data, size, offset = data + more if data else more, size - len(more), offset + len(more)
        return data


class _Thread:
    """One thread, which makes one call after the other, and that nobody waits for when the process ends."""

    def __init__(self) -> None:
        self._requests: SimpleQueue[_Request] = SimpleQueue()
        self._results: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()
        self._began = False
        # threading.Thread waits until the thread runs: for ever where it has no memory to begin with.
        _thread.start_new_thread(self._serve, ())

    def running(self) -> bool:
        """Wait until it has begun; return False when it does not."""
        if not self._began:
            with suppress(Empty):
                self._results.get(timeout=_START_TIMEOUT)
                self._began = True
        return self._began

    def call(self, seconds: float, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what *function* returns. Raises Empty when that takes too long, and what it raises."""

        def work() -> None:
            try:
                self._results.put((function(*args, **kwargs), None))
            except Exception as error:
                self._results.put((None, error))

        self._requests.put(work)
        result, error = self._results.get(timeout=seconds)
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def end(self, last: Callable[[], None]) -> None:
        """Call *last* in the thread, and let it end, when what it does is done."""
        self._requests.put(last)
        self._requests.put(None)

    def _serve(self) -> None:
        self._results.put((None, None))
        while (request := self._requests.get()) is not None:
            request()
