# SPDX-License-Identifier: LGPL-2.1-or-later
"""The buffer that a collector fills: what ``vzalloc()`` returns in the kernel's ``vmcore_add_device_dump()``."""

import asyncio
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from ..digest import Digest
from ..errors import CollectorFailed, TimedOut, of_storage
from ..files import close, pwrite, sync, wait_for_writer
from ..note import VMCOREDD_HEADER_SIZE, DeviceDumpNote, note_size, round_up
from ..threads.loop import (
    AbandonedThreads,
    ThreadNotStarted,
    ignore_result,
    run_apart,
    run_in_executor,
    run_with_duplicate,
    wait_for,
)
from .transfer import Rest, Transfer, Transfers

_T = TypeVar("_T")

WRITER_TIMEOUT = 5.0
"""Seconds in which a program ends a write(2) to a device dump that it is in. Less than CUT_OFF_TIMEOUT."""

SYNCED = 1 << 20
"""Bytes from which on a device dump is hashed and on the disk before it joins a batch, so that no other waits."""

# linux/falloc.h: _IOW('X', 43, struct space_resv): l_type, l_whence, l_start, l_len, l_sysid, l_pid, l_pad. As
# fallocate(2) with FALLOC_FL_PUNCH_HOLE: Python has posix_fallocate(3) only, which takes no flags.
_SPACE_RESV = struct.Struct("@hhqqiI4i")
_IOC_WRITE = (2 if os.uname().machine.startswith(("ppc", "mips", "sparc")) else 1) << 30
FS_IOC_UNRESVSP64 = _IOC_WRITE | _SPACE_RESV.size << 16 | ord("X") << 8 | 43


class Buffer:
    """Space for one device dump: the header's 64 bytes, then *size* bytes for the collector.

    Owns its file descriptor until :meth:`.spool.Spool.commit` hands it over in a DeviceDumpNote.
    """

    def __init__(self, fd: int, dump_name: str, size: int, page_size: int, transfers: Transfers) -> None:
        self.fd = fd
        self.offset = VMCOREDD_HEADER_SIZE
        self.size = size
        self.reserved = note_size(size, page_size)
        """Bytes of the file, which it keeps: a collector that is late may have them mapped."""
        self.shared = False
        """Whether another program was given a descriptor of it, and may write whenever it likes."""
        self._page_size = page_size
        self._what = f"device dump {dump_name}"
        self._dump_name = dump_name
        self._transfers = transfers
        self._digest = Digest(fd, self.offset)
        self._hashing: asyncio.Future[None] | None = None
        self._threads: set[asyncio.Future[Any]] = set()

    async def read_from(self, fd: int, position: int, reached: Callable[[int], None] = lambda _: None) -> Rest:
        """Read what *fd* has now, and write it at *position*; return what is left of it.

        A thread calls *reached* with the position of the next byte, from which a later call goes on. Raises
        OSError when *fd* cannot be read, NoSpace or WriteFailed when the buffer cannot be written.
        """
        loop = asyncio.get_running_loop()

        def window_written() -> None:
            # The loop may be closed by now.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._hash_behind, transfer)

        transfer = Transfer(self._dump_name, self.fd, self.size, position, reached, window_written)
        try:
            return await wait_for(self._track(self._transfers.begin(transfer, fd)))
        except asyncio.CancelledError:
            transfer.abandoned.set()
            raise

    def _hash_behind(self, transfer: Transfer) -> None:
        if self.fd >= 0 and (self._hashing is None or self._hashing.done()):
            self._hashing = self._in_thread(partial(self._digest.follow, lambda: transfer.position))
            # Its error is raised by prepare_commit(), which a failed device dump never reaches.
            ignore_result(self._hashing)

    async def prepare_commit(self, size: int) -> None:
        """Hash and sync as much as possible before joining the commit batch, in which others would wait for it.

        Raises CollectorFailed when the collector says that it wrote *size* bytes, and there are fewer; TimedOut
        when it still writes; NoSpace or WriteFailed.
        """
        if not 0 <= size <= self.size:
            raise CollectorFailed(
                f"{self._what}: the collector reports {size} bytes, but was given {self.size}",
                errno.EOVERFLOW,
            )
        if self._hashing is not None:
            await self._wait_for(self._hashing)
        if size >= SYNCED:
            work = partial(self._digest.follow, lambda: size), partial(sync, self.fd)
            await asyncio.gather(*(self._wait_for(self._in_thread(each)) for each in work))
        if self.shared and not await writer_ended(self.fd):
            raise TimedOut(f"{self._what}: its collector still writes to it, {WRITER_TIMEOUT:g} s later")

    def note(self, size: int, *, keep_size: bool = False) -> DeviceDumpNote:
        """Return the note of the first *size* bytes; it is as large as they need or, with *keep_size*, the buffer.

        Blocks. Raises CollectorFailed when a collector has changed the size of the buffer, and OSError.
        """
        found = os.fstat(self.fd).st_size
        if found != self.reserved:
            raise CollectorFailed(
                f"{self._what}: the collector resized its buffer from {self.reserved} to {found} bytes",
                errno.EOVERFLOW,
            )
        bytes_needed = note_size(self.size if keep_size else size, self._page_size)
        return DeviceDumpNote(self._dump_name, self.fd, bytes_needed, size, self._digest.finish(size))

    def clear_behind(self, size: int) -> None:
        """Put zeros behind the first *size* bytes, even if a collector wrote there, and free their space.

        Blocks. Raises OSError.
        """
        end = self.offset + size
        page = round_up(end, self._page_size)
        pwrite(self.fd, bytes(page - end), end)
        if page == self.reserved:
            return
        try:
            _punch(self.fd, page, self.reserved - page)
        except OSError:
            os.ftruncate(self.fd, page)
            os.ftruncate(self.fd, self.reserved)

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
        """Whether a thread reads or writes, perhaps one that no caller waits for any more."""
        return bool(self._threads)

    def close(self) -> "asyncio.Future[Any] | None":
        """Abandon the buffer, unless it was committed, and free its space, even if others have it open or mapped.

        Threads that still use it finish first. Returns what is done when they have, or when the space is free.
        """
        fd, self.fd = self.fd, -1
        if fd < 0:
            return None
        # A collector that hangs in a write to it holds its lock.
        run = run_apart if self.shared else run_in_executor
        free = partial(run, partial(_close_freed, fd))
        if not self._threads:
            return free()
        ended = asyncio.gather(*self._threads, return_exceptions=True)
        ended.add_done_callback(lambda _: free())
        return ended

    def _in_thread(self, function: Callable[[], _T]) -> "asyncio.Future[_T]":
        return self._track(run_in_executor(function))

    def _track(self, running: "asyncio.Future[_T]") -> "asyncio.Future[_T]":
        self._threads.add(running)
        running.add_done_callback(self._threads.discard)
        return running

    async def _wait_for(self, future: "asyncio.Future[_T]") -> _T:
        try:
            return await wait_for(future)
        except OSError as error:
            raise of_storage(error, f"{self._what}: cannot be kept in the spool") from error


