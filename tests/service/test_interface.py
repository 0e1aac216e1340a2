# SPDX-License-Identifier: LGPL-2.1-or-later
"""org.vmcoredd1 as its callers see it: real bus, real daemon, helpers of every kind."""

import asyncio
import os
import re
import socket
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lib.bus import private_bus
from tests.lib.caller import (
    ERROR,
    INVALID_ARGS,
    MANAGER,
    NAME,
    PATH,
    PROPERTIES,
    Collector,
    add,
    add_bytes,
    call,
    fill,
    hang,
    names,
    options,
)
from tests.lib.dbus import DBusError, Message, MessageFlag, MessageType, Variant
from tests.lib.paths import ROOT
from tests.lib.resources import settled
from tests.lib.service import Service
from tests.lib.vmcore_dumps import GOLDEN, manifest
from tests.lib.vmcoredd import run
from tests.lib.waiting import eventually
from vmcoredd_daemon.bus import Connection, take_fds
from vmcoredd_daemon.bus.dbus_names import DEVICE_DUMP
from vmcoredd_daemon.errors import CallFailed


async def test_two_hundred_collectors_at_once(
    start_daemon: Callable[..., Service], bus_address: str, bus: Connection
) -> None:
    daemon = start_daemon("MaxDumps=256\nMaxCollectingPerCaller=50", dev_mode=False)
    helpers = [await Connection.open(bus_address, 5) for _ in range(4)]

    async def sleep_then_fill(name: str, buffer: int, offset: int, size: int) -> int:
        await asyncio.sleep(0.1)
        if name.endswith("7"):
            raise RuntimeError("the device does not answer")
        return await fill(name, buffer, offset, size)

    async def watch(seen: list[int]) -> None:
        while True:
            listed = await call(bus, "ListDeviceDumps")
            complete = [entry for entry in listed.body[0] if entry[3] == "complete"]
            assert all(entry[2] == 65536 for entry in complete)
            seen.append(len(complete))

    seen: list[int] = []
    watcher = asyncio.create_task(watch(seen))
    started = time.monotonic()
    results = await asyncio.gather(
        *(add(helpers[i % 4], f"d{i}", 65536, sleep_then_fill) for i in range(200)), return_exceptions=True
    )
    elapsed = time.monotonic() - started
    print(f"200 collectors of 64 KiB, 100 ms each: {elapsed:.2f} s")
    watcher.cancel()
    assert seen == sorted(seen)
    states = await names(bus)
    assert sum(state == "complete" for state in states.values()) == 180
    assert (
        sum(isinstance(result, CallFailed) and result.name == f"{ERROR}.CollectorFailed" for result in results)
        == 20
    )
    for helper in helpers:
        await helper.close()
    assert daemon.stop() == 0
    content = daemon.vmcore().read_bytes()
    assert all(content.count(f"d{i}".encode().ljust(65536, b".")) == (i % 10 != 7) for i in range(200))


async def test_a_thousand_pipelined_calls(tmp_path: Path, source_vmcore: Path) -> None:
    # The stock bus itself refuses more than 128 calls of one connection without an answer.
    with (
        private_bus(tmp_path, max_replies_per_connection=2000) as address,
        Service(address, source_vmcore, tmp_path, "MaxCollectingPerCaller=64").start() as daemon,
    ):
        bus = await Connection.open(address, 5)
        answers = await asyncio.gather(*(call(bus, "ListDeviceDumps") for _ in range(1000)))
        assert len(answers) == 1000
        names = [f"flood{i}" for i in range(1000)]
        results = await asyncio.gather(*(add(bus, name, 16, fill) for name in names), return_exceptions=True)
        assert len([result for result in results if isinstance(result, str)]) == 64
        assert {result.name for result in results if isinstance(result, CallFailed)} == {f"{ERROR}.QuotaExceeded"}
        await bus.close()
        assert daemon.stop() == 0


