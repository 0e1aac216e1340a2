# SPDX-License-Identifier: LGPL-2.1-or-later
"""The vmcore of a panic that has just happened, through the daemon."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kdump import rig
from tests.lib import external_tools as judges
from tests.lib.bus import private_bus
from tests.lib.service import Service
from vmcoredd_daemon.manifest import MANIFEST_NAME

pytestmark = pytest.mark.qemu


def test_device_dump_in_the_vmcore_of_a_fresh_panic(panic_result: rig.PanicResult, tmp_path: Path) -> None:
    with private_bus(tmp_path) as address, Service(address, panic_result.vmcore, tmp_path, "Format=elf") as daemon:
        daemon.start()
        helper = [sys.executable, "-m", "tests.lib.helper_process", address, "fake_0000:01:00.0", "100000"]
        subprocess.run(helper, check=True)
        assert daemon.stop() == 0
        vmcore = daemon.vmcore()
    assert [dump.name for dump in judges.crash(vmcore)] == ["fake_0000:01:00.0", MANIFEST_NAME]
    assert judges.osrelease(vmcore) == panic_result.kernel_release
    assert judges.same_memory(vmcore, panic_result.vmcore)
    # makedumpfile reads the kernel's own structures out of what was written.
    filtered = judges.makedumpfile(vmcore, tmp_path / "filtered", "-l", "-d", "31")
    assert [dump.name for dump in judges.crash(filtered)] == ["fake_0000:01:00.0", MANIFEST_NAME]
