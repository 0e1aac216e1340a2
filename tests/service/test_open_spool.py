# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was acknowledged is taken back, whatever has become of the disk meanwhile."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lib import external_tools as judges
from tests.lib.caller import add, add_bytes, fill, names
from tests.lib.resources import limit_files, remount_read_only, tmpfs
from tests.lib.service import Service
from tests.lib.vmcore_dumps import manifest
from vmcoredd_daemon.bus import Connection
from vmcoredd_daemon.errors import CallFailed
from vmcoredd_daemon.manifest import MANIFEST_NAME

NAMES = ["nic0", "nic1", "nic2"]
COMPLETE = dict.fromkeys(NAMES, "complete")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", 64 << 20) as mount:
        yield mount


async def killed(start_daemon: Callable[..., Service], bus: Connection, configuration: str = "") -> Service:
    """Let a daemon acknowledge three device dumps, and kill it."""
    daemon = start_daemon(configuration)
    for name in NAMES:
        await add_bytes(bus, name, name.encode() * 1000)
    daemon.kill()
    return daemon


def in_vmcore(daemon: Service) -> list[str]:
    return [listed.name for listed in judges.crash(daemon.vmcore())]


@pytest.mark.parametrize("fault", ["full", "read-only"])
async def test_spool_that_cannot_be_written_any_more(
    start_daemon: Callable[..., Service], bus: Connection, disk: Path, fault: str
) -> None:
    daemon = await killed(start_daemon, bus, f"Spool={disk}/spool")
    if fault == "full":
        limit_files(disk, len(list(disk.rglob("*"))) + 1)
    else:
        remount_read_only(disk)
    daemon.start()
    assert await names(bus) == COMPLETE
    await add(bus, "new", 100, fill)
    assert "device dumps are kept in memory" in daemon.log()
    status = daemon.stop()
    assert in_vmcore(daemon) == [*NAMES, "new", MANIFEST_NAME]
    # The vmcore has them, and yet they cannot be removed from what is read-only.
    assert status == (1 if fault == "read-only" else 0)
    assert ("Cannot remove device dumps from the spool: Read-only" in daemon.log()) is (fault == "read-only")


@pytest.mark.parametrize(
    ("configuration", "refused"),
    [("Format=none", ["NoSpace"]), ("Format=none\nKeepFree=0", []), ("Format=elf", [])],
    ids=["kdump writes the vmcore", "configured", "the service writes it"],
)
async def test_spool_leaves_space_for_the_vmcore_of_kdump(
    start_daemon: Callable[..., Service], bus: Connection, disk: Path, configuration: str, refused: list[str]
) -> None:
    start_daemon(f"{configuration}\nSpool={disk}")
    await add_bytes(bus, "small", b"x" * (4 << 20))
    try:
        await add_bytes(bus, "large", b"x" * (6 << 20))
        found = []
    except CallFailed as error:
        found = [error.name.rpartition(".")[2]]
    assert found == refused


@pytest.mark.parametrize("older", [False, True], ids=["ours", "an older version's"])
async def test_spool_in_a_directory_of_others(
    start_daemon: Callable[..., Service], bus: Connection, tmp_path: Path, older: bool
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    daemon = await killed(start_daemon, bus, f"Spool={tmp_path}/tmp")
    (place,) = (tmp_path / "tmp" / ".vmcoredd-spool").iterdir()
    assert len(list(place.glob("*.note"))) == 3
    if older:
        place.rename(tmp_path / "tmp" / place.name)
    daemon.start()
    assert await names(bus) == COMPLETE
    assert daemon.stop() == 0
    assert in_vmcore(daemon) == [*NAMES, MANIFEST_NAME]
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert not list((tmp_path / "tmp").rglob("*.note"))


async def test_full_target_that_has_room_again(
    start_daemon: Callable[..., Service], bus: Connection, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "target", 256 << 20) as target:
        daemon = await killed(start_daemon, bus)
        limit_files(target, len(list(target.rglob("*"))) + 1)
        daemon.start()
        assert await names(bus) == COMPLETE
        with pytest.raises(CallFailed, match="NoSpace"):
            await add(bus, "new", 100, fill)
        limit_files(target, 100)
        await add(bus, "new", 100, fill)
        assert len(list(target.rglob("*.note"))) == 4
        assert daemon.stop() == 0
        assert in_vmcore(daemon) == [*NAMES, "new", MANIFEST_NAME]
        assert not list(target.rglob("*.note"))


@pytest.mark.skipif(os.geteuid() != 0, reason="files of others need root")
async def test_spool_that_cannot_be_opened_any_more(start_daemon: Callable[..., Service], bus: Connection) -> None:
    """It is not known what is in there, so that the vmcore is not complete."""
    daemon = await killed(start_daemon, bus)
    (place,) = (daemon.target / ".vmcoredd-spool").iterdir()
    os.chown(place, 65534, 65534)
    daemon.start()
    await add(bus, "new", 100, fill)
    assert daemon.stop() == 1
    content = manifest(daemon.vmcore())
    assert [dump.name for dump in content.device_dumps] == ["new"]
    assert [(failure.name, failure.collector) for failure in content.failures] == [(".vmcoredd-spool", "spool")]
    assert "it belongs to user 65534" in content.failures[0].message
    assert len(list(place.glob("*.note"))) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="files of others need root")
async def test_spool_that_cannot_be_opened_and_is_empty(
    start_daemon: Callable[..., Service], tmp_path: Path
) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / ".vmcoredd-spool").mkdir()
    os.chown(tmp_path / "target" / ".vmcoredd-spool", 65534, 65534)
    assert start_daemon().stop() == 0


async def test_damaged_device_dump_is_not_forgotten(start_daemon: Callable[..., Service], bus: Connection) -> None:
    """The daemon that has set it aside may be killed, too."""
    daemon = await killed(start_daemon, bus)
    (note,) = daemon.target.rglob("000001.note")
    with note.open("r+b") as file:
        file.seek(70)
        file.write(b"flipped")
    daemon.start()
    daemon.kill()
    daemon.start()
    assert await names(bus) == {"nic1": "complete", "nic2": "complete", "000001.note.damaged": "failed"}
    assert await asyncio.to_thread(daemon.stop) == 1
    assert [failure.name for failure in manifest(daemon.vmcore()).failures] == ["000001.note.damaged"]


async def test_superseded_device_dump_is_no_loss(start_daemon: Callable[..., Service], bus: Connection) -> None:
    daemon = await killed(start_daemon, bus)
    (note,) = daemon.target.rglob("000003.note")
    note.with_name("000004.note").write_bytes(note.read_bytes())
    daemon.start()
    assert await asyncio.to_thread(daemon.stop) == 0
    assert in_vmcore(daemon) == [*NAMES, MANIFEST_NAME]


async def test_no_vmcore_is_wanted_and_one_is_damaged(
    start_daemon: Callable[..., Service], bus: Connection
) -> None:
    daemon = await killed(start_daemon, bus, "Format=none")
    (note,) = daemon.target.rglob("000001.note")
    os.truncate(note, 10)
    daemon.start()
    assert daemon.stop() == 1