async def test_messages_with_descriptors_that_nobody_takes(daemon: Service, bus: Connection) -> None:
    await call(bus, "ListDeviceDumps")
    before = daemon.fd_count()
    fd = os.open("/dev/null", os.O_RDONLY)
    wrong = [
        ("NoSuchMethod", "h", [0]),
        ("AddDeviceDumpFd", "h", [0]),
        ("AddDeviceDumpFd", "suha{sv}", ["", 1, 0, {}]),
        ("AddDeviceDumpFd", "suha{sv}", ["name", 0, 0, {}]),
    ]
    for batch in range(10):
        calls = [call(bus, *wrong[i % 4], fds=[fd]) for i in range(100)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, CallFailed) for answer in answers), batch
    os.close(fd)
    assert await names(bus) == {}
    assert await settled(daemon.fd_count, before) == before


async def test_signals_with_descriptors_are_closed(daemon: Service, bus: Connection) -> None:
    await call(bus, "ListDeviceDumps")
    before = daemon.fd_count()
    fd = os.open("/dev/null", os.O_RDONLY)
    for _ in range(100):
        message = Message.new_signal("/x", "x.y", "Z", "h", [0], [fd])
        message.destination = NAME
        await bus.send(message)
    os.close(fd)
    await call(bus, "ListDeviceDumps")
    assert await settled(daemon.fd_count, before) == before


@pytest.mark.parametrize(
    ("name", "size", "error"),
    [
        ("", 10, INVALID_ARGS),
        ("x" * 44, 10, INVALID_ARGS),
        ("caf\u00e9", 10, INVALID_ARGS),
        ("line\nbreak", 10, INVALID_ARGS),
        ("zero", 0, INVALID_ARGS),
        ("vmcoredd_manifest", 10, f"{ERROR}.NameInUse"),
        ("huge", 0xFFFFFFFF, f"{ERROR}.TooLarge"),
        ("large", 300 << 20, f"{ERROR}.TooLarge"),
    ],
)
async def test_bad_arguments(daemon: Service, bus: Connection, name: str, size: int, error: str) -> None:
    with pytest.raises(CallFailed) as by_callback:
        await add(bus, name, size, fill)
    with pytest.raises(CallFailed) as by_descriptor:
        await add_bytes(bus, name, b"x", size)
    assert {by_callback.value.name, by_descriptor.value.name} == {error}
    assert "\n" not in by_callback.value.text
    assert await names(bus) == {}


@pytest.mark.parametrize("by", ["callback", "descriptor"])
async def test_note_has_its_true_size_unless_it_keeps_its_size(daemon: Service, bus: Connection, by: str) -> None:
    """The kernel's is as large as its driver has said: keep_size gives its header byte for byte."""
    header = GOLDEN.read_bytes()[0x17000:0x17040]

    async def writes(name: str, buffer: int, offset: int, size: int) -> int:
        return os.pwrite(buffer, b"data", offset)

    async def add_four_bytes(name: str, **given: bool) -> int:
        adding = (
            add(bus, name, 8192, writes, **given)
            if by == "callback"
            else add_bytes(bus, name, b"data", 8192, **given)
        )
        answer = await call(bus, "Get", "ss", [DEVICE_DUMP, "NoteSize"], interface=PROPERTIES, path=await adding)
        return int(answer.body[0].value)

    assert await add_four_bytes("golden_a", keep_size=True) == 12288
    assert await add_four_bytes("nic") == 4096
    answer = await call(bus, "Get", "ss", [MANAGER, "DeviceDumpBytes"], interface=PROPERTIES)
    assert answer.body[0].value == 16384
    assert daemon.stop() == 0
    content = daemon.vmcore().read_bytes()
    start = content.index(header)
    assert start % 4096 == 0
    assert content[start:][:12288] == (header + b"data").ljust(12288, b"\0")
    # The other notes follow directly.
    names = [content[start + offset + 20 :].split(b"\0", 1)[0] for offset in (12288, 16384)]
    assert names == [b"nic", b"vmcoredd_manifest"]


async def test_collectors_run_has_no_option_for_the_size(daemon: Service, bus: Connection) -> None:
    with pytest.raises(CallFailed, match="unknown option 'keep_size'") as caught:
        await call(bus, "RunCollectors", "asa{sv}", [[], options(keep_size=True)])
    assert caught.value.name == INVALID_ARGS


async def test_duplicate_name(daemon: Service, bus: Connection) -> None:
    await add(bus, "one", 10, fill)
    with pytest.raises(CallFailed) as caught:
        await add(bus, "one", 10, fill)
    assert caught.value.name == f"{ERROR}.NameInUse"
    assert await names(bus) == {"one": "complete"}


