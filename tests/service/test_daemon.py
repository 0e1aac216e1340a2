# SPDX-License-Identifier: LGPL-2.1-or-later
"""The main job, with real parts: a device dump enters over D-Bus and comes out as a note that others read."""

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from tests.lib import external_tools as judges
from tests.lib.caller import ERROR, add, add_bytes, call, fill, names, service_state
from tests.lib.collectors import Fills
from tests.lib.core_collector import add_collector
from tests.lib.external_tools import Listed
from tests.lib.helper_process import pattern
from tests.lib.resources import limit_files, remount_read_only, tmpfs
from tests.lib.sample import small_source
from tests.lib.service import Service
from tests.lib.shell_program import shell_program
from tests.lib.tools import require
from tests.lib.vmcore_dumps import manifest
from tests.lib.waiting import eventually
from vmcoredd_daemon.bus import Connection
from vmcoredd_daemon.config.config import PROC_VMCORE
from vmcoredd_daemon.config.limits import Limits
from vmcoredd_daemon.config.vmcore_format import Output
from vmcoredd_daemon.dumps.dump_list import DumpList
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.dumps.spool_directory import HANDED_OVER, VMCOREINFO
from vmcoredd_daemon.errors import CallFailed
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.note import system_byteorder, system_page_size
from vmcoredd_daemon.service.daemon import write_and_clear
from vmcoredd_daemon.vmcore.elf import read_headers, walk
from vmcoredd_daemon.vmcore.image import file_image
from vmcoredd_daemon.writer.writer import VmcoreWriter

