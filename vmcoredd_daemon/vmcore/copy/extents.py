# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies ranges of bytes into a vmcore.

Runs of zero pages become holes. A page that cannot be read becomes zeros and is counted: one bad page makes a
read() of the block around it fail with EFAULT (``read_vmcore()`` in Linux ``fs/proc/vmcore.c``), so a failed read
is bisected down to the page. A read that does not return is abandoned, see :mod:`.source`, and the pages of its
block are read one by one.

One thread reads, finds zeros and writes, block by block: another thread would have to fetch the block from the
cache of another processor, and the hand-over takes as long as the copy.
"""

import errno
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import NO_SPACE
from ...progress import Progress
from ..layout import Extent
from .page_cache import Writes, writes
from .source import BlockedCall, BlockedSource, Preadv, Reads
from .zero_pages import Block, ZeroPages


@dataclass(slots=True)
class CopyReport:
    """What went wrong in a copy."""

    unreadable_pages: int = 0
    missing_bytes: int = 0
    """Bytes that the headers promise, but that are beyond the end of a truncated source."""
    left_out: int = 0
    """Bytes of memory that are not in the file, which then keeps the name vmcore-incomplete."""
    blocked: bool = False
    """They are left out because the source stopped responding; otherwise, because the target is full."""
    altered: tuple[str, ...] = ()
    """Device dumps of ours whose data is no longer what was acknowledged."""
    unread: tuple[str, ...] = ()
    """Device dumps of ours that could not be read completely; zeros are in the place of the rest."""

    @property
    def zeroed(self) -> tuple[int, int]:
        """The two counts of what is zeros because it could not be read."""
        return self.unreadable_pages, self.missing_bytes


class ExtentCopy:
    """Copies extents into one file, through one buffer; *sparse* if the file has only zeros so far."""

    def __init__(
        self, fd: int, page_size: int, progress: Progress, *, sparse: bool = True, reads: Reads | None = None
    ) -> None:
        self.report = CopyReport()
        self._fd = fd
        self._page_size = page_size
        self._zero_pages = ZeroPages(page_size) if sparse else None
        self._progress = progress
        self._reads = reads or Reads()
        self._writes = Writes(fd)
        self._buffer = _buffer(self._writes.block_size)
        self._last_unreadable = (-1, -1)
        self._position = 0

    def loads(self, extents: Sequence[Extent], end: int) -> int:
        """Copy as much of the memory as fits, or as the source gives; return where the file ends.

        That is *end* if all of it is copied. Part of the memory is better than none: makedumpfile keeps it, too,
        and the kernel itself comes first.
        """
        try:
            with writes(self._fd) as self._writes:
                self._buffer = _buffer(self._writes.block_size)
                return self._loads(extents, end)
        finally:
            self._writes = Writes(self._fd)

    def _loads(self, extents: Sequence[Extent], end: int) -> int:
        for number, extent in enumerate(extents):
            try:
                self.extent(extent)
            except OSError as error:
                self.report.blocked = isinstance(error, BlockedSource)
                if error.errno not in NO_SPACE and not self.report.blocked:
                    raise
                rest = sum(later.size for later in extents[number + 1 :])
                self.report.left_out = extent.offset + extent.size - self._position + rest
                return self._position
        return end

    def extent(self, extent: Extent) -> None:
        """Copy one extent, with zeros for what cannot be read. Raises OSError if it cannot be written."""
        self._position = extent.offset
        end = extent.offset + extent.size
        while self._position < end:
            read = self._read
            try:
                self._reads.run(extent.fd, lambda preadv: self._complete_blocks(extent, preadv))
            except BlockedSource:
                raise
            except BlockedCall:
                # The abandoned read may still write to its buffer.
                self._buffer = _buffer(self._writes.block_size)
                read = self._read_pages
            if self._position < end:
                self._doubtful_block(extent, read)

    def _complete_blocks(self, extent: Extent, preadv: Preadv) -> None:
        """Copy from the position on, up to the end or to a block that one read does not return completely."""
        buffer, shift = self._buffer, extent.source_offset - extent.offset
        while size := min(self._writes.block_size, extent.offset + extent.size - self._position):
            try:
                if preadv(extent.fd, memoryview(buffer)[:size], self._position + shift) != size:
                    return
            except BlockedCall:
                raise
            except OSError:
                return
            self._write_block(size)

    def _doubtful_block(self, extent: Extent, read: Callable[[int, int, int, int], None]) -> None:
        size = min(self._writes.block_size, extent.offset + extent.size - self._position)
        missing = self.report.missing_bytes
        read(extent.fd, 0, size, self._position + extent.source_offset - extent.offset)
        self._write_block(size)
        if self.report.missing_bytes - missing == size:
            # A flipped bit can make p_filesz so large that to fill it with zeros would never end.
            rest = extent.offset + extent.size - self._position
            self.report.missing_bytes += rest
            self._progress.advance(rest)
            self._position += rest

    def _write_block(self, size: int) -> None:
        """Write *size* bytes of the buffer at the position."""
        self._write_nonzero(size, self._position)
        self._position += size
        self._progress.advance(size)

    def _read(self, fd: int, start: int, end: int, offset: int) -> None:
        """Fill the buffer from *start* to *end* from *offset* of the file, with zeros for what cannot be read."""
        while start < end:
            try:
                size = self._reads.preadv(fd, memoryview(self._buffer)[start:end], offset)
            except BlockedSource:
                raise
            except BlockedCall:
                # The abandoned read may still write to its buffer.
                self._buffer = _buffer(len(self._buffer), self._buffer[:start])
                self._read_pages(fd, start, end, offset)
                return
            except OSError as error:
                if error.errno == errno.EBADF:
                    raise
                self._bisect(fd, start, end, offset)
                return
            if not size:
                self.report.missing_bytes += end - start
                self._clear(start, end)
                return
            start, offset = start + size, offset + size

    def _bisect(self, fd: int, start: int, end: int, offset: int) -> None:
        first = self._to_next_page(offset)
        if end - start <= first:
            self._zero_page(fd, start, end, offset)
            return
        middle = (offset + (end - start) // 2) // self._page_size * self._page_size
        half = max(middle - offset, first)
        self._read(fd, start, start + half, offset)
        self._read(fd, start + half, end, offset + half)

    def _read_pages(self, fd: int, start: int, end: int, offset: int) -> None:
        # Not by bisection: each read that does not return costs its timeout and a thread.
        if end - start <= self._to_next_page(offset):
            self._zero_page(fd, start, end, offset)
            return
        while start < end:
            size = min(self._to_next_page(offset), end - start)
            self._read(fd, start, start + size, offset)
            start, offset = start + size, offset + size

    def _to_next_page(self, offset: int) -> int:
        # Pages of the source, which need not be those of the buffer.
        return self._page_size - offset % self._page_size

    def _zero_page(self, fd: int, start: int, end: int, offset: int) -> None:
        """Put zeros in the place of a page, or of a part of one."""
        self._clear(start, end)
        # A page that lies across two blocks is one page.
        page = (fd, offset // self._page_size)
        self.report.unreadable_pages += page != self._last_unreadable
        self._last_unreadable = page

    def _clear(self, start: int, end: int) -> None:
        self._buffer[start:end] = bytes(end - start)

    def _write_nonzero(self, size: int, offset: int) -> None:
        runs = [(0, size)] if self._zero_pages is None else self._zero_pages.data(self._buffer, size)
        with memoryview(self._buffer) as view:
            for start, end in runs:
                self._writes.write(view[start:end], offset + start)


def _buffer(size: int, content: Block = b"") -> "mmap.mmap | bytearray":
    """Return memory that begins at a page, as a direct write needs it; any memory, if there is none like that."""
    buffer: mmap.mmap | bytearray
    try:
        buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        buffer = bytearray(size)
    buffer[: len(content)] = content[:]
    return buffer