async def test_bad_options(daemon: Service, bus: Connection) -> None:
    for given in ({"colour": Variant("s", "blue")}, {"timeout": Variant("u", 1)}, {"wait": Variant("s", "yes")}):
        with pytest.raises(CallFailed) as caught:
            await call(bus, "AddDeviceDump", "suoa{sv}", ["name", 1, "/x", given])
        assert caught.value.name == INVALID_ARGS
        assert next(iter(given)) in caught.value.text
    with pytest.raises(CallFailed, match="colour"):
        await call(bus, "WriteVmcore", "a{sv}", [{"colour": Variant("s", "blue")}])
    with pytest.raises(CallFailed) as caught:
        await call(bus, "AddDeviceDumpFd", "suha{sv}", ["name", 1, 7, {}])
    assert caught.value.name == INVALID_ARGS


async def test_collectors_that_misbehave(daemon: Service, bus: Connection, bus_address: str) -> None:
    async def fails(name: str, buffer: int, offset: int, size: int) -> int:
        raise DBusError("com.example.Error.Broken", "the firmware\nis gone")

    async def lies(name: str, buffer: int, offset: int, size: int) -> int:
        return size + 1

    async def overruns(name: str, buffer: int, offset: int, size: int) -> int:
        os.pwrite(buffer, bytes(8192), offset + size)
        return size

    async def cuts(name: str, buffer: int, offset: int, size: int) -> int:
        os.ftruncate(buffer, 0)
        return size

    leaver = await Connection.open(bus_address, 5)

    async def leaves(name: str, buffer: int, offset: int, size: int) -> int:
        asyncio.get_running_loop().call_soon(leaver._finalize)
        return 0

    before = daemon.fd_count()
    expected = {
        "fails": (bus, fails, "CollectorFailed"),
        "lies": (bus, lies, "CollectorFailed"),
        "overruns": (bus, overruns, "CollectorFailed"),
        "cuts": (bus, cuts, "CollectorFailed"),
        "hangs": (bus, hang, "TimedOut"),
    }
    for name, (connection, behaviour, error) in expected.items():
        with pytest.raises(CallFailed) as caught:
            await add(connection, name, 100, behaviour, timeout=0.3)
        assert caught.value.name == f"{ERROR}.{error}", name
        assert "\n" not in caught.value.text
        assert name in caught.value.text
    leaver_call = asyncio.create_task(add(leaver, "leaves", 100, leaves))
    await asyncio.wait([leaver_call], timeout=5)
    assert leaver_call.exception() is not None
    with pytest.raises(CallFailed) as caught:
        await call(bus, "AddDeviceDump", "suoa{sv}", ["nobody", 1, "/nobody/home", {}])
    assert caught.value.name == f"{ERROR}.CollectorFailed"
    # The name is free again, and what was collected before and after stays.
    await add(bus, "fails", 100, fill)
    states = await names(bus)
    assert states == dict.fromkeys([*expected, "leaves", "nobody"], "failed") | {"fails": "complete"}
    # The complete device dump keeps its descriptor; the leaver's connection was never this process's.
    assert daemon.fd_count() == before + 1


async def test_what_a_collector_leaves_behind_its_data_is_not_in_the_note(
    daemon: Service, bus: Connection
) -> None:
    async def scratches(name: str, buffer: int, offset: int, size: int) -> int:
        os.pwrite(buffer, b"S" * size, offset)
        return 10

    await add(bus, "scratch", 5000, scratches)
    assert daemon.stop() == 0
    content = daemon.vmcore().read_bytes()
    assert b"S" * 10 in content
    assert b"S" * 11 not in content


