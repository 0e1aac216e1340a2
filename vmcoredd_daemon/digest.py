# SPDX-License-Identifier: LGPL-2.1-or-later
"""SHA-256 of a buffer, computed behind whoever fills it."""

import hashlib
import os
from collections.abc import Callable
from functools import partial

from .vmcore.verify import update


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
