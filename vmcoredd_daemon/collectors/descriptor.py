# SPDX-License-Identifier: LGPL-2.1-or-later
"""Collects what can be read from a file descriptor: a file, a pipe, a socket, a memfd."""

import asyncio
import errno
import os

from ..buffer import Buffer
from ..errors import CollectorFailed
from ..threads import read_now, run_with_duplicate
from . import Collected

EOF_GRACE = 1.0
"""Seconds to wait for the end of a pipe that has already filled its buffer."""


class DescriptorCollector:
    """Reads *fd*, which it owns, from its current position to its end."""

    def __init__(self, fd: int, description: str, problem: OSError | None = None) -> None:
        """*problem* is why there is no *fd*."""
        self.description = description
        self.position = 0
        """Bytes that are in the buffer so far."""
        self._fd = fd
        self._problem = problem

    @classmethod
    def duplicating(cls, fd: int, description: str) -> "DescriptorCollector":
        """Return one with a descriptor of its own; where it cannot have one, collecting fails."""
        try:
            return cls(os.dup(fd), description)
        except OSError as error:
            return cls(-1, description, error)

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        """Read until the end, or until the buffer is full; then see whether there is more."""
        try:
            if self._problem is not None:
                raise self._problem
            size = await self._fill(buffer)
            return Collected(size, truncated=size == buffer.size and await self._has_more())
        except OSError as error:
            code = error.errno or errno.EIO
            raise CollectorFailed(
                f"device dump {dump_name}: cannot read its data: {os.strerror(code)}", code
            ) from error

    async def _fill(self, buffer: Buffer) -> int:
        while self.position < buffer.size:
            await readable(self._fd)
            size = await buffer.read_from(self._fd, self.position)
            if size == 0:
                break
            self.position += max(size, 0)
        return self.position

    async def _has_more(self) -> bool:
        try:
            async with asyncio.timeout(EOF_GRACE):
                await readable(self._fd)
                return bool(await run_with_duplicate(read_now, self._fd, 1))
        except (TimeoutError, BlockingIOError):
            # A writer that sends just what it said and keeps the pipe open.
            return False

    def close(self) -> None:
        """Close the file descriptor."""
        if self._fd >= 0:
            os.close(self._fd)


async def readable(fd: int) -> None:
    """Wait until *fd* can be read, or is at its end."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(fd, _resolve, ready)
    except PermissionError:
        # epoll refuses what never blocks, such as a regular file.
        return
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _resolve(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