async def test_descriptors_of_every_kind(daemon: Service, bus: Connection, tmp_path: Path) -> None:
    file = tmp_path / "registers"
    file.write_bytes(b"file contents")
    ours, theirs = socket.socketpair()
    ours.sendall(b"socket contents")
    ours.close()
    memfd = os.memfd_create("registers")
    os.write(memfd, b"memfd contents")
    os.lseek(memfd, 0, os.SEEK_SET)
    sources = {"file": os.open(file, os.O_RDONLY), "socket": theirs.detach(), "memfd": memfd}
    for name, fd in sources.items():
        await call(bus, "AddDeviceDumpFd", "suha{sv}", [name, 100, 0, {}], [fd])
        os.close(fd)
    await add_bytes(bus, "pipe", b"pipe contents")
    with pytest.raises(CallFailed, match="device dump empty: no data were received") as caught:
        await add_bytes(bus, "empty", b"", 10)
    assert caught.value.name == f"{ERROR}.CollectorFailed"
    await add_bytes(bus, "truncated", b"x" * 100_000, 70_000)
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(CallFailed) as caught:
        await call(bus, "AddDeviceDumpFd", "suha{sv}", ["directory", 100, 0, {}], [directory])
    os.close(directory)
    assert caught.value.name == INVALID_ARGS
    zero = os.open("/dev/zero", os.O_RDONLY)
    await call(bus, "AddDeviceDumpFd", "suha{sv}", ["endless", 100_000, 0, {}], [zero])
    os.close(zero)
    assert await names(bus) == dict.fromkeys([*sources, "pipe"], "complete") | {
        "empty": "failed",
        "truncated": "truncated",
        "directory": "failed",
        "endless": "truncated",
    }
    assert daemon.stop() == 0
    content = daemon.vmcore().read_bytes()
    assert all(f"{name} contents".encode() in content for name in [*sources, "pipe"])


async def test_sockets_of_messages_are_refused(daemon: Service, bus: Connection) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.send(b"x" * 100_000)
        for wait in (True, False):
            body = ["nic0", 1 << 20, 0, options(timeout=5, wait=wait)]
            with pytest.raises(CallFailed, match=r"device dump nic0: .* of type SOCK_SEQPACKET, ") as caught:
                await call(bus, "AddDeviceDumpFd", "suha{sv}", body, [ours.fileno()])
            assert caught.value.name == INVALID_ARGS
        with pytest.raises(CallFailed, match="printable") as caught:
            await call(bus, "AddDeviceDumpFd", "suha{sv}", ["nic\n0", 100, 0, {}], [ours.fileno()])
        assert caught.value.name == INVALID_ARGS
    assert await names(bus) == {}


async def test_a_pipe_that_stays_open(daemon: Service, bus: Connection) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x" * 10)
    await call(bus, "AddDeviceDumpFd", "suha{sv}", ["full", 10, 0, {}], [reader])
    with pytest.raises(CallFailed) as caught:
        await call(bus, "AddDeviceDumpFd", "suha{sv}", ["waits", 10, 0, options(timeout=0.2)], [reader])
    os.close(reader)
    os.close(writer)
    assert caught.value.name == f"{ERROR}.TimedOut"
    assert await names(bus) == {"full": "complete", "waits": "failed"}


async def test_path_that_is_not_utf8(bus_address: str, source_vmcore: Path, tmp_path: Path) -> None:
    """D-Bus takes no bytes that are not UTF-8, and a terminal takes escapes for commands."""
    directory = tmp_path / "\udcff\x1b"
    directory.mkdir()
    with Service(bus_address, source_vmcore, directory).start() as service:
        bus = await Connection.open(bus_address, 5)
        path = (await call(bus, "WriteVmcore", "a{sv}", [{}])).body[0]
        assert path.startswith(f"{tmp_path}/\\xff\x1b/target/")
        reply = await bus.method_call(NAME, PATH, "org.freedesktop.DBus.Properties", "GetAll", "s", [MANAGER])
        assert reply.body[0]["VmcorePath"].value == path
        await add_bytes(bus, "late", b"registers")
        service.target.rename(directory / "gone")
        service.target.touch()
        with pytest.raises(CallFailed, match=r"\\xff\x1b/target: ") as caught:
            await call(bus, "WriteVmcore", "a{sv}", [{}])
        assert caught.value.name == f"{ERROR}.WriteFailed"
        service.target.unlink()
        (directory / "gone").rename(service.target)
        await bus.close()
        written = await asyncio.to_thread(run, "write", "--bus-address", bus_address)
        assert written.stdout.startswith(f"{tmp_path}/\\xff\\x1b/target/")
        assert service.stop() == 0
    assert "ERROR: Unexpected" not in service.log()
    assert "/\\xff\\x1b/target/" in service.log()
    assert "\x1b" not in service.log()
    text = manifest(service.vmcore()).source.path
    assert text.encode()


