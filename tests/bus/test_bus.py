# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each fault of dbus-next that the package bus repairs, on a real bus."""

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.lib.bus import private_bus
from tests.lib.dbus import Message, ServiceInterface, method
from tests.lib.paths import ROOT
from tests.lib.resources import open_fds, settled
from tests.lib.waiting import eventually
from vmcoredd_daemon.bus import SENDER, Connection, take_fds
from vmcoredd_daemon.bus.dbus_names import BUS_NAME
from vmcoredd_daemon.errors import BusUnavailable, CallFailed
from vmcoredd_daemon.threads import fd_closer

INTERFACE = "org.vmcoredd1.Collector"
"""An interface that the policy lets root call at any connection."""


class Peer(ServiceInterface):
    """Methods that a caller may wish for, and some that it may not."""

    def __init__(self) -> None:
        super().__init__(INTERFACE)
        self.inheritable: list[bool] = []
        self.cancel = asyncio.Event()

    @method()
    async def Echo(self, data: "ay") -> "ay":
        return data

    @method()
    async def Sender(self) -> "s":
        await asyncio.sleep(0)
        return SENDER.get()

    @method()
    async def Raise(self) -> "":
        raise RuntimeError("/secret/path")

    @method()
    async def WrongType(self) -> "u":
        return "not a number"

    @method()
    async def Take(self, fd: "h") -> "b":
        return os.get_inheritable(fd)

    @method()
    async def Give(self) -> "h":
        return os.open("/dev/null", os.O_RDONLY)

    @method()
    async def Cancelled(self) -> "":
        raise asyncio.CancelledError


@pytest.fixture
async def peer(bus_address: str):  # type: ignore[no-untyped-def]
    connection = await Connection.open(bus_address, 5)
    connection.export("/peer", Peer())
    yield connection
    await connection.close()


async def ask(bus: Connection, peer: Connection, member: str, *args: object, fds: tuple[int, ...] = ()) -> Message:
    async with asyncio.timeout(10):
        return await bus.method_call(peer.unique_name or "", "/peer", INTERFACE, member, *args, fds=fds)


async def test_a_thousand_signals_in_one_tick(bus: Connection, peer: Connection) -> None:
    for _ in range(1000):
        peer.send(Message.new_signal("/x", "x.y", "Z", "ay", [bytes(2000)]))
    assert peer.connected
    assert (await ask(bus, peer, "Echo", "ay", [b"x"])).body == [b"x"]


async def test_large_messages_wait_until_the_socket_is_writable(bus: Connection, peer: Connection) -> None:
    data = os.urandom(8 << 20)
    answers = await asyncio.gather(*(ask(bus, peer, "Echo", "ay", [data]) for _ in range(3)))
    assert all(answer.body == [data] for answer in answers)


async def test_messages_keep_their_order_and_their_descriptors(bus: Connection, peer: Connection) -> None:
    seen: list[tuple[int, int]] = []

    def see(message: Message) -> None:
        if message.member == "Ordered":
            seen.append((message.body[0], len(message.unix_fds)))

    peer.add_message_handler(see)
    sent = [(number, number % 7 % 3) for number in range(300)]
    for number, count in sent:
        body = [number, bytes(5000 if number % 10 == 0 else 10)]
        message = Message.new_signal("/x", "x.y", "Ordered", "uay", body, [0, 1, 2][:count])
        message.destination = peer.unique_name
        bus.send(message)
    await ask(bus, peer, "Echo", "ay", [b""])
    assert seen == sent


async def test_sender_is_known(bus: Connection, peer: Connection) -> None:
    assert (await ask(bus, peer, "Sender")).body == [bus.unique_name]


@pytest.mark.parametrize("member", ["Raise", "WrongType", "Cancelled"])
async def test_nothing_internal_leaves(bus: Connection, peer: Connection, member: str) -> None:
    with pytest.raises(CallFailed) as caught:
        await ask(bus, peer, member)
    assert "secret" not in caught.value.text
    assert "Traceback" not in caught.value.text
    assert "File" not in caught.value.text


