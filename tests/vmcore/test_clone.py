# SPDX-License-Identifier: LGPL-2.1-or-later
"""Blocks that two files share, on a file system that can, and on others."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.bench.measure import Unavailable
from tests.bench.storage import loop_mounted
from tests.elf_writer import NT_PRSTATUS, Core, Load, note
from tests.tools import require
from tests.vmcore.rig import Rig
from vmcoredd_daemon.note import note_size
from vmcoredd_daemon.vmcore.clone import clone_range

SIZE = 8 << 20


def test_device_dumps_in_the_spool_and_in_the_vmcore_share_their_blocks(tmp_path: Path) -> None:
    require("mkfs.xfs", "xfs_io")
    try:
        with loop_mounted("xfs", tmp_path, 64 << 20) as target, Rig(target) as rig:
            data = os.urandom(SIZE)
            dump = rig.dump("ours", data, directory=target)
            os.fsync(dump.fd)
            source = Core(note(NT_PRSTATUS, b"registers"), (Load(0x1000, b"memory"),)).write(tmp_path / "source")
            rig.convert(source, dump)
            assert rig.progress == rig.plan(source, [dump]).copied
            assert rig.names() == [b"ours"]
            assert rig.data(0, SIZE) == data
            extents = subprocess.run(
                ["xfs_io", "-r", "-c", "fiemap -v", str(rig.vmcore)], capture_output=True, text=True, check=True
            ).stdout
            # FIEMAP_EXTENT_SHARED of linux/fiemap.h.
            shared = [line.split() for line in extents.splitlines() if line.strip().endswith("x2000")]
            assert sum(int(line[-2]) for line in shared) * 512 >= note_size(SIZE, 4096) - 2 * 4096
    except Unavailable as error:
        pytest.skip(str(error))


def test_files_that_cannot_share(tmp_path: Path) -> None:
    memory = os.memfd_create("memory")
    try:
        with (tmp_path / "file").open("w+b") as file:
            assert not clone_range(memory, file.fileno(), 0, 0, 4096)
            assert not clone_range(-1, file.fileno(), 0, 0, 4096)
            assert file.read() == b""
    finally:
        os.close(memory)