async def test_wait_false_answers_at_once(daemon: Service, bus: Connection) -> None:
    go_on = asyncio.Event()

    async def waits(name: str, buffer: int, offset: int, size: int) -> int:
        await go_on.wait()
        return await fill(name, buffer, offset, size)

    bus.export("/waits", Collector(waits))
    await call(bus, "AddDeviceDump", "suoa{sv}", ["slow", 10, "/waits", options(wait=False)])
    assert await names(bus) == {"slow": "collecting"}
    go_on.set()
    await eventually(lambda: names(bus), lambda found: found == {"slow": "complete"})


async def test_remove(daemon: Service, bus: Connection) -> None:
    path = await add(bus, "one", 10, fill)
    await add(bus, "two", 10, fill)
    await call(bus, "RemoveDeviceDump", "o", [path])
    assert await names(bus) == {"two": "complete"}
    for gone in (
        path,
        "/org/vmcoredd1/dump/99",
        "/org/vmcoredd1/dump/02",
        "/elsewhere",
        f"{PATH}/dump/{'9' * 5000}",
    ):
        with pytest.raises(CallFailed) as caught:
            await call(bus, "RemoveDeviceDump", "o", [gone])
        assert caught.value.name == "org.freedesktop.DBus.Error.UnknownObject"


async def test_open_hands_out_the_note_read_only(daemon: Service, bus: Connection) -> None:
    path = await add(bus, "one", 10, fill)
    before = daemon.fd_count()
    reply = await bus.method_call(NAME, path, "org.vmcoredd1.DeviceDump", "Open")
    (fd,) = take_fds(reply)
    assert os.pread(fd, 64, 0)[20:23] == b"one"
    assert os.pread(fd, 10, 64) == b"one......."
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")
    os.close(fd)
    await call(bus, "ListDeviceDumps")
    assert daemon.fd_count() == before


async def test_open_while_it_is_removed(daemon: Service, bus: Connection) -> None:
    """A call that was on its way must not find a closed descriptor, nor the one that has its number next."""

    async def opened(path: str) -> str:
        try:
            (fd,) = take_fds(await bus.method_call(NAME, path, "org.vmcoredd1.DeviceDump", "Open"))
        except CallFailed as error:
            # The device dump is gone, or its object is.
            return "" if error.name.startswith("org.freedesktop.DBus.Error.Unknown") else error.name
        try:
            return os.pread(fd, 44, 20).rstrip(b"\0").decode()
        finally:
            os.close(fd)

    seen = set()
    for number in range(20):
        path, name = await add(bus, f"nic{number}", 10, fill), f"nic{number}"
        removal = asyncio.create_task(call(bus, "RemoveDeviceDump", "o", [path]))
        found = []
        while "" not in found:
            found += await asyncio.gather(*(opened(path) for _ in range(20)))
        await removal
        assert set(found) <= {name, ""}
        seen.update(found)
    # Some calls come before the removal, and some behind it.
    assert len(seen) > 1


async def test_signals_and_properties(daemon: Service, bus: Connection) -> None:
    seen: list[tuple[str, list[Any]]] = []
    changes: dict[str, Any] = {}

    def follow(message: Message) -> None:
        if message.member == "PropertiesChanged" and message.path == PATH:
            changes.update({name: value.value for name, value in message.body[1].items()})
        elif message.message_type is MessageType.SIGNAL and message.path == PATH:
            seen.append((message.member, message.body))

    bus.add_message_handler(follow)
    rule = f"type='signal',sender='{NAME}'"
    await bus.method_call(*["org.freedesktop.DBus", "/", "org.freedesktop.DBus", "AddMatch", "s"], [rule])
    path = await add(bus, "one", 10, fill)
    with pytest.raises(CallFailed):
        await add(bus, "two", 10, hang, timeout=0.1)
    written = (await call(bus, "WriteVmcore", "a{sv}", [{}])).body[0]
    # Properties that change often are announced once a second.
    await asyncio.sleep(1.2)
    members = [member for member, _ in seen]
    assert members == [
        "InterfacesAdded",
        "DeviceDumpAdded",
        "InterfacesAdded",
        "DeviceDumpFailed",
        "VmcoreWritten",
    ]
    assert seen[1][1] == [path, "one", 10]
    assert seen[3][1][:2] == ["two", f"{ERROR}.TimedOut"]
    assert seen[4][1] == [written, Path(written).stat().st_size, 1]
    assert changes["DeviceDumps"] == 1
    assert changes["VmcorePath"] == written
    assert changes["BytesDone"] == changes["BytesTotal"] > 90_000_000


