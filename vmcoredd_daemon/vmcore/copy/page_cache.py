# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write a large file so that the page cache is not in the way: neither its memory, nor the time that it takes.

Left alone, the kernel lets a tenth of the memory become dirty before it writes any of it
(``vm.dirty_background_ratio``), and the fsync(2) at the end waits for the rest. With a second processor,
write-back is begun early, and goes on beside the copy. A capture kernel has one processor (``nr_cpus=1``) and
little memory: there, to allocate a page, copy to it, write it back and take it away again is most of the work, so
what comes in long runs is written directly. docs/performance.md has the figures.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from ...files import BLOCK_SIZE, pwrite
from .write_back import written_back

DIRECT_SIZE = 256 << 10
"""Bytes of the shortest run that is written directly: each takes one turn of the disk."""

_ALIGNMENT = 4096
"""Of a direct write: what every disk takes (``dio_offset_align`` of statx(2) is 512 or 4096)."""


class Writes:
    """Writes to the file *fd*, of *block_size* bytes at most at once."""

    block_size = BLOCK_SIZE

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of *data* at *offset*. Raises OSError."""
        pwrite(self._fd, data, offset)


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
            self.close()
            rest = len(data)
        super().write(data[len(data) - rest :], offset + len(data) - rest)

    def close(self) -> None:
        """Write through the page cache from here on."""
        fd, self._direct = self._direct, -1
        if fd >= 0:
            # What was written is synced by the other descriptor.
            with suppress(OSError):
                os.close(fd)


@contextmanager
def writes(fd: int) -> Iterator[Writes]:
    """Yield the better way to write much to the file *fd* on this machine."""
    if len(os.sched_getaffinity(0)) > 1:
        with written_back(f"/proc/self/fd/{fd}"):
            yield Writes(fd)
    else:
        with closing(DirectWrites(fd)) as direct:
            yield direct
