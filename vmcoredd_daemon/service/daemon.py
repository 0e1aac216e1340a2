# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service from start to stop: start, serve, drain, write, stop.

A signal only sets an event; everything that happens then reads from top to bottom in :meth:`Daemon.run`.
"""

import asyncio
import gc
import importlib
import logging
import resource
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..collectors.runner import CollectorRunner
from ..config.config import Configuration
from ..dumps.dump_list import CUT_OFF_TIMEOUT, DumpList
from ..dumps.spool import Spool
from ..errors import BusUnavailable, VmcoreddError, WriteFailed
from ..journal import Event, record
from ..threads.loop import started_executor
from ..writer.writer import VmcoreWriter
from . import sd_notify as service_manager
from .journal_entries import record_dump, record_vmcore
from .open_spool import RecoveredDumps, open_spool
from .signals import STOP_SIGNALS, unblock_stop_signals

RECONNECT = 1.0
"""Seconds between attempts to reach the bus."""

BUS_FIRST = 1.0
"""Seconds that the bus may take before registered collectors begin."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the service leaves behind."""

    whole: bool
    """A vmcore with everything in it is on disk, in the format that was asked for; or none was to be written, and
    the spool has everything."""
    directory: Path | None
    """The directory of this crash, if there is one."""


class Daemon:
    """One run of the service."""

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
        self._stop = asyncio.Event()
        self._bus_ready = asyncio.Event()
        self._bus_problem = ""
        """Why the service is not on the bus, as the log says already."""

    async def run(self) -> Outcome:
        """Serve until SIGTERM or SIGINT; return what is on disk then.

        Raises Busy when another daemon has the spool.
        """
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop.set)
        unblock_stop_signals()
        loop.set_default_executor(started_executor())
        _raise_fd_limit()
        recovered = RecoveredDumps()
        opening = asyncio.to_thread(open_spool, self._configuration, recovered)
        # All of it is read, and its SHA-256 computed: a minute and more, on a slow disk.
        spool = await service_manager.extended(opening, recovered.progress)
        dumps, writer = self._start(spool, recovered)
        collectors = (dumps, self._collectors, self._configuration.collector_timeout)
        serving = asyncio.create_task(self._serve(dumps, CollectorRunner(*collectors), writer))
        collecting = asyncio.create_task(self._collect(dumps, CollectorRunner(*collectors, for_service=True)))
        following = asyncio.create_task(service_manager.follow(writer))
        try:
            await service_manager.extended(self._wait_for_bus())
            await asyncio.to_thread(_import_the_rest)
            gc.enable()
            record(Event.STARTED, logging.INFO, "Taking device dumps", source=writer.source)
            service_manager.ready()
            await self._stop.wait()
            following.cancel()
            service_manager.stopping()
            await service_manager.extended(self._drain(dumps, collecting))
            written = await _write(dumps, writer)
        finally:
            tasks = [serving, collecting, following]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            # Nobody is answered any more: whatever becomes durable from here on, nobody was told of.
            late = writer.wanted and writer.outdated
            await _close(dumps, spool, writer)
            record(Event.STOPPED, logging.INFO, "Stopped", path=writer.written.path if writer.written else "")
        if written and late:
            log.error("A device dump that became durable at the very end is in the spool, and in no vmcore")
        return Outcome(written and not late and recovered.whole, writer.directory)

    def _start(self, spool: Spool, recovered: RecoveredDumps) -> tuple[DumpList, VmcoreWriter]:
        configuration = self._configuration
        dumps = DumpList(spool, configuration.limits, enabled=configuration.enabled)
        for spooled in recovered.dumps:
            dumps.restore(spooled)
            name = spooled.record.name
            message = f"Device dump {name} taken back from the spool"
            record(Event.DUMP_RECOVERED, logging.INFO, message, dump_name=name)
        for name, error in recovered.problems:
            dumps.add_failed(name, "spool", error)
            what = "Left" if isinstance(error, WriteFailed) else "Set aside"
            record(Event.DUMP_DAMAGED, logging.ERROR, f"{what} in the spool: {name}: {error}", dump_name=name)
        files = (configuration.source, configuration.target, configuration.output, spool.directory)
        writer = VmcoreWriter(dumps, *files, configuration.console_path)
        dumps.listeners.append(record_dump)
        writer.listeners.append(record_vmcore)
        return dumps, writer

    async def _collect(self, dumps: DumpList, runner: CollectorRunner) -> None:
        """Begin to run the registered collectors, unless the configuration leaves that to others."""
        if not (self._configuration.enabled and self._configuration.run_collectors):
            return
        # What they import would keep callers waiting: only one thread of Python runs at a time.
        with suppress(TimeoutError):
            async with asyncio.timeout(BUS_FIRST):
                await self._bus_ready.wait()
        try:
            await runner.run(wait=False)
        except VmcoreddError as error:
            dumps.add_failed("collectors", "collectors", error)
        except Exception:
            # A bug: device dumps of others must still get into a vmcore.
            log.exception("Unexpected error of the registered collectors")

    async def _drain(self, dumps: DumpList, collecting: "asyncio.Task[None]") -> None:
        """Refuse callers; let collectors begin, and then finish, within one deadline for all."""
        dumps.seal("the service is stopping")
        deadline = time.monotonic() + self._configuration.drain_timeout
        await asyncio.wait([collecting], timeout=self._configuration.drain_timeout)
        collecting.cancel()
        await asyncio.wait([collecting])
        await dumps.drain(max(deadline - time.monotonic(), 0))

    async def _wait_for_bus(self) -> None:
        """Wait until the name is owned; not for ever, because a vmcore is to be written without a bus too."""
        waits = [asyncio.create_task(event.wait()) for event in (self._bus_ready, self._stop)]
        done, _ = await asyncio.wait(
            waits, timeout=self._configuration.bus_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        for wait in waits:
            wait.cancel()
        if not done:
            message, bus = "Going on without a message bus", self._bus_address or "system"
            record(Event.BUS_UNAVAILABLE, logging.ERROR, message, bus=bus)

    async def _serve(self, dumps: DumpList, runner: CollectorRunner, writer: VmcoreWriter) -> None:
        """Be on the bus, and come back when it does."""
        if not self._use_bus:
            self._bus_ready.set()
            return
        while True:
            try:
                await self._serve_connection(dumps, runner, writer)
                problem = "The connection to the message bus is lost"
            except BusUnavailable as error:
                problem = str(error)
            except ImportError as error:
                problem = f"No message bus without its modules: {error}"
            except Exception as error:
                # A bug, or a bus that answers nonsense: device dumps that are held must still get into a vmcore.
                problem = f"The connection to the message bus failed: {type(error).__name__}"
                if problem != self._bus_problem:
                    log.exception("Unexpected error on the message bus")
            if problem != self._bus_problem:
                record(Event.BUS_UNAVAILABLE, logging.ERROR, problem, bus=self._bus_address or "system")
                self._bus_problem = problem
            await asyncio.sleep(RECONNECT)

    async def _serve_connection(self, dumps: DumpList, runner: CollectorRunner, writer: VmcoreWriter) -> None:
        await asyncio.to_thread(importlib.import_module, f"{__package__}.interface")
        from ..bus import Connection
        from ..bus.dbus_names import BUS_NAME, MANAGER_PATH
        from .interface import ManagerInterface

        configuration = self._configuration
        bus = await Connection.open(
            self._bus_address, configuration.bus_timeout, MANAGER_PATH, configuration.calls
        )
        manager = ManagerInterface(bus, dumps, runner, writer, configuration)
        try:
            manager.start()
            await bus.own(BUS_NAME, configuration.bus_timeout)
            if self._bus_problem:
                log.info("On the message bus%s", " again" if self._bus_ready.is_set() else "")
            self._bus_problem = ""
            self._bus_ready.set()
            await bus.wait_closed()
        finally:
            try:
                manager.stop()
            finally:
                await bus.close()


async def _write(dumps: DumpList, writer: VmcoreWriter) -> bool:
    """Write the vmcore unless that is done; return whether it is whole, and in the format that was asked for."""
    if not writer.wanted:
        # Whoever writes the vmcore may still ask for them: they stay in the spool.
        log.info("No vmcore is to be written, %d device dumps stay in the spool", len(dumps.complete))
        return True

    try:
        whole = await service_manager.extended(write_and_clear(dumps, writer), writer.progress)
    except VmcoreddError:
        # In the log already.
        return False
    return whole and writer.written is not None and not writer.written.fallback


async def write_and_clear(dumps: DumpList, writer: VmcoreWriter) -> bool:
    """Write a vmcore with all device dumps, and clear the spool of them; return whether that was done.

    Raises NoSpace or WriteFailed.
    """
    while await writer.finish():
        # Those that are in the vmcore, and none that becomes durable while they are cleared.
        await dumps.clear_spool([dump.number for dump in dumps.complete])
        if not writer.outdated:
            return True
    return False


async def _close(dumps: DumpList, spool: Spool, writer: VmcoreWriter) -> None:
    settled = await service_manager.extended(dumps.settle(CUT_OFF_TIMEOUT))
    # The file system frees there what no vmcore needs any more.
    await asyncio.to_thread(dumps.close)
    if settled:
        spool.close()
    writer.close()


def _import_the_rest() -> None:
    """Import what is needed later only, when there may be no memory for it."""
    for module in ("writer.fallback", "collectors.registry"):
        importlib.import_module(f"vmcoredd_daemon.{module}")


def _raise_fd_limit() -> None:
    # Each device dump keeps a descriptor; the soft limit of 1024 is there for programs that call select().
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
