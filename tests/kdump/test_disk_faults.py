# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine fails while the capture kernel writes: after each fault the disk holds every acknowledged dump."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kdump import capture, faulty, rig, units

pytestmark = [pytest.mark.qemu, pytest.mark.kdump_matrix]

NAMES = ["small-c4032", "registers-c65000", "odd-c300001", "large-c1000000", "firmware-c2500000"]
DISK_MIB = 800


@pytest.mark.parametrize("percent", [1, 50, 90])
def test_second_panic(capture_initramfs: capture.Initramfs, tmp_path: Path, percent: int) -> None:
    files = (faulty.adding(*NAMES), faulty.writing("panic", percent))
    machine = capture.prepare(tmp_path, capture_initramfs, faulty.scenario(*files, disk_mib=DISK_MIB))
    console = rig.boot(machine, tmp_path / "console.log", timeout=110)
    assert f": {percent} percent" in console
    assert console.count("sysrq: Trigger a crash") == 2
    assert faulty.answers(console).acknowledged.keys() == set(NAMES)
    target = faulty.mounted_again(tmp_path / "disk", tmp_path / "target")
    assert faulty.held(target) == set(NAMES)