async def writer_ended(fd: int, abandoned: AbandonedThreads | None = None) -> bool:
    """Wait until no program is in the middle of a write to *fd*; return False if one still is after a while."""
    try:
        # In a thread of its own: those of the executor commit other device dumps.
        waiting = run_with_duplicate(wait_for_writer, fd)
    except OSError:
        # Without a thread nothing is known of a writer, and most device dumps have none.
        return True
    try:
        await wait_for(waiting, WRITER_TIMEOUT, abandoned)
    except TimeoutError:
        return False
    except ThreadNotStarted:
        # As above.
        pass
    return True


def _close_freed(fd: int) -> None:
    with suppress(OSError):
        state = os.fstat(fd)
        # A file that has its name is complete, even if its directory could not be synced.
        if state.st_nlink == 0:
            _free(fd, state.st_size)
    close(fd)


def close_removed(fd: int) -> "asyncio.Future[None]":
    """Close the file of a device dump that was removed, and free its space; return what is done then.

    A reader that has it open is at its end then. A file that was given another name keeps its data.
    """
    return run_apart(partial(_close_removed, fd))


def _close_removed(fd: int) -> None:
    with suppress(OSError):
        if os.fstat(fd).st_nlink == 0:
            os.ftruncate(fd, 0)
    close(fd)


def _free(fd: int, size: int) -> None:
    try:
        _punch(fd, 0, size)
    except OSError:
        os.ftruncate(fd, 0)


def _punch(fd: int, offset: int, size: int) -> None:
    """Free the blocks of *size* bytes at *offset*, which read as zeros then. Raises OSError if that is impossible.

    The file keeps its size: a collector that is late may write to its mapping, and SIGBUS would kill it if that
    were beyond the end of the file.
    """
    fcntl.ioctl(fd, FS_IOC_UNRESVSP64, _SPACE_RESV.pack(0, os.SEEK_SET, offset, size, 0, 0, 0, 0, 0, 0))