PROGRAM = [sys.executable, "-m", "vmcoredd_daemon"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["vmcore\x1b"], r"unrecognized arguments: vmcore\x1b"),
        (["--target"], "argument --target: expected one argument"),
        (["--target", ""], "argument --target: the path is empty"),
    ],
)
def test_wrong_usage(words: list[str], reason: str) -> None:
    result = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"vmcoredd-daemon: {reason} (see vmcoredd-daemon --help)\n"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_what_it_prints(option: str) -> None:
    result = subprocess.run([*PROGRAM, option], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "vmcoredd-daemon" in result.stdout
    with open("/dev/full", "w") as full:
        result = subprocess.run([*PROGRAM, option], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (
        1,
        f"vmcoredd-daemon: standard output: {os.strerror(errno.ENOSPC)}\n",
    )
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run([*PROGRAM, option], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (-signal.SIGPIPE, "")


def test_old_crashes_make_space(bus_address: str, source_vmcore: Path, tmp_path: Path) -> None:
    service = Service(bus_address, source_vmcore, tmp_path, "KeepCrashes=2")
    old = [service.target / f"host-2026-01-0{day}-00:00:00" for day in (1, 2)]
    for crash in old:
        crash.mkdir()
        for file in ("vmcore", "vmcoredd-journal.json"):
            (crash / file).touch()
    try:
        service.start()
        assert service.stop() == 0
    finally:
        service.kill()
    assert [crash.exists() for crash in old] == [False, True]
    assert len(list(service.target.glob("*/vmcore"))) == 2
    assert f"{old[0]} removed: KeepCrashes= is reached" in service.log()


async def test_device_dumps_reach_the_vmcore(
    start_daemon: Callable[..., Service], bus: Connection, source_vmcore: Path, tmp_path: Path
) -> None:
    daemon = start_daemon("Format=elf")
    helper = [sys.executable, "-m", "tests.lib.helper_process", daemon.address or "", "mmap_0000:01:00.0", "70000"]
    assert await asyncio.to_thread(subprocess.call, helper) == 0
    await add_bytes(bus, "pipe_0000:02:00.0", b"pipe" * 1000)
    await add(bus, "fits_a_page", 4096 - 64, fill)
    assert daemon.stop() == 0
    vmcore = daemon.vmcore()
    sizes = {"mmap_0000:01:00.0": 73664, "pipe_0000:02:00.0": 4032, "fits_a_page": 4032, MANIFEST_NAME: 4032}
    expected = [Listed(name, size) for name, size in sizes.items()]
    assert judges.crash(vmcore) == expected
    assert judges.osrelease(vmcore) == judges.osrelease(source_vmcore)
    others = [("CORE", "NT_PRSTATUS"), ("VMCOREINFO", 0)]
    assert judges.pyelftools(vmcore) == [("LINUX", 0x700)] * 4 + others
    assert [owner for owner, _ in judges.readelf(vmcore)] == ["LINUX"] * 4 + ["CORE", "VMCOREINFO"]
    assert judges.same_memory(vmcore, source_vmcore)
    filtered = judges.makedumpfile(vmcore, tmp_path / "filtered", "-l", "-d", "31")
    assert judges.crash(filtered) == expected
    assert [(dump.name, dump.size) for dump in manifest(vmcore).device_dumps] == [
        ("mmap_0000:01:00.0", 70000),
        ("pipe_0000:02:00.0", 4000),
        ("fits_a_page", 4032),
    ]
    assert vmcore.stat().st_blocks * 512 < vmcore.stat().st_size
    assert pattern(70000)[:70000] in vmcore.read_bytes()


@pytest.mark.parametrize("configuration", ["", "Format=auto", "Format=kdump"])
@pytest.mark.parametrize("installed", [True, False], ids=["makedumpfile", "no makedumpfile"])
def test_format_that_is_available(
    source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: str, *, installed: bool
) -> None:
    """Filtered and compressed, or else as it is: a failure only if the former was asked for."""
    require("makedumpfile")
    if not installed:
        monkeypatch.setenv("PATH", str(tmp_path))
    with Service(None, source_vmcore, tmp_path, configuration) as daemon:
        assert daemon.start().stop() == (1 if configuration == "Format=kdump" and not installed else 0)
    monkeypatch.undo()
    vmcore, log = daemon.vmcore(), daemon.log()
    assert judges.osrelease(vmcore) == judges.osrelease(source_vmcore)
    assert vmcore.read_bytes()[:8] == (b"KDUMP   " if installed else b"\x7fELF\x02\x01\x01\0")
    fallback = "The vmcore is written in ELF format: makedumpfile is not installed"
    assert manifest(vmcore).source.fallback == ("" if installed else fallback)
    level = "WARNING" if configuration == "Format=kdump" else "INFO"
    assert (f"{level}: {fallback}" in log) is not installed
    assert list(daemon.target.rglob("*.note")) == []


async def test_sigterm_during_collection(start_daemon: Callable[..., Service], bus: Connection) -> None:
    daemon = start_daemon("DrainTimeoutSec=1")
    finishing = asyncio.Event()

    async def never(name: str, buffer: int, offset: int, size: int) -> int:
        await asyncio.sleep(3600)
        return 0

    async def soon(name: str, buffer: int, offset: int, size: int) -> int:
        finishing.set()
        await asyncio.sleep(0.3)
        return await fill(name, buffer, offset, size)

    await add(bus, "finished", 100, fill)
    late = [
        asyncio.create_task(add(bus, name, 100, how)) for name, how in {"hanging": never, "soon": soon}.items()
    ]
    await finishing.wait()
    stopped = asyncio.create_task(asyncio.to_thread(daemon.stop))
    await eventually(lambda: service_state(bus), lambda state: state != "ready", interval=0.001)
    with pytest.raises(CallFailed) as caught:
        await add(bus, "too_late", 100, fill)
    assert caught.value.name == "org.vmcoredd1.Error.Busy"
    assert await late[1] == "/org/vmcoredd1/dump/3"
    with pytest.raises(CallFailed) as caught:
        await late[0]
    assert caught.value.name == "org.vmcoredd1.Error.TimedOut"
    assert await stopped == 0
    content = manifest(daemon.vmcore())
    assert [dump.name for dump in content.device_dumps] == ["finished", "soon"]
    assert [(failure.name, failure.error) for failure in content.failures] == [
        ("hanging", "org.vmcoredd1.Error.TimedOut")
    ]
    assert "device dump hanging: the collector did not finish before the shutdown" in daemon.log()


async def writing_has_begun(daemon: Service) -> None:
    """Wait until there is a part of the vmcore. It is there for a few milliseconds."""
    await eventually(lambda: list(daemon.target.rglob("vmcore-incomplete")), interval=0.001)


async def test_killed_daemon_loses_nothing_it_acknowledged(
    daemon: Service, bus: Connection, source_vmcore: Path
) -> None:
    await add(bus, "one", 5000, fill)
    await add_bytes(bus, "two", b"2" * 9000, 8192)
    daemon.kill()
    assert not [path for path in daemon.target.rglob("*") if path.name == "vmcore"]
    daemon.start()
    assert await names(bus) == {"one": "complete", "two": "truncated"}
    await add(bus, "three", 10, fill)
    assert daemon.stop() == 0
    assert [(d.name, d.size, d.state) for d in manifest(daemon.vmcore()).device_dumps] == [
        ("one", 5000, "complete"),
        ("two", 8192, "truncated"),
        ("three", 10, "complete"),
    ]
    assert not list(daemon.target.rglob("*.note"))


async def test_kill_while_writing_leaves_no_final_name(
    start_daemon: Callable[..., Service], bus: Connection, source_vmcore: Path, tmp_path: Path
) -> None:
    daemon = start_daemon()
    await add(bus, "one", 5000, fill)
    writing = asyncio.create_task(call(bus, "WriteVmcore", "a{sv}", [{}]))
    await writing_has_begun(daemon)
    daemon.kill()
    with pytest.raises(CallFailed):
        await writing
    assert not [path for path in daemon.target.rglob("*") if path.name == "vmcore"]
    daemon.start()
    assert await names(bus) == {"one": "complete"}
    # What was written takes no room of what is written now, and the spool has nothing more to say.
    assert daemon.stop() == 0
    assert set(daemon.target.glob("*/vmcore*")) == {daemon.vmcore("vmcore-dmesg.txt"), daemon.vmcore()}
    assert list(daemon.target.glob(".vmcoredd-spool/*/*")) == []


async def test_write_vmcore_then_shutdown(daemon: Service, bus: Connection) -> None:
    await add(bus, "one", 100, fill)
    path = Path((await call(bus, "WriteVmcore", "a{sv}", [{}])).body[0])
    inode = path.stat().st_ino
    assert daemon.stop() == 0
    assert daemon.vmcore() == path
    assert path.stat().st_ino == inode, "nothing was added, and yet it was written again"


async def test_write_vmcore_then_add_then_shutdown(daemon: Service, bus: Connection) -> None:
    await add(bus, "one", 100, fill)
    await call(bus, "WriteVmcore", "a{sv}", [{}])
    await add(bus, "two", 100, fill)
    assert daemon.stop() == 0
    assert [listed.name for listed in judges.crash(daemon.vmcore())] == ["one", "two", MANIFEST_NAME]


async def test_busy_while_writing(daemon: Service, bus: Connection) -> None:
    path = await add(bus, "one", 100, fill)
    writing = asyncio.create_task(call(bus, "WriteVmcore", "a{sv}", [{}]))
    await writing_has_begun(daemon)
    for refused in (
        add(bus, "two", 100, fill),
        call(bus, "RemoveDeviceDump", "o", [path]),
        call(bus, "WriteVmcore", "a{sv}", [{}]),
    ):
        with pytest.raises(CallFailed) as caught:
            await refused
        assert caught.value.name == "org.vmcoredd1.Error.Busy"
    await writing
    await add(bus, "two", 100, fill)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an ELF vmcore"),
        (b"not a vmcore", "not an ELF vmcore"),
        (None, "No such file or directory"),
        ("truncated", "PT_NOTE ends at"),
        ("no notes", "has no PT_NOTE segment"),
    ],
)
async def test_source_that_is_no_vmcore(
    start_daemon: Callable[..., Service],
    bus: Connection,
    source_vmcore: Path,
    tmp_path: Path,
    content: bytes | str | None,
    reason: str,
) -> None:
    source = tmp_path / "source"
    with source_vmcore.open("rb") as file:
        head = bytearray(file.read(2000))
    if content == "no notes":
        head[64:68] = (6).to_bytes(4, "little")
    if content is not None:
        source.write_bytes(content if isinstance(content, bytes) else bytes(head))
    daemon = start_daemon(source=source)
    await add(bus, "one", 100, fill)
    await call(bus, "WriteVmcore", "a{sv}", [{}])
    await add(bus, "two", 100, fill)
    assert daemon.stop() == 1
    vmcore = daemon.vmcore("vmcore-device-dumps")
    assert [name for name, _ in judges.pyelftools(vmcore)] == ["LINUX"] * 3
    written = manifest(vmcore)
    assert [dump.name for dump in written.device_dumps] == ["one", "two"]
    assert reason in written.source.error
    assert f"{source}: " in daemon.log()
    assert reason in daemon.log()


async def test_source_truncated_in_its_memory(
    start_daemon: Callable[..., Service], bus: Connection, source_vmcore: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    with source_vmcore.open("rb") as file:
        source.write_bytes(file.read(50_000_000))
    missing = source_vmcore.stat().st_size - 50_000_000
    daemon = start_daemon(source=source)
    await add(bus, "one", 100, fill)
    assert daemon.stop() == 0
    assert judges.crash(daemon.vmcore())[0].name == "one"
    assert abs(manifest(daemon.vmcore()).source.missing_bytes - missing) < 4096
    assert "bytes are missing at the end" in daemon.log()


@pytest.fixture
def small_target(tmp_path: Path) -> Iterator[Path]:
    """A target with room for device dumps, and not for the memory."""
    with tmpfs(tmp_path / "target", 4 << 20) as target:
        yield target


async def test_full_target(
    small_target: Path, start_daemon: Callable[..., Service], bus: Connection, source_vmcore: Path
) -> None:
    daemon = start_daemon()
    await add(bus, "one", 1_000_000, fill)
    with pytest.raises(CallFailed) as caught:
        await add(bus, "too_much", 8_000_000, fill)
    assert caught.value.name == "org.vmcoredd1.Error.NoSpace"
    assert daemon.stop() == 1
    vmcore = daemon.vmcore("vmcore-incomplete")
    assert [dump.name for dump in manifest(vmcore).device_dumps] == ["one"]
    assert "No space left on device" in manifest(vmcore).source.error
    assert judges.crash(vmcore)[0].name == "one"
    assert judges.osrelease(vmcore) == judges.osrelease(source_vmcore)
    assert "but incomplete: it is incomplete: makedumpfile failed" in daemon.log()
    assert not list(vmcore.parent.glob("vmcore"))
    assert len(list(small_target.rglob("*.note"))) == 1


async def test_target_without_room_for_a_spool(
    small_target: Path, start_daemon: Callable[..., Service], bus: Connection
) -> None:
    limit_files(small_target, 1)
    daemon = start_daemon()
    # In memory it would be acknowledged, and then be nowhere.
    with pytest.raises(CallFailed) as caught:
        await add(bus, "one", 100, fill)
    assert caught.value.name == "org.vmcoredd1.Error.NoSpace"
    assert "No space left on device; device dumps are refused" in daemon.log()
    assert daemon.stop() == 1


async def test_full_spool_beside_another_target(
    tmp_path: Path, start_daemon: Callable[..., Service], bus: Connection
) -> None:
    with tmpfs(tmp_path / "full", 1 << 20) as full:
        limit_files(full, 1)
        daemon = start_daemon(f"Spool={full}/spool")
        await add(bus, "one", 100, fill)
        assert "device dumps are kept in memory" in daemon.log()
        assert daemon.stop() == 0
        assert judges.crash(daemon.vmcore())[0].name == "one"


async def test_read_only_target(small_target: Path, start_daemon: Callable[..., Service], bus: Connection) -> None:
    remount_read_only(small_target)
    daemon = start_daemon()
    await add(bus, "one", 100, fill)
    with pytest.raises(CallFailed) as caught:
        await call(bus, "WriteVmcore", "a{sv}", [{}])
    assert caught.value.name == "org.vmcoredd1.Error.WriteFailed"
    assert "Read-only file system" in caught.value.text
    assert await names(bus) == {"one": "complete"}
    assert "device dumps are kept in memory" in daemon.log()
    assert daemon.stop() == 1


async def test_missing_target_that_appears(start_daemon: Callable[..., Service], bus: Connection) -> None:
    daemon = start_daemon("Spool=/nonexistent/spool")
    daemon.target.rmdir()
    daemon.target.touch()
    await add(bus, "one", 100, fill)
    with pytest.raises(CallFailed) as caught:
        await call(bus, "WriteVmcore", "a{sv}", [{}])
    assert caught.value.name == "org.vmcoredd1.Error.WriteFailed"
    daemon.target.unlink()
    assert daemon.stop() == 0
    assert judges.crash(daemon.vmcore())[0].name == "one"


def test_without_a_bus(source_vmcore: Path, tmp_path: Path) -> None:
    with Service(None, source_vmcore, tmp_path, "Format=elf") as daemon:
        daemon.start()
        assert daemon.stop() == 0
        assert judges.same_memory(daemon.vmcore(), source_vmcore)


def test_service_manager_is_asked_for_time_from_the_start(
    source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the spool is read before the service is ready."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        Service(None, source_vmcore, tmp_path) as one,
    ):
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        one.start()
        assert manager.recv(4096).startswith(b"EXTEND_TIMEOUT_USEC=")


JOURNALCTL = {
    "fails": "exit 3",
    # Who is impatient asks again, meanwhile.
    "is slow": 'kill -TERM $PPID; kill -INT $PPID; sleep 0.3; [ "$1" = --sync ] || echo saved',
}


@pytest.mark.parametrize("how", [*JOURNALCTL, "is missing"])
def test_exit_status_is_of_the_vmcore_and_not_of_the_journal(
    source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (tmp_path / "bin").mkdir()
    journalctl = tmp_path / "bin" / "journalctl"
    if how in JOURNALCTL:
        shell_program(journalctl, JOURNALCTL[how])
        monkeypatch.setenv("PATH", f"{journalctl.parent}:{os.environ['PATH']}")
    else:
        monkeypatch.setenv("PATH", str(journalctl.parent))
    (tmp_path / "daemon.log").touch()
    state = (tmp_path / "daemon.log").stat()
    monkeypatch.setenv("JOURNAL_STREAM", f"{state.st_dev}:{state.st_ino}")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        Service(None, source_vmcore, tmp_path, "Format=elf") as daemon,
    ):
        manager.bind(str(tmp_path / "notify"))
        daemon.start(wait=False)
        while not manager.recv(4096).startswith(b"READY=1"):
            pass
        assert daemon.stop() == 0
        assert judges.same_memory(daemon.vmcore(), source_vmcore)
        if how == "is slow":
            assert daemon.vmcore("vmcoredd-journal.json").read_text() == "saved\n"
        else:
            assert "vmcoredd-journal.json: cannot save the journal: " in daemon.log()
        assert "Traceback" not in daemon.log()


def test_bus_modules_that_are_missing(
    source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "dbus_next.py").write_text("raise ImportError('not installed')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/modules:{os.environ.get('PYTHONPATH', '')}")
    with Service("unix:path=/nonexistent/bus", source_vmcore, tmp_path, "BusTimeoutSec=3") as daemon:
        daemon.start()
        assert daemon.stop() == 0
        assert daemon.log().count("The modules for the message bus are missing: not installed") == 1
        assert "Traceback" not in daemon.log()


def test_bus_that_is_not_there(source_vmcore: Path, tmp_path: Path) -> None:
    with Service("unix:path=/nonexistent/bus", source_vmcore, tmp_path, "BusTimeoutSec=1") as daemon:
        daemon.start()
        assert daemon.stop() == 0
        assert daemon.vmcore().exists()
        assert "cannot connect to the message bus" in daemon.log()
        assert "Traceback" not in daemon.log()


@pytest.mark.parametrize(
    ("configuration", "reason"),
    [("Colour=blue", ":2: unknown key 'Colour'"), ("MaxDumps=many", ":2: MaxDumps='many' is not a number")],
)
def test_bad_configuration(source_vmcore: Path, tmp_path: Path, configuration: str, reason: str) -> None:
    with Service(None, source_vmcore, tmp_path, configuration) as daemon:
        daemon.start(wait=False)
        assert daemon.process.wait(20) == 1
        assert daemon.log().startswith("vmcoredd-daemon: ")
        assert reason in daemon.log()
        assert len(daemon.log().splitlines()) == 1


def test_two_daemons_do_not_share_a_spool(daemon: Service, source_vmcore: Path) -> None:
    with Service(None, source_vmcore, daemon.target.parent) as second:
        second.start(wait=False)
        assert second.process.wait(20) == 1
        assert "another daemon uses this spool directory" in second.log()
    assert daemon.stop() == 0


async def test_disabled(start_daemon: Callable[..., Service], bus: Connection) -> None:
    daemon = start_daemon("Enabled=no")
    with pytest.raises(CallFailed) as caught:
        await add(bus, "one", 100, fill)
    assert caught.value.name == "org.vmcoredd1.Error.Disabled"
    assert daemon.stop() == 0
    assert json.loads(manifest(daemon.vmcore()).dump())["device_dumps"] == []


async def test_bus_that_goes_and_comes_back(daemon: Service, bus: Connection, tmp_path: Path) -> None:
    await add(bus, "one", 100, fill)
    pids = subprocess.run(
        ["pgrep", "-f", f"dbus-daemon --config-file={tmp_path}"], check=True, capture_output=True
    )
    subprocess.run(["kill", *pids.stdout.decode().split()], check=True)
    await eventually(lambda: "The connection to the message bus was lost" in daemon.log())
    assert daemon.stop() == 0
    assert judges.crash(daemon.vmcore())[0].name == "one"


async def test_sigterm_during_write_vmcore(daemon: Service, bus: Connection) -> None:
    """A device dump that became durable during the write is in the vmcore anyway."""
    slow = asyncio.Event()

    async def waits(name: str, buffer: int, offset: int, size: int) -> int:
        await slow.wait()
        return await fill(name, buffer, offset, size)

    await add(bus, "early", 100, fill)
    late = asyncio.create_task(add(bus, "late", 100, waits))
    await eventually(lambda: names(bus), lambda found: "late" in found)
    writing = asyncio.create_task(call(bus, "WriteVmcore", "a{sv}", [{}]))
    await writing_has_begun(daemon)
    slow.set()
    await late
    assert await asyncio.to_thread(daemon.stop) == 0
    await writing
    assert [dump.name for dump in manifest(daemon.vmcore()).device_dumps] == ["early", "late"]


class Late(DumpList):
    """One in which a device dump becomes durable just before the spool is cleared."""

    async def clear_spool(self, numbers: Collection[int]) -> None:
        if len(self.complete) == 1:
            await self.add_device_dump("late", 100, Fills(), timeout=5, for_service=True)
        await super().clear_spool(numbers)


async def test_device_dump_that_is_durable_when_the_vmcore_is_written(source_vmcore: Path, tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool", system_page_size(), system_byteorder(), 0)
    dumps = Late(spool, Limits())
    await dumps.add_device_dump("early", 100, Fills(), timeout=5)
    (tmp_path / "target").mkdir()
    writer = VmcoreWriter(dumps, source_vmcore, tmp_path / "target", Output())
    dumps.seal("the service is stopping")
    assert await write_and_clear(dumps, writer)
    (vmcore,) = tmp_path.glob("target/*/vmcore")
    assert [dump.name for dump in manifest(vmcore).device_dumps] == ["early", "late"]
    assert not list(tmp_path.rglob("*.note"))
    dumps.close()
    spool.close()
    writer.close()


async def test_crash_directory_that_disappears(daemon: Service, bus: Connection) -> None:
    await add(bus, "one", 100, fill)
    await call(bus, "WriteVmcore", "a{sv}", [{}])
    shutil.rmtree(daemon.vmcore().parent)
    await add(bus, "two", 100, fill)
    assert daemon.stop() == 0
    assert [dump.name for dump in manifest(daemon.vmcore()).device_dumps] == ["one", "two"]


async def test_damaged_device_dump_is_named_in_the_manifest(daemon: Service, bus: Connection) -> None:
    await add(bus, "one", 100, fill)
    await add(bus, "two", 100, fill)
    daemon.kill()
    (note,) = daemon.target.rglob("000001.note")
    with note.open("r+b") as file:
        file.seek(70)
        file.write(b"flipped")
    daemon.start()
    assert daemon.stop() == 1
    written = manifest(daemon.vmcore())
    assert [dump.name for dump in written.device_dumps] == ["two"]
    assert [(failure.name, failure.error) for failure in written.failures] == [
        ("000001.note", "org.vmcoredd1.Error.InvalidVmcore")
    ]


async def test_vmcore_with_an_altered_device_dump_is_not_whole(daemon: Service, bus: Connection) -> None:
    await add(bus, "one", 100, fill)
    await add(bus, "two", 100, fill)
    (note,) = daemon.target.rglob("000001.note")
    with note.open("r+b") as file:
        file.seek(70)
        file.write(b"flipped")
    assert daemon.stop() == 1
    assert judges.crash(daemon.vmcore())[0].name == "one"
    assert "Device dump one was altered after it was taken" in daemon.log()
    assert "but incomplete: device dumps differ from what was acknowledged: one" in daemon.log()
    # Where it could not be read for a moment, it is whole in the spool.
    assert len(list(daemon.target.rglob("*.note"))) == 2


@pytest.mark.parametrize("spool", ["disk", "memory"])
@pytest.mark.parametrize("change", [lambda fd: os.pwrite(fd, b"!", 64), lambda fd: os.ftruncate(fd, 0)])
async def test_collector_that_changes_what_was_acknowledged(
    start_daemon: Callable[..., Service], bus: Connection, spool: str, change: Callable[[int], object]
) -> None:
    """It has kept the descriptor of its buffer."""
    where = "Spool=/nonexistent/spool" if spool == "memory" else ""
    daemon, kept = start_daemon(f"Format=elf\n{where}"), list[int]()

    async def keep(name: str, buffer: int, offset: int, size: int) -> int:
        kept.append(os.dup(buffer))
        return await fill(name, buffer, offset, size)

    await add(bus, "one", 100, keep)
    await add(bus, "two", 100, fill)
    change(kept[0])
    assert await asyncio.to_thread(daemon.stop) == 1
    os.close(kept[0])
    assert [dump.name for dump in judges.crash(daemon.vmcore())][:2] == ["one", "two"]
    assert "but incomplete: device dumps differ from what was acknowledged: one" in daemon.log()


async def test_spool_of_another_boot(start_daemon: Callable[..., Service], tmp_path: Path) -> None:
    spool = tmp_path / "target" / ".vmcoredd-spool"
    for boot in ("an-older-boot", "an-empty-boot"):
        (spool / boot).mkdir(parents=True)
    (spool / "an-older-boot" / "000001.note").write_bytes(b"a device dump")
    daemon = start_daemon()
    assert "an-older-boot: unsaved device dumps from another boot" in daemon.log()
    assert not (spool / "an-empty-boot").exists()
    assert (spool / "an-older-boot" / "000001.note").exists()


async def test_source_with_a_broken_note_keeps_its_memory(
    start_daemon: Callable[..., Service], bus: Connection, source_vmcore: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copyfile(source_vmcore, source)
    with source.open("r+b") as file:
        headers = read_headers(file_image(file.fileno(), str(source)))
        *_, last = walk(file_image(file.fileno(), str(source)), headers)
        file.seek(last.offset + 4)
        file.write(b"\xff\xff\xff\x7f")
    daemon = start_daemon("Format=elf", source)
    await add(bus, "one", 100, fill)
    assert daemon.stop() == 0
    assert judges.same_memory(daemon.vmcore(), source_vmcore)
    assert [name for name, _ in judges.pyelftools(daemon.vmcore())] == ["LINUX", "LINUX", "CORE"]
    assert "the notes after it are lost" in daemon.log()


async def test_no_vmcore_where_somebody_else_writes_it(
    start_daemon: Callable[..., Service], bus: Connection
) -> None:
    daemon = start_daemon("Format=none")
    await add_bytes(bus, "registers", b"registers")
    with pytest.raises(CallFailed, match=r"org.vmcoredd1.Error.Disabled: .*Format=none"):
        await call(bus, "WriteVmcore", "a{sv}", [{}])
    assert daemon.stop() == 0
    # What was acknowledged is there for core-collector.
    left = [path.name for path in daemon.target.rglob("*") if path.is_file()]
    assert sorted(left) == ["000001.note", HANDED_OVER, VMCOREINFO]


async def test_crash_that_is_not_known(
    start_daemon: Callable[..., Service], bus: Connection, tmp_path: Path
) -> None:
    source = small_source(tmp_path)
    daemon = start_daemon("Format=none", source=source)
    await add_bytes(bus, "registers", b"registers")
    assert daemon.stop() == 0
    assert f"{source}: has no VMCOREINFO of a panic; the next boots will not know of which crash" in daemon.log()
    assert not list(daemon.target.rglob(VMCOREINFO))


async def test_thread_that_hangs_does_not_keep_the_service_from_ending(
    bus_address: str, bus: Connection, source_vmcore: Path, tmp_path: Path
) -> None:
    module = ("tests.lib.hanging_thread",)
    with Service(bus_address, source_vmcore, tmp_path, "DrainTimeoutSec=1", module=module) as daemon:
        daemon.start()
        await add(bus, "nic", 100, fill)
        hanging = asyncio.create_task(add(bus, "hangs", 100, fill))
        await eventually(lambda: names(bus), lambda found: "hangs" in found)
        assert await asyncio.to_thread(daemon.stop) == 0
        with pytest.raises(CallFailed):
            await hanging
        assert judges.crash_names(daemon.vmcore()) == ["nic", MANIFEST_NAME]


async def test_service_that_is_started_again_after_it_has_handed_over(
    bus_address: str, bus: Connection, tmp_path: Path
) -> None:
    """As by a helper that comes when kdump already writes: its device dump would be in no vmcore."""
    with Service(bus_address, PROC_VMCORE, tmp_path, "Format=none") as daemon:
        add_collector(tmp_path / "vmcoredd.conf", "fails", f"sh -c 'echo x >>{tmp_path}/runs; exit 3'")
        daemon.start()
        await add_bytes(bus, "registers", b"registers")
        await eventually(lambda: names(bus), lambda found: found.get("fails") == "failed")
        # A restart after a failure takes device dumps.
        daemon.kill()
        daemon.start()
        await add_bytes(bus, "log", b"log")
        await eventually(lambda: names(bus), lambda found: found.get("fails") == "failed")
        assert daemon.stop() == 0
        (left,) = daemon.target.glob(".vmcoredd-spool/*")
        before = {path.name: path.read_bytes() for path in left.iterdir()}
        daemon.start()
        for adding in (add_bytes(bus, "late", b"late"), add(bus, "late", 100, fill)):
            with pytest.raises(CallFailed, match="left its device dumps to the program that writes") as caught:
                await adding
            assert caught.value.name == f"{ERROR}.Disabled"
        assert await service_state(bus) == "disabled"
        # core-collector asks the service for them.
        assert await names(bus) == {"registers": "complete", "log": "complete", "fails": "failed"}
        assert daemon.stop() == 0
        assert {path.name: path.read_bytes() for path in left.iterdir()} == before
        assert (tmp_path / "runs").read_text() == "x\n" * 2


@pytest.mark.parametrize("kind", ["elf", "kdump"])
async def test_files_are_for_root_whatever_the_umask(
    bus_address: str, bus: Connection, source_vmcore: Path, tmp_path: Path, kind: str
) -> None:
    require("makedumpfile")
    before = os.umask(0)
    try:
        service = Service(bus_address, source_vmcore, tmp_path, f"Format={kind}").start()
    finally:
        os.umask(before)
    with service:
        # What others make for it, as makedumpfile and journalctl do.
        assert "\nUmask:\t0077\n" in Path(f"/proc/{service.process.pid}/status").read_text()
        await add(bus, "nic0", 100, fill)
        inside = list((service.target / ".vmcoredd-spool").rglob("*.note"))
        assert [path.stat().st_mode & 0o777 for path in inside] == [0o600]
        service.kill()
        service.start()
        assert service.stop() == 0
    found = {path.name: path for path in service.target.rglob("*")}
    assert {"vmcore", "vmcore-dmesg.txt"} <= set(found)
    for path in found.values():
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
