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
from .files import pwrite
from .reading import Reading

PIECE = 1 << 16
"""Bytes in memory at a time, for each transfer: as many as a pipe holds."""

LARGE_PIECE = 1 << 18
"""Those of a large file. With smaller ones the thread takes 5 % longer than SHA-256."""

MAX_LARGE_PIECES = 4
"""Transfers that have large pieces at the same time; with 64, they would be 16 MiB."""

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
    large_pieces: threading.Semaphore

    def run(self, source: int) -> bool:
        """Read *source* up to its end, or until there is nothing now, or no room; return whether it is at its end.

        Blocks. Raises OSError when it cannot be read, NoSpace or WriteFailed when the buffer cannot be written.
        """
        with Reading(source, self.given_up) as reading:
            large = reading.regular and self.size >= WINDOW and self.large_pieces.acquire(blocking=False)
            try:
                return self._copy(reading, LARGE_PIECE if large else PIECE)
            except BlockingIOError:
                return False
            finally:
                if large:
                    self.large_pieces.release()

    def _copy(self, reading: Reading, piece: int) -> bool:
        started = self.position
        while self.position < self.size:
            # Not kept while the next is read: 64 transfers at once should take few MiB.
            if not self._write(reading.read(min(piece, self.size - self.position))):
                return True
            if self.position - started >= WINDOW:
                self._write_back(started)
                started = self.position
        return reading.at_end()

    def _write(self, data: bytes) -> int:
        try:
            pwrite(self.fd, data, self.offset + self.position)
        except OSError as error:
            raise storage_error(error, "device dump") from error
        if data:
            self.position += len(data)
            self.reached(self.position)
        return len(data)

    def _write_back(self, started: int) -> None:
        self.window_written()
        # mm/fadvise.c: begins to write what is dirty, as all of it is, and drops the rest. Nobody depends on it.
        with suppress(OSError):
            os.posix_fadvise(self.fd, self.offset + started, self.position - started, os.POSIX_FADV_DONTNEED)
