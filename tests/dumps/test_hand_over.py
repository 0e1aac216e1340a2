# SPDX-License-Identifier: LGPL-2.1-or-later
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.privileges import without_privileges
from vmcoredd_daemon.dumps.hand_over import (
    HandedOver,
    hand_over,
    handed_over,
    remember_crash,
    remember_vmcore,
    remembered_crash,
    remembered_vmcore,
)
from vmcoredd_daemon.dumps.spool_directory import HANDED_OVER, VMCORE_WRITTEN, VMCOREINFO
from vmcoredd_daemon.errors import WriteFailed
from vmcoredd_daemon.manifest import Failure, IdleCollector

FAILURE = Failure("nic", "vendor", "org.vmcoredd1.Error.TimedOut", "device dump nic: \u00e9", 1)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_nothing_was_left(directory: int) -> None:
    found = (handed_over(directory), remembered_vmcore(directory), remembered_crash(directory))
    assert found == (None, None, None)


def test_failures_are_handed_over(directory: int, tmp_path: Path) -> None:
    left = HandedOver((FAILURE, FAILURE), (IdleCollector("nvme", "nothing to collect here"),))
    hand_over(directory, HandedOver((FAILURE,)))
    hand_over(directory, left)
    assert handed_over(directory) == left
    assert os.listdir(tmp_path) == [HANDED_OVER]


def test_vmcore_is_remembered(directory: int, tmp_path: Path) -> None:
    (path := tmp_path / os.fsdecode(b"\xff")).touch()
    for _ in range(2):
        remember_vmcore(directory, path)
    assert remembered_vmcore(directory) == path
    path.unlink()
    assert remembered_vmcore(directory) is None
    assert os.listdir(tmp_path) == [VMCORE_WRITTEN]


def test_crash_is_remembered(directory: int, tmp_path: Path) -> None:
    for vmcoreinfo in (b"OSRELEASE=6.1.0\nCRASHTIME=1\n" * 1000, b"CRASHTIME=2\n"):
        remember_crash(directory, vmcoreinfo)
        assert remembered_crash(directory) == vmcoreinfo
    assert os.listdir(tmp_path) == [VMCOREINFO]
    (tmp_path / VMCOREINFO).unlink()
    # What may be there instead must not be waited for.
    os.mkfifo(tmp_path / VMCOREINFO)
    assert remembered_crash(directory) is None


def test_directory_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    fd = os.open(tmp_path / "gone", os.O_RDONLY)
    (tmp_path / "gone").rmdir()
    with pytest.raises(WriteFailed, match=f"cannot write {VMCORE_WRITTEN} into the spool: No such file"):
        remember_vmcore(fd, tmp_path)
    with pytest.raises(WriteFailed, match=f"cannot write {HANDED_OVER} into the spool: No such file"):
        hand_over(fd, HandedOver())
    with pytest.raises(WriteFailed, match=f"cannot write {VMCOREINFO} into the spool: No such file"):
        remember_crash(fd, b"CRASHTIME=1")
    os.close(fd)


def test_vmcore_that_cannot_be_seen_any_more(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crash").mkdir(mode=0)
    monkeypatch.chdir(tmp_path)
    remember_vmcore(directory, Path("crash/vmcore"))
    tmp_path.chmod(0o755)
    with without_privileges():
        assert remembered_vmcore(directory) == Path("crash/vmcore")
