# SPDX-License-Identifier: LGPL-2.1-or-later
"""The list of device dumps, its lock, and the one way into it.

Mirrors ``vmcore_add_device_dump()`` in Linux ``fs/proc/vmcore.c``, step by step: validate, allocate, collect
outside of the lock, write the header, then take the lock and append. Added are limits, deadlines, and a seal.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from ..config.limits import Limits
from ..errors import (
    Busy,
    CollectorFailed,
    Disabled,
    InvalidArgs,
    NoSpace,
    TimedOut,
    UnknownDump,
    VmcoreddError,
    WriteFailed,
)
from ..files import close
from ..manifest import IdleCollector, State, check_kind, now_usec
from ..note import check_dump_name
from ..threads.loop import AbandonedThreads, abandon, ignore_result, wait_for
from .buffer import Buffer, close_removed, writer_ended
from .collector import Collected, Collector
from .commit import Commit
from .device_dump import Change, DeviceDump, Listeners, Snapshot, Usage
from .recovery import SpooledDump
from .spool import Spool

log = logging.getLogger(__name__)

CUT_OFF_TIMEOUT = 10.0
"""Seconds, at least, in which collectors that are cut off hand over what they have."""

FREE_TIMEOUT = 5.0
"""Seconds in which the space of a device dump is free again, unless a program hangs in a write to it."""


class DumpList:
    """All device dumps of this capture kernel."""

    def __init__(self, spool: Spool, limits: Limits, *, disabled: str = "") -> None:
        """*disabled* is why no device dump is added, if none is."""
        self._usage = Usage()
        self.listeners = Listeners([self._usage.changed])
        self.disabled = disabled
        self.failures_forgotten = 0
        self._idle: dict[str, str] = {}
        """Collectors that made no device dump, and why."""
        self.generation = 0
        """Grows with each change of what a vmcore would hold."""
        self._spool = spool
        self._limits = limits
        self._sealed = ""
        """Why additions and removals are refused; empty while they are not."""
        self._lock = asyncio.Lock()
        self._collecting = asyncio.Semaphore(limits.max_collecting)
        self._dumps: dict[int, DeviceDump] = {}
        self._order: list[int] = []
        """Numbers of the complete ones, in the order in which they were appended."""
        self._tasks: dict[int, asyncio.Task[DeviceDump]] = {}
        self._committing: set[int] = set()
        self._next = spool.next_number()
        self.abandoned = AbandonedThreads(limits.max_collecting)
        """Threads that read for collectors."""
        self._writers = AbandonedThreads(limits.max_collecting)
        """Threads that wait for programs that hang in a write to a device dump."""

    def __iter__(self) -> Iterator[DeviceDump]:
        """Iterate over a snapshot of all device dumps, failed ones and those being collected included."""
        return iter(list(self._dumps.values()))

    @property
    def complete(self) -> tuple[DeviceDump, ...]:
        """The device dumps that a vmcore would hold, in the order in which they were appended."""
        return tuple(self._dumps[number] for number in self._order)

    async def add_device_dump(
        self,
        name: str,
        size: int,
        collector: Collector,
        *,
        timeout: float,
        wait: bool = True,
        keep_size: bool = False,
        kind: str = "",
        caller: str = "",
        for_service: bool = False,
    ) -> DeviceDump:
        """Add a device dump of at most *size* bytes that *collector* fills within *timeout* seconds.

        The seconds are counted from when it has its turn, see ``Limits.max_collecting``. Returns when it is
        durable or, with *wait* false, as soon as its name and bytes are reserved. Its note has its true size or,
        with *keep_size*, that of *size* bytes, as in the kernel. *kind* is for the manifest. One *for_service* was
        begun by the service itself before it was told to stop: a seal does not refuse it. Raises InvalidArgs,
        NameInUse, TooLarge, QuotaExceeded, NoSpace, CollectorFailed, TimedOut, Busy or Disabled; then nothing was
        added. In each case *collector* is closed once it is no longer needed.
        """
        try:
            self.check_enabled()
            self._writers.check()
            if not for_service:
                self.check_open()
            check_kind(kind)
            dump = self._reserve(name, size, collector.description, caller, keep_size=keep_size, kind=kind)
        except BaseException:
            collector.close()
            raise
        task = asyncio.create_task(self._collect(dump, collector, timeout))
        # A failure is in the list; maybe no caller waits for the task's copy of it.
        ignore_result(task)
        self._tasks[dump.number] = task
        task.add_done_callback(lambda _: self._task_ended(dump.number, collector))
        # The caller may leave; what it began is worth having anyway.
        return await asyncio.shield(task) if wait else dump

    def restore(self, spooled: SpooledDump) -> None:
        """Add a device dump that an earlier daemon acknowledged."""
        dump = DeviceDump.restored(spooled.number, spooled.record, spooled.note)
        self._append(dump)
        self._usage.add(dump)

    async def snapshot(self) -> Snapshot:
        """Return what a vmcore is to hold; waits until no removal is half done."""
        async with self._lock:
            complete = self.complete
            failed = (dump for dump in self._dumps.values() if dump.state is State.FAILED)
            return Snapshot(
                generation=self.generation,
                records=tuple(dump.record() for dump in complete),
                notes=tuple(dump.note for dump in complete if dump.note is not None),
                failures=tuple(dump.failure() for dump in failed),
                failures_forgotten=self.failures_forgotten,
                idle_collectors=self.idle_collectors,
            )

    @property
    def idle_collectors(self) -> tuple[IdleCollector, ...]:
        """Registered collectors that made no device dump when they ran last, and did not fail."""
        return tuple(IdleCollector(name, reason) for name, reason in sorted(self._idle.items()))

    def set_idle(self, collector: str, reason: str) -> None:
        """Note why *collector* makes no device dump; with an empty *reason*, that it makes some."""
        self._idle.pop(collector, None)
        if reason:
            self._idle[collector] = reason

    def add_failed(self, name: str, collector: str, error: VmcoreddError) -> DeviceDump:
        """Add a device dump that failed before it began, so that it is seen, and return it."""
        dump = self._begin(name, 0, 0, collector)
        return self._fail(dump, error)

    async def finished(self, numbers: Iterable[int]) -> None:
        """Wait until none of these device dumps is being collected any more."""
        if tasks := [self._tasks[number] for number in numbers if number in self._tasks]:
            await asyncio.wait(tasks)

    async def remove(self, number: int) -> None:
        """Remove a device dump, or forget that it failed. Raises UnknownDump, Busy or WriteFailed."""
        self._writers.check()
        found = self._dumps.get(number)
        # Without the lock, for which additions wait.
        if found and found.note and not await writer_ended(found.note.fd, self._writers):
            raise WriteFailed(f"device dump {found.name} is not removed: a program writes to it")
        async with self._lock:
            self.check_open()
            if number not in self._dumps:
                raise UnknownDump(f"there is no device dump {number}")
            dump = self._dumps[number]
            if dump.state is State.COLLECTING:
                raise Busy(f"device dump {dump.name} is still being collected")
            if dump.note is not None:
                await self._spool.remove([number])
                self._order.remove(number)
                self.generation += 1
            del self._dumps[number]
            # Listeners must not open the descriptor any more when its number may be another file's.
            self._notify(Change.REMOVED, dump)
            if dump.note is not None:
                await self._wait_until_free(close_removed(dump.note.fd))

    def check_enabled(self) -> None:
        """Raise Disabled when no device dump is added."""
        if self.disabled:
            raise Disabled(self.disabled)

    @property
    def accepting(self) -> bool:
        """False while the list is sealed."""
        return not self._sealed

    def check_open(self) -> None:
        """Raise Busy when the list is sealed."""
        if self._sealed:
            raise Busy(self._sealed)

    def seal(self, reason: str) -> None:
        """Refuse every addition and removal from now on, with Busy and this reason."""
        self._sealed = reason

    @contextmanager
    def sealed(self, reason: str) -> Iterator[None]:
        """Seal the list for a while."""
        before, self._sealed = self._sealed, self._sealed or reason
        try:
            yield
        finally:
            # The service may have sealed the list for good meanwhile.
            self._sealed = before if self._sealed == reason else self._sealed

    async def drain(self, timeout: float) -> None:
        """Wait up to *timeout* seconds for what is being collected, then record the rest as failed."""
        await self.settle(timeout)
        for number, task in self._tasks.items():
            # One that is being made durable has its data already, and needs a moment only.
            if number not in self._committing:
                task.cancel()
        await self.settle(max(timeout, CUT_OFF_TIMEOUT))

    async def settle(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds for what was begun; return whether all of it has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=timeout)
        return not self._tasks

    def close(self) -> None:
        """Close the notes; in the spool they stay. Blocks for a moment: space of what was removed is freed."""
        dumps = list(self._dumps.values())
        self._dumps.clear()
        self._order.clear()
        for dump in dumps:
            if dump.note is not None:
                close(dump.note.fd)

    async def clear_spool(self, numbers: Collection[int]) -> None:
        """Remove complete device dumps from the spool, because a vmcore holds them. Raises WriteFailed."""
        async with self._lock:
            await self._spool.remove(numbers)

    def _reserve(
        self, name: str, size: int, collector: str, caller: str, *, keep_size: bool, kind: str
    ) -> DeviceDump:
        check_dump_name(name)
        if size < 1:
            raise InvalidArgs(f"device dump {name}: size is {size}")
        note_size = self._spool.note_size(size)
        unfinished = filter(None, map(self._dumps.get, self._tasks))
        begun = sum(dump.caller == caller != "" and dump.state is State.COLLECTING for dump in unfinished)
        usage = self._usage
        self._limits.check(name, note_size, names=usage, count=len(usage), total_size=usage.size, begun=begun)
        return self._begin(name, size, note_size, collector, caller, keep_size=keep_size, kind=kind)

    def _begin(
        self,
        name: str,
        limit: int,
        note_size: int,
        collector: str,
        caller: str = "",
        *,
        keep_size: bool = False,
        kind: str = "",
    ) -> DeviceDump:
        dump = DeviceDump(
            number=self._next,
            name=name,
            limit=limit,
            note_size=note_size,
            collector=collector,
            caller=caller,
            keep_size=keep_size,
            kind=kind,
        )
        self._next += 1
        self._dumps[dump.number] = dump
        self._notify(Change.RESERVED, dump)
        return dump

    def _notify(self, change: Change, dump: DeviceDump) -> None:
        self.listeners.notify(f"Device dump {dump.name} is {change}", change, dump)

    async def _collect(self, dump: DeviceDump, collector: Collector, timeout: float) -> DeviceDump:
        buffer = None
        try:
            async with self._collecting:
                async with asyncio.timeout(timeout):
                    buffer = await self._spool.create(dump.name, dump.limit)
                    collected = await collector.collect(dump.name, buffer)
                return await self._commit(replace(dump, collector=collector.description), buffer, collected)
        except VmcoreddError as error:
            failure = error
        except TimeoutError:
            failure = TimedOut(f"device dump {dump.name}: the collector did not finish within {timeout:g} s")
        except MemoryError:
            failure = NoSpace(f"device dump {dump.name}: not enough memory")
        except asyncio.CancelledError:
            failure = TimedOut(f"device dump {dump.name}: the collector did not finish before the shutdown")
        except Exception:
            log.exception("Device dump %s: unexpected error", dump.name)
            failure = CollectorFailed(f"device dump {dump.name}: internal error")
        self._fail(replace(dump, collector=collector.description), failure)
        if buffer is not None:
            await self._free(buffer)
        raise failure

    async def _free(self, buffer: Buffer) -> None:
        busy, freed = buffer.busy, buffer.close()
        if freed is None:
            return
        if busy:
            abandon(freed, self.abandoned)
        else:
            # The caller that is told that it failed may want its space immediately.
            await self._wait_until_free(freed)

    async def _wait_until_free(self, freed: "asyncio.Future[Any]") -> None:
        with suppress(TimeoutError):
            await wait_for(freed, FREE_TIMEOUT, self._writers)

    async def _commit(self, dump: DeviceDump, buffer: Buffer, collected: Collected) -> DeviceDump:
        # Before the first await: the collector has done its part, and neither its deadline nor a drain may end the
        # rest.
        self._committing.add(dump.number)
        try:
            dump = replace(
                dump,
                state=State.TRUNCATED if collected.truncated else State.COMPLETE,
                size=collected.size,
                finished_usec=now_usec(),
                error=collected.error,
            )
            commit = Commit(dump.number, buffer, collected.size, dump.record, dump.keep_size)
            note = await self._spool.commit(commit)
            dump = replace(dump, sha256=note.sha256, note_size=note.note_size, note=note)
            async with self._lock:
                self._append(dump)
        finally:
            self._committing.discard(dump.number)
        self._notify(Change.ADDED, dump)
        self._forget_failures(dump)
        return dump

    def _forget_failures(self, dump: DeviceDump) -> None:
        """Forget the attempts before *dump* that failed: now it is there."""
        for other in self:
            if other.name == dump.name and other.state is State.FAILED and other.number < dump.number:
                self._notify(Change.REMOVED, self._dumps.pop(other.number))

    def _append(self, dump: DeviceDump) -> None:
        self._dumps[dump.number] = dump
        self._order.append(dump.number)
        self.generation += 1

    def _fail(self, dump: DeviceDump, error: VmcoreddError) -> DeviceDump:
        failed = replace(dump, state=State.FAILED, error=error, finished_usec=now_usec())
        self._dumps[dump.number] = failed
        self._notify(Change.FAILED, failed)
        old = [number for number, other in self._dumps.items() if other.state is State.FAILED]
        for number in old[: -self._limits.max_failures]:
            self.failures_forgotten += 1
            self._notify(Change.REMOVED, self._dumps.pop(number))
        return failed

    def _task_ended(self, number: int, collector: Collector) -> None:
        del self._tasks[number]
        collector.close()
