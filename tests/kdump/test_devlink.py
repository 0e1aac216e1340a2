# SPDX-License-Identifier: LGPL-2.1-or-later
"""A capture kernel with devices that have devlink: netdevsim, which .ci/debian-netdevsim makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.collectors.builtin.collecting import members
from tests.kdump import capture, rig, units
from tests.lib.attaching import contents
from tests.lib.paths import ROOT
from tests.lib.tools import skip_or_fail
from vmcoredd_daemon.collectors.builtin import BUILT_IN
from vmcoredd_daemon.journal import Event

pytestmark = [pytest.mark.qemu, pytest.mark.kdump_matrix]

REGION = 32768

DIRECTORY = ROOT / ".venv" / "netdevsim"

# Of two devices one gets a snapshot of its region, and trouble for its reporter: devlink(8) shows both.
PREPARE = """\
#!/bin/busybox sh
set -e
for module in {vendor}/modules/*.ko {vendor}/netdevsim.ko; do busybox insmod $module; done
for number in 1 2; do echo "$number 1" > /sys/bus/netdevsim/new_device; done
busybox mount -t debugfs debugfs /sys/kernel/debug || true
echo dummy > /sys/kernel/debug/netdevsim/netdevsim1/take_snapshot
echo trouble > /sys/kernel/debug/netdevsim/netdevsim1/health/break_health
devlink -j health dump show netdevsim/netdevsim1 reporter dummy > {target}/health.json
devlink -j region dump netdevsim/netdevsim1/dummy snapshot 0 > {target}/region.json
"""

UNIT = """\
[Unit]
Before=vmcoredd.service
RequiresMountsFor={target}
[Service]
Type=oneshot
RemainAfterExit=yes
StandardError=journal+console
ExecStart=/{vendor}/prepare
"""


def netdevsim() -> Path:
    """The module for the kernel that is booted."""
    skip_or_fail(capture.missing_tools())
    file = DIRECTORY / f"netdevsim-{rig.find_kernel().release}.ko"
    skip_or_fail([] if file.exists() else [f"{file}, made by .ci/debian-netdevsim"])
    return file


def programs(*names: str) -> units.Files:
    """Programs with their libraries, where /bin and /lib are links."""
    return {
        f"usr/{path.removeprefix('usr/')}": file
        for name in names
        for path, file in rig.program_files(name).items()
    }


def test_health_and_regions(capture_initramfs: capture.Initramfs, tmp_path: Path) -> None:
    psample = rig.module_files(capture_initramfs.kernel, ["psample"])
    files = {
        **{f"etc/vmcoredd/collectors.d/{name}.conf": b"" for name in BUILT_IN if name != "devlink"},
        **units.watched(),
        **programs("busybox", "devlink"),
        **{f"{units.VENDOR}/{name}": file for name, file in psample.items()},
        f"{units.VENDOR}/netdevsim.ko": netdevsim(),
        f"{units.VENDOR}/prepare": PREPARE.format(vendor=f"/{units.VENDOR}", target=capture.TARGET).encode(),
        **units.wanted("netdevsim", UNIT.format(vendor=units.VENDOR, target=capture.TARGET)),
        **units.helper("regions", f"devlink -j region show > {capture.TARGET}/regions.json"),
        **units.finally_do("poweroff"),
    }
    captured = capture.capture(tmp_path, capture_initramfs, capture.Scenario(files))
    assert not captured.events(Event.DUMP_FAILED)
    assert not captured.events(Event.DUMP_TRUNCATED)
    dumps = contents(captured.vmcore())
    found = members(dumps["devlink_netdevsim1"])
    assert sorted(found) == ["health/dummy", "health/empty", "region/dummy/0"]
    assert found["region/dummy/0"] == region(captured.target / "region.json")
    lines = found["health/dummy"].decode().splitlines()
    theirs = json.loads((captured.target / "health.json").read_text())
    assert theirs["break_message"] == "trouble"
    assert lines[:2] == ["break_message: trouble", "test_bool: true"]
    # Of random bytes.
    assert lines[lines.index("test_binary:") + 1].split() == [f"{byte:02x}" for byte in theirs["test_binary"]]
    # A snapshot is made where there is none, and goes again.
    others = members(dumps["devlink_netdevsim2"])
    assert len(others["region/dummy/0"]) == REGION
    assert len(set(others["region/dummy/0"])) == 256
    left = json.loads((captured.target / "regions.json").read_text())["regions"]
    assert left["netdevsim/netdevsim1/dummy"]["snapshot"] == [0]
    assert left["netdevsim/netdevsim2/dummy"]["snapshot"] == []


def region(path: Path) -> bytes:
    """The bytes of `devlink -j region dump`, whose objects have a key for each piece, all with the same name."""
    ((_, pieces),) = json.loads(path.read_text(), object_pairs_hook=lambda pairs: pairs)
    return b"".join(bytes(value) for key, value in pieces if key == "data")
