# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service from start to stop: start, serve, drain, write, stop.

A signal only sets an event; everything that happens then reads from top to bottom in :meth:`Daemon.run`.
"""

import asyncio
import itertools
import logging
import resource
import signal
import time
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
from .note import system_byteorder, system_page_size
from .spool import Spool, SpooledDump, left_by_other_boots
from .write_job import Written
from .writer import VmcoreWriter

_T = TypeVar("_T")

RECONNECT = 1.0
"""Seconds between attempts to reach the bus."""

EXTEND_TIMEOUT = 30.0
"""Seconds that the service manager is asked for, again and again while the work goes on."""

STALL_TIMEOUT = 300.0
"""Seconds without progress after which it is asked for no more: a slow disk may need them for one fsync."""

STATUS_INTERVAL = 1.0
"""Seconds between two status lines."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the service leaves behind."""

    whole: bool
    """A vmcore with everything in it is on disk, in the format that was asked for."""
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
        try:
            await self._wait_for_bus()
            record(Event.STARTED, logging.INFO, "Taking device dumps", source=writer.source)
            notify("READY=1\nSTATUS=Taking device dumps")
            await self._stop.wait()
            notify("STOPPING=1")
            dumps.seal("the service is stopping")
            notify("STATUS=Waiting for collectors")
            # Its deadline is its own, so it is given time as long as it takes.
            await _extend(dumps.drain(self._configuration.drain_timeout), itertools.count().__next__)
            whole = await _write(dumps, writer)
            # Whoever asked for another format wants to know.
            as_asked = whole and writer.written is not None and not writer.written.fallback
            return Outcome(as_asked, writer.directory)
        finally:
            serving.cancel()
            await asyncio.wait([serving])
            dumps.close()
            spool.close()
            record(Event.STOPPED, logging.INFO, "Stopped")

    def _open_spool(self) -> Spool:
        path, byteorder = self._configuration.spool_directory, system_byteorder()
        try:
            spool = Spool.open(path, system_page_size(), byteorder, self._configuration.keep_free)
            for directory in left_by_other_boots(path):
                message = f"{directory}: device dumps of another boot, that are in no vmcore, lie here"
                record(Event.DUMP_LEFT_BEHIND, logging.WARNING, message, spool=directory)
            return spool
        except WriteFailed as error:
            record(Event.SPOOL_UNUSABLE, logging.WARNING, f"{error}; device dumps are kept in memory", spool=path)
            return Spool.in_memory(system_page_size(), byteorder)

    async def _start(self, spool: Spool) -> tuple[DumpList, VmcoreWriter]:
        configuration = self._configuration
        dumps = DumpList(spool, configuration.limits, enabled=configuration.enabled)
        recovered, damaged = await asyncio.to_thread(_recover, spool)
        for spooled in recovered:
            dumps.restore(spooled)
            name = spooled.record.name
            message = f"Device dump {name} taken back from the spool"
            record(Event.DUMP_RECOVERED, logging.INFO, message, dump_name=name)
        for name, error in damaged:
            dumps.restore_failed(name, error)
            record(Event.DUMP_DAMAGED, logging.ERROR, f"Set aside in the spool: {name}: {error}", dump_name=name)
        writer = VmcoreWriter(dumps, configuration.source, configuration.target, configuration.output)
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
            except Exception:
                # A bug, or a bus that answers nonsense: device dumps that are held must still get into a vmcore.
                log.exception("Unexpected error on the message bus")
                problem = "The connection to the message bus failed"
            if problem != said:
                record(Event.BUS_UNAVAILABLE, logging.ERROR, problem)
                said = problem
            await asyncio.sleep(RECONNECT)

    async def _serve_connection(self, dumps: DumpList, writer: VmcoreWriter) -> None:
        from .bus import Connection
        from .interface import ManagerInterface

        bus = await Connection.open(self._bus_address, self._configuration.bus_timeout, MANAGER_PATH)
        manager = ManagerInterface(bus, dumps, writer, self._configuration)
        try:
            manager.start()
            await bus.own(BUS_NAME, self._configuration.bus_timeout)
            self._bus_ready.set()
            await bus.wait_closed()
        finally:
            manager.stop()
            await bus.close()


async def _write(dumps: DumpList, writer: VmcoreWriter) -> bool:
    """Write the vmcore unless that is done; return whether it is whole."""

    def progress() -> int:
        percent = 100 * writer.progress.done // max(writer.progress.total, 1)
        notify(f"STATUS=Writing the vmcore: {percent} % of {writer.progress.total} bytes")
        return writer.progress.done

    try:
        whole = await _extend(writer.finish(), progress)
        if whole:
            await dumps.clear_spool()
    except VmcoreddError as error:
        log.error("%s", error)
        return False
    return whole


async def _extend(work: Coroutine[Any, Any, _T], progress: Callable[[], int]) -> _T:
    """Await *work*, while the service manager is asked for more time as long as there is progress."""
    task = asyncio.create_task(work)
    seen, since = -1, time.monotonic()
    while True:
        now = progress()
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since < STALL_TIMEOUT:
            notify(f"EXTEND_TIMEOUT_USEC={int(EXTEND_TIMEOUT * 1e6)}")
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
    if written.fallback:
        fields["fallback"] = written.fallback
    if written.error:
        message = (
            f"{written.path} written with {written.device_dumps} device dumps, but incomplete: {written.error}"
        )
        record(Event.VMCORE_WRITTEN, logging.ERROR, message, **fields)
    else:
        message = f"{written.path} written with {written.device_dumps} device dumps, {written.size} bytes"
        record(Event.VMCORE_WRITTEN, logging.INFO, message, **fields)


def _recover(spool: Spool) -> tuple[list[SpooledDump], list[tuple[str, VmcoreddError]]]:
    damaged: list[tuple[str, VmcoreddError]] = []
    return list(spool.recover(lambda name, error: damaged.append((name, error)))), damaged


def _raise_fd_limit() -> None:
    # Each device dump keeps a descriptor; the soft limit of 1024 is there for programs that call select().
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
