# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service from start to stop: start, serve, drain, write, stop.

A signal only sets an event. :meth:`Daemon.run` is its life from start to end; the steps follow in their order.
"""

import asyncio
import gc
import importlib
import logging
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..collectors.runner import CollectorRunner
from ..config.config import PROC_VMCORE, Configuration
from ..dumps.dump_list import CUT_OFF_TIMEOUT, DumpList
from ..dumps.hand_over import HandedOver, hand_over, remember_crash, remember_vmcore
from ..dumps.spool import Spool
from ..errors import BusUnavailable, CollectorFailed, InvalidVmcore, VmcoreddError, WriteFailed
from ..journal import Event, record
from ..threads.loop import run_apart, run_with_duplicate, started_executor, wait_for
from ..writer.writer import VmcoreWriter
from . import sd_notify
from .journal_entries import record_dump, record_vmcore
from .open_spool import RecoveredDumps, open_spool
from .signals import STOP_SIGNALS, unblock_stop_signals

RECONNECT_INTERVAL = 1.0
"""Seconds between attempts to reach the bus."""

SPOOL_TIMEOUT = 60.0
"""Seconds for what the service leaves in the spool at the end, and for its space to be free."""

SOURCE_TIMEOUT = 10.0
"""Seconds to read of which crash the source is."""

BUS_HEAD_START = 1.0
"""Seconds that registered collectors wait for the bus."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run of the service leaves on disk."""

    complete: bool
    """A vmcore with everything is on disk, as configured; with Format=none, the spool has everything."""
    directory: Path | None
    """The directory of this crash, if there is one."""


