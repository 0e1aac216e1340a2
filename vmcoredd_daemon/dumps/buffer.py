# SPDX-License-Identifier: LGPL-2.1-or-later
"""The buffer that a collector fills: what ``vzalloc()`` returns in the kernel's ``vmcore_add_device_dump()``."""

import asyncio
import errno
import fcntl
import os
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from ..digest import Digest
from ..errors import CollectorFailed, of_storage
from ..files import close, sync
from ..note import VMCOREDD_HEADER_SIZE, DeviceDumpNote
from ..threads.loop import ignore_result, wait_for
from .transfer import Transfer, Transfers

_P = ParamSpec("_P")
_T = TypeVar("_T")

SYNCED = 1 << 20
"""Bytes from which on a device dump is hashed and on the disk before it joins a batch, so that no other waits."""

# linux/falloc.h: _IOW('X', 43, struct space_resv): l_type, l_whence, l_start, l_len, l_sysid, l_pid, l_pad. As
# fallocate(2) with FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE, that Python does not have.
_SPACE_RESV = struct.Struct("@hhqqiI4i")
_IOC_WRITE = (2 if os.uname().machine.startswith("ppc") else 1) << 30
FS_IOC_UNRESVSP64 = _IOC_WRITE | _SPACE_RESV.size << 16 | ord("X") << 8 | 43


class Buffer:
    """Space for one device dump: the header's 64 bytes, then *size* bytes for the collector.

    Owns its file descriptor until :meth:`.Spool.commit` hands it over in a DeviceDumpNote.
    """

    def __init__(self, fd: int, dump_name: str, size: int, note_size: int, transfers: Transfers) -> None:
        self.fd = fd
        self.offset = VMCOREDD_HEADER_SIZE
        self.size = size
        self.note_size = note_size
        self._what = f"device dump {dump_name}"
        self._dump_name = dump_name
        self._transfers = transfers
        self._digest = Digest(fd, self.offset)
        self._hashing: asyncio.Future[None] | None = None
        self._threads: set[asyncio.Future[Any]] = set()

    async def read_from(self, fd: int, position: int, reached: Callable[[int], None] = lambda _: None) -> bool:
        """Read from *fd* what is there, and write that at *position*; return whether *fd* is at its end.

        *reached* is told where the next byte goes, by a thread; a later call goes on there. Raises OSError when
        *fd* cannot be read, NoSpace or WriteFailed when the buffer cannot be written.
        """
        loop, given_up = asyncio.get_running_loop(), threading.Event()

        def window_written() -> None:
            # Too late for a loop that is closed.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._hash_behind, transfer)

        transfer = Transfer(
            fd=self.fd,
            size=self.size,
            position=position,
            reached=reached,
            window_written=window_written,
            given_up=given_up,
        )
        try:
            return await wait_for(self._track(self._transfers.begin(transfer, fd)))
        except asyncio.CancelledError:
            given_up.set()
            raise

    def _hash_behind(self, transfer: Transfer) -> None:
        if self.fd >= 0 and (self._hashing is None or self._hashing.done()):
            self._hashing = self._in_executor(self._digest.follow, lambda: transfer.position)
            # Its error is raised by prepare_commit(), which a failed device dump never reaches.
            ignore_result(self._hashing)

    async def prepare_commit(self, size: int) -> None:
        """Hash and sync as much as possible before joining the commit batch, in which others would wait for it.

        Raises CollectorFailed when the collector says that it wrote *size* bytes, and there are fewer; NoSpace or
        WriteFailed.
        """
        if not 0 <= size <= self.size:
            raise CollectorFailed(
                f"{self._what}: the collector says that it wrote {size} bytes, it was given {self.size}",
                errno.EOVERFLOW,
            )
        if self._hashing is not None:
            await self._wait_for(self._hashing)
        if size >= SYNCED:
            hashing = self._in_thread(self._digest.follow, lambda: size)
            await asyncio.gather(hashing, self._in_thread(sync, self.fd))

    def note(self, size: int) -> DeviceDumpNote:
        """Return the note of the first *size* bytes. Blocks.

        Raises CollectorFailed when a collector has changed the size of the buffer, and OSError.
        """
        found = os.fstat(self.fd).st_size
        if found != self.note_size:
            raise CollectorFailed(
                f"{self._what}: the collector left a buffer of {found} bytes, it was given {self.note_size}",
                errno.EOVERFLOW,
            )
        return DeviceDumpNote(self._dump_name, self.fd, self.note_size, size, self._digest.finish(size))

    async def hand_over(self, committing: "asyncio.Future[DeviceDumpNote]") -> DeviceDumpNote:
        """Wait until the buffer is committed: its file descriptor is the note's then. Raises as *committing*.

        It is not closed under a commit that no caller waits for any more.
        """
        note = await self._wait_for(self._track(committing))
        self.fd = -1
        return note

    async def idle(self) -> None:
        """Wait until no thread writes to the buffer any more."""
        if self._threads:
            await asyncio.wait(self._threads)

    @property
    def busy(self) -> bool:
        """Whether a thread reads or writes, as one may that nobody waits for any more."""
        return bool(self._threads)

    def close(self) -> "asyncio.Future[Any] | None":
        """Give up the buffer, unless it was committed, and free its room, whoever else has it open or mapped.

        Threads that still use it finish first. Returns what they do, or the one that frees.
        """
        fd, self.fd = self.fd, -1
        if fd < 0:
            return None
        free = partial(asyncio.get_running_loop().run_in_executor, None, _close_freed, fd)
        if not self._threads:
            return free()
        ended = asyncio.gather(*self._threads, return_exceptions=True)
        ended.add_done_callback(lambda _: free())
        return ended

    async def _in_thread(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await self._wait_for(self._in_executor(function, *args, **kwargs))

    def _in_executor(
        self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> "asyncio.Future[_T]":
        return self._track(asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **kwargs)))

    def _track(self, running: "asyncio.Future[_T]") -> "asyncio.Future[_T]":
        self._threads.add(running)
        running.add_done_callback(self._threads.discard)
        return running

    async def _wait_for(self, future: "asyncio.Future[_T]") -> _T:
        try:
            return await wait_for(future)
        except OSError as error:
            raise of_storage(error, f"{self._what}: cannot be kept in the spool") from error


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