@pytest.mark.parametrize(
    ("path", "children"),
    [
        ("/", ["a", "peer"]),
        ("/a", ["dump"]),
        ("/a/dump", ["1", "10", "11"]),
        ("/a/dump/1", ["memory"]),
        ("/a/dump/10", []),
        ("/dump", []),
    ],
)
async def test_introspection_lists_children(
    bus: Connection, peer: Connection, path: str, children: list[str]
) -> None:
    for exported in ("/", "/a/dump/1", "/a/dump/10", "/a/dump/11", "/a/dump/1/memory"):
        peer.export(exported, Peer())
    # The policy lets root introspect no other service.
    await peer.own(BUS_NAME, 5)
    answer = await bus.method_call(BUS_NAME, path, "org.freedesktop.DBus.Introspectable", "Introspect")
    root = ElementTree.fromstring(answer.body[0])
    assert [node.get("name") for node in root.findall("node")] == children


async def test_descriptors_are_owned(bus: Connection, peer: Connection) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    before = open_fds()
    for _ in range(20):
        assert (await ask(bus, peer, "Take", "h", [0], fds=(null,))).body == [False]
        for member, signature in (("Nothing", "h"), ("Take", "hh"), ("Echo", "h")):
            with pytest.raises(CallFailed):
                await ask(bus, peer, member, signature, [0] * len(signature), fds=(null,))
        (given,) = take_fds(await ask(bus, peer, "Give"))
        os.close(given)
    assert await settled(open_fds, before) == before
    os.close(null)


async def test_no_more_is_received_while_descriptors_cannot_be_closed(
    bus: Connection, peer: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_fds()
    monkeypatch.setattr(fd_closer, "MAX_THREADS", 0)
    monkeypatch.setattr(fd_closer, "MAX_WAITING", 3)
    calls = [asyncio.create_task(ask(bus, peer, "Echo", "h", [0], fds=(1,))) for _ in range(100)]
    done, waiting = await asyncio.wait(calls, timeout=0.5)
    assert len(done) < 100
    assert open_fds() < before + 100
    monkeypatch.setattr(fd_closer, "MAX_THREADS", 1)
    await asyncio.wait(waiting)
    assert await settled(open_fds, before) == before
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, CallFailed) for answer in answers)


async def test_descriptor_may_be_closed_as_soon_as_it_is_sent(bus: Connection, peer: Connection) -> None:
    calls = []
    for _ in range(50):
        null = os.open("/dev/null", os.O_RDONLY)
        calls.append(asyncio.create_task(ask(bus, peer, "Take", "h", [0], fds=(null,))))
        await asyncio.sleep(0)
        os.close(null)
    assert all(answer.body == [False] for answer in await asyncio.gather(*calls))


async def test_descriptors_that_cannot_all_be_duplicated(bus: Connection, peer: Connection) -> None:
    before, null = open_fds(), os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        await ask(bus, peer, "Take", "hh", [0, 1], fds=(null, 1 << 20))
    os.close(null)
    assert open_fds() == before


