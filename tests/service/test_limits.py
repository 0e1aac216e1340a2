# SPDX-License-Identifier: LGPL-2.1-or-later
"""Limits for callers, on a real bus: what is refused costs nothing, and others are served."""

import asyncio
import errno
import fcntl
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lib.caller import (
    ERROR,
    INVALID_ARGS,
    MANAGER,
    NAME,
    PATH,
    Collector,
    add,
    add_bytes,
    call,
    fill,
    hang,
    names,
    options,
)
from tests.lib.dbus import Message, MessageFlag, MessageType
from tests.lib.fuse import fuse_source
from tests.lib.resources import lingering_socket, settled
from tests.lib.service import Service
from tests.lib.waiting import eventually
from tests.torture.messages import deep, oversized
from tests.torture.raw import RawConnection, pack
from vmcoredd_daemon.bus import Connection, take_fds
from vmcoredd_daemon.errors import CallFailed

LIMITS_EXCEEDED = "org.freedesktop.DBus.Error.LimitsExceeded"


async def refused(bus: Connection, name: str) -> str:
    """Begin one more device dump, which is refused; return the name of the error."""
    with pytest.raises(CallFailed) as caught:
        await add_bytes(bus, name, b"x")
    assert "\n" not in caught.value.text
    return caught.value.name


async def begin(bus: Connection, count: int, other: Connection) -> list["asyncio.Task[Message]"]:
    """Begin device dumps that hang."""
    bus.export("/hangs", Collector(hang))
    bodies = [[f"{bus.unique_name}-{number}", 100, "/hangs", options(timeout=60)] for number in range(count)]
    tasks = [asyncio.create_task(call(bus, "AddDeviceDump", "suoa{sv}", body)) for body in bodies]
    await eventually(lambda: names(other), lambda found: len(found) >= count)
    return tasks


