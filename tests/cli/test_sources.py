# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where device dumps of collectors lie; what is gathered is in test_core_collector.py."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.resources import tmpfs
from tests.lib.tools import require, skip_or_fail
from vmcoredd_daemon.cli.core_collector.gather import Request
from vmcoredd_daemon.cli.core_collector.sources import directory_for
from vmcoredd_daemon.config.config import Configuration


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system on a block device."""
    require("mkfs.ext4", "mount", "umount")
    image, path = tmp_path / "image", tmp_path / "disk"
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, path], capture_output=True, check=False).returncode != 0:
        skip_or_fail(["a loop device (no right to mount)"])
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def test_beside_the_vmcore_where_that_is_a_file(tmp_path: Path) -> None:
    assert directory_for(Request(directory=tmp_path), Configuration()) == tmp_path


def test_on_the_disk_of_the_target(disk: Path) -> None:
    assert directory_for(Request(), Configuration(target=disk)) == disk


def test_not_in_a_file_system_that_is_memory(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "memory", 1 << 20) as memory:
        assert os.major(memory.stat().st_dev) == 0
        assert directory_for(Request(), Configuration(target=memory)) is None


def test_no_target(tmp_path: Path) -> None:
    assert directory_for(Request(), Configuration(target=tmp_path / "nowhere")) is None
