# SPDX-License-Identifier: LGPL-2.1-or-later
"""An uncompressed tar archive, written member by member: many files in one device dump."""

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from .files import chunks

BLOCK = tarfile.BLOCKSIZE


def archive_size(sizes: Iterable[int]) -> int:
    """Return the bytes of an archive with members of these sizes and short names."""
    return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes) + 2 * BLOCK


class Archive:
    """Writes to *data*. After an error, tar can read what was written before."""

    def __init__(self, data: BinaryIO) -> None:
        self._data = data

    def add(self, name: str, size: int, pieces: Iterable[bytes], mtime: int = 0) -> None:
        """Write a member of *size* bytes; if *pieces* are fewer, or raise, it is filled with zeros.

        Raises OSError if they are fewer, and what *pieces* raise; more members can be added then.
        """
        member = tarfile.TarInfo(name)
        member.size, member.mtime = size, mtime
        self._data.write(member.tobuf(tarfile.GNU_FORMAT))
        left = size
        try:
            for piece in pieces:
                self._data.write(piece[:left])
                left -= len(piece[:left])
            if left:
                raise OSError(f"{name}: only {size - left} of {size} bytes could be read")
        finally:
            for zeros in _zeros(left + -size % BLOCK):
                self._data.write(zeros)

    def add_file(self, name: str, path: Path) -> None:
        """Write the content of *path*, with its present size and time. Raises OSError."""
        state = path.stat()
        self.add(name, state.st_size, chunks(path), int(state.st_mtime))

    def finish(self) -> None:
        """Write the end of the archive."""
        self._data.write(bytes(2 * BLOCK))


def _zeros(size: int) -> Iterator[bytes]:
    while size > 0:
        yield bytes(min(size, 1 << 16))
        size -= 1 << 16
