# SPDX-License-Identifier: LGPL-2.1-or-later
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.resources import tmpfs
from vmcoredd_daemon.dumps.hand_over import hand_over, handed_over, path_written, vmcore_written
from vmcoredd_daemon.dumps.spool_directory import HANDED_OVER, VMCORE_WRITTEN
from vmcoredd_daemon.errors import WriteFailed
from vmcoredd_daemon.manifest import Failure

FAILURE = Failure("nic", "vendor", "org.vmcoredd1.Error.TimedOut", "device dump nic: \u00e9", 1)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_nothing_was_left(directory: int) -> None:
    assert (handed_over(directory), path_written(directory)) == (None, None)


def test_failures_are_handed_over(directory: int, tmp_path: Path) -> None:
    hand_over(directory, [FAILURE])
    hand_over(directory, [FAILURE, FAILURE])
    assert handed_over(directory) == [FAILURE, FAILURE]
    assert os.listdir(tmp_path) == [HANDED_OVER]


def test_path_of_the_vmcore(directory: int, tmp_path: Path) -> None:
    path = Path(os.fsdecode(b"/var/crash/\xff/vmcore"))
    vmcore_written(directory, path)
    assert path_written(directory) == path
    assert os.listdir(tmp_path) == [VMCORE_WRITTEN]


def test_no_space(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", 4096) as disk:
        full = os.open(disk, os.O_RDONLY)
        (disk / "file").write_bytes(bytes(4096))
        with pytest.raises(WriteFailed, match=f"cannot write {VMCORE_WRITTEN} into the spool: No space"):
            vmcore_written(full, Path("/var/crash/host/vmcore"))
        assert path_written(full) is None
        assert os.listdir(disk) == ["file"]
        os.close(full)
