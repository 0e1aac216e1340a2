# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the bytes of a source are read: here, by whoever copies them, or as :mod:`.timed` has it."""

import errno
import os
from collections.abc import Callable

Preadv = Callable[[int, memoryview, int], int]
"""As :func:`os.preadv`, with one buffer; may raise BlockedCall and BlockedSource."""


class BlockedCall(OSError):
    """A call did not return in time."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.ETIME, text)


class BlockedSource(BlockedCall):
    """So many calls have not returned that no more are made."""


class Reads:
    """Reads that nobody watches."""

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Do as :func:`os.preadv`, with one *buffer*."""
        return os.preadv(fd, [buffer], offset)

    def run(self, fd: int, copy: Callable[[Preadv], None]) -> None:
        """Call *copy* with what reads the file *fd* for it, again and again."""
        copy(self.preadv)
