# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is written when, and where; the vmcore itself is in test_daemon.py and vmcore/."""

import asyncio
import errno
import os
import platform
import re
import stat
import struct
import time
from pathlib import Path

import pytest

from tests.lib.collectors import Fills
from tests.lib.resources import tmpfs
from vmcoredd_daemon.config.vmcore_format import Format, Output
from vmcoredd_daemon.dumps.dump_list import DumpList
from vmcoredd_daemon.errors import Disabled, WriteFailed
from vmcoredd_daemon.threads.loop import EXECUTOR_THREADS, started_executor
from vmcoredd_daemon.vmcore import layout
from vmcoredd_daemon.vmcore.copy.source import TimedCalls
from vmcoredd_daemon.writer.crash_directory import CrashDirectory
from vmcoredd_daemon.writer.result import DEVICE_DUMPS_ONLY, VMCORE, WriteResult
from vmcoredd_daemon.writer.writer import VmcoreWriter

PAGE = 4096


def writer(dumps: DumpList, source: Path, target: Path, kind: Format = Format.AUTO) -> VmcoreWriter:
    return VmcoreWriter(dumps, source, target, Output(kind))


async def test_listener_that_fails_costs_nothing(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[WriteResult] = []

    def fail(_: WriteResult) -> None:
        raise ValueError("not on the bus")

    writes = writer(dumps, source_vmcore, tmp_path)
    writes.listeners += [fail, told.append]
    assert await writes.finish()
    assert len(told) == 1
    assert "is written: cannot announce it" in caplog.text


async def test_unexpected_error_leaves_the_device_dumps(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan_badly(*_: object) -> None:
        raise struct.error("a bug")

    monkeypatch.setattr("vmcoredd_daemon.writer.elf.read_headers", plan_badly)
    written = await writer(dumps, source_vmcore, tmp_path, Format.ELF).write()
    assert written.path.name == DEVICE_DUMPS_ONLY
    assert "unexpected error: error" in written.error


async def test_no_memory_for_the_manifest_costs_the_manifest(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptors(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    await dumps.add_device_dump("nic", 10, Fills(b""), timeout=5)
    monkeypatch.setattr(os, "memfd_create", no_descriptors)
    written = await writer(dumps, source_vmcore, tmp_path).write()
    assert (written.path.name, written.device_dumps) == (VMCORE, 1)
    assert written.error == "it has no manifest: Too many open files"


async def test_outdated_until_everything_is_written(dumps: DumpList, source_vmcore: Path, tmp_path: Path) -> None:
    writes = writer(dumps, source_vmcore, tmp_path)
    assert writes.outdated
    await writes.write()
    assert not writes.outdated
    await dumps.add_device_dump("one", 10, Fills(b""), timeout=1)
    assert writes.outdated
    written = await writes.write()
    assert not writes.outdated
    assert (written.path.name, written.device_dumps, written.error) == (VMCORE, 1, "")


async def test_outdated_as_long_as_the_memory_is_missing(dumps: DumpList, tmp_path: Path) -> None:
    writes = writer(dumps, tmp_path / "nothing", tmp_path)
    written = await writes.write()
    assert written.path.name == DEVICE_DUMPS_ONLY
    assert written.error == f"{tmp_path / 'nothing'}: cannot open the source: No such file or directory"
    assert writes.outdated


async def test_directory_is_named_as_kdump_does(dumps: DumpList, source_vmcore: Path, tmp_path: Path) -> None:
    written = await writer(dumps, source_vmcore, tmp_path).write()
    host = re.escape(platform.node())
    assert re.fullmatch(rf"{host}-\d{{4}}-\d\d-\d\d-\d\d:\d\d:\d\d", written.path.parent.name)
    assert written.path.parent.stat().st_mode & 0o777 == 0o700
    assert written.path.stat().st_mode & 0o777 == 0o600


async def test_an_earlier_crash_is_not_overwritten(dumps: DumpList, source_vmcore: Path, tmp_path: Path) -> None:
    paths = {(await writer(dumps, source_vmcore, tmp_path).write()).path for _ in range(3)}
    assert len(paths) == 3


async def test_name_that_is_taken_by_something_else(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_: "now")
    name = f"{platform.node()}-now"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / name).symlink_to("nowhere")
    (tmp_path / f"{name}.1").symlink_to("elsewhere")
    os.mkfifo(tmp_path / f"{name}.2")
    written = await writer(dumps, source_vmcore, tmp_path).write()
    assert written.path.parent == tmp_path / f"{name}.3"
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_directory_that_was_replaced(dumps: DumpList, source_vmcore: Path, tmp_path: Path) -> None:
    writes = writer(dumps, source_vmcore, tmp_path)
    first = (await writes.write()).path.parent
    (tmp_path / "elsewhere").mkdir()
    first.rename(tmp_path / "kept")
    first.symlink_to("elsewhere")
    await dumps.add_device_dump("one", 10, Fills(b""), timeout=1)
    written = await writes.write()
    assert written.path.parent != first
    assert written.path.is_file()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("what", ["link", "directory link", "hard link", "fifo"])
async def test_temporary_names_that_are_taken(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, what: str
) -> None:
    writes = writer(dumps, source_vmcore, tmp_path)
    place = (await writes.write()).path.parent
    precious = tmp_path / "precious"
    precious.write_text("of others")
    for name in ("vmcore", "vmcore-incomplete", "vmcore-dmesg.txt", "vmcore-dmesg-incomplete.txt"):
        (place / name).unlink(missing_ok=True)
        if what == "fifo":
            os.mkfifo(place / name)
        elif what == "hard link":
            (place / name).hardlink_to(precious)
        else:
            (place / name).symlink_to(precious if what == "link" else tmp_path)
    await dumps.add_device_dump("one", 10, Fills(b""), timeout=1)
    written = await writes.write()
    assert written.error == ""
    assert precious.read_text() == "of others"
    for file in place.iterdir():
        assert stat.S_ISREG(file.lstat().st_mode)
        assert file.stat().st_nlink == 1


async def test_device_dumps_alone_where_neither_fits_what_crash_reads(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = writer(dumps, source_vmcore, tmp_path, Format.ELF)
    vmcore = (await writes.write()).path
    vmcore.unlink()
    vmcore.mkdir()
    await dumps.add_device_dump("one", 10, Fills(b""), timeout=1)
    # Room for a header, the device dump and the manifest, and not for the notes of the source.
    monkeypatch.setattr(layout, "MAX_NOTES_END", 3 * PAGE + 1)
    written = await writes.write()
    assert written.path.name == DEVICE_DUMPS_ONLY
    assert "crash reads them only below 0x3001" in written.error
    assert written.error.endswith(f"{vmcore}: cannot write: Is a directory")


async def test_what_a_killed_write_has_left_is_room_for_the_next(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path
) -> None:
    (tmp_path / "spool").mkdir()
    spool = os.open(tmp_path / "spool", os.O_RDONLY)
    size = source_vmcore.stat().st_size
    try:
        with tmpfs(tmp_path / "target", size + (4 << 20)) as target:
            left = CrashDirectory(target, calls := TimedCalls(), spool)
            unfinished = left.make() / "vmcore-incomplete"
            left.close()
            calls.stop()
            unfinished.write_bytes(b"x" * (size // 2))
            written = await VmcoreWriter(dumps, source_vmcore, target, Output(Format.ELF), spool).write()
            # Neither part of it, nor compressed.
            assert (written.path, written.error, written.fallback) == (unfinished.with_name(VMCORE), "", "")
    finally:
        os.close(spool)


async def test_write_while_all_threads_of_the_spool_hang(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path
) -> None:
    loop, event = asyncio.get_running_loop(), os.eventfd(0, os.EFD_SEMAPHORE)
    loop.set_default_executor(started_executor())
    hanging = [loop.run_in_executor(None, os.read, event, 8) for _ in range(EXECUTOR_THREADS)]
    try:
        async with asyncio.timeout(20):
            written = await writer(dumps, source_vmcore, tmp_path).write()
    finally:
        os.eventfd_write(event, EXECUTOR_THREADS)
        await asyncio.wait(hanging)
        os.close(event)
    assert (written.path.name, written.error) == (VMCORE, "")


async def test_kernel_log_lies_beside(dumps: DumpList, source_vmcore: Path, tmp_path: Path) -> None:
    written = await writer(dumps, source_vmcore, tmp_path).write()
    assert "Kernel panic" in (written.path.parent / "vmcore-dmesg.txt").read_text()


async def test_missing_target(dumps: DumpList, source_vmcore: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writes = writer(dumps, source_vmcore, tmp_path / "file" / "nothing")
    with pytest.raises(WriteFailed, match="cannot make a directory in the target: Not a directory"):
        await writes.write()
    assert writes.outdated
    assert dumps.accepting


async def test_nothing_is_written_where_somebody_else_does_it(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path
) -> None:
    writes = VmcoreWriter(dumps, source_vmcore, tmp_path, Output(Format.NONE))
    assert not writes.wanted
    with pytest.raises(Disabled, match="Format=none"):
        await writes.write()
    assert list(tmp_path.glob("*/vmcore*")) == []
