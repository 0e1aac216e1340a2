# SPDX-License-Identifier: LGPL-2.1-or-later
"""The buffer that a collector fills: what ``vzalloc()`` returns in the kernel's ``vmcore_add_device_dump()``."""

import asyncio
import errno
import fcntl
import os
import stat
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from .errors import CollectorFailed, NoSpace, VmcoreddError, WriteFailed
from .manifest import ManifestDump
from .note import VMCOREDD_HEADER_SIZE
from .threads import outlived, read_now, run_with_duplicate
from .vmcore.image import close, pwrite
from .vmcore.layout import DeviceDumpNote
from .vmcore.verify import sha256

_P = ParamSpec("_P")
_T = TypeVar("_T")

Commit = Callable[[DeviceDumpNote, ManifestDump], None]
"""Makes a collected note whole and durable. Blocks; raises OSError."""

TRANSFER_SIZE = 1 << 20
"""Bytes that a thread reads from a file of a collector's before another has its turn."""

PIECE = 1 << 16
"""Bytes in memory at a time, for each collector: as many as a pipe holds."""


# linux/falloc.h: _IOW('X', 43, struct space_resv): l_type, l_whence, l_start, l_len, l_sysid, l_pid, l_pad. As
# fallocate(2) with FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE, that Python does not have.
_SPACE_RESV = struct.Struct("@hhqqiI4i")
_IOC_WRITE = (2 if os.uname().machine.startswith("ppc") else 1) << 30
FS_IOC_UNRESVSP64 = _IOC_WRITE | _SPACE_RESV.size << 16 | ord("X") << 8 | 43


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
        given_up = threading.Event()
        where = (self.fd, self.offset + position, self.size - position)
        self._running = run_with_duplicate(_transfer, fd, *where, given_up)
        try:
            return await outlived(self._running)
        except asyncio.CancelledError:
            given_up.set()
            raise

    async def check(self, written: int) -> None:
        """Raise CollectorFailed when a collector says that it has *written* more bytes than there is room for, or
        has changed the size of the buffer, WriteFailed when nobody can tell.
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
        """Return the SHA-256 of the first *size* bytes that the collector wrote, in hexadecimal.

        Raises WriteFailed when they cannot be read.
        """
        return await self._in_thread(sha256, self.fd, self.offset, size)

    async def commit(self, record: ManifestDump) -> DeviceDumpNote:
        """Write the header and make the note durable: from here on it is in the spool, whatever happens.

        Raises NoSpace or WriteFailed.
        """
        note = DeviceDumpNote(record.name, self.fd, self.note_size, record.size, record.sha256)
        await self._in_thread(self._commit, note, record)
        self.fd = -1
        return note

    async def idle(self) -> None:
        """Wait until no thread writes to the buffer any more."""
        if self._running is not None:
            await asyncio.wait([self._running])

    @property
    def busy(self) -> bool:
        """Whether a thread reads or writes, as one may that nobody waits for any more."""
        return self._running is not None and not self._running.done()

    def close(self) -> "asyncio.Future[Any] | None":
        """Give up the buffer, unless it was committed, and free its room, whoever else has it open or mapped.

        A thread that still writes to it finishes first. Returns what that thread does, or the one that frees.
        """
        fd, self.fd = self.fd, -1
        if fd < 0:
            return None
        free = partial(asyncio.get_running_loop().run_in_executor, None, _close_freed, fd)
        if self._running is None or self._running.done():
            return free()
        self._running.add_done_callback(lambda _: free())
        return self._running

    async def _in_thread(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        future = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **kwargs))
        self._running = future
        try:
            # A cancelled wait must not cancel the thread's work half-way, and cannot stop it either.
            return await outlived(future)
        except OSError as error:
            raise storage_error(error, self._dump_name) from error


def _transfer(source: int, fd: int, offset: int, limit: int, given_up: threading.Event) -> int:
    done = 0
    try:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            limit = min(limit, PIECE)
        while done < min(limit, TRANSFER_SIZE):
            data = read_now(source, min(PIECE, limit - done), given_up)
            _write(fd, data, offset + done)
            done += len(data)
            # What comes in small pieces may let the next read wait for ever, and nobody would know of this one.
            if len(data) < PIECE:
                break
    except BlockingIOError:
        return -1
    return done


def _write(fd: int, data: bytes, offset: int) -> None:
    try:
        pwrite(fd, data, offset)
    except OSError as error:
        raise storage_error(error, "device dump") from error


def _close_freed(fd: int) -> None:
    with suppress(OSError):
        state = os.fstat(fd)
        # One that could not be made durable, and has kept its name, is whole.
        if state.st_nlink == 0:
            _free(fd, state.st_size)
    close(fd)


def close_removed(fd: int) -> None:
    """Close the file of a device dump that was removed, and free its room. Blocks.

    Whoever has it open reads its end. Where somebody has given it another name, it stays.
    """
    with suppress(OSError):
        if os.fstat(fd).st_nlink == 0:
            os.ftruncate(fd, 0)
    close(fd)


def _free(fd: int, size: int) -> None:
    try:
        # Its size stays: a collector that is late may be writing to its mapping, and would be killed by SIGBUS.
        fcntl.ioctl(fd, FS_IOC_UNRESVSP64, _SPACE_RESV.pack(0, os.SEEK_SET, 0, size, 0, 0, 0, 0, 0, 0))
    except OSError:
        os.ftruncate(fd, 0)


def storage_error(error: OSError, what: str) -> VmcoreddError:
    """Return the error of this family for an error of the spool's file system."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(f"{what}: no space left for it in the spool")
    return WriteFailed(f"{what}: the spool cannot keep it: {error.strerror}")
