# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rig itself: what it hands back is the vmcore of the kernel that it panicked."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kdump import rig
from tests.lib.tools import require, skip_or_fail

pytestmark = pytest.mark.qemu

ET_CORE = 4


def test_rig_hands_back_the_capture_kernels_vmcore(panic_result: rig.PanicResult, tmp_path: Path) -> None:
    require("makedumpfile", "crash")
    assert _elf_type(panic_result.vmcore) == ET_CORE
    assert rig.MARKER in _dmesg(panic_result.vmcore, tmp_path / "dmesg.txt")
    assert _osrelease(panic_result.vmcore) == panic_result.kernel_release


@pytest.mark.parametrize(
    ("panic_options", "cause"),
    [
        pytest.param({"timeout": 1.0}, r"the machine still ran after 1 s", id="hangs"),
        pytest.param({"crashkernel": "0M"}, r"kexec -p: status \d+\n(.*\n)*.*Run /init", id="no-crashkernel"),
    ],
)
def test_rig_says_why_there_is_no_vmcore(panic_options: dict[str, Any], cause: str, tmp_path: Path) -> None:
    skip_or_fail(rig.missing_tools())
    with pytest.raises(rig.RigError, match=cause):
        rig.panic(tmp_path, **panic_options)


def _elf_type(vmcore: Path) -> int:
    with vmcore.open("rb") as file:
        magic, e_type = struct.unpack("<4s12xH", file.read(18))
    assert magic == b"\x7fELF"
    return int(e_type)


def _dmesg(vmcore: Path, destination: Path) -> str:
    subprocess.run(["makedumpfile", "--dump-dmesg", vmcore, destination], check=True, capture_output=True)
    return destination.read_text(errors="replace")


def _osrelease(vmcore: Path) -> str:
    crash = subprocess.run(["crash", "--osrelease", vmcore], check=True, capture_output=True, text=True)
    return crash.stdout.strip()
