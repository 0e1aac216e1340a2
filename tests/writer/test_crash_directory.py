# SPDX-License-Identifier: LGPL-2.1-or-later
"""The directory of a crash that a daemon finds again, and what it does not take for one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lib.resources import open_fds
from vmcoredd_daemon.dumps.spool_directory import CRASH_DIRECTORY
from vmcoredd_daemon.vmcore.copy.source import TimedCalls
from vmcoredd_daemon.writer.crash_directory import CrashDirectory


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "spool").mkdir()
    fd = os.open(tmp_path / "spool", os.O_RDONLY)
    yield fd
    os.close(fd)


@contextmanager
def opened(target: Path, spool: int | None) -> Iterator[CrashDirectory]:
    calls = TimedCalls()
    directory = CrashDirectory(target, calls, spool)
    try:
        yield directory
    finally:
        directory.close()
        calls.stop()


def made(target: Path, spool: int | None) -> Path:
    """Return the directory that a daemon makes or finds."""
    with opened(target, spool) as directory:
        return directory.make()


def test_next_daemon_finds_it(target: Path, spool: int) -> None:
    before = open_fds()
    first = made(target, spool)
    (first / "vmcore-incomplete").touch()
    assert made(target, spool) == first
    assert os.listdir(target) == [first.name]
    assert open_fds() == before


def test_without_a_spool_each_makes_its_own(target: Path) -> None:
    assert made(target, None) != made(target, None)


def test_whole_vmcore_is_left_alone(target: Path, spool: int) -> None:
    first = made(target, spool)
    (first / "vmcore").symlink_to("nowhere")
    second = made(target, spool)
    assert second != first
    # Only the last one counts.
    assert made(target, spool) == second


def test_what_is_whole_is_forgotten(target: Path, spool: int) -> None:
    with opened(target, spool) as directory:
        directory.forget()
        first = directory.make()
        directory.forget()
    assert os.listdir(spool) == []
    assert made(target, spool) != first


@pytest.mark.parametrize(
    "name", ["..", ".", "../elsewhere", "inner/directory", "/", "nothing", "file", "link", "foreign"]
)
def test_name_that_is_none_of_ours(target: Path, spool: int, name: str) -> None:
    (target / "../elsewhere").mkdir()
    (target / "inner/directory").mkdir(parents=True)
    (target / "file").touch()
    (target / "link").symlink_to("../elsewhere")
    (target / "foreign").mkdir()
    if os.geteuid() == 0:
        os.chown(target / "foreign", 65534, 65534)
    elif name == "foreign":
        pytest.skip("only root can make a directory of another user")
    before = set(os.listdir(target))
    os.symlink(name, CRASH_DIRECTORY, dir_fd=spool)
    path = made(target, spool)
    assert path.parent == target
    assert {path.name} == set(os.listdir(target)) - before


def test_file_in_the_place_of_the_name(target: Path, spool: int, tmp_path: Path) -> None:
    (tmp_path / "spool" / CRASH_DIRECTORY).write_text("name")
    first = made(target, spool)
    assert made(target, spool) == first


def test_directory_in_the_place_of_the_name(target: Path, spool: int, tmp_path: Path) -> None:
    (tmp_path / "spool" / CRASH_DIRECTORY).mkdir()
    assert made(target, spool) != made(target, spool)


def test_close_that_fails_is_no_failure(tmp_path: Path) -> None:
    spool = os.open(tmp_path, os.O_RDONLY)
    with opened(tmp_path, spool) as directory:
        # As EIO of a file system whose server is gone: nothing was written through it.
        os.close(directory._spool or -1)
    os.close(spool)
