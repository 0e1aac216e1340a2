# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommands that talk to the service: add, list, status, write and remove."""

import argparse
import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import PurePath
from typing import Any, TypeVar

from ..errors import InvalidArgs, VmcoreddError
from ..manifest import State, reason
from ..terminal.exit import FAILURE, SUCCESS, UsageError
from ..terminal.progress_line import progress
from ..terminal.stdio import complain, show, standard_input
from ..terminal.view import Cell, Mark, Size, View
from ..text import printable
from ..writer.result import VMCORE
from .client import Client, Status
from .json_objects import service_object

_T = TypeVar("_T")

PROGRESS_INTERVAL = 0.5
"""Seconds between two questions to the service about its progress."""

_GOOD = {State.COMPLETE: True, State.FAILED: False, State.TRUNCATED: False}


def run(options: argparse.Namespace) -> int:
    """Run a subcommand; return the exit status."""
    match options.command:
        case "add":
            with _data(options.file) as fd:
                size = options.size or _own_size(fd, options.file)
                return asyncio.run(_add(options, fd, size))
        case command:
            run_command = {"list": _list, "status": _status, "write": _write, "remove": _remove}[command]
            return asyncio.run(run_command(options))


@asynccontextmanager
async def _client(options: argparse.Namespace) -> AsyncIterator[Client]:
    client = await Client.open(options.bus_address)
    try:
        yield client
    finally:
        await client.close()


@contextmanager
def _data(file: str) -> Iterator[int]:
    if file == "-":
        yield standard_input()
        return
    try:
        # O_NONBLOCK: the service waits for the writer of a FIFO, and no longer than --timeout.
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidArgs(f"{file}: {error.strerror}") from error
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise InvalidArgs(f"{file}: is a directory")
        if not stat.S_ISFIFO(mode):
            os.set_blocking(fd, True)
        yield fd
    finally:
        os.close(fd)


def _own_size(fd: int, file: str) -> int:
    """Return how many bytes of a regular file follow its current position."""
    name = _name(file)
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise UsageError(f"{name} is not a regular file, so its size is unknown: use --size")
        size = state.st_size - os.lseek(fd, 0, os.SEEK_CUR)
    except OSError as error:
        raise InvalidArgs(f"{name}: {error.strerror}") from error
    if size < 1:
        raise InvalidArgs(f"{name}: is empty, or like files of /proc does not give its size: use --size")
    return size


def _name(file: str) -> str:
    return "standard input" if file == "-" else file


async def _add(options: argparse.Namespace, fd: int, size: int) -> int:
    async with _client(options) as client:
        start = _position(fd)

        async def state() -> tuple[int, int]:
            # The service reads the same open file description, so we see its position.
            return _position(fd) - start, size

        added = client.add_fd(
            options.name, size, fd, options.timeout, keep_size=options.keep_size, kind=options.kind
        )
        path = await show_while(f"adding {options.name}", added, state)
        # The device dump is durable: a service that is stopped now does not make this a failure.
        with suppress(VmcoreddError):
            await _warn_if_truncated(client, path, _name(options.file))
    return SUCCESS


def _position(fd: int) -> int:
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        # A pipe has no position.
        return 0


async def show_while(
    what: str, work: Coroutine[Any, Any, _T], state: Callable[[], Awaitable[tuple[int, int]]]
) -> _T:
    """Await *work*, and show its progress on a terminal; *state* returns bytes done and bytes in total."""
    if sys.stderr is None or not sys.stderr.isatty():
        return await work
    task = asyncio.create_task(work)
    try:
        with progress(what) as line:
            while not (await asyncio.wait([task], timeout=PROGRESS_INTERVAL))[0]:
                # An error is reported by the work itself.
                with suppress(VmcoreddError):
                    line.reach(*await state())
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _warn_if_truncated(client: Client, path: str, source: str) -> None:
    """Warn if the device dump at object path *path* is truncated."""
    for dump in await client.list_dumps():
        if dump.path == path and dump.state == State.TRUNCATED:
            complain(f"device dump {dump.name} is truncated to {dump.size} bytes: {source} has more")


async def _list(options: argparse.Namespace) -> int:
    async with _client(options) as client:
        dumps = await client.list_dumps()
    view = View.of(options)
    if view.as_json:
        view.show_json([service_object(dump) for dump in dumps])
    else:
        view.show(dump_table(view, [service_object(dump) for dump in dumps]))
    return SUCCESS


def dump_table(view: View, dumps: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of *dumps*, which are as :func:`.json_objects.dump_object` has them."""
    columns = ["NAME", "STATE", "SIZE", "COLLECTOR"]
    reasons = [reason(dump["error"] or "", dump["name"]) for dump in dumps]
    return view.table(columns, map(_row, dumps), ("COLLECTOR", "NAME"), drop=("COLLECTOR", "SIZE"), below=reasons)


def _row(dump: Mapping[str, Any]) -> list[Cell]:
    state, size = dump["state"], None if dump["size"] is None else Size(dump["size"])
    shown: Cell = Mark(state, _GOOD[state]) if state in _GOOD else state
    return [dump["name"], shown, size, dump["collector"]]


async def _status(options: argparse.Namespace) -> int:
    async with _client(options) as client:
        status = await client.status()
    view = View.of(options)
    if view.as_json:
        view.show_json(_status_object(status))
    else:
        view.show(_fields(view, status))
    return SUCCESS


def _status_object(status: Status) -> dict[str, Any]:
    return {
        "version": status.version,
        "state": status.state,
        "source": status.source,
        "path": status.vmcore_path or None,
        "device_dump_count": status.device_dumps,
        "device_dump_bytes": status.device_dump_bytes,
        "bytes_total": status.bytes_total,
        "bytes_done": status.bytes_done,
    }


def _fields(view: View, status: Status) -> str:
    done, total = view.size(status.bytes_done), view.size(status.bytes_total)
    return view.fields(
        {
            "Version": status.version,
            "State": status.state,
            "Source": status.source,
            "Vmcore": status.vmcore_path or None,
            "Device dumps": f"{status.device_dumps}, {view.size(status.device_dump_bytes)}",
            "Progress": f"{done} of {total}" if status.bytes_total else None,
        }.items()
    )


async def _write(options: argparse.Namespace) -> int:
    async with _client(options) as client:

        async def state() -> tuple[int, int]:
            status = await client.status()
            return status.bytes_done, status.bytes_total

        path = await show_while("writing the vmcore", client.write(), state)
    show(f"{printable(path)}\n")
    if PurePath(path).name != VMCORE:
        complain(f"{path}: memory is missing, see the service's log")
        return FAILURE
    return SUCCESS


async def _remove(options: argparse.Namespace) -> int:
    async with _client(options) as client:
        await client.remove(options.name)
    return SUCCESS
