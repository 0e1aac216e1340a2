# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keep the page cache out of the way of a large file that is written: it costs memory, and time.

Left alone, the kernel lets a tenth of the memory become dirty before it writes any of it
(``vm.dirty_background_ratio``), and the fsync(2) at the end waits for the rest while the processor is idle. With a
second processor, write-back is begun early and runs beside the copy. A capture kernel has one processor
(``nr_cpus=1``) and little memory: there, most of the work is to allocate a page, copy to it, write it back and
free it, so long runs are written directly. docs/performance.md has the figures.
"""

import _thread
import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from ...files import BLOCK_SIZE, begin_write_back, close, pwrite

WRITE_BACK_INTERVAL = 0.02
"""Seconds between two looks at a file that grows."""

_WRITE_BACK_SIZE = 1 << 20
"""Bytes that are written back together: the last, unfinished ones will soon be written to again."""

DIRECT_SIZE = 256 << 10
"""Bytes of the shortest run that is written directly: each run is one request to the disk."""

_ALIGNMENT = 4096
"""Bytes: every disk takes direct writes aligned to them (``dio_offset_align`` of statx(2) is 512 or 4096)."""


class Writes:
    """Writes to the file *fd*, of *block_size* bytes at most."""

    block_size = BLOCK_SIZE

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of *data* at *offset*. Raises OSError."""
        pwrite(self._fd, data, offset)


class DirectWrites(Writes):
    """Writes past the page cache (O_DIRECT) if that pays, and if the file system can do it."""

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
            # This disk, or this file system, has stricter rules.
            self.close()
            rest = len(data)
        super().write(data[len(data) - rest :], offset + len(data) - rest)

    def close(self) -> None:
        """Write through the page cache from here on."""
        fd, self._direct = self._direct, -1
        if fd >= 0:
            # fsync(2) of the other descriptor covers what was written here.
            close(fd)


@contextmanager
def writes(fd: int) -> Iterator[Writes]:
    """Yield the faster way to write much to the file *fd* on this machine."""
    if len(os.sched_getaffinity(0)) > 1:
        with write_back_while(f"/proc/self/fd/{fd}"):
            yield Writes(fd)
    else:
        with closing(DirectWrites(fd)) as direct:
            yield direct


@contextmanager
def write_back_while(path: str | os.PathLike[str]) -> Iterator[None]:
    """Begin to write back what is appended to *path*, which may not exist yet, while the context lasts.

    A thread of its own does it, which is never joined, because a disk may not answer. If anything fails, the
    kernel writes back later.
    """
    ending = threading.Event()
    with suppress(RuntimeError):
        _thread.start_new_thread(_follow, (path, ending))
    try:
        yield
    finally:
        ending.set()


def _follow(path: str | os.PathLike[str], ending: threading.Event) -> None:
    begun = behind = 0
    with suppress(OSError, MemoryError):
        while not ending.wait(WRITE_BACK_INTERVAL):
            # Once more from where the last one began: that is on disk by now, and leaves the cache.
            begun, behind = behind, _write_back(path, begun)


def _write_back(path: str | os.PathLike[str], start: int) -> int:
    """Begin to write back from the offset *start* on; return where that ends, 0 if there is no file."""
    try:
        # Its writer or reader would notice if a pipe was opened.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return 0
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return 0
    try:
        end = os.fstat(fd).st_size // _WRITE_BACK_SIZE * _WRITE_BACK_SIZE
        if end > start:
            begin_write_back(fd, start, end - start)
        return end
    finally:
        os.close(fd)
