# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bytes of a vmcore by their offset, from a plain file or from one that has them in another order."""

import errno
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from ..errors import InvalidVmcore
from ..files import Pread, pread
from ..note import ByteOrder, Note, walk_notes

MAX_FILE_SIZE = (1 << 63) - 1
"""Bytes: the largest off_t."""


@dataclass(frozen=True, slots=True)
class Image:
    """Bytes that can be read at any offset."""

    pread: Pread
    """As :func:`os.pread`: fewer bytes than asked for only at the end; may raise OSError."""
    size: int
    """Bytes."""
    path: str
    """Where they come from, for messages."""

    def read(self, size: int, offset: int, what: str) -> bytes:
        """Return the *size* bytes of *what*. Raises InvalidVmcore if they cannot be read or are missing."""
        if offset > self.size:
            raise InvalidVmcore(f"{self.path}: {what} at offset {offset:#x} would be beyond the end of the file")
        try:
            data = self.pread(size, offset)
        except OSError as error:
            reason = error.strerror or os.strerror(errno.EIO)
            raise InvalidVmcore(f"{self.path}: cannot read {what} at offset {offset:#x}: {reason}") from error
        if len(data) != size:
            end = offset + len(data)
            raise InvalidVmcore(f"{self.path}: the file ends at offset {end:#x}, inside {what}")
        return data

    def notes(self, offset: int, size: int, byteorder: ByteOrder) -> Iterator[Note]:
        """Yield the notes in the *size* bytes from *offset*. Raises InvalidVmcore at a broken one."""
        try:
            yield from walk_notes(self.pread, offset, size, byteorder)
        except InvalidVmcore as error:
            raise InvalidVmcore(f"{self.path}: {error}") from error
        except OSError as error:
            reason = error.strerror or os.strerror(errno.EIO)
            raise InvalidVmcore(f"{self.path}: cannot read the notes: {reason}") from error

    def stream(self) -> BinaryIO:
        """Return a file object over the bytes, positioned at their start; closing it closes nothing else."""
        return io.BufferedReader(_Raw(self), 4096)


def file_image(fd: int, path: str) -> Image:
    """Return the bytes of the file open at *fd*, a regular file or a block device. Raises InvalidVmcore.

    /proc/vmcore can say that it has more bytes than a file can hold; what is beyond them cannot be read.
    """
    try:
        if os.fstat(fd).st_size < 0:
            return Image(partial(pread, fd), MAX_FILE_SIZE, path)
        # st_size of a block device is 0.
        position = os.lseek(fd, 0, os.SEEK_CUR)
        size = os.lseek(fd, 0, os.SEEK_END)
        os.lseek(fd, position, os.SEEK_SET)
    except OSError as error:
        reason = error.strerror or os.strerror(errno.EIO)
        raise InvalidVmcore(f"{path}: cannot tell its size: {reason}") from error
    return Image(partial(pread, fd), size, path)


def slice_of(image: Image, offset: int, size: int, name: str) -> Image:
    """Return the *size* bytes of *image* from *offset* as an image of their own; *name* is for messages."""

    def read(count: int, start: int) -> bytes:
        return image.pread(max(0, min(count, size - start)), offset + start)

    return Image(read, size, f"{image.path}: {name}")


class _Raw(io.RawIOBase):
    def __init__(self, image: Image) -> None:
        self._image = image
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._image.size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        data = self._image.pread(len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
