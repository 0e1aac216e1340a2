# SPDX-License-Identifier: LGPL-2.1-or-later

import errno
import os
import re
from pathlib import Path

import pytest

from tests.resources import open_fds, tmpfs
from vmcoredd_daemon.write_job import Progress, kept_free

MIB = 1 << 20


def free(directory: Path) -> int:
    state = os.statvfs(directory)
    return state.f_bavail * state.f_frsize


def test_room_is_kept_and_given_back(tmp_path: Path) -> None:
    before = open_fds()
    with tmpfs(tmp_path / "target", 4 * MIB) as target:
        whole = free(target)
        with kept_free(target, 3 * MIB):
            assert free(target) == whole - 3 * MIB
            assert not list(target.iterdir())
        assert free(target) == whole
    assert open_fds() == before


def test_room_that_is_not_there(tmp_path: Path) -> None:
    before = open_fds()
    with tmpfs(tmp_path / "target", 4 * MIB) as target:
        with pytest.raises(OSError, match="No space left") as caught, kept_free(target, 5 * MIB):
            pass
        assert caught.value.errno == errno.ENOSPC
        with kept_free(target, 5 * MIB, missing_ok=True):
            # Nothing of it is taken from who needs it more.
            assert free(target) > 3 * MIB
    assert open_fds() == before


def test_file_system_without_unnamed_files() -> None:
    with kept_free(Path("/proc"), MIB):
        pass


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), kept_free(tmp_path / "nothing", MIB):
        pass
    with kept_free(tmp_path / "nothing", MIB, missing_ok=True):
        pass


def test_progress_says_nothing_that_nobody_knows() -> None:
    progress = Progress()
    progress.start(0)
    assert progress.text == "Writing the vmcore"
    progress.start(64 << 30)
    assert progress.text == "Writing the vmcore: 0% of 64.0G"
    progress.advance(16 << 30)
    progress.started -= 1024
    assert progress.text == "Writing the vmcore: 25%, 16.0G of 64.0G, 15.9M/s, 51min 12s left"
    # What had no room is not written again without being counted.
    progress.reach(65 << 30)
    assert re.fullmatch(r"Writing the vmcore: 100%, 65\.0G of 64\.0G, .*, 0s left", progress.text)
    progress.start(0)
    progress.advance(1 << 20)
    assert re.fullmatch(r"Writing the vmcore: 1\.0M, [\d.]+\w/s", progress.text)