async def test_device_dump_has_an_object_when_somebody_is_told_of_it(daemon: Service, bus: Connection) -> None:
    seen: list[tuple[str, str]] = []

    def follow(message: Message) -> None:
        if message.member == "InterfacesAdded":
            ((properties,),) = [interfaces.values() for interfaces in message.body[1:]]
            seen.append((properties["Name"].value, properties["State"].value))
        elif message.member == "PropertiesChanged" and message.path != PATH:
            seen.append(("changed", message.body[1]["State"].value))
        elif message.message_type is MessageType.METHOD_RETURN and message.signature == "o":
            seen.append(("answer", ""))

    bus.add_message_handler(follow)
    rule = f"type='signal',sender='{NAME}'"
    await bus.method_call(*["org.freedesktop.DBus", "/", "org.freedesktop.DBus", "AddMatch", "s"], [rule])
    # One that is complete immediately is announced as that; one whose path is known is announced before.
    await add_bytes(bus, "quick", b"data")
    assert seen == [("quick", "complete"), ("answer", "")]
    seen.clear()
    reader, writer = os.pipe()
    await call(bus, "AddDeviceDumpFd", "suha{sv}", ["open", 1, 0, options(wait=False)], [reader])
    os.write(writer, b"x")
    os.close(writer)
    await eventually(lambda: len(seen) >= 3)
    assert seen == [("open", "collecting"), ("answer", ""), ("changed", "complete")]
    seen.clear()
    hanging = []
    for name, member, interface in (
        ("listed", "ListDeviceDumps", MANAGER),
        ("managed", "GetManagedObjects", "org.freedesktop.DBus.ObjectManager"),
    ):
        hanging.append(asyncio.create_task(add(bus, name, 10, hang, timeout=2)))
        asked = partial(call, bus, member, interface=interface)
        await eventually(asked, lambda answer, name=name: name in str(answer.body))
        assert seen.pop() == (name, "collecting")
    hanging.append(asyncio.create_task(add(bus, "nobody asks", 10, hang, timeout=2)))
    await eventually(lambda: seen)
    assert seen == [("nobody asks", "collecting")]
    await asyncio.wait(hanging)
    os.close(reader)


async def test_property_of_a_wrong_kind(daemon: Service, bus: Connection) -> None:
    properties = "org.freedesktop.DBus.Properties"
    wrong = [
        ("Get", "ss", [MANAGER, "Nothing"]),
        ("Get", "ss", ["", "Version"]),
        ("Set", "ssv", [MANAGER, "Version", Variant("s", "2")]),
        ("Get", "s", [MANAGER]),
    ]
    for member, signature, body in wrong:
        with pytest.raises(CallFailed) as caught:
            await bus.method_call(NAME, PATH, properties, member, signature, body)
        assert "Traceback" not in caught.value.text


async def test_machine_id_is_answered(daemon: Service, bus: Connection) -> None:
    for _ in range(2):
        with pytest.raises(CallFailed, match="NotSupported"):
            await call(bus, "GetMachineId", interface="org.freedesktop.DBus.Peer")


async def test_calls_that_want_no_answer(daemon: Service, bus: Connection) -> None:
    for _ in range(50):
        message = Message(NAME, PATH, MANAGER, "NoSuch", flags=MessageFlag.NO_REPLY_EXPECTED)
        await bus.send(message)
    assert await names(bus) == {}


def test_nobody_else_may_call(daemon: Service, tmp_path: Path) -> None:
    # The bus socket's directory is root's alone, so the other user gets a connection made through /proc.
    command = ["busctl", f"--address={daemon.address}", "call", NAME, PATH, MANAGER, "ListDeviceDumps"]
    for directory in [tmp_path, *tmp_path.parents][:-2]:
        directory.chmod(directory.stat().st_mode | 0o011)
    nobody = subprocess.run(
        command, user="nobody", group="nogroup", capture_output=True, text=True, timeout=20, check=False
    )
    assert nobody.returncode != 0
    assert "denied" in nobody.stderr.lower()
    subprocess.run(command, capture_output=True, timeout=20, check=True)


