# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdump-utils, unmodified: its one vmcore has the device dumps, and there is one when our Python is broken.

`make kdump-utils-test KDUMP_UTILS=DIRECTORY` runs it. Each machine makes an initramfs, and panics.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kdump import kdump_utils, rig
from tests.lib import external_tools as judges
from tests.lib.tools import skip_or_fail
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.vmcore.inspect.inspect import find

# Building the root counts as part of the first test.
TIMEOUT = kdump_utils.TIMEOUT + kdump_utils.BOOT_TIMEOUT + 600
pytestmark = [pytest.mark.qemu, pytest.mark.kdump_utils, pytest.mark.timeout(TIMEOUT)]


@dataclass(frozen=True, slots=True)
class Local:
    """A machine that has panicked, with what was on its disk then."""

    disk: Path
    captured: kdump_utils.Captured


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root file system with kdump-utils and us."""
    checkout = kdump_utils.checkout()
    if checkout is None:
        pytest.skip("KDUMP_UTILS= names no checkout of kdump-utils")
    skip_or_fail(kdump_utils.missing_tools())
    workdir = tmp_path_factory.mktemp("kdump-utils")
    yield kdump_utils.build_root(workdir, checkout)
    # pytest would keep it for three sessions.
    shutil.rmtree(workdir)


@pytest.fixture(scope="module")
def local(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """The root file system is the target, as by default."""
    workdir = tmp_path_factory.mktemp("local")
    disk = kdump_utils.make_disk(root, workdir / "disk")
    console = kdump_utils.panic(disk, root, workdir)
    crashes = kdump_utils.fetch(disk, kdump_utils.SAVE_PATH, workdir / "fetched")
    yield Local(disk, kdump_utils.captured(crashes, console))
    shutil.rmtree(workdir)


def test_local_ext4(local: Local) -> None:
    report(local.captured)
    print(f"initramfs: {kdump_utils.image_size(local.disk) / 1e6:.1f} MB")
    assert_saved(local.captured, "vmcore")
    assert_device_dumps(local.captured, local.captured.directory / "vmcore")


def test_check_finds_nothing_before_the_panic(local: Local) -> None:
    checked = local.captured.before.rpartition("Starting kdump: [OK]")[2]
    print(checked)
    assert f"{kdump_utils.CHECKED} 0\n" in checked


def test_broken_python_costs_no_vmcore(root: Path, local: Local, tmp_path: Path) -> None:
    """The same machine and initramfs, a second panic."""
    console = kdump_utils.panic(local.disk, root, tmp_path, options=kdump_utils.BROKEN_PYTHON)
    crashes = kdump_utils.fetch(local.disk, kdump_utils.SAVE_PATH, tmp_path / "fetched")
    shutil.rmtree(crashes / local.captured.directory.name)
    captured = kdump_utils.captured(crashes, console)
    report(captured)
    assert "no device dumps: vmcoredd core-collector ended before makedumpfile began, with status 1" in console
    assert_saved(captured, "vmcore")
    assert judges.crash(captured.directory / "vmcore") == []


def test_ssh(root: Path, tmp_path: Path) -> None:
    crashes, options = kdump_utils.ssh_server(root, tmp_path)
    disk = kdump_utils.make_disk(root, tmp_path / "disk", f"ssh root@{kdump_utils.ADDRESS_OF_SERVER}")
    captured = kdump_utils.captured(crashes, kdump_utils.panic(disk, root, tmp_path, options))
    report(captured)
    print(f"initramfs: {kdump_utils.image_size(disk) / 1e6:.1f} MB")
    with (captured.directory / "vmcore.flat").open("rb") as file:
        judges.rearrange(file, tmp_path / "rearranged")
    assert_saved(captured, "vmcore.flat")
    assert_device_dumps(captured, tmp_path / "rearranged")


def test_nfs(root: Path, tmp_path: Path) -> None:
    disk = kdump_utils.make_disk(
        root, tmp_path / "disk", f"nfs {kdump_utils.ADDRESS_OF_SERVER}:/{kdump_utils.EXPORT}"
    )
    with kdump_utils.nfs_server(root, tmp_path) as (server, options):
        console = kdump_utils.panic(disk, root, tmp_path, options)
    exported = kdump_utils.fetch(server, kdump_utils.EXPORT, tmp_path / "fetched")
    captured = kdump_utils.captured(exported / kdump_utils.SAVE_PATH, console)
    report(captured)
    print(f"initramfs: {kdump_utils.image_size(disk) / 1e6:.1f} MB")
    assert_saved(captured, "vmcore")
    assert_device_dumps(captured, captured.directory / "vmcore")


def assert_saved(captured: kdump_utils.Captured, name: str) -> None:
    """kdump has saved one vmcore, of this panic, and called it complete."""
    files = {file.name for file in captured.directory.iterdir()}
    assert {file for file in files if file.startswith("vmcore")} == {name, "vmcore-dmesg.txt"}
    assert rig.MARKER in (captured.directory / "vmcore-dmesg.txt").read_text(errors="replace")


def assert_device_dumps(captured: kdump_utils.Captured, vmcore: Path) -> None:
    """A vmcore has the device dumps of built-in collectors and of a file in collectors.d, each once."""
    # dracut's messages of our module, while kdumpctl made the initramfs.
    assert not re.search(r"dracut.*vmcoredd: ", captured.before)
    names = [dump.name for dump in judges.crash(vmcore)]
    assert {kdump_utils.COLLECTOR, "pci", MANIFEST_NAME} <= set(names)
    assert len(set(names)) == len(names)
    with vmcore.open("rb") as file:
        dumps = {dump.name: dump for dump in find(file.fileno(), str(vmcore)).device_dumps}
        registers = os.pread(file.fileno(), len(kdump_utils.REGISTERS), dumps[kdump_utils.COLLECTOR].offset)
    assert registers == kdump_utils.REGISTERS


def report(captured: kdump_utils.Captured) -> None:
    """Print the figures."""
    for name, point in captured.points.items():
        print(f"{point.seconds:6.2f} s  {point.available_kib / 1024:6.1f} MiB available  {name}")
    print(f"{captured.seconds_of_end():6.2f} s  restarts")
    for file in sorted(captured.directory.iterdir()):
        print(f"{file.lstat().st_size:12}  {file.name}")
