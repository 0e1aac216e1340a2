# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write a large file so that the page cache is not in the way: neither its memory, nor the time that it takes.

Left alone, the kernel lets a tenth of the memory become dirty before it writes any of it
(``vm.dirty_background_ratio``), and the fsync(2) at the end waits for the rest. With a second processor,
write-back is begun early, and goes on beside the copy. A capture kernel has one processor (``nr_cpus=1``) and
little memory: there, to allocate a page, copy to it, write it back and take it away again is most of the work, so
what comes in long runs is written directly. docs/performance.md has the figures.
"""

import _thread
import errno
import os
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from .image import pwrite

WINDOW = 8 << 20
"""Bytes that are to be written back at a time."""

DIRECT_SIZE = 256 << 10
"""Bytes of the shortest run that is written directly: each takes one turn of the disk."""

_ALIGNMENT = 4096
"""Of a direct write: what every disk takes (``dio_offset_align`` of statx(2) is 512 or 4096)."""

_STOP_TIMEOUT = 5.0
"""Seconds that the last request may take, when nobody wants more."""


class Writes:
    """Writes to the file *fd*, of *block_size* bytes at most at once."""

    block_size = 256 << 10
    """As large as fits into a processor's own cache, together with what it is copied to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of *data* at *offset*. Raises OSError."""
        pwrite(self._fd, data, offset)

    def reach(self, end: int) -> None:
        """Know that the file is written up to *end*."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Be done with it."""


def writes(fd: int) -> Writes:
    """Return the better way to write much to the file *fd* on this machine."""
    return DirectWrites(fd) if len(os.sched_getaffinity(0)) == 1 else WriteBack(fd)


class WriteBack(Writes):
    """Has the kernel write what is in its cache, in a thread: it waits there when the disk has enough to do.

    Nothing of it is promised: where there is no thread, or the file system has no such cache, all is as it was.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._requests: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._requested = 0
        self._active = False
        try:
            # Of its own, because it may be late: closed by the thread.
            own = os.dup(fd)
        except OSError:
            return
        try:
            _thread.start_new_thread(self._serve, (own,))
        except RuntimeError:
            os.close(own)
            return
        self._active = True

    def reach(self, end: int) -> None:
        """Know that the file is written up to *end*."""
        if self._active and end - self._requested >= WINDOW:
            self._requests.put((self._requested, end - self._requested))
            self._requested = end

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask for nothing more."""
        if self._active:
            self._active = False
            self._requests.put(None)
            with suppress(Empty):
                self._ended.get(timeout=_STOP_TIMEOUT)

    def _serve(self, fd: int) -> None:
        before: list[tuple[int, int]] = []
        try:
            while (window := self._requests.get()) is not None and self._active:
                # POSIX_FADV_DONTNEED begins to write what is dirty, and drops what is clean (generic_fadvise() in
                # Linux mm/fadvise.c): that of the window before, by now.
                for offset, size in (window, *before):
                    os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)
                before = [window]
        except OSError:
            pass
        finally:
            with suppress(OSError):
                os.close(fd)
            self._ended.put(None)


class DirectWrites(Writes):
    """Writes past the page cache (O_DIRECT) where that pays, and where the file system can."""

    block_size = 1 << 20

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._direct = -1
        with suppress(OSError):
            self._direct = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of *data*, which lies at a page of the memory, at *offset*. Raises OSError."""
        if self._direct < 0 or len(data) < DIRECT_SIZE or offset % _ALIGNMENT:
            super().write(data, offset)
            return
        rest = len(data) % _ALIGNMENT
        try:
            pwrite(self._direct, data[: len(data) - rest], offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A disk, or a file system, that wants more than that.
            self._close()
            rest = len(data)
        super().write(data[len(data) - rest :], offset + len(data) - rest)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write through the page cache from here on."""
        self._close()

    def _close(self) -> None:
        fd, self._direct = self._direct, -1
        if fd >= 0:
            # What was written is synced by the other descriptor.
            with suppress(OSError):
                os.close(fd)
