# SPDX-License-Identifier: LGPL-2.1-or-later
"""Buffers for device dumps that survive the daemon: one file for each, beside the target.

A file begins with the note, byte for byte as it goes into the vmcore. It keeps the size that was reserved, with a
hole behind the note, because a collector may still have it mapped; then come a zero and one JSON object: what the
manifest will say of the dump. It has no name until it is complete and on disk (O_TMPFILE, fsync, link): each name
that the next daemon finds leads to a complete device dump, and a file without a name vanishes with its last
descriptor, or with a power cut: nothing has to be cleaned up. Without a disk to write to, the same buffers are
memfds.
"""

import asyncio
import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, auto
from functools import partial
from pathlib import Path

from ..errors import Busy, NoSpace, VmcoreddError, WriteFailed, of_storage
from ..files import (
    MEMORY_RESERVE,
    available_memory,
    close,
    file_system,
    free_space,
    open_unnamed,
)
from ..note import ByteOrder, DeviceDumpNote, note_size
from ..threads.batches import Batches, each
from ..threads.loop import run_apart, run_with_duplicate, wait_for
from .buffer import Buffer
from .commit import Commit, commit_to_disk, commit_without_name
from .recovery import Report, SpooledDump, recover
from .spool_directory import last_number, open_private, remove_notes, sync_parents
from .transfer import Transfers

log = logging.getLogger(__name__)

REMOVE_TIMEOUT = 60.0
"""Seconds for the removal of device dumps: a program may write to one, and never end that write."""


class _Takes(Enum):
    """Where the next device dump goes."""

    DISK = auto()
    MEMORY = auto()
    NOTHING = auto()
    """Nowhere, until the disk can be written to again."""


