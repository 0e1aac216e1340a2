# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where :mod:`.gather` finds device dumps: in the service, else in its spool and with registered collectors."""

import asyncio
import logging
import os
from contextlib import ExitStack
from pathlib import Path

from ...bus import Connection
from ...bus.dbus_names import BUS_NAME
from ...collectors.runner import CollectorRunner
from ...collectors.settings import directories
from ...config.config import Configuration, load
from ...dumps.dump_list import DumpList
from ...dumps.spool import BOOT_ID, Spool
from ...errors import BusUnavailable, CallFailed, CollectorFailed, TimedOut, VmcoreddError, WriteFailed
from ...manifest import Failure, ManifestDump, State
from ...note import system_byteorder, system_page_size
from ..client import Client, DumpInfo
from ..run import temporary_spool
from .messages import Send, Wanted, failure, send_dump, send_failure

ANSWER_TIMEOUT = 10.0
"""Seconds for the bus, and for each answer of the service."""
POLL_INTERVAL = 0.2
"""Seconds between two looks at what is still being collected."""


def run(wanted: Wanted, send: Send) -> None:
    """Send what there is. Raises VmcoreddError."""
    # What is logged on the way comes with what is sent.
    logging.getLogger().addHandler(logging.NullHandler())
    asyncio.run(_run(wanted, send))


async def _run(wanted: Wanted, send: Send) -> None:
    deadline = asyncio.get_running_loop().time() + wanted.timeout
    present: set[str] = set()
    try:
        await _from_service(wanted, deadline, present, send)
    except VmcoreddError as error:
        send("problem", f"device dumps are taken without the service: {error}")
        await _without_service(wanted, deadline, present, send)


async def _from_service(wanted: Wanted, deadline: float, present: set[str], send: Send) -> None:
    """Send the device dumps of the service, when all are finished or *deadline* has come. Raises VmcoreddError."""
    timeout = min(ANSWER_TIMEOUT, wanted.timeout)
    connection = await Connection.open(wanted.bus_address, timeout)
    client = Client(connection, timeout)
    try:
        await _check_running(connection, timeout)
        dumps = await client.list_dumps()
        while (
            any(dump.state == State.COLLECTING for dump in dumps) and asyncio.get_running_loop().time() < deadline
        ):
            await asyncio.sleep(POLL_INTERVAL)
            dumps = await client.list_dumps()
        for dump in dumps:
            await _send_held(client, dump, present, send)
    finally:
        await client.close()


async def _check_running(connection: Connection, timeout: float) -> None:
    """Raise BusUnavailable unless the service runs: a call to it would start it, which takes memory and time."""
    bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
    try:
        async with asyncio.timeout(timeout):
            reply = await connection.method_call(*bus, "NameHasOwner", "s", (BUS_NAME,))
    except (TimeoutError, CallFailed) as error:
        raise BusUnavailable(f"the bus does not say whether it runs: {error or 'no answer'}") from error
    if reply.body != [True]:
        raise BusUnavailable("it is not running")


async def _send_held(client: Client, dump: DumpInfo, present: set[str], send: Send) -> None:
    if dump.state == State.COLLECTING:
        late = TimedOut(f"device dump {dump.name}: was still being collected when the vmcore had to be finished")
        send_failure(send, failure(dump.name, dump.collector, late))
        return
    if dump.state == State.FAILED:
        name, kind = CollectorFailed.dbus_name, dump.finished_usec
        send_failure(send, Failure(dump.name, dump.collector, name, dump.error, kind))
        return
    try:
        fd = await client.open_dump(dump.path)
    except (BusUnavailable, TimedOut):
        raise
    except VmcoreddError as error:
        send_failure(send, failure(dump.name, dump.collector, error))
        return
    try:
        send_dump(send, _record(dump), dump.note_size, fd)
        present.add(dump.name)
    finally:
        os.close(fd)


def _record(dump: DumpInfo) -> ManifestDump:
    return ManifestDump(
        dump.name,
        dump.size,
        dump.limit,
        dump.sha256,
        dump.collector,
        dump.state,
        dump.started_usec,
        dump.finished_usec,
        dump.error,
    )


async def _without_service(wanted: Wanted, deadline: float, present: set[str], send: Send) -> None:
    """Send what lies in the spool of this boot, and what the registered collectors make of the rest."""
    try:
        configuration = load(wanted.config)
    except VmcoreddError as error:
        send("problem", f"{error}; no collectors are run")
        configuration = Configuration(run_collectors=False)
    if not configuration.enabled:
        return
    _send_spooled(configuration, present, send)
    if not configuration.run_collectors:
        return
    with ExitStack() as stack:
        dumps = DumpList(_spool(directory_for(wanted, configuration), stack), configuration.limits)
        runner = CollectorRunner(dumps, directories(wanted.config), configuration.collector_timeout)
        try:
            async with asyncio.timeout_at(deadline):
                await runner.run(present=present)
        except TimeoutError:
            pass
        finally:
            # Those that are not finished are failures from now on, or truncated.
            await dumps.drain(0)
        snapshot = await dumps.snapshot()
        for record, note in zip(snapshot.records, snapshot.notes, strict=True):
            send_dump(send, record, note.note_size, note.fd)
        for failed in snapshot.failures:
            send_failure(send, failed)
        dumps.close()


def _send_spooled(configuration: Configuration, present: set[str], send: Send) -> None:
    """Send what a service of this boot has acknowledged, and has not taken back."""
    path = configuration.spool_directory / BOOT_ID.read_text(encoding="ascii").strip()
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        # There was no service, or no disk.
        return

    def report(name: str, error: VmcoreddError) -> None:
        what = "left" if isinstance(error, WriteFailed) else "set aside"
        send("problem", f"{what} in the spool: {name}: {error}")

    # Not locked: a service that cannot be reached may have it. A name is given to what is whole.
    spool = Spool(directory, system_page_size(), system_byteorder(), 0)
    try:
        for spooled in spool.recover(report):
            if spooled.record.name not in present:
                send_dump(send, spooled.record, spooled.note.note_size, spooled.note.fd)
                present.add(spooled.record.name)
            os.close(spooled.note.fd)
    except WriteFailed as error:
        send("problem", str(error))
    finally:
        spool.close()


def directory_for(wanted: Wanted, configuration: Configuration) -> Path | None:
    """Return where device dumps of collectors can lie; None where that would be memory all the same."""
    if wanted.directory is not None:
        return wanted.directory
    try:
        device = configuration.target.stat().st_dev
    except OSError:
        return None
    # A file system without a block device of its own may be this machine's memory.
    return configuration.target if os.major(device) else None


def _spool(directory: Path | None, stack: ExitStack) -> Spool:
    if directory is not None:
        try:
            return stack.enter_context(temporary_spool(directory))
        except WriteFailed:
            # Without room for a directory there is none for a device dump.
            pass
    return Spool.in_memory(system_page_size(), system_byteorder())