async def cancel(tasks: list["asyncio.Task[Message]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_calls_of_one_caller(
    start_daemon: Callable[..., Service], bus: Connection, bus_address: str
) -> None:
    start_daemon("MaxCallsPerCaller=4")
    other = await Connection.open(bus_address, 5)
    tasks = await begin(bus, 4, other)
    assert await refused(bus, "fifth") == LIMITS_EXCEEDED
    await add_bytes(other, "other", b"data")
    assert (await names(other))["other"] == "complete"
    await cancel(tasks)
    await other.close()


async def test_calls_of_all_callers(
    start_daemon: Callable[..., Service], bus: Connection, bus_address: str
) -> None:
    start_daemon("MaxCalls=3")
    other = await Connection.open(bus_address, 5)
    tasks = await begin(bus, 2, other)
    waiting = asyncio.create_task(add(other, "third", 10, hang, timeout=60))
    await asyncio.sleep(0)
    assert await refused(other, "fourth") == LIMITS_EXCEEDED
    waiting.cancel()
    await asyncio.wait([waiting])
    await cancel(tasks)
    await other.close()


async def test_calls_that_want_no_answer_are_counted(
    start_daemon: Callable[..., Service], bus: Connection
) -> None:
    start_daemon("MaxCallsPerCaller=4")
    bus.export("/hangs", Collector(hang))
    for number in range(20):
        body = [f"nic{number}", 100, "/hangs", options(timeout=60)]
        message = Message(NAME, PATH, MANAGER, "AddDeviceDump", signature="suoa{sv}", body=body)
        message.flags = MessageFlag.NO_REPLY_EXPECTED
        await bus.send(message)
    assert await refused(bus, "one more") == LIMITS_EXCEEDED


async def test_unfinished_device_dumps_of_one_caller(
    start_daemon: Callable[..., Service], bus: Connection, bus_address: str
) -> None:
    start_daemon("MaxCollectingPerCaller=3")
    other = await Connection.open(bus_address, 5)
    tasks = await begin(bus, 3, other)
    assert await refused(bus, "fourth") == f"{ERROR}.QuotaExceeded"
    await add_bytes(other, "other", b"data")
    assert [state for name, state in (await names(other)).items() if name == "other"] == ["complete"]
    await cancel(tasks)
    await other.close()


async def test_refused_calls_cost_nothing(start_daemon: Callable[..., Service], bus: Connection) -> None:
    daemon = start_daemon("MaxDumps=1\nMaxDumpSize=8K")
    await call(bus, "ListDeviceDumps")
    # The device dump has one, too.
    before = daemon.fd_count() + 1
    await add_bytes(bus, "one", b"data")
    log, files = daemon.log(), sorted(daemon.target.rglob("*"))
    for number in range(300):
        assert await refused(bus, f"nic{number}") == f"{ERROR}.QuotaExceeded"
    with pytest.raises(CallFailed):
        await add(bus, "large", 1 << 20, fill)
    assert await names(bus) == {"one": "complete"}
    assert await settled(daemon.fd_count, before) == before
    assert (daemon.log(), sorted(daemon.target.rglob("*"))) == (log, files)


async def test_descriptors_that_no_argument_names(daemon: Service, bus: Connection) -> None:
    await call(bus, "ListDeviceDumps")
    before = daemon.fd_count()
    null = os.open("/dev/null", os.O_RDONLY)
    for member, signature, body, fds in (
        ("AddDeviceDumpFd", "suha{sv}", ["nic", 1, 0, {}], 16),
        ("ListDeviceDumps", "", [], 1),
    ):
        with pytest.raises(CallFailed) as caught:
            await call(bus, member, signature, body, [null] * fds)
        assert caught.value.name == INVALID_ARGS
    os.close(null)
    await call(bus, "ListDeviceDumps")
    assert await settled(daemon.fd_count, before) == before


def test_messages_that_are_larger_than_any_call(daemon: Service, bus_address: str) -> None:
    with RawConnection(bus_address) as caller:
        for size in (1 << 17, 4 << 20):
            serial = caller.next_serial()
            message = bytearray(oversized(size))
            message[8:12] = serial.to_bytes(4, "little")
            caller.send_bytes(message)
            answer = caller.receive()
            while answer is not None and answer.reply_serial != serial:
                answer = caller.receive()
            assert answer is not None
            assert answer.error_name == LIMITS_EXCEEDED
        long = Message(NAME, "/" + "x" * 100_000, MANAGER, "ListDeviceDumps")
        assert caller.call(long).error_name == LIMITS_EXCEEDED
        assert caller.call(deep(29)).error_name == INVALID_ARGS
        listed = caller.call(Message(NAME, PATH, MANAGER, "ListDeviceDumps"))
        assert listed.message_type is MessageType.METHOD_RETURN


def test_headers_of_a_later_version(daemon: Service, bus_address: str) -> None:
    fields = [(1, "o", PATH), (2, "s", MANAGER), (3, "s", "ListDeviceDumps"), (6, "s", NAME), (99, "s", "later")]
    with RawConnection(bus_address) as caller:
        serial = caller.next_serial()
        caller.send_bytes(pack(fields, serial=serial))
        while (answer := caller.receive()) is not None and answer.reply_serial != serial:
            pass
        assert answer is not None
        assert answer.message_type is MessageType.METHOD_RETURN
    assert "lost" not in daemon.log()


async def test_collector_that_changes_how_its_descriptor_works(daemon: Service, bus: Connection) -> None:
    leases = []

    async def appends(name: str, buffer: int, offset: int, size: int) -> int:
        fcntl.fcntl(buffer, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)
        for lease in (fcntl.F_RDLCK, fcntl.F_WRLCK):
            try:
                fcntl.fcntl(buffer, fcntl.F_SETLEASE, lease)
            except OSError as error:
                leases.append(error.strerror)
        fcntl.fcntl(buffer, fcntl.F_SETFL, 0)
        written = os.pwrite(buffer, b"data", offset)
        fcntl.fcntl(buffer, fcntl.F_SETFL, os.O_APPEND)
        return written

    path = await add(bus, "nic", 5000, appends)
    assert len(leases) == 2
    (fd,) = take_fds(await bus.method_call(NAME, path, "org.vmcoredd1.DeviceDump", "Open"))
    note = os.pread(fd, 1 << 20, 0)
    assert note[12:23] == b"LINUX\0\0\0nic"
    assert note[64:70] == b"data\0\0"
    os.close(fd)
    # What was acknowledged is there for the next daemon.
    daemon.kill()
    daemon.start()
    assert await names(bus) == {"nic": "complete"}


async def test_collector_with_a_long_path(daemon: Service, bus: Connection) -> None:
    path = "/" + "x" * 20_000
    bus.export(path, Collector(fill))
    dump = (await call(bus, "AddDeviceDump", "suoa{sv}", ["nic", 10, path, {}])).body[0]
    properties = ("org.freedesktop.DBus.Properties", "Get", "ss")
    reply = await bus.method_call(NAME, dump, *properties, ["org.vmcoredd1.DeviceDump", "Collector"])
    assert reply.body[0].value.endswith((f"[{os.getpid()}]", ")"))


async def test_reads_that_hang(start_daemon: Callable[..., Service], bus: Connection, tmp_path: Path) -> None:
    start_daemon("MaxCollecting=2")
    (tmp_path / "original").write_bytes(b"data")
    with fuse_source(tmp_path / "original", tmp_path / "mounted") as source:
        source.read = lambda offset, size: None
        fd = os.open(source.path, os.O_RDONLY)
        bodies = [[f"hangs-{number}", 100, 0, options(timeout=1)] for number in range(2)]
        calls = [call(bus, "AddDeviceDumpFd", "suha{sv}", body, [fd]) for body in bodies]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, CallFailed) for answer in answers)
        with pytest.raises(CallFailed) as caught:
            await add_bytes(bus, "more", b"data")
        assert caught.value.name == f"{ERROR}.Busy"
        await add(bus, "by callback", 100, fill)
        # One thread waits for the position of the file, which the other one holds, and reads only then.
        source.read = lambda offset, size: 0
        source.answer_late(b"x")
        await eventually(lambda: taken(bus))
        os.close(fd)


