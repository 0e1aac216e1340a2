# SPDX-License-Identifier: LGPL-2.1-or-later
"""KeepCrashes=: which directories of old crashes are removed, and which never are."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.lib.collectors import Fills
from vmcoredd_daemon.config.vmcore_format import Output
from vmcoredd_daemon.dumps.dump_list import DumpList
from vmcoredd_daemon.dumps.spool_directory import CRASH_DIRECTORY, open_private
from vmcoredd_daemon.writer.old_crashes import remove_old_crashes, unfinished_crashes
from vmcoredd_daemon.writer.writer import VmcoreWriter

NEWEST = "host-2026-11-24-10:20:30"
FINISHED = ("vmcore", "vmcore-dmesg.txt", "vmcoredd-journal.json")


def crash(target: Path, name: str, *files: str) -> str:
    """Make a directory as the service leaves it."""
    (target / name).mkdir(mode=0o700)
    for file in files or FINISHED:
        (target / name / file).touch()
    return name


def left(target: Path, keep: int, *unfinished: str) -> set[str]:
    """Return what is in the target after old crashes were removed."""
    remove_old_crashes(target, NEWEST, keep, unfinished)
    return set(os.listdir(target))


def test_the_oldest_are_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    # By their time, not by the host: it may have been renamed. FAT has no colons; two of one second have a number.
    old = [
        crash(tmp_path, "z-2025-01-01-00:00:00"),
        crash(tmp_path, "a-2025-01-01-00-00-01"),
        crash(tmp_path, "a-b-2026-11-24-10:20:29"),
        crash(tmp_path, "a-b-2026-11-24-10:20:29.1", "vmcore", "vmcoredd-journal.json"),
    ]
    crash(tmp_path, NEWEST)
    assert left(tmp_path, 5) == {NEWEST, *old}
    assert left(tmp_path, 4) == {NEWEST, *old[1:]}
    assert left(tmp_path, 2) == {NEWEST, old[3]}
    assert left(tmp_path, 1) == {NEWEST}
    removed = [record.message for record in caplog.records]
    assert removed == [f"{tmp_path / name} removed: KeepCrashes= is reached" for name in old]


def test_newest_stays_even_if_the_clock_went_back(tmp_path: Path) -> None:
    crash(tmp_path, NEWEST)
    crash(tmp_path, "host-2031-01-01-00:00:00")
    assert left(tmp_path, 1) == {NEWEST}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("202611241020", ("dump.202611241020", "dmesg.202611241020")),
        ("127.0.0.1-2026-01-01-00:00:00", ("vmcore", "vmcore-dmesg.txt", "kexec-dmesg.log")),
        ("host-2026-01-01-00:00:00", ("vmcore", "vmcoredd-journal.json", "analysis.txt")),
        ("host-2026-01-01-00:00:00", ("vmcore", "vmcore-dmesg.txt")),
        ("host-2026-01-01-00:00:00", ("vmcore-incomplete", "vmcoredd-journal.json")),
        ("host-2026-01-01-00:00:00", ("vmcore-device-dumps", "vmcoredd-journal.json")),
        ("host-2026-01-01-00:00:00", ("vmcore-dmesg.txt", "vmcoredd-journal.json")),
        ("host-2026-01-01", FINISHED),
        (".vmcoredd-spool", FINISHED),
    ],
)
def test_what_is_not_a_finished_crash_of_ours_stays(tmp_path: Path, name: str, files: tuple[str, ...]) -> None:
    crash(tmp_path, name, *files)
    assert left(tmp_path, 1) == {name}
    assert set(os.listdir(tmp_path / name)) == set(files)


def test_what_belongs_to_others_stays(tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    target.mkdir()
    elsewhere.mkdir()
    crash(elsewhere, "host-2026-01-01-00:00:00")
    (target / "host-2026-01-01-00:00:00").symlink_to(elsewhere / "host-2026-01-01-00:00:00")
    crash(target, "host-2026-01-02-00:00:00", "vmcoredd-journal.json")
    (target / "host-2026-01-02-00:00:00/vmcore").symlink_to(elsewhere)
    if os.geteuid() == 0:
        os.chown(target / crash(target, "host-2026-01-03-00:00:00"), 65534, 65534)
    before = set(os.listdir(target))
    assert left(target, 1) == before
    assert set(os.listdir(elsewhere / "host-2026-01-01-00:00:00")) == set(FINISHED)


def test_crash_whose_device_dumps_are_in_the_spool_stays(tmp_path: Path) -> None:
    unfinished = crash(tmp_path, "host-2026-01-01-00:00:00")
    finished = crash(tmp_path, "host-2026-01-02-00:00:00")
    spool = tmp_path / ".vmcoredd-spool"
    directory = open_private(spool)
    try:
        (spool / "another-boot").mkdir()
        (spool / "another-boot" / CRASH_DIRECTORY).symlink_to(unfinished)
        (spool / "empty").mkdir()
        (spool / "file").touch()
        assert set(unfinished_crashes(directory)) == {unfinished}
        assert left(tmp_path, 1, *unfinished_crashes(directory)) == {unfinished, spool.name}
    finally:
        os.close(directory)
    assert not (tmp_path / finished).exists()


async def test_only_a_complete_vmcore_removes_them(
    dumps: DumpList, source_vmcore: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    spool = open_private(tmp_path / "spool")
    old = target / crash(target, "host-2026-01-01-00:00:00")
    await dumps.add_device_dump("one", 10, Fills(b""), timeout=1)
    try:
        failing = VmcoreWriter(dumps, tmp_path / "nothing", target, Output(), spool, keep_crashes=1)
        assert not await failing.finish()
        failing.close()
        assert old.exists()
        without = VmcoreWriter(dumps, source_vmcore, target, Output(), keep_crashes=1)
        assert await without.finish()
        without.close()
        assert old.exists()
        assert "All crashes are kept, because the spool cannot be read: there is none on a disk" in caplog.text
        writes = VmcoreWriter(dumps, source_vmcore, target, Output(), spool, keep_crashes=1)
        assert await writes.finish()
        writes.close()
    finally:
        await asyncio.to_thread(os.close, spool)
    assert not old.exists()
    assert writes.written is not None
    assert writes.written.path.exists()
