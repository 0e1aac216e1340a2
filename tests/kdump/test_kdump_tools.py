# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian with kdump-tools: by docs/kdump.md, the machine panics, and its one dump has the device dumps."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kdump import debian, rig
from tests.lib import external_tools as judges
from tests.lib.tools import require, skip_or_fail
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


def test_one_vmcore_with_nothing_configured(root: Path, tmp_path: Path) -> None:
    captured = debian.panic(root, tmp_path, disk_mib=2048, next_boot=True)
    report(captured)
    assert_device_dumps(captured, tmp_path)
    resolved = (captured.crash / debian.RESOLVED).read_text()
    assert re.search(r"device dumps are in /var/crash/2\d+/dump.2\d+, and left the spool$", resolved), resolved
    assert list((captured.crash / ".vmcoredd-spool").iterdir()) == []


def test_next_boot_resolves_what_is_left(root: Path, tmp_path: Path) -> None:
    """core-collector does not start: the dump of kdump-tools has no device dumps before."""
    program = root / "usr/lib/python3/dist-packages/vmcoredd_daemon/cli/core_collector/program.py"
    with debian.changed(program, "\ndef\n"):
        captured = debian.panic(root, tmp_path, disk_mib=2048, next_boot=True)
    report(captured)
    resolved = (captured.crash / debian.RESOLVED).read_text()
    assert re.search(r"(\d+) device dumps are in .*, \1 of them attached now, and left the spool$", resolved), (
        resolved
    )
    assert_device_dumps(captured, tmp_path)
    assert list((captured.crash / ".vmcoredd-spool").iterdir()) == []


def test_helper_that_hangs_and_a_disk_that_has_no_space_for_the_memory(root: Path, tmp_path: Path) -> None:
    captured = debian.panic(root, tmp_path, disk_mib=size_with_room(root, 160), options=debian.FOREVER)
    report(captured)
    assert "Timed out starting" in captured.console
    assert_device_dumps(captured, tmp_path)


def test_function_of_our_old_documentation_adds_device_dumps_once(root: Path, tmp_path: Path) -> None:
    function = 'makedumpfile() { /usr/bin/vmcoredd core-collector makedumpfile "$@"; }\n'
    with (
        debian.changed(root / "etc/default/kdump-tools", function),
        debian.changed(root / "etc/vmcoredd/vmcoredd.conf.d/kdump-tools.conf", "[Vmcoredd]\nFormat=none\n"),
    ):
        captured = debian.panic(root, tmp_path, disk_mib=2048)
    report(captured)
    assert_device_dumps(captured, tmp_path)


def test_broken_python_costs_no_dump(root: Path, tmp_path: Path) -> None:
    package = root / "usr/lib/python3/dist-packages/vmcoredd_daemon"
    with debian.changed(package / "errors.py", "\ndef\n"):
        captured = debian.panic(root, tmp_path, disk_mib=2048)
    report(captured)
    assert judges.crash(rearranged(captured, tmp_path)) == []
    assert list(captured.crash.glob("*/vmcore*")) == []


def test_switched_off_on_the_kernels_command_line(root: Path, tmp_path: Path) -> None:
    captured = debian.panic(root, tmp_path, disk_mib=2048, options="vmcoredd=off")
    report(captured)
    assert judges.crash(rearranged(captured, tmp_path)) == []
    assert not (captured.crash / ".vmcoredd-spool").exists()
    assert list(captured.crash.glob("*/vmcore*")) == []


def assert_device_dumps(captured: debian.Captured, workdir: Path) -> None:
    """kdump-tools' dump, the only one, has the helper's device dump, those of built-in collectors, each once."""
    vmcore = rearranged(captured, workdir)
    names = [dump.name for dump in judges.crash(vmcore)]
    assert {DUMP_NAME, "pci", MANIFEST_NAME} <= set(names)
    assert len(set(names)) == len(names)
    with vmcore.open("rb") as file:
        dumps = {dump.name: dump for dump in find(file.fileno(), str(vmcore)).device_dumps}
        offset = dumps[DUMP_NAME].offset
        assert os.pread(file.fileno(), len(debian.REGISTERS), offset) == debian.REGISTERS
    assert list(captured.crash.glob("*/vmcore*")) == []


def rearranged(captured: debian.Captured, workdir: Path) -> Path:
    """Return the dump of kdump-tools, which has written it flattened; makedumpfile reads it."""
    require("makedumpfile")
    (dump,) = captured.kdump_tools.glob("dump.2*")
    assert [file.name for file in captured.kdump_tools.glob("*incomplete*")] == []
    vmcore = workdir / "rearranged"
    with dump.open("rb") as file:
        judges.rearrange(file, vmcore)
    assert rig.MARKER in judges.kernel_log(vmcore, workdir / "dmesg")
    return vmcore


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
