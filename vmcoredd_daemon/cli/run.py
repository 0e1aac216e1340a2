# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand run: registered collectors, in the service or without one."""

import argparse
import asyncio
import errno
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..collectors.registry import Registered
from ..collectors.runner import CollectorRunner, check_known, missing_program, plan, registered
from ..collectors.settings import directories
from ..config.config import load
from ..dumps.device_dump import DeviceDump
from ..dumps.dump_list import DumpList
from ..dumps.spool import Spool
from ..errors import VmcoreddError, WriteFailed
from ..files import new_file
from ..manifest import State
from ..note import VMCOREDD_HEADER_SIZE, system_byteorder, system_page_size
from ..terminal.exit import FAILURE, SUCCESS
from ..terminal.stdio import complain
from ..terminal.view import Cell, Size, View
from ..text import counted
from .client import Client, DumpInfo
from .json_objects import dump_object, service_object
from .operands import unused_file_name
from .service import dump_table, show_while

Entry = dict[str, Any]
"""One object of the JSON that is printed."""

RUNNING = "running collectors"


def run(options: argparse.Namespace) -> int:
    """Run the subcommand; return the exit status."""
    if options.list:
        return asyncio.run(_list(options))
    if options.output is None:
        return asyncio.run(_in_service(options))
    try:
        return asyncio.run(_to_directory(options))
    except asyncio.CancelledError:
        return -signal.SIGTERM


async def _list(options: argparse.Namespace) -> int:
    timeout = load(options.config).collector_timeout
    known = await registered(directories(options.config), timeout)
    check_known(known, options.collectors)
    chosen = [known[name] for name in known if name in options.collectors or not options.collectors]
    entries = await asyncio.gather(*(_entry(collector, timeout) for collector in chosen))
    view = View.of(options)
    if view.as_json:
        view.show_json(entries)
    else:
        view.show(_collector_table(view, entries))
    if failed := [entry["name"] for entry in entries if entry["failed"]]:
        complain(f"{counted(len(failed), 'collector')} cannot run: {', '.join(failed)}")
        return FAILURE
    return SUCCESS


def _collector_table(view: View, entries: Sequence[Entry]) -> str:
    rows: list[list[Cell]] = []
    for entry in entries:
        runs = f"no: {entry['reason']}" if entry["reason"] else "yes"
        for dump in entry["device_dumps"] or [{"name": None, "limit": None}]:
            size = None if dump["limit"] is None else Size(dump["limit"])
            rows.append([entry["name"], dump["name"], size, runs])
    return view.table(["COLLECTOR", "NAME", "SIZE", "RUNS"], rows, shrink=("RUNS", "NAME"), drop=("SIZE", "NAME"))


async def _entry(collector: Registered, timeout: float) -> Entry:
    reason, failed, dumps = "", False, []
    try:
        planned = await plan(collector, None, timeout)
        dumps = [{"name": dump.dump_name, "limit": dump.size} for dump in planned]
        if collector.masked:
            reason = "masked"
        elif not collector.enabled:
            reason = "Enabled=no"
        elif not planned:
            reason = collector.settings.unmet() or "nothing to collect here"
        elif missing := await missing_program(collector, timeout):
            reason, failed = f"program {missing} is missing", True
    except VmcoreddError as error:
        reason, failed = str(error), collector.enabled
    return {
        "name": collector.name,
        "runs": not reason,
        "failed": failed,
        "reason": reason,
        "device_dumps": dumps,
    }


async def _in_service(options: argparse.Namespace) -> int:
    client = await Client.open(options.bus_address)
    try:
        earlier = {dump.path for dump in await client.list_dumps()}

        async def state() -> tuple[int, int]:
            return _progress(dump for dump in await client.list_dumps() if dump.path not in earlier)

        paths = await show_while(RUNNING, client.run_collectors(options.collectors, options.timeout), state)
        dumps = [service_object(dump) for dump in await client.list_dumps() if dump.path in paths]
    finally:
        await client.close()
    return _report(dumps, View.of(options), options.collectors)


async def _to_directory(options: argparse.Namespace) -> int:
    """Run collectors in this process, and write a file for each device dump."""
    task = asyncio.current_task()
    assert task is not None
    # SIGTERM must also stop the programs of collectors.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    configuration = load(options.config)
    with _output_directory(options.output) as spool:
        dumps = DumpList(spool, configuration.limits)
        runner = CollectorRunner(dumps, directories(options.config), configuration.collector_timeout)

        async def state() -> tuple[int, int]:
            return _progress(dumps)

        try:
            numbers = await show_while(RUNNING, runner.run(options.collectors, timeout=options.timeout), state)
            made = [dump for dump in dumps if dump.number in numbers]
            taken = set[str]()
            entries = [await asyncio.to_thread(_write_file, dump, options.output, taken) for dump in made]
        finally:
            await dumps.drain(0)
            dumps.close()
    return _report(entries, View.of(options), options.collectors)


def _progress(dumps: Iterable[DeviceDump | DumpInfo]) -> tuple[int, int]:
    """Return the limits, in bytes, of the finished device dumps and of all."""
    listed = list(dumps)
    return sum(dump.limit for dump in listed if dump.state != State.COLLECTING), sum(dump.limit for dump in listed)


@contextmanager
def _output_directory(directory: Path) -> Iterator[Spool]:
    """Make *directory*, and provide a spool in it; remove it if it is new and stays empty. Raises WriteFailed."""
    new = not directory.exists()
    try:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteFailed(f"{directory}: {error.strerror}") from error
        spool = Spool.temporary(directory, system_page_size(), system_byteorder())
        try:
            yield spool
        finally:
            spool.close()
    finally:
        if new:
            # Fails if there are files in it.
            with suppress(OSError):
                directory.rmdir()


def _write_file(dump: DeviceDump, directory: Path, taken: set[str]) -> Entry:
    record, note_size = dump.record(), dump.note_size
    path = None
    if dump.note is not None:
        path = str(directory / unused_file_name(dump.name, dump.number, taken))
        try:
            _copy(dump.note.fd, dump.size, path)
        except OSError as error:
            # There may be space for the others.
            failed = replace(record, sha256="", state=State.FAILED.value, error=f"{path}: {error.strerror}")
            record, note_size, path = failed, 0, None
    return {**dump_object(record, note_size), "path": path}


def _copy(fd: int, size: int, path: str) -> None:
    with new_file(path) as file:
        done = 0
        while done < size:
            if not (sent := os.sendfile(file, fd, VMCOREDD_HEADER_SIZE + done, size - done)):
                raise OSError(errno.EIO, "its data are cut off")
            done += sent


def _report(dumps: Sequence[Entry], view: View, names: Sequence[str]) -> int:
    if view.as_json:
        view.show_json(dumps)
    elif not dumps:
        view.show(f"{', '.join(names) or 'The collectors'}: nothing to collect here\n")
    else:
        view.show(dump_table(view, dumps))
    failed = [dump["name"] for dump in dumps if dump["state"] == State.FAILED]
    if failed:
        complain(f"{len(failed)} of {len(dumps)} device dumps failed: {', '.join(failed)}")
        return FAILURE
    return SUCCESS
