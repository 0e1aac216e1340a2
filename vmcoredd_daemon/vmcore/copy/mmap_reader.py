# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads of ``/proc/vmcore`` through windows that are mapped, which take a third of the time of read(2).

A read maps each page by itself and unmaps it again (``copy_oldmem_page()`` in Linux
``arch/x86/kernel/crash_dump_64.c``), ``mmap_vmcore()`` in ``fs/proc/vmcore.c`` maps all of them at once. Of a file
that somebody can truncate that would be dangerous: a page that is not there any more is SIGBUS, which ends the
process. Nobody can truncate what is in /proc. Python maps and copies while its other threads wait, so a file that
may not answer is never mapped either.
"""

import mmap
import os
from types import TracebackType
from typing import Self

WINDOW = 4 << 20
"""Bytes that are mapped at a time; with more, no time is gained."""


def cannot_shrink(fd: int) -> bool:
    """Tell whether the file *fd* is known to be in the kernel's own /proc, and mapped at once or not at all."""
    # mmap_vmcore_fault() of s390 maps one page after the other, and has SIGBUS for those that it cannot read.
    if os.uname().machine.startswith("s390"):
        return False
    # mmap_vmcore() waits for the answer of a virtio-mem device (virtio_mem_vmcore_pfn_is_ram()).
    if any(name.startswith("virtio") for name in _names("/sys/bus/virtio/drivers/virtio_mem")):
        return False
    try:
        # No other file system has that link.
        return os.fstat(fd).st_dev == os.stat("/proc").st_dev and os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


class Windows:
    """The file *fd*, of which one window is mapped, if it can be. Not for several threads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._mappable = cannot_shrink(fd)
        self._mapped: mmap.mmap | None = None
        self._start = self._end = 0

    def preadv(self, buffer: memoryview, offset: int) -> int:
        """Do as :func:`os.preadv`, with one *buffer*; where nothing can be mapped, by that."""
        end = offset + len(buffer)
        try:
            mapped = self._map(offset, end) if self._mappable else None
        except (OSError, ValueError):
            mapped = None
        if mapped is None:
            return os.preadv(self._fd, [buffer], offset)
        with memoryview(mapped) as window:
            buffer[:] = window[offset - self._start : end - self._start]
        return len(buffer)

    def _map(self, offset: int, end: int) -> mmap.mmap:
        """Return a window that has what is from *offset* to *end*. Raises OSError and ValueError."""
        if self._mapped is None or not self._start <= offset < end <= self._end:
            self.close()
            self._start = offset - offset % mmap.ALLOCATIONGRANULARITY
            self._end = max(end, min(self._start + WINDOW, os.fstat(self._fd).st_size))
            size = self._end - self._start
            self._mapped = mmap.mmap(
                self._fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ, offset=self._start
            )
        return self._mapped

    def close(self) -> None:
        """Unmap what is mapped."""
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
