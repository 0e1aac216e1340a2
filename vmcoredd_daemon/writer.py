# SPDX-License-Identifier: LGPL-2.1-or-later
"""Turn the dump list into a vmcore: snapshot, directory, kernel log, vmcore; and fall back rather than lose.

First choice is the configured format. Where makedumpfile fails, the source is copied as it is; where that does not
fit on the target, makedumpfile leaves out what can be spared, or as much is copied as fits; where the source
cannot be read, or does not answer, the device dumps alone are written.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from . import makedumpfile
from .console_progress import ConsoleProgress
from .crash_directory import CrashDirectory
from .device_dump import Snapshot
from .dumps import DumpList
from .errors import Busy, Disabled, InvalidVmcore, NoSpace, QuotaExceeded, VmcoreddError, WriteFailed
from .journal import Event, record
from .kernel_log import KERNEL_LOG, save_kernel_log
from .output import Format, Output
from .threads import started_executor
from .vmcore.timed import TimedCalls
from .write_elf import write_device_dumps, write_elf
from .write_job import Job, Progress, Written, kept_free

_T = TypeVar("_T")

log = logging.getLogger(__name__)

JOURNAL_ROOM = 1 << 20
"""Bytes that are kept free for the journal, which says what went wrong."""


class VmcoreWriter:
    """Writes the vmcore, once at a time, and knows whether that is still to be done."""

    def __init__(
        self,
        dumps: DumpList,
        source: Path,
        target: Path,
        output: Output,
        spool: int | None = None,
        console: Path | None = None,
    ) -> None:
        """*spool* is the open directory of this boot, where there is one on a disk; the terminal *console* is told
        how far it is. Raises VmcoreddError.
        """
        self.source = source
        self.written: Written | None = None
        self.progress = Progress()
        self.writing = False
        self.listeners: list[Callable[[Written], None]] = []
        self._dumps = dumps
        self._target = target
        self._output = output
        self._snapshot: Snapshot | None = None
        self._lock = asyncio.Lock()
        self._reads = TimedCalls()
        self._spool_reads = TimedCalls()
        # Of its own: those of the executor may all hang in a file system that is not the target's.
        self._thread = started_executor(1)
        self._directory = CrashDirectory(target, spool)
        self._outcome = ""
        self._console = ConsoleProgress(console, self._news) if console is not None else None

    @property
    def directory(self) -> Path | None:
        """That of this crash, once there is one."""
        return self._directory.path

    @property
    def wanted(self) -> bool:
        """False where the configuration leaves the vmcore to somebody else."""
        return self._output.format is not Format.NONE

    @property
    def outdated(self) -> bool:
        """True unless a vmcore is on disk that holds all device dumps."""
        return self._behind or self.written is None or bool(self.written.error)

    @property
    def _behind(self) -> bool:
        return self._snapshot is None or self._snapshot.generation != self._dumps.generation

    async def write(self) -> Written:
        """Write a vmcore with all complete device dumps, because somebody asks for it now.

        Raises Busy, Disabled, NoSpace or WriteFailed.
        """
        if not self.wanted:
            raise Disabled("the configuration says Format=none: the vmcore is written by somebody else")
        if self.writing:
            raise Busy("a vmcore is being written")
        self._dumps.check_open()
        async with self._lock:
            return await self._write_snapshot()

    async def finish(self) -> bool:
        """Write a vmcore unless that is done, because the service stops; return whether it has everything.

        A write that is under way ends first. Raises NoSpace or WriteFailed.
        """
        async with self._lock:
            if self.outdated:
                await self._write_snapshot()
            # A device dump may have become durable while that was being written. An error is no reason to write
            # again: where the target has no room, it would have none again.
            if self._behind:
                await self._write_snapshot()
            if not self.outdated:
                await self._in_thread(self._directory.forget)
        return not self.outdated

    async def _write_snapshot(self) -> Written:
        self.writing = True
        self.progress.start(0)
        try:
            with self._dumps.sealed("a vmcore is being written"):
                snapshot = await self._dumps.snapshot()
                self.written = await self._in_thread(partial(self._write, snapshot))
                self._snapshot = snapshot
        except VmcoreddError as error:
            message = f"No vmcore written: {error}"
            record(Event.VMCORE_FAILED, logging.ERROR, message, source=self.source, target=self._target)
            self._outcome = message
            raise
        finally:
            self.writing = False
        self._outcome = self.written.summary
        self._notify(self.written)
        return self.written

    def _notify(self, written: Written) -> None:
        for listener in self.listeners:
            try:
                listener(written)
            except Exception:
                # Who only wants to know cannot make a vmcore fail that is on disk.
                log.exception("%s: cannot announce that it is written", written.path)

    def _in_thread(self, function: Callable[[], _T]) -> "asyncio.Future[_T]":
        return asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _news(self) -> str:
        """Return what there is to see on the console."""
        return self.progress.text if self.writing else self._outcome

    def close(self) -> None:
        """Let the threads end that read, write the vmcore, and tell how far it is."""
        if self._console is not None:
            self._console.stop()
        self._reads.stop()
        self._spool_reads.stop()
        self._thread.shutdown(wait=False)
        self._directory.close()

    def _write(self, snapshot: Snapshot) -> Written:
        try:
            directory = self._directory.make()
            if problem := save_kernel_log(self.source, directory):
                message = f"No {KERNEL_LOG}: {problem}"
                record(Event.KERNEL_LOG_MISSING, logging.WARNING, message, source=self.source)
            self._reads.restart()
            reads = (self._reads, self._spool_reads)
            job = Job(self.source, directory, snapshot, self._output, self.progress, *reads)
            with kept_free(directory, JOURNAL_ROOM, missing_ok=True):
                return _write_or_fall_back(job)
        except OSError as error:
            raise WriteFailed(f"{self._target}: {error.strerror}") from error
        except MemoryError as error:
            raise WriteFailed(f"{self._target}: no memory is left") from error


def _write_or_fall_back(job: Job) -> Written:
    event = Event.VMCORE_FAILED
    try:
        return _filtered(job) if job.output.format is Format.KDUMP else _whole(job)
    except QuotaExceeded as error:
        # All notes together are more than crash reads: the memory goes without ours.
        reason = _memory_alone(job, str(error))
    except InvalidVmcore as error:
        event, reason = Event.SOURCE_UNREADABLE, str(error)
    except (NoSpace, WriteFailed) as error:
        reason = str(error)
    except MemoryError:
        reason = f"{job.source}: no memory is left to copy it"
    except OSError as error:
        reason = f"{job.directory}: {error.strerror}"
    except Exception as error:
        # A bug: the device dumps can still be written without the memory.
        reason = str(_unexpected(job, error))
    record(event, logging.ERROR, reason, source=job.source, target=job.directory)
    return write_device_dumps(job, reason)


def _memory_alone(job: Job, reason: str) -> str:
    """Write the memory without our device dumps, because of *reason*; return that, and why it failed, too."""
    try:
        write_elf(replace(job, snapshot=replace(job.snapshot, records=(), notes=())))
    except VmcoreddError as error:
        return f"{reason}; {error}"
    except MemoryError:
        return f"{reason}; no memory is left to copy the source"
    return reason


def _filtered(job: Job) -> Written:
    """Write what was asked for, a kdump-compressed vmcore, or an ELF vmcore where that cannot be."""
    try:
        return _compress(job)
    except VmcoreddError as error:
        message = f"The vmcore is written in ELF format: {error}"
        record(Event.FORMAT_CHANGED, logging.WARNING, message, source=job.source, format=Format.ELF)
        return write_elf(job, str(error))


def _whole(job: Job) -> Written:
    """Write what was asked for, an ELF vmcore; where the target has no room for it, makedumpfile compresses it."""
    size, free = job.source_size, job.free
    if size > free and makedumpfile.available():
        reason = f"{job.directory}: {free} bytes are free, the source has {size}"
        message = f"The vmcore is compressed by makedumpfile: {reason}"
        record(Event.FORMAT_CHANGED, logging.WARNING, message, source=job.source, format=Format.KDUMP)
        # Zero pages are no loss; what else goes is decided by the room that there is.
        output = replace(job.output, format=Format.KDUMP, dump_level=1)
        try:
            return _compress(replace(job, output=output), reason)
        except VmcoreddError as error:
            message = f"Back to ELF format: {error}"
            record(Event.FORMAT_CHANGED, logging.WARNING, message, source=job.source, format=Format.ELF)
    return write_elf(job)


def _compress(job: Job, fallback: str = "") -> Written:
    # Not before it is needed: a megabyte for as long as the service waits.
    from .write_kdump import write_kdump

    try:
        return write_kdump(job, fallback)
    except VmcoreddError:
        raise
    except MemoryError as error:
        raise WriteFailed(f"{job.source}: no memory is left to filter it") from error
    except Exception as error:
        # A bug: the source can still be copied as it is.
        raise _unexpected(job, error) from error


def _unexpected(job: Job, error: Exception) -> WriteFailed:
    log.error("Unexpected error while a vmcore is written", exc_info=error)
    return WriteFailed(f"{job.source}: unexpected error: {type(error).__name__}")
