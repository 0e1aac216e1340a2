# SPDX-License-Identifier: LGPL-2.1-or-later
"""The client, with a real daemon on a real bus."""

import asyncio
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from tests.lib.resources import open_fds
from tests.lib.service import Service
from vmcoredd_daemon.cli.client import Client
from vmcoredd_daemon.errors import (
    BusUnavailable,
    Busy,
    CollectorFailed,
    Disabled,
    InvalidArgs,
    NameInUse,
    QuotaExceeded,
    TimedOut,
    TooLarge,
    UnknownDump,
    VmcoreddError,
)


@asynccontextmanager
async def connected(address: str, timeout: float = 10) -> AsyncIterator[Client]:
    client = await Client.open(address, timeout)
    try:
        yield client
    finally:
        await client.close()
        # The transport's last callbacks run before the loop is closed.
        await asyncio.sleep(0)


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


async def add(client: Client, name: str, data: bytes, size: int | None = None) -> str:
    fd = os.memfd_create("data")
    try:
        os.pwrite(fd, data, 0)
        return await client.add_fd(name, len(data) if size is None else size, fd)
    finally:
        os.close(fd)


async def test_device_dumps_from_begin_to_end(daemon: Service) -> None:
    async with connected(daemon.address) as client:
        paths = [await add(client, f"nic{number}", bytes([number]) * number) for number in range(1, 12)]
        dumps = await client.list_dumps()
        assert [dump.path for dump in dumps] == paths
        assert [dump.name for dump in dumps] == [f"nic{number}" for number in range(1, 12)]
        assert [dump.size for dump in dumps] == list(range(1, 12))
        assert dumps[2].sha256 == hashlib.sha256(b"\x03\x03\x03").hexdigest()
        assert {(dump.state, dump.note_size, dump.error) for dump in dumps} == {("complete", 4096, "")}
        assert all(0 < dump.started_usec <= dump.finished_usec for dump in dumps)
        await client.remove("nic5")
        assert [dump.name for dump in await client.list_dumps()][3:5] == ["nic4", "nic6"]
        status = await client.status()
        assert (status.state, status.device_dumps, status.device_dump_bytes) == ("ready", 10, 10 * 4096)
        assert await client.write() == str(daemon.vmcore())
        assert (await client.status()).vmcore_path == str(daemon.vmcore())


async def test_many_at_once(daemon: Service) -> None:
    async with connected(daemon.address) as client:
        await asyncio.gather(*(add(client, f"nic{number}", b"x" * 10_000) for number in range(60)))
        assert {dump.state for dump in await client.list_dumps()} == {"complete"}


@pytest.mark.parametrize(
    ("name", "size", "kind"),
    [
        ("", 1, InvalidArgs),
        ("x" * 44, 1, InvalidArgs),
        ("a\0b", 1, InvalidArgs),
        ("\udc80", 1, InvalidArgs),
        ("nic", 0, InvalidArgs),
        ("nic", -1, InvalidArgs),
        ("nic", 1 << 32, TooLarge),
        ("nic", (1 << 32) - 1, TooLarge),
        ("nic", 8192, TooLarge),
        ("used", 1, NameInUse),
    ],
)
async def test_what_is_refused(
    start_daemon: Callable[..., Service], name: str, size: int, kind: type[VmcoreddError]
) -> None:
    async with connected(start_daemon("MaxDumpSize=8K").address) as client:
        await add(client, "used", b"x")
        with pytest.raises(kind):
            await add(client, name, b"x", size)
        assert [dump.name for dump in await client.list_dumps()] == ["used"]


async def test_limit_of_all(start_daemon: Callable[..., Service]) -> None:
    async with connected(start_daemon("MaxDumps=1").address) as client:
        await add(client, "first", b"x")
        with pytest.raises(QuotaExceeded, match="device dump second"):
            await add(client, "second", b"x")


async def test_disabled(start_daemon: Callable[..., Service]) -> None:
    async with connected(start_daemon("Enabled=no").address) as client:
        with pytest.raises(Disabled):
            await add(client, "nic", b"x")


