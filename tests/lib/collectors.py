# SPDX-License-Identifier: LGPL-2.1-or-later
"""Collectors that write what a test wants, and what was written."""

import asyncio
import os

from vmcoredd_daemon.dumps.buffer import Buffer
from vmcoredd_daemon.dumps.collector import Collected


class Fills:
    """A collector that writes its data, after a while."""

    description = "fills"

    def __init__(self, data: bytes = b"data", delay: float = 0, size: int | None = None) -> None:
        self.closed = 0
        self._data = data
        self._delay = delay
        self._size = len(data) if size is None else size

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        await asyncio.sleep(self._delay)
        os.pwrite(buffer.fd, self._data, buffer.offset)
        return Collected(self._size)

    def close(self) -> None:
        self.closed += 1


def written(buffer: Buffer, size: int) -> bytes:
    """Return the first *size* bytes of the data in a buffer."""
    return os.pread(buffer.fd, size, buffer.offset)