async def test_call_that_is_given_up_leaves_nothing(bus: Connection, peer: Connection) -> None:
    before = open_fds()
    calls = [asyncio.create_task(ask(bus, peer, "Give")) for _ in range(20)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    await ask(bus, peer, "Echo", "ay", [b""])
    assert await settled(open_fds, before) == before
    assert not bus._method_return_handlers


async def test_close_sends_what_is_queued(bus: Connection, bus_address: str) -> None:
    received = asyncio.Event()
    bus.add_message_handler(lambda message: received.set() if message.member == "Last" else None)
    other = await Connection.open(bus_address, 5)
    for member in ("First", "Last"):
        message = Message.new_signal("/x", "x.y", member, "ay", [bytes(300_000)])
        message.destination = bus.unique_name
        other.send(message)
    await other.close()
    async with asyncio.timeout(5):
        await received.wait()


async def test_lost_connection(bus_address: str) -> None:
    before = open_fds()
    connection = await Connection.open(bus_address, 5)
    call = asyncio.create_task(connection.method_call(":1.99999", "/", INTERFACE, "Echo", "ay", [b""]))
    await asyncio.sleep(0)
    connection._sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises((BusUnavailable, CallFailed)):
        await call
    async with asyncio.timeout(5):
        await connection.wait_closed()
    connection.send(Message.new_signal("/x", "x.y", "Z"))
    with pytest.raises(BusUnavailable):
        await connection.method_call(":1.1", "/", INTERFACE, "Echo", "ay", [b""])
    await connection.close()
    assert open_fds() == before


async def test_no_bus() -> None:
    before = open_fds()
    with pytest.raises(BusUnavailable) as caught:
        await Connection.open("unix:path=/nonexistent/bus", 1)
    where = "cannot connect to the message bus: unix:path=/nonexistent/bus: "
    assert str(caught.value) == where + "No such file or directory"
    assert open_fds() == before


async def test_address_of_no_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_fds()
    for address in (
        "nonsense",
        "tcp:host=localhost",
        "unix:tmpdir=/tmp",
        "unix:path=/%00",
        "unix:path=" + "x" * 200,
    ):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        for given in (address, None):
            with pytest.raises(
                BusUnavailable, match=f"^cannot connect to the message bus: {address[:160]}: [^\n]+$"
            ):
                await Connection.open(given, 1)
    assert open_fds() == before


async def test_bus_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen()
        before = open_fds()
        with pytest.raises(BusUnavailable, match="no answer"):
            await Connection.open(f"unix:path={tmp_path / 'silent'}", 0.2)
        assert open_fds() == before


async def test_name_that_is_taken(bus: Connection, bus_address: str) -> None:
    await bus.own("org.vmcoredd1", 5)
    other = await Connection.open(bus_address, 5)
    with pytest.raises(BusUnavailable, match="another process owns it"):
        await other.own("org.vmcoredd1", 5)
    with pytest.raises(BusUnavailable, match=r"cannot own com\.example\.Other"):
        await other.own("com.example.Other", 5)
    await other.close()


async def test_bus_that_closes_while_we_authenticate(tmp_path: Path) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_unix_server(close, tmp_path / "closes")
    with pytest.raises(BusUnavailable, match="cannot connect"):
        await Connection.open(f"unix:path={tmp_path / 'closes'}", 5)
    server.close()
    await server.wait_closed()


async def test_bus_whose_queue_is_full(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as stack:
        listener.bind(str(tmp_path / "full"))
        listener.listen(0)
        for _ in range(5):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(str(tmp_path / "full"))
        async with asyncio.timeout(2):
            with pytest.raises(BusUnavailable):
                await Connection.open(f"unix:path={tmp_path / 'full'}", 1)


async def test_bus_that_refuses_us(tmp_path: Path) -> None:
    with private_bus(tmp_path, max_completed_connections=1) as address:
        first = await Connection.open(address, 5)
        with pytest.raises(BusUnavailable, match="the bus refused the connection"):
            await Connection.open(address, 5)
        await first.close()


async def test_flood_leaves_time_for_others(bus: Connection, peer: Connection) -> None:
    # All that a socket holds is there immediately; still a timer has its turn in between.
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    seen = []
    bus.add_message_handler(lambda message: seen.append(turns) if message.member == "Flood" else None)
    for _ in range(1000):
        message = Message.new_signal("/x", "x.y", "Flood")
        message.destination = bus.unique_name
        peer.send(message)
    turn()
    await eventually(lambda: len(seen) == 1000)
    assert max(seen.count(at) for at in set(seen)) <= 64


def test_glib_is_not_loaded_with_dbus_next_and_can_be_by_others(tmp_path: Path) -> None:
    (tmp_path / "gi").mkdir()
    (tmp_path / "gi/__init__.py").write_text("print('loaded')\n")
    (tmp_path / "gi/repository.py").write_text("GLib = None\n")
    program = """
import vmcoredd_daemon.cli.client, vmcoredd_daemon.service.interface
print("ours")
import gi.repository
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    root = ROOT
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["ours", "loaded"]
