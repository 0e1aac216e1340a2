# SPDX-License-Identifier: LGPL-2.1-or-later

import errno
import os
from pathlib import Path

import pytest

from tests.lib.resources import open_fds, tmpfs
from vmcoredd_daemon.writer.job import reserve_space

MIB = 1 << 20


def free(directory: Path) -> int:
    state = os.statvfs(directory)
    return state.f_bavail * state.f_frsize


def test_room_is_kept_and_given_back(tmp_path: Path) -> None:
    before = open_fds()
    with tmpfs(tmp_path / "target", 4 * MIB) as target:
        whole = free(target)
        with reserve_space(target, 3 * MIB):
            assert free(target) == whole - 3 * MIB
            assert not list(target.iterdir())
        assert free(target) == whole
    assert open_fds() == before


def test_room_that_is_not_there(tmp_path: Path) -> None:
    before = open_fds()
    with tmpfs(tmp_path / "target", 4 * MIB) as target:
        with pytest.raises(OSError, match="No space left") as caught, reserve_space(target, 5 * MIB):
            pass
        assert caught.value.errno == errno.ENOSPC
        with reserve_space(target, 5 * MIB, missing_ok=True):
            # Nothing of it is taken from who needs it more.
            assert free(target) > 3 * MIB
    assert open_fds() == before


def test_file_system_without_unnamed_files() -> None:
    with reserve_space(Path("/proc"), MIB):
        pass


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), reserve_space(tmp_path / "nothing", MIB):
        pass
    with reserve_space(tmp_path / "nothing", MIB, missing_ok=True):
        pass
