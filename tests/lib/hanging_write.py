# SPDX-License-Identifier: LGPL-2.1-or-later
"""A write(2) that hangs with the lock of its file: what it is to write is never provided.

The memory is a mapping of a FUSE file. Whoever writes to the same file, or makes or removes a name of it, waits
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


class HangingWrites:
    """Writes to files; each hangs until :meth:`end`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        source.read = lambda offset, size: None
        file = os.open(source.path, os.O_RDONLY)
        self._memory = mmap.mmap(file, mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ)
        os.close(file)
        self._threads: list[threading.Thread] = []

    def begin(self, fd: int, offset: int) -> None:
        """Begin to write a page of data to *fd*; return when the write hangs. Blocks for a moment."""
        thread = threading.Thread(target=self._write, args=(os.dup(fd), offset))
        thread.start()
        self._threads.append(thread)
        wait_until(lambda: self._source.hanging)

    def _write(self, fd: int, offset: int) -> None:
        try:
            os.pwrite(fd, self._memory, offset)
        finally:
            os.close(fd)

    def end(self) -> None:
        """Provide the data, and wait until all is written."""
        self._source.answer_late(b"x")
        for thread in self._threads:
            thread.join()


@contextmanager
def hanging_writes(directory: Path) -> Iterator[HangingWrites]:
    """Provide them, with a file system at *directory*; they end with the context."""
    original = directory.with_name(f"{directory.name}.original")
    original.write_bytes(bytes(mmap.PAGESIZE))
    with fuse_source(original, directory) as source:
        writes = HangingWrites(source)
        try:
            yield writes
        finally:
            writes.end()
