# SPDX-License-Identifier: LGPL-2.1-or-later
"""SHA-256 of a buffer, computed while it is being filled."""

import hashlib
import os
from collections.abc import Callable
from functools import partial

from .files import BLOCK_SIZE, Pread


class Digest:
    """SHA-256 of the bytes from *offset* of the file *fd*. One thread at a time may use it."""

    def __init__(self, fd: int, offset: int) -> None:
        self.position = 0
        """Bytes that are hashed."""
        self._pread = partial(os.pread, fd)
        self._offset = offset
        self._sha256 = hashlib.sha256()

    def follow(self, reached: Callable[[], int]) -> None:
        """Hash on until it has caught up with *reached*, or the file ends. Blocks. Raises OSError."""
        while self.position < (end := reached()):
            if not self._extend(end):
                break

    def finish(self, size: int) -> str:
        """Return the SHA-256 of *size* bytes, in hexadecimal. Blocks. Raises OSError."""
        if self.position > size:
            # The true size is smaller than what was filled.
            self._sha256, self.position = hashlib.sha256(), 0
        self._extend(size)
        return self._sha256.hexdigest()

    def _extend(self, end: int) -> int:
        size = _update(self._sha256, self._pread, self._offset + self.position, end - self.position)
        self.position += size
        return size


def sha256(pread: Pread, offset: int, size: int) -> str:
    """Return the SHA-256 of *size* bytes from *offset*, in hexadecimal; of fewer if the file ends before."""
    digest = hashlib.sha256()
    _update(digest, pread, offset, size)
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", pread: Pread, offset: int, size: int) -> int:
    end, position = offset + size, offset
    while position < end and (data := pread(min(BLOCK_SIZE, end - position), position)):
        digest.update(data)
        position += len(data)
    return position - offset
