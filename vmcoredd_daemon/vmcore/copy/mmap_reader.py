# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads ``/proc/vmcore`` through a mapped window, which takes a third of the time of read(2).

read(2) maps and unmaps each page by itself (``copy_oldmem_page()`` in Linux ``arch/x86/kernel/crash_dump_64.c``),
``mmap_vmcore()`` in ``fs/proc/vmcore.c`` maps all of the window. A file that can be truncated must not be mapped:
touching a page that is gone is SIGBUS, which ends the process. Files in /proc cannot be truncated. A file that may
block must not be mapped either, because Python holds the GIL while it maps and copies.
"""

import mmap
import os
from types import TracebackType
from typing import Self

WINDOW = 4 << 20
"""Bytes that are mapped at a time; larger windows are no faster."""


def cannot_shrink(fd: int) -> bool:
    """Tell whether the file *fd* is in the kernel's own /proc, and is mapped completely or not at all."""
    # On s390, mmap_vmcore_fault() maps each page when it is touched, and raises SIGBUS if it cannot read it.
    if os.uname().machine.startswith("s390"):
        return False
    # With virtio-mem, mmap_vmcore() waits for the device (virtio_mem_vmcore_pfn_is_ram()).
    if any(name.startswith("virtio") for name in _names("/sys/bus/virtio/drivers/virtio_mem")):
        return False
    try:
        # Only procfs has that link.
        return os.fstat(fd).st_dev == os.stat("/proc").st_dev and os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


class MmapReader:
    """The file *fd*, with one window of it mapped if that is safe. Not thread-safe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._mappable = cannot_shrink(fd)
        self._mapped: mmap.mmap | None = None
        self._start = self._end = 0

    def preadv(self, buffer: memoryview, offset: int) -> int:
        """Do as :func:`os.preadv`, with one *buffer*, by a mapping or, if there is none, by it."""
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
