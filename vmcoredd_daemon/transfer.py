# SPDX-License-Identifier: LGPL-2.1-or-later
"""What somebody else's descriptor holds goes into a buffer, in one thread, and to the disk behind that.

The last fsync(2) waits for all pages that are dirty, and a capture kernel has few: write-back of each window
begins as soon as it is written. SHA-256, which takes longer than both, goes over it meanwhile: :mod:`.digest`.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .errors import storage_error
from .reading import Reading
from .vmcore.extents import pwrite

PIECE = 1 << 18
"""Bytes in memory at a time, for each transfer."""

PIPE_PIECE = 1 << 16
"""As many as a pipe holds; no more come at once."""

WINDOW = 8 << 20
"""Bytes that are written back together."""


@dataclass(slots=True)
class Transfer:
    """The way of bytes into the file *fd*, where *offset* is the first of *size*."""

    fd: int
    offset: int
    size: int
    position: int
    """Bytes that are there already."""
    reached: Callable[[int], None]
    """Is told the position, by the thread."""
    window_written: Callable[[], None]
    """Is told that there is another window, or the end, by the thread."""
    given_up: threading.Event

    def run(self, source: int) -> bool:
        """Read *source* up to its end, or until there is nothing now, or no room; return whether it is at its end.

        Blocks. Raises OSError when it cannot be read, NoSpace or WriteFailed when the buffer cannot be written.
        """
        started = self.position
        with Reading(source, self.given_up) as reading:
            piece = PIECE if reading.regular else PIPE_PIECE
            while self.position < self.size:
                try:
                    data = reading.read(min(piece, self.size - self.position))
                except BlockingIOError:
                    return False
                if not data:
                    return True
                self._write(data)
                if self.position - started >= WINDOW:
                    self._write_back(started)
                    started = self.position
            return reading.at_end()

    def _write(self, data: bytes) -> None:
        try:
            pwrite(self.fd, data, self.offset + self.position)
        except OSError as error:
            raise storage_error(error, "device dump") from error
        self.position += len(data)
        self.reached(self.position)

    def _write_back(self, started: int) -> None:
        self.window_written()
        # mm/fadvise.c: begins to write what is dirty, as all of it is, and drops the rest. Nobody depends on it.
        with suppress(OSError):
            os.posix_fadvise(self.fd, self.offset + started, self.position - started, os.POSIX_FADV_DONTNEED)
