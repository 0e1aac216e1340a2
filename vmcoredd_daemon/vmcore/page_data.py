# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the page data of a kdump-compressed vmcore are, by its page descriptors, and which pages lie elsewhere.

makedumpfile's ``write_kdump_pages_and_bitmap_cyclic()`` and QEMU's ``write_dump_pages()`` write both in the order
of the pages: the last descriptor is that of the last data. All pages of zeros may share the data that come first.
``attach`` puts notes behind the data, and makedumpfile the record of what it erased.
"""

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InvalidVmcore
from .image import Image
from .kdump import PAGE_DESC, PAGE_DESC_SIZE, KdumpHeader, count_bits

MAX_BITMAP = 1 << 31
"""Bytes of a bitmap in which pages are counted: that of 64 TiB of memory."""
_BLOCK = PAGE_DESC_SIZE << 13
"""Bytes of descriptors that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class PageData:
    """The page data of one file; offsets in bytes."""

    image: Image
    header: KdumpHeader
    pages: int
    """How many the file has."""

    @property
    def start(self) -> int:
        """Where they begin: behind the descriptors."""
        return self.header.data_offset + self.pages * PAGE_DESC_SIZE

    @property
    def end(self) -> int:
        """Where they end at most: at what was put behind them, or with the file."""
        header = self.header
        behind = ((header.offset_note, header.size_note), (header.offset_eraseinfo, header.size_eraseinfo))
        return min([offset for offset, size in behind if size and offset >= self.start] + [self.image.size])

    @property
    def is_cut(self) -> bool:
        """Whether the file ends before them, by the last descriptors. Raises OSError."""
        end = self.start
        while end > self.header.data_offset:
            start = max(self.header.data_offset, end - _BLOCK)
            table = self.image.pread(end - start, start)
            if len(table) < end - start:
                return True
            ends = [offset + size for offset, size in self._places(table) if offset != self.start]
            if ends:
                return max(ends) > self.end
            end = start
        return self.start > self.end

    def missing(self, progress: Callable[[int], None] = lambda size: None) -> int:
        """Return how many pages are not there; *progress* is called with the bytes read. Raises OSError."""
        offset, missing = self.header.data_offset, 0
        while offset < self.start:
            data = self.image.pread(min(_BLOCK, self.start - offset), offset)
            table = data[: len(data) // PAGE_DESC_SIZE * PAGE_DESC_SIZE]
            if not table:
                return missing + (self.start - offset) // PAGE_DESC_SIZE
            missing += sum(not self.start <= place <= self.end - size for place, size in self._places(table))
            progress(len(table))
            offset += len(table)
        return missing

    def _places(self, table: bytes) -> list[tuple[int, int]]:
        form = self.header.byteorder.prefix + PAGE_DESC
        return [(offset, size) for offset, size, _, _ in struct.iter_unpack(form, table)]


def page_data(image: Image, header: KdumpHeader) -> PageData | None:
    """Return where the page data of *image* are, None if its bitmaps are too large. Raises InvalidVmcore."""
    offset, size = header.bitmaps[1]
    return None if size > MAX_BITMAP else PageData(image, header, count_bits(image, offset, size))


def cut_off_at(image: Image, header: KdumpHeader) -> str | None:
    """Return what is wrong if the file ends before its page data, and does not say so itself.

    Raises InvalidVmcore.
    """
    if header.incomplete:
        return None
    try:
        data = page_data(image, header)
        if data is None or not data.is_cut:
            return None
    except OSError as error:
        reason = error.strerror or os.strerror(errno.EIO)
        raise InvalidVmcore(f"{image.path}: cannot read the page descriptors: {reason}") from error
    return f"is cut off: its page data end at {data.end:#x}, before the last page"
