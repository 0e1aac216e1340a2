# SPDX-License-Identifier: LGPL-2.1-or-later
"""Turn the dump list into a vmcore, one at a time: snapshot, directory of this crash, :mod:`.write_crash`."""

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
        self.written: WriteResult | None = None
        self.progress = Progress()
        self.writing = False
        self.listeners = Listeners[[WriteResult]]()
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
        self._console = ConsoleStatus(console, self._status_line) if console is not None else None

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

    async def write(self) -> WriteResult:
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

    def _write(self, snapshot: Snapshot) -> WriteResult:
        try:
            # The service imports it when it is on the bus.
            from .fallback import write_crash
            from .job import Job

            directory = self._directory.make()
            self._reads.restart()
            reads = (self._reads, self._spool_reads)
            return write_crash(Job(self.source, directory, snapshot, self._output, self.progress, *reads))
        except OSError as error:
            raise WriteFailed(f"{self._target}: {error.strerror}") from error
        except MemoryError as error:
            raise WriteFailed(f"{self._target}: no memory is left") from error
