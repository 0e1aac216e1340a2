# SPDX-License-Identifier: LGPL-2.1-or-later
"""Finds device dumps for :mod:`.gather`: in the service, else in its spool and from registered collectors.

Only the child process imports this: the bus, asyncio and the collectors take memory that makedumpfile may need.
"""

import asyncio
import logging
import os
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path

from ...bus import Connection
from ...bus.dbus_names import BUS_NAME, DBUS
from ...collectors.runner import CollectorRunner
from ...collectors.settings import directories
from ...config.config import Configuration, load
from ...dumps.dump_list import DumpList
from ...dumps.hand_over import handed_over
from ...dumps.spool import Spool
from ...dumps.spool_directory import open_private
from ...errors import BusUnavailable, CallFailed, CollectorFailed, TimedOut, VmcoreddError, WriteFailed
from ...manifest import Failure, ManifestDump, State
from ...note import system_byteorder, system_page_size
from ..client import Client, DumpInfo
from .gather import Request, Send, failure, send_dump, send_failure, send_idle

ANSWER_TIMEOUT = 10.0
"""Seconds for the bus, and for each answer of the service."""
COLLECTING_POLL = 0.2
"""Seconds between two questions whether the service still collects."""


def run(request: Request, send: Send) -> None:
    """Send the device dumps that are found, and what is wrong. Raises VmcoreddError."""
    # What is wrong is sent: without a handler it would be on standard error, too.
    logging.getLogger().addHandler(logging.NullHandler())
    # Without the service, what is wrong with the configuration is sent later.
    with suppress(VmcoreddError):
        if (directory := directory_for(request, load(request.config))) is not None:
            send("directory", str(directory))
    asyncio.run(_run(request, send))


async def _run(request: Request, send: Send) -> None:
    deadline = asyncio.get_running_loop().time() + request.timeout
    present: set[str] = set()
    try:
        await _from_service(request, deadline, present, send)
    except VmcoreddError as error:
        send("problem", f"no device dumps from the service: {error}")
        await _without_service(request, deadline, present, send)


async def _from_service(request: Request, deadline: float, present: set[str], send: Send) -> None:
    """Send the device dumps of the service when all are finished, or at *deadline*. Raises VmcoreddError."""
    client = await running_service(request)
    try:
        dumps = await client.list_dumps()
        while (
            any(dump.state == State.COLLECTING for dump in dumps) and asyncio.get_running_loop().time() < deadline
        ):
            await asyncio.sleep(COLLECTING_POLL)
            dumps = await client.list_dumps()
        for dump in dumps:
            await _send_from_service(client, dump, present, send)
        for idle in await client.idle_collectors():
            send_idle(send, idle)
    finally:
        await client.close()


async def running_service(request: Request) -> Client:
    """Return a client of the service. Raises BusUnavailable unless it runs.

    A call to it would start it, which takes memory and time.
    """
    timeout = min(ANSWER_TIMEOUT, request.timeout)
    connection = await Connection.open(request.bus_address, timeout)
    try:
        await _check_running(connection, timeout)
    except BaseException:
        await connection.close()
        raise
    return Client(connection, timeout)