class Daemon:
    """One run of the service."""

    _spool: Spool
    _dumps: DumpList
    _writer: VmcoreWriter
    _runner: CollectorRunner

    def __init__(
        self,
        configuration: Configuration,
        bus_address: str | None,
        *,
        use_bus: bool,
        collectors: Sequence[Path] = (),
    ) -> None:
        """*collectors* are the directories of registered collectors."""
        self._configuration = configuration
        self._collectors = collectors
        self._bus_address = bus_address
        self._use_bus = use_bus
        self._stop_requested = asyncio.Event()
        self._done = ""
        """How an earlier daemon has ended the service's part in the crash of this boot."""
        self._cleared = False
        """Whether a vmcore has all device dumps, and the spool none of them any more."""
        self._bus_ready = asyncio.Event()
        self._bus_problem = ""
        """Why the service is not on the bus, as last logged."""

    async def run(self) -> RunResult:
        """Serve until a stop signal; return what is on disk. Raises Busy if another daemon has the spool."""
        recovered = await self._start()
        serving = asyncio.create_task(self._serve())
        collecting = asyncio.create_task(self._collect())
        reporting = asyncio.create_task(sd_notify.follow(self._writer, self._status))
        complete = False
        try:
            await self._become_ready()
            await self._stop_requested.wait()
            reporting.cancel()
            sd_notify.stopping()
            await sd_notify.extended(self._drain(collecting))
            complete = await self._write()
            await self._remember_crash()
        finally:
            late = await self._end(serving, collecting, reporting)
            if complete and late:
                log.error("A device dump was on disk too late for the vmcore; the spool keeps it")
            if self._cleared and recovered.complete and not late:
                await self._remember_vmcore()
            await self._stop()
        return RunResult(complete and not late and recovered.complete, self._writer.directory)

    # Start.

    async def _start(self) -> RecoveredDumps:
        """Handle signals, and open the spool with what an earlier daemon left in it."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop_requested.set)
        unblock_stop_signals()
        loop.set_default_executor(started_executor())
        _raise_fd_limit()
        configuration, recovered = self._configuration, RecoveredDumps()
        opening = asyncio.to_thread(open_spool, configuration, recovered)
        # All of it is read and hashed: on a slow disk that takes a minute and more.
        self._spool = await sd_notify.extended(opening, recovered.progress)
        self._done = recovered.done
        switched_off = "" if configuration.enabled else "device dumps are switched off by the configuration"
        self._dumps = DumpList(self._spool, configuration.limits, disabled=recovered.done or switched_off)
        self._restore(recovered)
        self._writer = VmcoreWriter(
            self._dumps,
            configuration.source,
            configuration.target,
            configuration.output,
            spool=self._spool.directory,
            console=configuration.console_path,
            done=recovered.done,
            keep_crashes=configuration.keep_crashes,
        )
        self._dumps.listeners.append(record_dump)
        self._writer.listeners.append(record_vmcore)
        self._runner = CollectorRunner(self._dumps, self._collectors, configuration.collector_timeout)
        return recovered

    def _restore(self, recovered: RecoveredDumps) -> None:
        for spooled in recovered.dumps:
            self._dumps.restore(spooled)
            name = spooled.record.name
            message = f"Device dump {name} recovered from the spool"
            record(Event.DUMP_RECOVERED, logging.INFO, message, dump_name=name)
        for name, error in recovered.problems:
            self._dumps.add_failed(name, "spool", error)
            what = "kept" if isinstance(error, WriteFailed) else "set aside"
            message = f"{name}: not recovered from the spool, but {what}: {error}"
            record(Event.DUMP_DAMAGED, logging.ERROR, message, dump_name=name)
        for failure in recovered.left.failures:
            self._dumps.add_failed(failure.name, failure.collector, CollectorFailed(failure.message))
        for idle in recovered.left.idle_collectors:
            self._dumps.set_idle(idle.name, idle.reason)

    async def _become_ready(self) -> None:
        """Tell the service manager that callers can come: by then the service is on the bus, if there is one."""
        await sd_notify.extended(self._wait_for_bus())
        await asyncio.to_thread(_import_the_rest)
        gc.enable()
        refused, source = self._dumps.disabled, self._writer.source
        if refused:
            record(Event.DISABLED, logging.INFO, f"{self._status}: {refused}", source=source)
        else:
            record(Event.STARTED, logging.INFO, self._status, source=source)
        sd_notify.ready(self._status)

    @property
    def _status(self) -> str:
        """What the service does while it serves."""
        return "Refusing device dumps" if self._dumps.disabled else "Taking device dumps"

    async def _wait_for_bus(self) -> None:
        """Wait for the bus name, or a stop; not for ever, because a vmcore is written without a bus, too."""
        waits = [asyncio.create_task(event.wait()) for event in (self._bus_ready, self._stop_requested)]
        done, _ = await asyncio.wait(
            waits, timeout=self._configuration.bus_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        for wait in waits:
            wait.cancel()
        if not done:
            message = f"No message bus in {self._configuration.bus_timeout:g} s: helpers cannot add device dumps"
            record(Event.BUS_UNAVAILABLE, logging.ERROR, message, bus=self._bus_address or "system")

    # Serve, and run the registered collectors at the same time.

    async def _serve(self) -> None:
        """Be on the bus, and reconnect when the connection is lost."""
        if not self._use_bus:
            self._bus_ready.set()
            return
        while True:
            try:
                await self._serve_connection()
                problem = "The connection to the message bus was lost: reconnecting"
            except BusUnavailable as error:
                problem = str(error)
            except ImportError as error:
                problem = f"The modules for the message bus are missing: {error}"
            except Exception as error:
                # A bug, or a bus that answers nonsense: the device dumps must get into a vmcore anyway.
                problem = f"The connection to the message bus failed: {type(error).__name__}"
                if problem != self._bus_problem:
                    log.exception("Unexpected error on the message bus")
            if problem != self._bus_problem:
                record(Event.BUS_UNAVAILABLE, logging.ERROR, problem, bus=self._bus_address or "system")
                self._bus_problem = problem
            await asyncio.sleep(RECONNECT_INTERVAL)

    async def _serve_connection(self) -> None:
        # Imported late: without these modules a vmcore is written anyway. In a thread: it may take seconds.
        await asyncio.to_thread(importlib.import_module, ".interface", __package__)
        from ..bus import Connection
        from ..bus.dbus_names import BUS_NAME, MANAGER_PATH
        from .interface import ManagerInterface

        configuration = self._configuration
        bus = await Connection.open(
            self._bus_address, configuration.bus_timeout, MANAGER_PATH, configuration.calls
        )
        manager = ManagerInterface(bus, self._dumps, self._runner, self._writer, configuration)
        try:
            bus.announces = False
            manager.start()
            await bus.own(BUS_NAME, configuration.bus_timeout)
            if self._bus_problem:
                log.info("Connected to the message bus%s", " again" if self._bus_ready.is_set() else "")
            self._bus_problem = ""
            self._bus_ready.set()
            await bus.wait_closed()
        finally:
            try:
                manager.stop()
            finally:
                await bus.close()

    async def _collect(self) -> None:
        """Start the registered collectors, unless the configuration leaves that to callers."""
        if self._dumps.disabled or not self._configuration.run_collectors:
            return
        # Importing them would delay callers: only one thread runs Python at a time.
        with suppress(TimeoutError):
            async with asyncio.timeout(BUS_HEAD_START):
                await self._bus_ready.wait()
        try:
            runner = CollectorRunner(
                self._dumps, self._collectors, self._configuration.collector_timeout, for_service=True
            )
            await runner.run(wait=False)
        except VmcoreddError as error:
            self._dumps.add_failed("collectors", "collectors", error)
        except Exception:
            # A bug: other device dumps must get into a vmcore anyway.
            log.exception("Unexpected error in the registered collectors")

    # Drain and write.

    async def _drain(self, collecting: "asyncio.Task[None]") -> None:
        """Refuse callers; wait until collectors have started, and finished, within one deadline for both."""
        self._dumps.seal("the service is stopping")
        deadline = time.monotonic() + self._configuration.drain_timeout
        await asyncio.wait([collecting], timeout=self._configuration.drain_timeout)
        collecting.cancel()
        await asyncio.wait([collecting])
        await self._dumps.drain(max(deadline - time.monotonic(), 0))

    async def _write(self) -> bool:
        """Write the vmcore unless that is done; return whether it is complete, and in the configured format."""
        writer = self._writer
        if self._done:
            return True
        if not writer.wanted:
            return await self._hand_over()
        try:
            self._cleared = await sd_notify.extended(write_and_clear(self._dumps, writer), writer.progress)
        except VmcoreddError:
            # Logged by the writer.
            return False
        return self._cleared and writer.as_configured

    async def _hand_over(self) -> bool:
        """Leave to the program that writes the vmcore the device dumps, and which have failed.

        Returns False if device dumps are lost.
        """
        count, directory = len(self._dumps.complete), self._spool.directory
        if directory is None or not self._spool.keeps:
            if count:
                log.error("No vmcore is written: %d device dumps in memory are lost", count)
            return not count
        log.info("No vmcore is written: %d device dumps are kept in the spool", count)
        snapshot = await self._dumps.snapshot()
        try:
            left = HandedOver(snapshot.failures, snapshot.idle_collectors)
            await self._in_spool(partial(hand_over, left=left), directory)
        except WriteFailed as error:
            log.warning("%s; collectors that failed may run again", error)
        return True

    async def _remember_crash(self) -> None:
        """Leave in the spool of which crash its device dumps are, if no vmcore has them yet."""
        directory = self._spool.directory
        if self._done or self._cleared or directory is None or not self._dumps.complete:
            return
        # Imported late, so that the service is ready sooner.
        from ..writer.machine import crash_of

        source = self._writer.source
        unknown = "the next boots will not know of which crash the device dumps in the spool are"
        try:
            reading = wait_for(run_apart(partial(crash_of, source)), SOURCE_TIMEOUT)
            vmcoreinfo = await sd_notify.extended(reading)
            if vmcoreinfo is None:
                raise InvalidVmcore(f"{source}: has no VMCOREINFO of a panic")
            await self._in_spool(partial(remember_crash, vmcoreinfo=vmcoreinfo), directory)
        except OSError as error:
            reason = error.strerror or f"not read within {SOURCE_TIMEOUT:g} s"
            log.warning("%s: %s; %s", source, reason, unknown)
        except VmcoreddError as error:
            log.warning("%s; %s", error, unknown)

    async def _in_spool(self, write: Callable[[int], None], directory: int) -> None:
        """Call *write* with the spool's directory. Raises WriteFailed, also when it does not return in time."""
        try:
            await sd_notify.extended(wait_for(run_with_duplicate(write, directory, run_apart), SPOOL_TIMEOUT))
        except OSError as error:
            reason = error.strerror or f"not done within {SPOOL_TIMEOUT:g} s"
            raise WriteFailed(f"cannot write into the spool: {reason}") from error

    # Stop.

    async def _end(self, *tasks: "asyncio.Task[None]") -> bool:
        """End *tasks*; return whether a device dump became durable too late for the vmcore."""
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        # No call is answered from here on, so what becomes durable later was never acknowledged.
        return self._writer.wanted and self._writer.outdated

    async def _remember_vmcore(self) -> None:
        """Leave in the spool where the vmcore is: a service that is started again takes no device dumps."""
        directory, written = self._spool.directory, self._writer.written
        if directory is None or written is None or self._writer.source != PROC_VMCORE:
            return
        try:
            await self._in_spool(partial(remember_vmcore, path=written.path), directory)
        except WriteFailed as error:
            log.warning("%s; a service that is started again will take device dumps for another vmcore", error)

    async def _stop(self) -> None:
        """Close everything."""
        dumps, writer = self._dumps, self._writer
        settled = await sd_notify.extended(dumps.settle(CUT_OFF_TIMEOUT))
        # In a thread: the file system frees the space of the device dumps now.
        with suppress(TimeoutError):
            await sd_notify.extended(wait_for(run_apart(dumps.close), SPOOL_TIMEOUT))
        if settled:
            self._spool.close()
        writer.close()
        record(Event.STOPPED, logging.INFO, "Stopped", path=writer.written.path if writer.written else "")


async def write_and_clear(dumps: DumpList, writer: VmcoreWriter) -> bool:
    """Write a vmcore with all device dumps, and clear the spool of them; return whether that was done.

    Raises NoSpace or WriteFailed.
    """
    while await writer.finish():
        # Listed before clearing begins: one that becomes durable meanwhile is in the next vmcore.
        await dumps.clear_spool([dump.number for dump in dumps.complete])
        if not writer.outdated:
            return True
    return False


def _import_the_rest() -> None:
    # Imported late, so that the service is ready sooner; but now, because there may be no memory for it later.
    from ..collectors import registry  # noqa: F401
    from ..writer import fallback  # noqa: F401


def _raise_fd_limit() -> None:
    # Each device dump keeps a descriptor; the soft limit of 1024 is for programs that call select().
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
