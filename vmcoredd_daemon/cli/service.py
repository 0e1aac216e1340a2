# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommands that talk to the service: add, list, status, write and remove."""

import argparse
import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InvalidArgs, VmcoreddError
from ..manifest import State
from ..terminal.exit import FAILURE, SUCCESS, UsageError
from ..terminal.stdio import complain, show, standard_input
from .client import Client, Status

if TYPE_CHECKING:
    from ..terminal.view import View

_T = TypeVar("_T")

POLL = 0.5
"""Seconds between two questions how far the service is."""


def run(options: argparse.Namespace) -> int:
    """Run a subcommand; return the exit status."""
    match options.command:
        case "add":
            with _data(options.file) as fd:
                size = options.size or _own_size(fd, options.file)
                return asyncio.run(_add(options, fd, size))
        case "list":
            return asyncio.run(_list(options))
        case "status":
            return asyncio.run(_status(options))
        case "write":
            return asyncio.run(_write(options))
        case _:
            return asyncio.run(_remove(options))


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
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgs(f"{file}: {error.strerror}") from error
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise InvalidArgs(f"{file}: is a directory")
        yield fd
    finally:
        os.close(fd)


def _own_size(fd: int, file: str) -> int:
    """Return how many bytes of a regular file are still to be read."""
    name = _name(file)
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise UsageError(f"{name} is not a regular file, its size is not known: give --size")
        size = state.st_size - os.lseek(fd, 0, os.SEEK_CUR)
    except OSError as error:
        raise InvalidArgs(f"{name}: {error.strerror}") from error
    if size < 1:
        raise InvalidArgs(f"{name}: has no bytes, or does not tell how many, as files of /proc: give --size")
    return size


def _name(file: str) -> str:
    return "standard input" if file == "-" else file


async def _add(options: argparse.Namespace, fd: int, size: int) -> int:
    async with _client(options) as client:
        start = _position(fd)

        async def state() -> tuple[int, int]:
            # The service reads a descriptor of the same open file.
            return _position(fd) - start, size

        added = client.add_fd(options.name, size, fd, options.timeout)
        path = await shown(f"adding {options.name}", added, state)
        # It is safe now; whoever stops the service at this moment does not make it a failure.
        with suppress(VmcoreddError):
            await _warn_if_truncated(client, path, _name(options.file))
    return SUCCESS


def _position(fd: int) -> int:
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        # A pipe has none.
        return 0


async def shown(what: str, work: Coroutine[Any, Any, _T], state: Callable[[], Awaitable[tuple[int, int]]]) -> _T:
    """Await *work*, and show how far it is where somebody sees it; *state* returns bytes done, and in all."""
    if sys.stderr is None or not sys.stderr.isatty():
        return await work
    from ..terminal.progress_line import progress

    task = asyncio.create_task(work)
    try:
        with progress(what) as somewhere:
            while not (await asyncio.wait([task], timeout=POLL))[0]:
                # It is the work that says what is wrong.
                with suppress(VmcoreddError):
                    somewhere.reach(*await state())
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _warn_if_truncated(client: Client, path: str, source: str) -> None:
    """Say whether there was more than the device dump at object path *path* holds."""
    for dump in await client.list_dumps():
        if dump.path == path and dump.state == State.TRUNCATED:
            complain(f"device dump {dump.name} is truncated to {dump.size} bytes: {source} has more")


async def _list(options: argparse.Namespace) -> int:
    async with _client(options) as client:
        dumps = await client.list_dumps()
    from ..terminal.view import View
    from .dump_table import dump_table

    view = View.of(options)
    if view.as_json:
        view.show_json([asdict(dump) for dump in dumps])
    else:
        view.show(dump_table(view, [asdict(dump) for dump in dumps]))
    return SUCCESS


async def _status(options: argparse.Namespace) -> int:
    async with _client(options) as client:
        status = await client.status()
    from ..terminal.view import View

    view = View.of(options)
    if view.as_json:
        view.show_json(asdict(status))
    else:
        view.show(_fields(view, status))
    return SUCCESS


def _fields(view: "View", status: Status) -> str:
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
    from ..writer.result import VMCORE

    async with _client(options) as client:

        async def state() -> tuple[int, int]:
            status = await client.status()
            return status.bytes_done, status.bytes_total

        path = await shown("writing the vmcore", client.write(), state)
    show(f"{path}\n")
    if PurePath(path).name != VMCORE:
        complain("the memory is not in it, or not all of it; the service's log says why")
        return FAILURE
    return SUCCESS


async def _remove(options: argparse.Namespace) -> int:
    async with _client(options) as client:
        await client.remove(options.name)
    return SUCCESS