async def test_descriptor_that_cannot_be_read(daemon: Service) -> None:
    fd = os.open("/dev/null", os.O_WRONLY)
    try:
        async with connected(daemon.address) as client:
            with pytest.raises(CollectorFailed, match="device dump nic: cannot read its data"):
                await client.add_fd("nic", 1, fd)
    finally:
        os.close(fd)


async def test_timeout_of_the_collector(daemon: Service) -> None:
    with pipe() as (reader, _):
        async with connected(daemon.address) as client:
            with pytest.raises(TimedOut, match=r"within 0\.1 s"):
                await client.add_fd("nic", 1, reader, 0.1)
            assert [dump.state for dump in await client.list_dumps()] == ["failed"]
            await add(client, "nic", b"second attempt")
            assert [dump.state for dump in await client.list_dumps()] == ["complete"]
            await client.remove("nic")
            with pytest.raises(TimedOut):
                await client.add_fd("nic", 1, reader, 0.1)
            await client.remove("nic")
            with pytest.raises(UnknownDump):
                await client.remove("nic")


async def test_dump_that_is_being_collected_stays(daemon: Service) -> None:
    with pipe() as (reader, writer):
        async with connected(daemon.address) as client:
            adding = asyncio.create_task(client.add_fd("nic", 1, reader))
            while not await client.list_dumps():
                pass
            with pytest.raises(Busy):
                await client.remove("nic")
            os.write(writer, b"x")
            assert await adding == "/org/vmcoredd1/dump/1"


async def test_no_bus() -> None:
    with pytest.raises(BusUnavailable, match="cannot connect to the message bus"):
        await Client.open("unix:path=/nowhere", 5)


async def test_no_service(bus_address: str) -> None:
    async with connected(bus_address) as client:
        for call in (
            client.list_dumps(),
            client.status(),
            client.write(),
            client.remove("nic"),
            client.add_fd("x", 1, 0),
        ):
            with pytest.raises(BusUnavailable, match=r"^the service is not running on this bus$"):
                await call


async def test_service_that_hangs(daemon: Service) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        async with connected(daemon.address, 0.3) as client:
            started = time.monotonic()
            for call in (client.status(), client.list_dumps(), client.write(), client.add_fd("nic", 1, fd)):
                with pytest.raises(TimedOut, match=r"^the service did not answer within 0\.3 s$"):
                    await call
            assert time.monotonic() - started < 5
    finally:
        os.close(fd)
        daemon.process.send_signal(signal.SIGCONT)


async def test_long_call_outlives_the_timeout_of_short_ones(daemon: Service) -> None:
    with pipe() as (reader, writer):
        async with connected(daemon.address, 0.2) as client:
            adding = asyncio.create_task(client.add_fd("nic", 1, reader))
            await asyncio.sleep(1)
            os.write(writer, b"x")
            assert await adding == "/org/vmcoredd1/dump/1"


async def test_service_that_dies_meanwhile(daemon: Service) -> None:
    with pipe() as (reader, _):
        async with connected(daemon.address) as client:
            adding = asyncio.create_task(client.add_fd("nic", 1, reader))
            while not await client.list_dumps():
                pass
            daemon.kill()
            with pytest.raises(BusUnavailable, match=r"^the service ended before it answered$"):
                await adding


async def test_no_descriptor_is_left_open(daemon: Service) -> None:
    async with connected(daemon.address) as client:
        await add(client, "first", b"x")
    before = open_fds()
    async with connected(daemon.address) as client:
        await add(client, "nic", b"x")
        with pytest.raises(NameInUse):
            await add(client, "nic", b"x")
        await client.list_dumps()
    assert open_fds() == before


async def test_note_of_a_dump(daemon: Service) -> None:
    async with connected(daemon.address or "") as client:
        path = await add(client, "nic", b"registers", 100)
        before = open_fds()
        fd = await client.open_dump(path)
        try:
            assert open_fds() == before + 1
            assert not os.get_inheritable(fd)
            assert os.pread(fd, 109, 0)[-45:] == b"registers".ljust(45, b"\0")
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.pwrite(fd, b"x", 0)
        finally:
            os.close(fd)
        with pytest.raises(VmcoreddError):
            await client.open_dump("/org/vmcoredd1/dump/99")
        daemon.kill()
        with pytest.raises(BusUnavailable):
            await client.open_dump(path)
