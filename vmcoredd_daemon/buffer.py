# SPDX-License-Identifier: LGPL-2.1-or-later
"""The buffer that a collector fills: what ``vzalloc()`` returns in the kernel's ``vmcore_add_device_dump()``."""

import asyncio
import errno
import os
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from .errors import CollectorFailed, NoSpace, VmcoreddError, WriteFailed
from .manifest import ManifestDump
from .note import VMCOREDD_HEADER_SIZE
from .threads import read_now, run_alone
from .vmcore.copy import pwrite
from .vmcore.layout import DeviceDumpNote
from .vmcore.verify import sha256

_P = ParamSpec("_P")
_T = TypeVar("_T")

Commit = Callable[[DeviceDumpNote, ManifestDump], None]
"""Makes a collected note whole and durable. Blocks; raises OSError."""

TRANSFER_SIZE = 256 << 10
"""Bytes read from a collector's descriptor at a time; 64 collectors may read at once, in a machine of 256 MB."""


class Buffer:
    """Room for one device dump: the header's 64 bytes, then *size* bytes for the collector.

    Owns its file descriptor until :meth:`commit` hands it over in a DeviceDumpNote.
    """

    def __init__(self, fd: int, dump_name: str, size: int, size_of_note: int, commit: Commit) -> None:
        self.fd = fd
        self.offset = VMCOREDD_HEADER_SIZE
        self.size = size
        self.note_size = size_of_note
        self._dump_name = dump_name
        self._commit = commit
        self._running: asyncio.Future[Any] | None = None

    async def read_from(self, fd: int, position: int) -> int:
        """Read from *fd* once and write that at *position*; return the bytes, 0 at the end, -1 when none is
        there yet.

        Raises OSError when *fd* cannot be read, NoSpace or WriteFailed when the buffer cannot be written.
        """
        # The thread has a descriptor of its own: when its turn comes, that of the caller may be closed, and its
        # number be another's.
        source = os.dup(fd)
        self._running = run_alone(_transfer, source, self.fd, self.offset + position, self.size - position)
        return await asyncio.shield(self._running)

    async def check(self, written: int) -> None:
        """Raise CollectorFailed when a collector says that it has *written* more bytes than there is room for, or
        has changed the size of the buffer.
        """
        if not 0 <= written <= self.size:
            raise CollectorFailed(
                f"device dump {self._dump_name}: the collector says that it wrote {written} bytes, "
                f"it was given room for {self.size}",
                errno.EOVERFLOW,
            )
        size = (await self._in_thread(os.fstat, self.fd)).st_size
        if size != self.note_size:
            raise CollectorFailed(
                f"device dump {self._dump_name}: the collector left a buffer of {size} bytes, "
                f"it was given {self.note_size}",
                errno.EOVERFLOW,
            )

    async def sha256(self, size: int) -> str:
        """Return the SHA-256 of the first *size* bytes that the collector wrote, in hexadecimal."""
        return await self._in_thread(sha256, self.fd, self.offset, size)

    async def commit(self, record: ManifestDump) -> DeviceDumpNote:
        """Write the header and make the note durable: from here on it is in the spool, whatever happens.

        Raises NoSpace or WriteFailed.
        """
        note = DeviceDumpNote(record.name, self.fd, self.note_size, record.size, record.sha256)
        try:
            await self._in_thread(self._commit, note, record)
        except OSError as error:
            raise storage_error(error, record.name) from error
        self.fd = -1
        return note

    async def idle(self) -> None:
        """Wait until no thread writes to the buffer any more."""
        if self._running is not None:
            await asyncio.wait([self._running])

    def close(self) -> "asyncio.Future[Any] | None":
        """Give up the buffer, unless it was committed; a thread that still writes to it finishes first.

        Returns what that thread does.
        """
        fd, self.fd = self.fd, -1
        if fd < 0:
            return None
        if self._running is not None and not self._running.done():
            self._running.add_done_callback(lambda _: os.close(fd))
            return self._running
        os.close(fd)
        return None

    async def _in_thread(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        future = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **kwargs))
        self._running = future
        # A cancelled wait must not cancel the thread's work half-way, and cannot stop it either.
        return await asyncio.shield(future)


def _transfer(source: int, fd: int, offset: int, limit: int) -> int:
    try:
        data = read_now(source, min(TRANSFER_SIZE, limit))
    except BlockingIOError:
        return -1
    finally:
        os.close(source)
    try:
        pwrite(fd, data, offset)
    except OSError as error:
        raise storage_error(error, "device dump") from error
    return len(data)


def storage_error(error: OSError, what: str) -> VmcoreddError:
    """Return the error of this family for an error of the spool's file system."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(f"{what}: no space left for it in the spool")
    return WriteFailed(f"{what}: the spool cannot keep it: {error.strerror}")