async def _check_running(connection: Connection, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            reply = await connection.method_call(*DBUS, "NameHasOwner", "s", (BUS_NAME,))
    except (TimeoutError, CallFailed) as error:
        raise BusUnavailable(f"the bus does not say whether it runs: {error or 'no answer'}") from error
    if reply.body != [True]:
        raise BusUnavailable("it is not running")


async def _send_from_service(client: Client, dump: DumpInfo, present: set[str], send: Send) -> None:
    if dump.state == State.COLLECTING:
        late = TimedOut(f"device dump {dump.name}: was still being collected when the vmcore had to be finished")
        send_failure(send, failure(dump.name, dump.collector, late))
        return
    if dump.state == State.FAILED:
        # The service does not say which error it was.
        kind = CollectorFailed.dbus_name
        send_failure(send, Failure(dump.name, dump.collector, kind, dump.error, dump.finished_usec))
        return
    try:
        fd = await client.open_dump(dump.path)
    except (BusUnavailable, TimedOut):
        raise
    except VmcoreddError as error:
        send_failure(send, failure(dump.name, dump.collector, error))
        return
    try:
        send_dump(send, record_of(dump), dump.note_size, fd)
        present.add(dump.name)
    finally:
        os.close(fd)


def record_of(dump: DumpInfo) -> ManifestDump:
    """Return what the manifest says of a device dump of the service."""
    return ManifestDump(**{each.name: getattr(dump, each.name) for each in fields(ManifestDump)})


async def _without_service(request: Request, deadline: float, present: set[str], send: Send) -> None:
    """Send the device dumps in the spool of this boot, and those that registered collectors add to them."""
    try:
        configuration = load(request.config)
    except VmcoreddError as error:
        send("problem", f"{error}; no collectors run")
        configuration = Configuration(run_collectors=False)
    if not configuration.enabled:
        return
    collected = any(_send_spooled(path, present, send) for path in _spools(request, configuration))
    if collected or not configuration.run_collectors:
        return
    with closing(_spool(directory_for(request, configuration))) as spool:
        dumps = DumpList(spool, configuration.limits)
        runner = CollectorRunner(dumps, directories(request.config), configuration.collector_timeout)
        try:
            async with asyncio.timeout_at(deadline):
                await runner.run(present=present)
        except TimeoutError:
            pass
        finally:
            # What is not finished fails now, or is truncated.
            await dumps.drain(0)
        snapshot = await dumps.snapshot()
        for record, note in zip(snapshot.records, snapshot.notes, strict=True):
            send_dump(send, record, note.note_size, note.fd)
        for failed in snapshot.failures:
            send_failure(send, failed)
        for idle in snapshot.idle_collectors:
            send_idle(send, idle)
        dumps.close()


def _spools(request: Request, configuration: Configuration) -> list[Path]:
    """Return the spools that the service may have used. kdump-tools mounts its NFS target over the first."""
    return [configuration.spool_directory, *([request.spool] if request.spool else [])]


def _send_spooled(path: Path, present: set[str], send: Send) -> bool:
    """Send what a service of this boot has left; return whether it has collected all, and left it to us."""
    try:
        directory = open_private(path, make=False)
    except OSError:
        # No service has run, or it had no disk.
        return False
    except WriteFailed as error:
        send("problem", f"{error}; it is not read")
        return False

    def report(name: str, error: VmcoreddError) -> None:
        what = "unreadable, kept" if isinstance(error, WriteFailed) else "damaged, renamed"
        send("problem", f"{path}/{name}: {error} ({what})")

    # Not locked: a service that cannot be reached may hold the lock. What has a name in the spool is complete.
    spool = Spool(directory, system_page_size(), system_byteorder(), 0)
    left = handed_over(directory)
    try:
        for failed in left.failures if left else ():
            send_failure(send, failed)
        for idle in left.idle_collectors if left else ():
            send_idle(send, idle)
        for spooled in spool.recover(report):
            if spooled.record.name not in present:
                send_dump(send, spooled.record, spooled.note.note_size, spooled.note.fd)
                present.add(spooled.record.name)
            os.close(spooled.note.fd)
    except WriteFailed as error:
        send("problem", str(error))
    finally:
        spool.close()
    return left is not None


def directory_for(request: Request, configuration: Configuration) -> Path | None:
    """Return where to keep device dumps of collectors; None if that directory would be memory anyway."""
    if request.directory is not None:
        return request.directory
    try:
        device = configuration.target.stat().st_dev
    except OSError:
        return None
    # A file system without a block device (major number 0) may be memory.
    return configuration.target if os.major(device) else None


def _spool(directory: Path | None) -> Spool:
    if directory is None:
        return Spool.in_memory(system_page_size(), system_byteorder())
    return Spool.temporary(directory, system_page_size(), system_byteorder())
