# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian with kdump-tools: by docs/kdump.md, the machine panics, and its one dump has the device dumps."""

from __future__ import annotations

import gzip
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kdump import debian, rig, ssh_target
from tests.lib import external_tools as judges
from tests.lib.shell_program import shell_program
from tests.lib.tools import require, skip_or_fail
from tests.lib.vmcore_dumps import manifest
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.vmcore.inspect.inspect import find

# Building the root counts as part of the first test.
pytestmark = [pytest.mark.qemu, pytest.mark.kdump_matrix, pytest.mark.timeout(900)]

DUMP_NAME = "my_0000:02:00.0"
STUCK = "[Collector]\nExec=sleep infinity\n"


@pytest.fixture(scope="module", params=debian.SUITES)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root file system with kdump-tools and us."""
    skip_or_fail(debian.missing_tools())
    root = debian.build_root(tmp_path_factory.mktemp("debian"), request.param)
    yield root
    # pytest would keep it for three sessions.
    shutil.rmtree(root)


def test_one_vmcore_with_nothing_configured(root: Path, tmp_path: Path) -> None:
    memory = debian.default_crashkernel(root)
    captured = debian.panic(root, tmp_path, disk_mib=2048, crashkernel=memory, next_boot=True)
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


def test_helper_and_collector_that_hang(root: Path, tmp_path: Path) -> None:
    with debian.changed(root / "etc/vmcoredd/collectors.d/stuck.conf", STUCK):
        captured = debian.panic(root, tmp_path, disk_mib=2048, options=debian.FOREVER)
    report(captured)
    assert "Timed out starting" in captured.console
    vmcore = assert_device_dumps(captured, tmp_path)
    (failure,) = manifest(vmcore).failures
    assert (failure.name, failure.error) == ("stuck", "org.vmcoredd1.Error.TimedOut")
    # The helper has called the service while kdump-tools wrote its dump: it was not started again.
    assert captured.console.count("vmcoredd rig: at vmcoredd: ") == 1


def test_disk_that_has_no_space_for_the_memory_or_for_all_device_dumps(root: Path, tmp_path: Path) -> None:
    captured = debian.panic(root, tmp_path, disk_mib=size_with_room(root, 200), options=debian.LARGE)
    report(captured)
    vmcore = assert_device_dumps(captured, tmp_path)
    (failure,) = manifest(vmcore).failures
    assert (failure.name, failure.error) == (debian.LARGE_NAME, "org.vmcoredd1.Error.NoSpace")


def test_compressed_by_kdump_tools(root: Path, tmp_path: Path) -> None:
    with debian.changed(root / "etc/default/kdump-tools", "KDUMP_COMPRESSION=gzip\n"):
        captured = debian.panic(root, tmp_path, disk_mib=2048)
    report(captured)
    (compressed,) = captured.kdump_tools.glob("dump.2*.gz")
    with gzip.open(compressed) as file, compressed.with_suffix("").open("wb") as flattened:
        shutil.copyfileobj(file, flattened)
    compressed.unlink()
    assert_device_dumps(captured, tmp_path)


def test_sent_by_ssh(root: Path, tmp_path: Path) -> None:
    server = tmp_path / "server"
    server.mkdir()
    with ssh_target.ssh_target(root, server):
        options, devices = ssh_target.OPTIONS, ssh_target.QEMU_OPTIONS
        captured = debian.panic(root, tmp_path, disk_mib=2048, options=options, qemu_options=devices)
    report(captured)
    assert list(captured.crash.glob("2*")) == []
    (received,) = server.iterdir()
    assert received.name.startswith(f"{ssh_target.GUEST}-")
    assert_device_dumps(captured, tmp_path, received)


# A disk stands for the server, because the kernel's NFS is not what this is about.
@pytest.mark.parametrize("root", ["trixie"], indirect=True)
def test_target_that_is_mounted_over_the_spool(root: Path, tmp_path: Path) -> None:
    disk = debian.file_system(tmp_path / "server.disk", 512)
    shell_program(root / "usr/sbin/mount.nfs", 'exec mount -t ext4 /dev/vdb "$2"')
    with debian.changed(root / "etc/default/kdump-tools", 'NFS="server:/crash"\n'):
        captured = debian.panic(root, tmp_path, disk_mib=2048, disks=(disk,))
    (root / "usr/sbin/mount.nfs").unlink()
    report(captured)
    (tmp_path / "server").mkdir()
    debian.fetch(disk, "/", tmp_path / "server")
    (received,) = (tmp_path / "server").glob("*-2*")
    assert_device_dumps(captured, tmp_path, received)


# kdump-tools 1.10 copies all of the memory with it, without device dumps: docs/kdump.md says that.
@pytest.mark.parametrize("root", ["bookworm"], indirect=True)
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
    assert judges.crash(rearranged(captured.kdump_tools, tmp_path)) == []
    assert list(captured.crash.glob("*/vmcore*")) == []


def test_switched_off_on_the_kernels_command_line(root: Path, tmp_path: Path) -> None:
    captured = debian.panic(root, tmp_path, disk_mib=2048, options="vmcoredd=off")
    report(captured)
    assert judges.crash(rearranged(captured.kdump_tools, tmp_path)) == []
    assert not (captured.crash / ".vmcoredd-spool").exists()
    assert list(captured.crash.glob("*/vmcore*")) == []


def assert_device_dumps(captured: debian.Captured, workdir: Path, directory: Path | None = None) -> Path:
    """kdump-tools' dump, the only one, has the helper's device dump, those of built-in collectors, each once.

    It is in *directory*, by default that of this crash. Return the dump, rearranged.
    """
    vmcore = rearranged(directory or captured.kdump_tools, workdir)
    names = [dump.name for dump in judges.crash(vmcore)]
    assert {DUMP_NAME, "pci", MANIFEST_NAME} <= set(names)
    assert len(set(names)) == len(names)
    with vmcore.open("rb") as file:
        dumps = {dump.name: dump for dump in find(file.fileno(), str(vmcore)).device_dumps}
        offset = dumps[DUMP_NAME].offset
        assert os.pread(file.fileno(), len(debian.REGISTERS), offset) == debian.REGISTERS
    assert list(captured.crash.glob("*/vmcore*")) == []
    return vmcore


def rearranged(directory: Path, workdir: Path) -> Path:
    """Return the dump of kdump-tools, which has written it flattened; makedumpfile reads it."""
    require("makedumpfile")
    (dump,) = directory.glob("dump.2*")
    assert [file.name for file in directory.glob("*incomplete*")] == []
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
    print(f"{captured.seconds:6.2f} s  from the panic to the restart")
    for file in captured.files():
        print(f"{file.lstat().st_size:12}  {file.relative_to(captured.crash)}")
