# SPDX-License-Identifier: LGPL-2.1-or-later
"""One panic for all tests of a session."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.kdump import capture, rig
from tests.lib.tools import skip_or_fail

# The package's place, and that of make test-all, which takes but this file out of the package.
VMLINUX_PLACES = (Path("/usr/lib/debug/boot"), Path(sys.prefix, "debug"))


@pytest.fixture(scope="session")
def panic_result(tmp_path_factory: pytest.TempPathFactory) -> rig.PanicResult:
    """All tests share the vmcore: those that change it copy it first."""
    skip_or_fail(rig.missing_tools())
    # Less than the time a test is given, so that a machine that hangs is reported with its console.
    return rig.panic(tmp_path_factory.mktemp("panic"), timeout=100)


@pytest.fixture(scope="session")
def vmlinux(panic_result: rig.PanicResult) -> Path:
    """The kernel with its debug information."""
    files = [place / f"vmlinux-{panic_result.kernel_release}" for place in VMLINUX_PLACES]
    found = [file for file in files if file.exists()]
    missing = [] if found else [str(files[0])]
    skip_or_fail([*missing, *([] if importlib.util.find_spec("drgn") else ["drgn"])])
    return found[0]


@pytest.fixture(scope="session")
def capture_initramfs(tmp_path_factory: pytest.TempPathFactory) -> capture.Initramfs:
    """The initramfs of a capture kernel, with systemd, a message bus and us."""
    skip_or_fail(capture.missing_tools())
    return capture.build(tmp_path_factory.mktemp("initramfs"))


@pytest.fixture(scope="session")
def busless_initramfs(tmp_path_factory: pytest.TempPathFactory) -> capture.Initramfs:
    """The same without a message bus."""
    skip_or_fail(capture.missing_tools())
    return capture.build(tmp_path_factory.mktemp("busless"), dbus=False)
