# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls to the daemon, and collectors with any behaviour, from within a test."""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from tests.lib.dbus import Message, ServiceInterface, Variant, method
from vmcoredd_daemon.bus import Connection

NAME = "org.vmcoredd1"
PATH = "/org/vmcoredd1"
MANAGER = "org.vmcoredd1.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
ERROR = "org.vmcoredd1.Error"
INVALID_ARGS = "org.freedesktop.DBus.Error.InvalidArgs"

Behaviour = Callable[[str, int, int, int], Awaitable[int]]
"""Takes dump name, buffer, offset and size, as Collect does."""

_numbers = itertools.count(1)


async def fill(name: str, buffer: int, offset: int, size: int) -> int:
    """Fill the buffer with the dump name and dots."""
    return os.pwrite(buffer, name.encode().ljust(size, b"."), offset)


async def hang(name: str, buffer: int, offset: int, size: int) -> int:
    """Never answer."""
    await asyncio.sleep(3600)
    return 0


class Collector(ServiceInterface):
    """org.vmcoredd1.Collector with the behaviour of one test."""

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__("org.vmcoredd1.Collector")
        self._behaviour = behaviour

    @method()
    async def Collect(self, dump_name: "s", buffer: "h", offset: "t", size: "u") -> "u":
        return await self._behaviour(dump_name, buffer, offset, size)


async def call(
    bus: Connection,
    member: str,
    signature: str = "",
    body: Sequence[Any] = (),
    fds: Sequence[int] = (),
    interface: str = MANAGER,
    path: str = PATH,
) -> Message:
    """Call a method, by default of the manager, within 30 s. Raises CallFailed."""
    async with asyncio.timeout(30):
        return await bus.method_call(NAME, path, interface, member, signature, body, fds)


def options(**values: Any) -> dict[str, Variant]:
    """Return the options of a call; timeout is in seconds."""
    signatures = {"timeout": "t", "wait": "b", "keep_size": "b"}
    if "timeout" in values:
        values["timeout"] = int(values["timeout"] * 1e6)
    return {name: Variant(signatures[name], value) for name, value in values.items()}


async def add(bus: Connection, name: str, size: int, behaviour: Behaviour, **given: Any) -> str:
    """Add a device dump that *behaviour* collects; return its object path."""
    path = f"/collector/{next(_numbers)}"
    bus.export(path, Collector(behaviour))
    try:
        return str((await call(bus, "AddDeviceDump", "suoa{sv}", [name, size, path, options(**given)])).body[0])
    finally:
        if bus.connected:
            bus.unexport(path)


async def add_bytes(bus: Connection, name: str, data: bytes, size: int | None = None, **given: Any) -> str:
    """Add a device dump through a pipe; return its object path."""
    reader, writer = os.pipe()
    body = [name, len(data) if size is None else size, 0, options(**given)]
    answer = asyncio.create_task(call(bus, "AddDeviceDumpFd", "suha{sv}", body, [reader]))
    # If the call is refused, nothing else would end the writing.
    answer.add_done_callback(lambda _: os.close(reader))
    with suppress(BrokenPipeError):
        await asyncio.to_thread(_write_and_close, writer, data)
    return str((await answer).body[0])


def _write_and_close(fd: int, data: bytes) -> None:
    with os.fdopen(fd, "wb") as file:
        file.write(data)


async def service_state(bus: Connection) -> str:
    """Return the property State of the service."""
    return str((await call(bus, "Get", "ss", [MANAGER, "State"], interface=PROPERTIES)).body[0].value)


async def names(bus: Connection) -> dict[str, str]:
    """Return the state of each device dump, by its name."""
    return {name: state for _, name, _, state in (await call(bus, "ListDeviceDumps")).body[0]}
