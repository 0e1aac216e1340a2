# SPDX-License-Identifier: LGPL-2.1-or-later
"""The main job, with real parts: a device dump enters over D-Bus and comes out of a vmcore."""

import subprocess
import sys
from pathlib import Path

from tests.helper_process import pattern
from tests.service import Service


def test_callback(daemon: Service) -> None:
    helper = [sys.executable, "-m", "tests.helper_process", daemon.address, "fake_0000:01:00.0", "70000"]
    assert subprocess.run(helper, check=True, capture_output=True, text=True).stdout == "/org/vmcoredd1/dump/1\n"
    assert daemon.stop() == 0
    assert pattern(70000)[:70000] in daemon.vmcore().read_bytes()
