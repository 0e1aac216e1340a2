# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian with kdump-tools: the README is followed, the machine panics, and both leave a dump."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kdump import debian, rig
from tests.lib import external_tools as judges
from tests.lib.tools import require, skip_or_fail
from vmcoredd_daemon.journal import Event
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.vmcore.inspect.inspect import find

# Building the root counts as part of the first test.
pytestmark = [pytest.mark.qemu, pytest.mark.kdump_matrix, pytest.mark.timeout(500)]

DUMP_NAME = "my_0000:02:00.0"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root file system with kdump-tools and us."""
    skip_or_fail(debian.missing_tools())
    root = debian.build_root(tmp_path_factory.mktemp("debian"))
    yield root
    # pytest would keep it for three sessions.
    shutil.rmtree(root)


def test_device_dump_is_in_a_vmcore_beside_that_of_kdump_tools(root: Path, tmp_path: Path) -> None:
    captured = debian.panic(root, tmp_path, disk_mib=2048)
    report(captured)
    vmcore = captured.vmcoredd / "vmcore"
    assert_dump(vmcore)
    assert judges.osrelease(vmcore) == next((root / "lib/modules").iterdir()).name
    assert rig.MARKER in (captured.vmcoredd / "vmcore-dmesg.txt").read_text()
    assert Event.VMCORE_WRITTEN.value in logged(captured)
    assert not list(captured.crash.glob(".vmcoredd-spool/*/*"))
    assert_kdump_tools(captured, tmp_path)


def test_machine_ends_with_all_dumps_where_a_helper_hangs_and_the_disk_is_full(root: Path, tmp_path: Path) -> None:
    with debian.without_makedumpfile(root):
        captured = debian.panic(root, tmp_path, disk_mib=size_with_room(root, 160), options=debian.FOREVER)
    report(captured)
    # Cut off, so that there is room for kdump-tools.
    vmcore = captured.vmcoredd / "vmcore-incomplete"
    assert_dump(vmcore)
    assert vmcore.stat().st_size < 4 << 20
    assert "Timed out starting" in captured.console
    assert Event.VMCORE_WRITTEN.value in logged(captured)
    assert_kdump_tools(captured, tmp_path)


def test_core_collector_puts_the_device_dump_into_the_dump_of_kdump_tools(root: Path, tmp_path: Path) -> None:
    debian.follow(root, "docs/kdump.md", "## One vmcore with kdump-tools")
    captured = debian.panic(root, tmp_path, disk_mib=2048)
    report(captured)
    assert_kdump_tools(captured, tmp_path)
    vmcore = tmp_path / "rearranged"
    assert {DUMP_NAME, "pci", MANIFEST_NAME} <= {dump.name for dump in judges.crash(vmcore)}
    with vmcore.open("rb") as file:
        dumps = {dump.name: dump for dump in find(file.fileno(), str(vmcore)).device_dumps}
        offset = dumps[DUMP_NAME].offset
        assert os.pread(file.fileno(), len(debian.REGISTERS), offset) == debian.REGISTERS
    # Ours has left none.
    assert list(captured.crash.glob("*/vmcore*")) == []


def assert_dump(vmcore: Path) -> None:
    """crash lists the helper's device dump, one that a collector of our own has made, and the manifest."""
    assert {DUMP_NAME, "pci", MANIFEST_NAME} <= {dump.name for dump in judges.crash(vmcore)}
    with vmcore.open("rb") as file:
        assert debian.REGISTERS in file.read(4 << 20)


def assert_kdump_tools(captured: debian.Captured, workdir: Path) -> None:
    """makedumpfile reads the dump of kdump-tools, which it has written as a flattened one."""
    require("makedumpfile")
    (dump,) = captured.kdump_tools.glob("dump.2*")
    assert [file.name for file in captured.kdump_tools.glob("*incomplete*")] == []
    rearranged = workdir / "rearranged"
    with dump.open("rb") as file:
        judges.rearrange(file, rearranged)
    assert rig.MARKER in judges.kernel_log(rearranged, workdir / "dmesg")


def logged(captured: debian.Captured) -> set[str]:
    """MESSAGE_ID of what the service has logged."""
    lines = (captured.vmcoredd / "vmcoredd-journal.json").read_text().splitlines()
    return {json.loads(line).get("MESSAGE_ID", "") for line in lines}


def size_with_room(root: Path, mib: int) -> int:
    """Return the MiB of a file system with this root that has *mib* left, its own tables included."""
    used = sum(file.lstat().st_blocks * 512 for file in root.rglob("*") if not file.is_symlink())
    return (used >> 20) + mib


def report(captured: debian.Captured) -> None:
    """Print the figures."""
    for name, point in captured.points.items():
        print(f"{point.seconds:6.2f} s  {point.available_kib / 1024:6.1f} MiB available  {name}")
    print(f"{debian.seconds_of_end(captured):6.2f} s  restarts")
    for file in sorted(captured.crash.rglob("*")):
        print(f"{file.lstat().st_size:12}  {file.relative_to(captured.crash)}")
