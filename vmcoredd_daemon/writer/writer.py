# SPDX-License-Identifier: LGPL-2.1-or-later
"""Turns the dump list into a vmcore, one at a time: snapshot, directory of this crash, :mod:`.fallback`."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from ..config.vmcore_format import Format, Output
from ..dumps.device_dump import Listeners, Snapshot
from ..dumps.dump_list import DumpList
from ..errors import Busy, Disabled, VmcoreddError, WriteFailed
from ..journal import Event, record
from ..progress import Progress
from ..threads.loop import started_executor
from ..vmcore.copy.source import TimedCalls
from .console_status import ConsoleStatus
from .crash_directory import CrashDirectory
from .result import WRITING, WriteResult

_T = TypeVar("_T")


class VmcoreWriter:
    """Writes one vmcore at a time, and knows whether one is still to be written."""

    def __init__(
        self,
        dumps: DumpList,
        source: Path,
        target: Path,
        output: Output,
        spool: int | None = None,
        console: Path | None = None,
        done: str = "",
        keep_crashes: int = 0,
    ) -> None:
        """*spool* is the open directory of this boot, if it is on a disk; the terminal *console* shows how far the
        vmcore is; *done* is why no vmcore is written any more. *keep_crashes* stay in *target*, 0: all.

        Raises VmcoreddError.
        """
        self.source = source
        self.written: WriteResult | None = None
        self.progress = Progress()
        self.writing = False
        self.listeners = Listeners[[WriteResult]]()
        self._dumps = dumps
        self._target = target
        self._output = output
        self._keep_crashes = keep_crashes
        self._snapshot: Snapshot | None = None
        self._lock = asyncio.Lock()
        self._reads = TimedCalls()
        self._spool_reads = TimedCalls()
        # A thread of its own: those of the default executor may all hang in another file system than the target's.
        self._thread = started_executor(1)
        self._directory = CrashDirectory(target, self._spool_reads, spool)
        self._outcome = ""
        self._unwanted = done
        if not done and output.format is Format.NONE:
            self._unwanted = "Format=none is configured: another program writes the vmcore"
        self._console = ConsoleStatus(console, self._status_line) if console is not None else None

    @property
    def directory(self) -> Path | None:
        """The directory of this crash, once there is one."""
        return self._directory.path

    @property
    def wanted(self) -> bool:
        """False if the vmcore is written, or the configuration leaves it to another program."""
        return not self._unwanted

    @property
    def outdated(self) -> bool:
        """True unless a vmcore with all device dumps is on disk."""
        return self._behind or self.written is None or bool(self.written.error)

    @property
    def as_configured(self) -> bool:
        """True if a vmcore is on disk, in the configured format; without one, each is as good."""
        return self.written is not None and (self._output.format is Format.AUTO or not self.written.fallback)

    @property
    def _behind(self) -> bool:
        return self._snapshot is None or self._snapshot.generation != self._dumps.generation

    async def write(self) -> WriteResult:
        """Write a vmcore with all complete device dumps now, for a caller.

        Raises Busy, Disabled, NoSpace or WriteFailed.
        """
        if not self.wanted:
            raise Disabled(self._unwanted)
        if self.writing:
            raise Busy("a vmcore is being written")
        self._dumps.check_open()
        async with self._lock:
            return await self._write_snapshot()

    async def finish(self) -> bool:
        """Write a vmcore unless that is done, because the service stops; return whether it is complete.

        A write that is under way ends first. Raises NoSpace or WriteFailed.
        """
        async with self._lock:
            if self.outdated:
                await self._write_snapshot()
            # A device dump may have become durable during the write. After an error it is not written again: a
            # target without space would still have none.
            if self._behind:
                await self._write_snapshot()
            if not self.outdated:
                await self._in_thread(self._conclude)
        return not self.outdated

    async def _write_snapshot(self) -> WriteResult:
        self.writing = True
        self.progress.start(WRITING)
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
        self.listeners.notify(f"{self.written.path} is written", self.written)
        return self.written

    def _in_thread(self, function: Callable[[], _T]) -> "asyncio.Future[_T]":
        return asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _status_line(self) -> str:
        """Return what the console shows."""
        return self.progress.text if self.writing else self._outcome

    def _conclude(self) -> None:
        self._directory.forget()
        self._directory.remove_old(self._keep_crashes)

    def close(self) -> None:
        """End the threads that read, write and show the status."""
        if self._console is not None:
            self._console.stop()
        self._reads.stop()
        self._spool_reads.stop()
        self._thread.shutdown(wait=False)
        self._directory.close()

    def _write(self, snapshot: Snapshot) -> WriteResult:
        try:
            # Imported late: the service is on the bus sooner, and imports them right after.
            from .fallback import write_crash
            from .job import Job

            directory = self._directory.make()
            self._reads.restart()
            return write_crash(
                Job(
                    source=self.source,
                    directory=directory,
                    snapshot=snapshot,
                    output=self._output,
                    progress=self.progress,
                    reads=self._reads,
                    spool_reads=self._spool_reads,
                )
            )
        except OSError as error:
            raise WriteFailed(f"{self._target}: {error.strerror}") from error
        except MemoryError as error:
            raise WriteFailed(f"{self._target}: not enough memory") from error
