# SPDX-License-Identifier: LGPL-2.1-or-later
"""SHA-256 of a buffer, computed behind whoever fills it."""

import hashlib
import os
from collections.abc import Callable
from functools import partial

from .files import Pread


class Digest:
    """SHA-256 of the bytes from *offset* of the file *fd*. One thread at a time may use it."""

    def __init__(self, fd: int, offset: int) -> None:
        self.position = 0
        """Bytes that it is of."""
        self._pread = partial(os.pread, fd)
        self._offset = offset
        self._sha256 = hashlib.sha256()

    def follow(self, reached: Callable[[], int]) -> None:
        """Go on to what is *reached* by then, or to where the file ends. Blocks. Raises OSError."""
        while self.position < (end := reached()):
            if not self._extend(end):
                break

    def finish(self, size: int) -> str:
        """Return it, of *size* bytes, in hexadecimal. Blocks. Raises OSError."""
        if self.position > size:
            # Somebody counts less than was read.
            self._sha256, self.position = hashlib.sha256(), 0
        self._extend(size)
        return self._sha256.hexdigest()

    def _extend(self, end: int) -> int:
        size = update(self._sha256, self._pread, self._offset + self.position, end - self.position)
        self.position += size
        return size


BLOCK_SIZE = 256 * 1024


def sha256(fd: int, offset: int, size: int) -> str:
    """Return the SHA-256 of *size* bytes from *offset*, in hexadecimal; fewer where the file ends before."""
    return _sha256(partial(os.pread, fd), offset, size)


def update(digest: "hashlib._Hash", pread: Pread, offset: int, size: int) -> int:
    """Add *size* bytes from *offset* to *digest*, fewer where the file ends before; return how many."""
    end, position = offset + size, offset
    while position < end and (data := pread(min(BLOCK_SIZE, end - position), position)):
        digest.update(data)
        position += len(data)
    return position - offset


def _sha256(pread: Pread, offset: int, size: int) -> str:
    digest = hashlib.sha256()
    update(digest, pread, offset, size)
    return digest.hexdigest()