def start_as(user: str, command: list[str], output: Path) -> "subprocess.Popen[bytes]":
    with output.open("wb") as file:
        return subprocess.Popen(command, user=user, stdout=file, stderr=subprocess.STDOUT)


async def test_nobody_else_hears_signals(
    bus_address: str, source_vmcore: Path, tmp_path: Path, bus: Connection
) -> None:
    """They have names and error texts of device dumps; root hears them."""
    for directory in [tmp_path, *tmp_path.parents][:-2]:
        directory.chmod(directory.stat().st_mode | 0o011)
    service = Service(bus_address, source_vmcore, tmp_path)
    # What an earlier daemon has left is announced at the start.
    service.start()
    await add_bytes(bus, "before", b"registers")
    service.kill()
    # As nobody it cannot become a monitor, and asks for all signals.
    command = ["stdbuf", "-oL", "dbus-monitor", "--address", bus_address, "type='signal'"]
    heard = {user: tmp_path / user for user in ("root", "nobody")}
    monitors = [start_as(user, command, path) for user, path in heard.items()]
    try:
        await eventually(lambda: all("NameAcquired" in path.read_text() for path in heard.values()))
        service.start()
        await add_bytes(bus, "nic0", b"registers")
        empty = os.open(os.devnull, os.O_RDONLY)
        with pytest.raises(CallFailed):
            await call(bus, "AddDeviceDumpFd", "suha{sv}", ["empty", 9, 0, {}], [empty])
        os.close(empty)
        await call(bus, "RemoveDeviceDump", "o", [f"{PATH}/dump/2"])
        await call(bus, "WriteVmcore", "a{sv}", [{}])
        assert await asyncio.to_thread(service.stop) == 0
        await eventually(lambda: all("NameOwnerChanged" in path.read_text() for path in heard.values()))
        await eventually(lambda: "VmcoreWritten" in heard["root"].read_text())
    finally:
        for monitor in monitors:
            monitor.terminate()
            monitor.wait()
        service.kill()
    for member in ("InterfacesAdded", "DeviceDumpAdded", "DeviceDumpFailed", "DeviceDumpRemoved", "VmcoreWritten"):
        assert member in heard["root"].read_text()
    assert set(re.findall(r"member=(\w+)", heard["nobody"].read_text())) <= {"NameAcquired", "NameOwnerChanged"}


def test_nobody_else_may_own_the_name(bus_address: str, tmp_path: Path) -> None:
    for directory in [tmp_path, *tmp_path.parents][:-2]:
        directory.chmod(directory.stat().st_mode | 0o011)
    bus = ["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"]
    command = ["busctl", f"--address={bus_address}", "call", *bus, "RequestName", "su", NAME, "4"]
    nobody = subprocess.run(
        command, user="nobody", group="nogroup", capture_output=True, text=True, timeout=20, check=False
    )
    assert nobody.returncode != 0
    assert "denied" in nobody.stderr.lower()
    subprocess.run(command, capture_output=True, timeout=20, check=True)


async def test_introspection_is_what_the_xml_says(daemon: Service, bus: Connection) -> None:
    documented = ET.parse(ROOT / "dbus" / "org.vmcoredd1.xml").getroot()
    dump = await add(bus, "one", 10, fill)
    for path, name in {PATH: MANAGER, dump: "org.vmcoredd1.DeviceDump"}.items():
        reply = await bus.method_call(NAME, path, "org.freedesktop.DBus.Introspectable", "Introspect")
        assert _members(ET.fromstring(reply.body[0]), name) == _members(documented, name)


def _members(root: ET.Element, interface: str) -> dict[tuple[str, str], list[tuple[str | None, ...]]]:
    (element,) = root.findall(f"interface[@name='{interface}']")
    return {
        (member.tag, member.attrib["name"]): [(member.get("type"), member.get("access"))]
        + [(arg.get("type"), arg.get("direction", "out"), arg.get("name")) for arg in member.findall("arg")]
        for member in element
    }
