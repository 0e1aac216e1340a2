# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service from start to stop: start, serve, drain, write, stop.

A signal only sets an event; everything that happens then reads from top to bottom in :meth:`Daemon.run`.
"""

import asyncio
import logging
import resource
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from systemd.daemon import notify

from .config import Configuration
from .device_dump import Change, DeviceDump, State
from .dumps import DumpList
from .errors import BusUnavailable, VmcoreddError, WriteFailed
from .journal import Event, record
from .names import BUS_NAME, MANAGER_PATH
from .note import system_page_size
from .spool import Spool
from .vmcore.elf import native_headers
from .writer import VmcoreWriter, Written

_T = TypeVar("_T")

RECONNECT = 1.0
"""Seconds between attempts to reach the bus."""

EXTEND_TIMEOUT = 30.0
"""Seconds that the service manager is asked for, again and again while the work goes on."""

STATUS_INTERVAL = 1.0
"""Seconds between two status lines."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the service leaves behind."""

    whole: bool
    """A vmcore with everything in it is on disk."""
    directory: Path | None
    """The directory of this crash, if there is one."""


class Daemon:
    """One run of the service."""

    def __init__(self, configuration: Configuration, bus_address: str | None, *, use_bus: bool) -> None:
        self._configuration = configuration
        self._bus_address = bus_address
        self._use_bus = use_bus
        self._stop = asyncio.Event()
        self._bus_ready = asyncio.Event()

    async def run(self) -> Outcome:
        """Serve until SIGTERM or SIGINT; return what is on disk then.

        Raises Busy when another daemon has the spool.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        _raise_fd_limit()
        spool = await asyncio.to_thread(self._open_spool)
        dumps, writer = await self._start(spool)
        serving = asyncio.create_task(self._serve(dumps, writer))
        serving.add_done_callback(self._serving_ended)
        try:
            await self._wait_for_bus()
            record(Event.STARTED, logging.INFO, "Taking device dumps", source=writer.source)
            notify("READY=1\nSTATUS=Taking device dumps")
            await self._stop.wait()
            notify("STOPPING=1")
            dumps.seal("the service is stopping")
            await _extend(dumps.drain(self._configuration.drain_timeout), lambda: "Waiting for collectors")
            whole = await _write(dumps, writer)
            return Outcome(whole, writer.directory)
        finally:
            serving.cancel()
            await asyncio.wait([serving])
            spool.close()
            record(Event.STOPPED, logging.INFO, "Stopped")

    def _open_spool(self) -> Spool:
        path, byteorder = self._configuration.spool_directory, native_headers().byteorder
        try:
            return Spool.open(path, system_page_size(), byteorder, self._configuration.keep_free)
        except WriteFailed as error:
            record(Event.SPOOL_UNUSABLE, logging.WARNING, f"{error}; device dumps are kept in memory", spool=path)
            return Spool.in_memory(system_page_size(), byteorder)

    async def _start(self, spool: Spool) -> tuple[DumpList, VmcoreWriter]:
        configuration = self._configuration
        dumps = DumpList(spool, configuration.limits, enabled=configuration.enabled)
        for spooled in await asyncio.to_thread(lambda: list(spool.recover(_record_damaged))):
            dumps.restore(spooled)
            name = spooled.record.name
            record(
                Event.DUMP_RECOVERED, logging.INFO, f"Device dump {name} taken back from the spool", dump_name=name
            )
        writer = VmcoreWriter(
            dumps, configuration.source, configuration.target, system_page_size(), manifest=configuration.manifest
        )
        dumps.listeners.append(_record_dump)
        writer.listeners.append(_record_vmcore)
        return dumps, writer

    async def _wait_for_bus(self) -> None:
        """Wait until the name is owned; not for ever, because a vmcore is to be written without a bus too."""
        waits = [asyncio.create_task(event.wait()) for event in (self._bus_ready, self._stop)]
        done, _ = await asyncio.wait(
            waits, timeout=self._configuration.bus_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        for wait in waits:
            wait.cancel()
        if not done:
            record(Event.BUS_UNAVAILABLE, logging.ERROR, "Going on without a message bus")

    async def _serve(self, dumps: DumpList, writer: VmcoreWriter) -> None:
        """Be on the bus, and come back when it does."""
        if not self._use_bus:
            self._bus_ready.set()
            return
        said = ""
        while True:
            try:
                await self._serve_connection(dumps, writer)
                problem = "The connection to the message bus is lost"
            except BusUnavailable as error:
                problem = str(error)
            if problem != said:
                record(Event.BUS_UNAVAILABLE, logging.ERROR, problem)
                said = problem
            await asyncio.sleep(RECONNECT)

    def _serving_ended(self, serving: asyncio.Task[None]) -> None:
        # It serves for ever, unless there is a bug; then what is held already must still get into a vmcore.
        if not serving.cancelled() and (error := serving.exception()) is not None:
            log.error("The bus is served no longer", exc_info=error)
            self._stop.set()

    async def _serve_connection(self, dumps: DumpList, writer: VmcoreWriter) -> None:
        from .bus import Connection
        from .interface import ManagerInterface

        bus = await Connection.open(self._bus_address, self._configuration.bus_timeout, MANAGER_PATH)
        manager = ManagerInterface(bus, dumps, writer, self._configuration)
        try:
            manager.start()
            await bus.own(BUS_NAME)
            self._bus_ready.set()
            await bus.wait_closed()
        finally:
            manager.stop()
            await bus.close()


async def _write(dumps: DumpList, writer: VmcoreWriter) -> bool:
    """Write the vmcore unless that is done; return whether it is whole."""

    def status() -> str:
        percent = 100 * writer.bytes_done // max(writer.bytes_total, 1)
        return f"Writing the vmcore: {percent} % of {writer.bytes_total} bytes"

    try:
        if writer.outdated:
            await _extend(writer.write(), status)
        whole = not writer.outdated
        if whole:
            await dumps.clear_spool()
    except VmcoreddError as error:
        log.error("%s", error)
        return False
    return whole


async def _extend(work: Coroutine[Any, Any, _T], status: Callable[[], str]) -> _T:
    """Await *work*, while the service manager is asked for more time as long as its status changes."""
    task = asyncio.create_task(work)
    said, silent = "", 0
    while True:
        now = status()
        silent = 0 if now != said else silent + 1
        said = now
        extend = f"\nEXTEND_TIMEOUT_USEC={int(EXTEND_TIMEOUT * 1e6)}" if silent < EXTEND_TIMEOUT else ""
        notify(f"STATUS={now}{extend}")
        done, _ = await asyncio.wait([task], timeout=STATUS_INTERVAL)
        if done:
            return task.result()


def _record_dump(change: Change, dump: DeviceDump) -> None:
    fields: dict[str, object] = {"dump_name": dump.name, "collector": dump.collector}
    if change is Change.ADDED:
        fields |= {"size": dump.size, "note_size": dump.note_size, "sha256": dump.sha256}
        if dump.state is State.TRUNCATED:
            message = f"Device dump {dump.name} truncated to {dump.size} bytes: its source has more"
            record(Event.DUMP_TRUNCATED, logging.WARNING, message, **fields)
        else:
            record(Event.DUMP_ADDED, logging.INFO, f"Device dump {dump.name} added, {dump.size} bytes", **fields)
    elif change is Change.FAILED and dump.error is not None:
        fields |= {"error": dump.error.dbus_name, "errno": dump.error.errno}
        record(Event.DUMP_FAILED, logging.WARNING, f"Collecting failed: {dump.error}", **fields)
    elif change is Change.REMOVED:
        record(Event.DUMP_REMOVED, logging.INFO, f"Device dump {dump.name} removed", **fields)


def _record_vmcore(written: Written) -> None:
    fields: dict[str, object] = {"path": written.path, "size": written.size, "dumps": written.device_dumps}
    if written.error:
        message = (
            f"{written.path} written with {written.device_dumps} device dumps, without the memory: {written.error}"
        )
        record(Event.VMCORE_WRITTEN, logging.ERROR, message, **fields)
    else:
        message = f"{written.path} written with {written.device_dumps} device dumps, {written.size} bytes"
        record(Event.VMCORE_WRITTEN, logging.INFO, message, **fields)


def _record_damaged(problem: str) -> None:
    record(Event.DUMP_DAMAGED, logging.ERROR, f"Set aside in the spool: {problem}")


def _raise_fd_limit() -> None:
    # Each device dump keeps a descriptor; the soft limit of 1024 is there for programs that call select().
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