class Spool:
    """A directory of device dumps, or memory if there is no directory."""

    def __init__(
        self,
        directory: int | None,
        page_size: int,
        byteorder: ByteOrder,
        keep_free: int,
        last: int = 0,
        *,
        temporary: bool = False,
    ) -> None:
        """*directory* is this boot's, locked; *last* is the highest number of a file in it.

        Of a *temporary* spool it is any directory: see :meth:`temporary`.
        """
        self._takes = _Takes.MEMORY if directory is None else _Takes.DISK
        self._refusal: NoSpace | WriteFailed = NoSpace("the spool takes no device dumps")
        self._last = last
        self._directory = directory
        self._file_system = "" if directory is None else file_system(directory)
        self._page_size = page_size
        self._byteorder = byteorder
        self._keep_free = keep_free
        self._temporary = temporary
        self._transfers = Transfers()
        self._creating = Batches[tuple[str, int], int](each(self._create))
        self._committing = Batches[Commit, DeviceDumpNote](self._commit)

    @classmethod
    def open(cls, path: Path, page_size: int, byteorder: ByteOrder, keep_free: int) -> "Spool":
        """Do as :meth:`lock` and :meth:`check_writable`. Blocks."""
        spool = cls.lock(path, page_size, byteorder, keep_free)
        try:
            spool.check_writable()
        except VmcoreddError as error:
            spool.close()
            raise type(error)(f"{path}: {error}") from error
        return spool

    @classmethod
    def lock(cls, path: Path, page_size: int, byteorder: ByteOrder, keep_free: int) -> "Spool":
        """Open, or make, this boot's directory in the spool directory *path*, and lock it. Blocks.

        It may be read-only: what an earlier daemon has left can be read without space for more. Each boot has a
        directory of its own, because a vmcore must not get the device dumps of an earlier crash. Raises NoSpace
        when the directory is missing and its file system is full, WriteFailed when it cannot be used for another
        reason, or is another user's or a symbolic link, Busy when another daemon has it.
        """
        try:
            directory = open_private(path)
        except OSError as error:
            raise of_storage(error, f"{path}: cannot use the spool directory") from error
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last = last_number(directory)
        except BlockingIOError as error:
            close(directory)
            raise Busy(f"{path}: another daemon uses this spool directory") from error
        except OSError as error:
            close(directory)
            raise of_storage(error, f"{path}: cannot read the spool directory") from error
        return cls(directory, page_size, byteorder, keep_free, last)

    def check_writable(self) -> None:
        """Make the name of the directory durable, and check that it takes a device dump. Blocks.

        Raises NoSpace when its file system is full, WriteFailed when it cannot be written to for another reason,
        or its file system has no O_TMPFILE.
        """
        if self._directory is None:
            return
        try:
            sync_parents(self._directory)
            close(open_unnamed(self._directory))
        except OSError as error:
            raise of_storage(error, "cannot write to the spool directory") from error

    def keep_in_memory(self) -> None:
        """Take new device dumps as :meth:`in_memory` does; those that are in the directory stay there."""
        self._takes = _Takes.MEMORY

    def refuse(self, reason: NoSpace | WriteFailed) -> None:
        """Take no new device dump until the directory can be written to; those that are there stay."""
        self._takes, self._refusal = _Takes.NOTHING, reason

    @classmethod
    def in_memory(cls, page_size: int, byteorder: ByteOrder) -> "Spool":
        """Return a spool whose buffers are memfds."""
        return cls(None, page_size, byteorder, 0)

    @classmethod
    def temporary(cls, directory: Path, page_size: int, byteorder: ByteOrder) -> "Spool":
        """Return a spool for one program: its device dumps end with their descriptors, and no file has a name.

        Buffers are in the file system of *directory*; one for which that has no space is in memory. Blocks.
        """
        try:
            opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return cls.in_memory(page_size, byteorder)
        return cls(opened, page_size, byteorder, 0, temporary=True)

    @property
    def keeps(self) -> bool:
        """Whether the device dumps outlive the service: none was put into memory instead of the directory."""
        return self._takes is not _Takes.MEMORY and not self._temporary

    @property
    def directory(self) -> int | None:
        """Descriptor of the directory of this boot, if there is one."""
        return self._directory

    def note_size(self, size: int) -> int:
        """Return the bytes that are reserved for a device dump of at most *size* bytes. Raises TooLarge."""
        return note_size(size, self._page_size)

    async def create(self, dump_name: str, size: int) -> Buffer:
        """Return an empty buffer for *size* bytes, its disk space allocated. Raises NoSpace or WriteFailed."""
        note_size = self.note_size(size)
        creating = self._creating.add((dump_name, note_size))
        try:
            fd = await wait_for(creating)
        except asyncio.CancelledError:
            creating.add_done_callback(lambda done: None if done.exception() else close(done.result()))
            raise
        except OSError as error:
            raise of_storage(error, f"device dump {dump_name}: cannot be kept in the spool") from error
        return Buffer(fd, dump_name, size, self._page_size, self._transfers)

    def _create(self, wanted: tuple[str, int]) -> int:
        dump_name, size = wanted
        # One at a time: no other may take the space that one has seen, and memory that is allocated cannot be got
        # back.
        if self._takes is _Takes.NOTHING and not self._writable_again():
            raise type(self._refusal)(f"device dump {dump_name}: {self._refusal}")
        try:
            return self._allocate(self._disk, dump_name, size)
        except OSError:
            if self._disk is None or not self._temporary:
                raise
        return self._allocate(None, dump_name, size)

    def _allocate(self, disk: int | None, dump_name: str, size: int) -> int:
        if not self._has_space(disk, size):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # Without MFD_ALLOW_SEALING: the memory of a sealed one cannot be freed while a collector has it open.
        fd = os.memfd_create(dump_name, os.MFD_CLOEXEC) if disk is None else open_unnamed(disk)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError:
            close(fd)
            raise
        return fd

    @property
    def _disk(self) -> int | None:
        """Descriptor of the directory that takes new device dumps, None when memory takes them."""
        return self._directory if self._takes is _Takes.DISK else None

    def _writable_again(self) -> bool:
        if self._directory is None:
            return False
        try:
            self.check_writable()
        except (NoSpace, WriteFailed):
            return False
        self._takes = _Takes.DISK
        return True

    def _has_space(self, disk: int | None, size: int) -> bool:
        if disk is None:
            memory = available_memory()
            return memory is None or memory - size >= MEMORY_RESERVE
        # What is written to a disk, the kernel takes out of its cache when it needs the memory.
        free = free_space(disk, self._file_system)
        # Unknown: fallocate(2) decides.
        return free is None or free - size >= self._keep_free

    async def commit(self, commit: Commit) -> DeviceDumpNote:
        """Keep what was collected: when this returns, it is in the spool, and survives the daemon on a disk.

        Raises CollectorFailed when the collector says that it wrote more than it was given, or has changed the
        size of the buffer; NoSpace or WriteFailed. The buffer is then still the caller's to close.
        """
        await commit.buffer.prepare_commit(commit.size)
        return await commit.buffer.hand_over(self._committing.add(commit))

    def _commit(self, commits: Sequence[Commit]) -> Sequence[DeviceDumpNote | Exception]:
        if self._disk is None or self._temporary:
            return each(partial(commit_without_name, self._byteorder))(commits)
        return commit_to_disk(self._disk, self._byteorder, commits)

    async def remove(self, numbers: Iterable[int]) -> None:
        """Remove complete device dumps; one that is gone already is no error. Raises WriteFailed."""
        # While memory takes new ones, only those that were there at first are in the directory.
        files = [number for number in numbers if self.keeps or number <= self._last]
        if self._directory is not None and files:
            try:
                # Those of the executor commit other device dumps.
                removing = run_with_duplicate(partial(remove_notes, numbers=files), self._directory, run_apart)
                await wait_for(removing, REMOVE_TIMEOUT)
            except OSError as error:
                # That of the deadline has no number.
                reason = error.strerror or f"not done within {REMOVE_TIMEOUT:g} s"
                log.error("Cannot remove device dumps from the spool: %s", reason)
                raise WriteFailed(f"cannot remove device dumps from the spool: {reason}") from error

    def recover(self, report: Report, advance: Callable[[], None] = lambda: None) -> Iterator[SpooledDump]:
        """Yield the device dumps that an earlier daemon left, as :func:`.recovery.recover` does. Blocks."""
        if self._directory is not None:
            yield from recover(self._directory, report, advance)

    def next_number(self) -> int:
        """Return a number above those of all files that the spool had at first, damaged ones included."""
        return self._last + 1

    def close(self) -> None:
        """Unlock the directory; not while a device dump is being committed."""
        if self._directory is not None:
            close(self._directory)
            self._directory = None
