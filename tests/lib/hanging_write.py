# SPDX-License-Identifier: LGPL-2.1-or-later
"""A write(2) that hangs with the lock of its file: what it is to write is never provided.

The memory is a mapping of a FUSE file. What writes to the same file, or makes or removes a name of it, waits
uninterruptibly.
"""

import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lib.fuse import Source, fuse_source
from tests.lib.waiting import wait_until

PAGES = 64
"""Writes that there can be."""


class HangingWrites:
    """Writes to files; each hangs until :meth:`end`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        source.read = lambda offset, size: None
        file = os.open(source.path, os.O_RDONLY)
        self._memory = mmap.mmap(file, source.size, mmap.MAP_PRIVATE, mmap.PROT_READ)
        os.close(file)
        # Each page is read for itself.
        self._memory.madvise(mmap.MADV_RANDOM)
        self._threads: list[threading.Thread] = []

    def begin(self, fd: int, offset: int) -> None:
        """Begin to write a page of data to *fd*; return when the write hangs. Blocks for a moment."""
        number = len(self._threads)
        thread = threading.Thread(target=self._write, args=(os.dup(fd), offset, number))
        thread.start()
        self._threads.append(thread)
        wait_until(lambda: len(self._source.hanging) > number)

    def _write(self, fd: int, offset: int, number: int) -> None:
        try:
            with memoryview(self._memory) as memory:
                os.pwrite(fd, memory[number * mmap.PAGESIZE : (number + 1) * mmap.PAGESIZE], offset)
        finally:
            os.close(fd)

    def end(self) -> None:
        """Provide the data, and wait until all is written."""
        self._source.answer_late(b"x")
        for thread in self._threads:
            thread.join()
        # It has a descriptor. Another program that is started would close that one in vfork(2), and wait for the
        # server, a thread of ours that cannot run meanwhile.
        self._memory.close()


@contextmanager
def hanging_writes(directory: Path) -> Iterator[HangingWrites]:
    """Provide them, with a file system at *directory*; they end with the context."""
    original = directory.with_name(f"{directory.name}.original")
    original.write_bytes(bytes(PAGES * mmap.PAGESIZE))
    with fuse_source(original, directory) as source:
        writes = HangingWrites(source)
        try:
            yield writes
        finally:
            writes.end()
