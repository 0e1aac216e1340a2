# SPDX-License-Identifier: LGPL-2.1-or-later
"""Have written to disk what somebody is writing to a file, while it still goes on.

Left alone, all of that waits for the fsync(2) at the end, when the processor has nothing to do; and in a capture
kernel there is little memory for what is not on disk. POSIX_FADV_DONTNEED begins to write pages that are
not on disk, without waiting for that, and takes those that are out of the cache (Linux ``mm/fadvise.c``).
"""

import _thread
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ...files import begin_write_back

INTERVAL = 0.02
"""Seconds between two looks at the file."""

_BLOCK = 1 << 20
"""Bytes; what is at the end of the file is written to in a moment again."""


@contextmanager
def write_back_while(path: str | os.PathLike[str]) -> Iterator[None]:
    """Have what is appended to *path*, which need not be there yet, written back while the context lasts.

    In a thread that nobody waits for: a disk may not answer. Where anything fails, it is written back later.
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
        while not ending.wait(INTERVAL):
            # What was begun the last time is on disk by now, and leaves the cache.
            begun, behind = behind, _write_back(path, begun)


def _write_back(path: str | os.PathLike[str], start: int) -> int:
    """Begin to write back from the offset *start* on; return where that ends, 0 where there is no file."""
    try:
        # To open a pipe would be noticed at its other end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return 0
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return 0
    try:
        end = os.fstat(fd).st_size // _BLOCK * _BLOCK
        if end > start:
            begin_write_back(fd, start, end - start)
        return end
    finally:
        os.close(fd)