async def taken(bus: Connection) -> bool:
    with suppress(CallFailed):
        await add_bytes(bus, "free", b"data")
    return (await names(bus)).get("free") == "complete"


async def collecting(bus: Connection, fd: int) -> "asyncio.Task[Message]":
    """Begin to read a descriptor, for a second at most."""
    task = asyncio.create_task(call(bus, "AddDeviceDumpFd", "suha{sv}", ["odd", 100, 0, options(timeout=1)], [fd]))
    await eventually(lambda: names(bus), lambda found: found.get("odd") == "collecting")
    return task


async def test_file_whose_poll_is_never_answered(daemon: Service, bus: Connection, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"data")
    with fuse_source(tmp_path / "data", tmp_path / "dead") as source:
        source.poll = lambda: None
        fd = os.open(source.path, os.O_RDONLY)
        async with asyncio.timeout(10):
            task = await collecting(bus, fd)
            await add_bytes(bus, "other", b"data")
            with pytest.raises(CallFailed) as caught:
                await task
        assert caught.value.name == f"{ERROR}.TimedOut"
        daemon.process.send_signal(signal.SIGTERM)
        await eventually(lambda: "Stopped" in daemon.log())
        # With a thread in the kernel no process ends.
        source.answer_late(b"")
        os.close(fd)
        assert await asyncio.to_thread(daemon.process.wait, 30) == 0
    assert "written with 1 device dump," in daemon.log()


async def test_socket_whose_close_waits(daemon: Service, bus: Connection) -> None:
    await call(bus, "ListDeviceDumps")
    before = daemon.fd_count()
    ours, peer = lingering_socket(300)
    async with asyncio.timeout(30):
        task = await collecting(bus, ours.fileno())
        ours.close()
        with pytest.raises(CallFailed):
            await task
        await add_bytes(bus, "other", b"data")
        # It is not in the way of others that are to be closed.
        with pytest.raises(CallFailed):
            await call(bus, "Nothing", "h", [0], [0])
        assert await settled(daemon.fd_count, before + 1) == before + 1
    peer.close()


async def test_file_whose_close_fails(daemon: Service, bus: Connection, tmp_path: Path) -> None:
    await call(bus, "ListDeviceDumps")
    before = daemon.fd_count()
    (tmp_path / "data").write_bytes(b"data")
    with fuse_source(tmp_path / "data", tmp_path / "broken") as source:
        source.flush = lambda: errno.EIO
        with source.path.open("rb") as file:
            for attempt in range(3):
                body = [f"odd-{attempt}", 100, 0, options(timeout=10)]
                file.seek(0)
                await call(bus, "AddDeviceDumpFd", "suha{sv}", body, [file.fileno()])
                with pytest.raises(CallFailed) as caught:
                    await call(bus, "Nothing", "h", [0], [file.fileno()])
                assert caught.value.name == "org.freedesktop.DBus.Error.UnknownMethod"
            source.flush = lambda: 0
    assert await names(bus) == {f"odd-{attempt}": "complete" for attempt in range(3)}
    assert await settled(daemon.fd_count, before + 3) == before + 3
    assert "lost" not in daemon.log()
