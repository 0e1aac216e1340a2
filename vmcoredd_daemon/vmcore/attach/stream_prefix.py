# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bytes that are kept back for later: in memory while they are few, then in an unnamed temporary file."""

import os
import tempfile
from typing import BinaryIO, cast

from ...files import pwrite
from ..image import Image

MEMORY = 4 << 20
"""Bytes that are kept in memory."""


class Withheld:
    """Grows at its end; close it."""

    def __init__(self) -> None:
        self._memory: bytearray | None = bytearray()
        self._file: BinaryIO | None = None
        self.size = 0
        """Bytes."""

    def append(self, data: bytes) -> None:
        """Add *data*. Raises OSError when there is no room; what was added before is still there."""
        if self._memory is not None and self.size + len(data) > MEMORY:
            self._roll_over(bytes(self._memory))
        if self._memory is not None:
            self._memory += data
        else:
            self._write(data)
        self.size += len(data)

    def image(self, path: str) -> Image:
        """Return what is there now; *path* is for messages."""
        size = self.size
        return Image(lambda count, offset: self._pread(min(count, max(size - offset, 0)), offset), size, path)

    def close(self) -> None:
        """Forget it all."""
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _roll_over(self, data: bytes) -> None:
        if self._file is None:
            self._file = cast(BinaryIO, tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
        self._write(data, 0)
        self._memory = None

    def _write(self, data: bytes, offset: int | None = None) -> None:
        assert self._file is not None
        pwrite(self._file.fileno(), data, self.size if offset is None else offset)

    def _pread(self, size: int, offset: int) -> bytes:
        if self._memory is not None:
            return bytes(self._memory[offset : offset + size])
        assert self._file is not None
        return os.pread(self._file.fileno(), size, offset)
