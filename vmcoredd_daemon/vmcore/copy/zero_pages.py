# SPDX-License-Identifier: LGPL-2.1-or-later
"""Find the pages of a block that are all zeros, without looking at each by itself.

A page whose first byte is not zero needs no comparison, and most pages in use begin with one; most others belong
to a run of zero pages, which are compared together. Slices of bytes are compared by memcmp(3), memoryviews element
by element.
"""

import mmap
from collections.abc import Iterator

Block = mmap.mmap | bytearray | bytes

_PAGES_AT_ONCE = 16


class ZeroPages:
    """Tells zeros from data in pages of *page_size* bytes."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._zeros = bytes(_PAGES_AT_ONCE * page_size)

    def data(self, block: Block, size: int) -> Iterator[tuple[int, int]]:
        """Yield start and end of each run of pages in the first *size* bytes of *block* that are not all zeros."""
        first_bytes = block[0 : size : self._page_size]
        start = page = 0
        while (page := first_bytes.find(0, page)) >= 0:
            end = self._end_of_zeros(block, size, page)
            if end == page:
                page += 1
                continue
            if start < page:
                yield start * self._page_size, page * self._page_size
            start = page = end
        if start < len(first_bytes):
            yield start * self._page_size, size

    def _end_of_zeros(self, block: Block, size: int, page: int) -> int:
        """Return the first page, from *page* on, that is not all zeros."""
        for pages in (_PAGES_AT_ONCE, 1):
            while (offset := page * self._page_size) < size:
                part = block[offset : min(offset + pages * self._page_size, size)]
                if part != (self._zeros if len(part) == len(self._zeros) else self._zeros[: len(part)]):
                    break
                page += pages
        return min(page, -(-size // self._page_size))
