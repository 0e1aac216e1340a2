# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients that add and remove device dumps all the time, and remember what they were answered."""

import asyncio
import mmap
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.lib.caller import Collector, call, options
from tests.torture.disk import Lost, data_of, truncated
from vmcoredd_daemon.bus import Connection
from vmcoredd_daemon.errors import CallFailed

SIZES = (1, 100, 4032, 4033, 9000, 70_000, 300_000)
MOST = 8
"""Device dumps of one client; some of the older ones are removed then."""

GONE = {
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.Disconnected",
}
"""What the bus answers in the place of a daemon that is not there."""


@dataclass
class Ledger:
    """What the daemon has promised."""

    attempted: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    """Acknowledged removals."""
    doubtful: set[str] = field(default_factory=set)
    """Removals without an answer: they may be there or not."""
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def held(self) -> set[str]:
        """What must be somewhere."""
        return self.acknowledged - self.removed - self.doubtful


async def add_file(bus: Connection, name: str, data: bytes, size: int) -> None:
    """Hand over a regular file with the data in it: a memfd."""
    fd = os.memfd_create(name)
    try:
        os.pwrite(fd, data, 0)
        await call(bus, "AddDeviceDumpFd", "suha{sv}", [name, size, 0, {}], [fd])
    finally:
        os.close(fd)


async def add_pipe(bus: Connection, name: str, data: bytes, size: int) -> None:
    """Write the data into a pipe, while the daemon reads it."""
    reader, writer = os.pipe()
    writing = None
    try:
        answer = asyncio.create_task(call(bus, "AddDeviceDumpFd", "suha{sv}", [name, size, 0, {}], [reader]))
        writing = asyncio.create_task(asyncio.to_thread(_feed, writer, data))
        await answer
    finally:
        # Without a reader, a writer that waits gets EPIPE.
        os.close(reader)
        if writing is not None:
            await writing


def _feed(fd: int, data: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(fd, "wb", 0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) or 0 :]


async def _call_back(bus: Connection, name: str, size: int, collect: Callable[[int, int, int], int]) -> None:
    async def behaviour(dump_name: str, buffer: int, offset: int, room: int) -> int:
        await asyncio.sleep(0)
        return collect(buffer, offset, room)

    path = "/collector/" + name.replace("-", "_")
    bus.export(path, Collector(behaviour))
    try:
        await call(bus, "AddDeviceDump", "suoa{sv}", [name, size, path, options()])
    finally:
        if bus.connected:
            bus.unexport(path)


async def add_callback(bus: Connection, name: str, data: bytes, size: int) -> None:
    """Write into the buffer when called back, as a driver does."""
    await _call_back(bus, name, size, lambda fd, offset, room: os.pwrite(fd, data[:room], offset))


async def add_mapped(bus: Connection, name: str, data: bytes, size: int) -> None:
    """Map the buffer, and write into memory that is shared with the daemon."""

    def collect(fd: int, offset: int, room: int) -> int:
        with mmap.mmap(fd, offset + room) as shared:
            shared[offset : offset + len(data)] = data
        return len(data)

    await _call_back(bus, name, size, collect)


Way = Callable[[Connection, str, bytes, int], Awaitable[None]]
WAYS: dict[str, Way] = {"file": add_file, "pipe": add_pipe, "callback": add_callback, "mapped": add_mapped}


class Client:
    """One connection; adds, and removes what is too much."""

    def __init__(self, bus: Connection, label: str, ledger: Ledger, seed: int) -> None:
        self._bus = bus
        self._label = label
        self._ledger = ledger
        self._chance = random.Random(seed)
        self._number = 0
        self.mine: list[str] = []

    async def work(self) -> None:
        """Do one thing; return when it was answered. Raises Lost for an answer that has no place here."""
        if len(self.mine) > MOST and self._chance.random() < 0.7:
            await self._remove(self.mine.pop(self._chance.randrange(len(self.mine))))
        else:
            await self._add()

    async def _add(self) -> None:
        self._number += 1
        kind, add = self._chance.choice(list(WAYS.items()))
        size = self._chance.choice(SIZES)
        more = kind in {"file", "pipe"} and self._chance.random() < 0.2
        name = f"{self._label}-{self._number}-{kind}-{'t' if more else 'c'}{size}"
        data = data_of(name) + bytes(100 if more else 0)
        self._ledger.attempted.add(name)
        limit = size if truncated(name) else size + self._chance.choice((0, 0, 5000, 1_000_000))
        if not await self._answered("add", add(self._bus, name, data, limit)):
            self._ledger.acknowledged.add(name)
            self.mine.append(name)

    async def _remove(self, name: str) -> None:
        self._ledger.doubtful.add(name)
        try:
            listed = (await call(self._bus, "ListDeviceDumps")).body[0]
        except CallFailed as error:
            self._ledger.doubtful.discard(name)
            self._judge("list", error)
            return
        path = next((path for path, known, _, _ in listed if known == name), None)
        if path is None:
            # One that was killed has written it into a vmcore, and removed it from the spool: the judges look.
            self._ledger.doubtful.discard(name)
            return
        answer = await self._answered("remove", call(self._bus, "RemoveDeviceDump", "o", [path]))
        if answer not in GONE:
            self._ledger.doubtful.discard(name)
        if not answer:
            self._ledger.removed.add(name)

    async def _answered(self, what: str, answer: Awaitable[object]) -> str:
        """Return the name of the error, or nothing."""
        try:
            await answer
        except CallFailed as error:
            self._judge(what, error)
            return error.name
        self._ledger.answers[f"{what}: done"] += 1
        return ""

    def _judge(self, what: str, error: CallFailed) -> None:
        self._ledger.answers[f"{what}: {error.name}"] += 1
        if error.name not in GONE and not error.name.startswith("org.vmcoredd1.Error."):
            raise Lost(f"{what}: {error}")
