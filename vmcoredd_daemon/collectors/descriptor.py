# SPDX-License-Identifier: LGPL-2.1-or-later
"""Collects what can be read from a file descriptor: a file, a pipe, a socket, a memfd."""

import asyncio
import errno
import fcntl
import os
import socket
from functools import partial

from ..dumps.buffer import Buffer
from ..dumps.collector import Collected
from ..dumps.transfer import ANONYMOUS_INODE, POLLED_BY_KERNEL, Rest, kernel_name_of, read_now
from ..errors import CollectorFailed, InvalidArgs
from ..threads.fd_closer import FdCloser, close_fds
from ..threads.loop import AbandonedThreads, run_with_duplicate, wait_for

EOF_GRACE = 1.0
"""Seconds to wait for the end of a pipe that has already filled its buffer."""


class DescriptorCollector:
    """Reads *fd*, which it owns, from its current position to its end."""

    def __init__(
        self,
        fd: int,
        description: str,
        fd_closer: FdCloser | None = None,
        abandoned: AbandonedThreads | None = None,
        problem: OSError | None = None,
        *,
        may_be_empty: bool = True,
        loop_polls: bool = False,
    ) -> None:
        """Another program's *fd* needs *fd_closer* and *abandoned*; *problem* is why there is no *fd*.

        With *loop_polls* the loop waits for a pipe or a socket; the thread that reads it polls all else.
        """
        self.description = description
        self.position = 0
        """Bytes that are in the buffer so far."""
        self._fd = fd
        self._fd_closer = fd_closer
        self._abandoned = abandoned
        self._problem = problem
        self._may_be_empty = may_be_empty
        self._loop_polls = loop_polls

    @classmethod
    def duplicating(
        cls, dump_name: str, fd: int, description: str, fd_closer: FdCloser, abandoned: AbandonedThreads
    ) -> "DescriptorCollector":
        """Return one with a duplicate of *fd*; if there can be none, :meth:`collect` fails.

        Raises InvalidArgs for what can be seen to be no data without asking a file system, which may block.
        """
        try:
            kernel_name = kernel_name_of(fd)
            check_source(dump_name, fd, kernel_name)
            ours = os.dup(fd)
        except OSError as error:
            return cls(-1, description, problem=error)
        polls = kernel_name.startswith(POLLED_BY_KERNEL)
        return cls(ours, description, fd_closer, abandoned, may_be_empty=False, loop_polls=polls)

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        """Read until the end, or until the buffer is full; then check whether there is more."""
        try:
            if self._problem is not None:
                raise self._problem
            rest = await self._fill(buffer)
            size = self.position
            if size == 0 and not self._may_be_empty:
                # So looks a program that failed before it wrote anything: the vmcore then names the failure.
                raise CollectorFailed(f"device dump {dump_name}: no data were received", errno.ENODATA)
            more = rest is Rest.MORE or (rest is Rest.UNKNOWN and await self._has_more())
            return Collected(size, truncated=more)
        except InvalidArgs as error:
            raise InvalidArgs(f"device dump {dump_name}: {error}") from error
        except OSError as error:
            code = error.errno or errno.EIO
            raise CollectorFailed(
                f"device dump {dump_name}: cannot read its data: {os.strerror(code)}", code
            ) from error

    async def _fill(self, buffer: Buffer) -> Rest:
        """Read until the end, or until the buffer is full; return what is left."""
        rest = Rest.UNKNOWN
        while self.position < buffer.size and rest is Rest.UNKNOWN:
            await self._wait()
            rest = await buffer.read_from(self._fd, self.position, self._reached)
        return rest

    def _reached(self, position: int) -> None:
        self.position = position

    async def _has_more(self) -> bool:
        try:
            async with asyncio.timeout(EOF_GRACE):
                await self._wait()
                reading = run_with_duplicate(partial(read_now, size=1), self._fd)
                return await wait_for(reading, abandoned=self._abandoned) != b""
        except (TimeoutError, BlockingIOError):
            # The writer sent just what it had announced, and keeps the pipe open.
            return False

    async def _wait(self) -> None:
        if self._loop_polls:
            await readable(self._fd)

    def close(self) -> None:
        """Close the file descriptor, or have it closed."""
        fds = [self._fd] if self._fd >= 0 else []
        if self._fd_closer is None:
            close_fds(fds)
        else:
            self._fd_closer.close(fds)


def check_source(dump_name: str, fd: int, kernel_name: str) -> None:
    """Raise InvalidArgs for what can be seen to be no data without asking a file system, which may block.

    Of a socket of messages a part of a long one is lost, and an empty one looks like the end.
    """
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
        raise InvalidArgs(f"device dump {dump_name}: its data was opened with O_PATH, and cannot be read")
    if kernel_name.startswith(ANONYMOUS_INODE):
        raise InvalidArgs(f"device dump {dump_name}: its data is an anonymous inode, which is never read")
    if not kernel_name.startswith("socket:"):
        # If it cannot be read, collecting fails.
        return
    source = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    try:
        kind = source.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    finally:
        source.detach()
    if kind != socket.SOCK_STREAM:
        names = {known.value: known.name for known in socket.SocketKind}
        raise InvalidArgs(
            f"device dump {dump_name}: its data come from a socket of type {names.get(kind, kind)}, "
            f"but only SOCK_STREAM loses nothing"
        )


async def readable(fd: int) -> None:
    """Wait until a pipe or a socket can be read, or is at its end."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


def _resolve(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
