# SPDX-License-Identifier: LGPL-2.1-or-later
"""One panic for all tests of a session."""

from __future__ import annotations

import pytest

from tests.kdump import capture, rig
from tests.tools import skip_or_fail


@pytest.fixture(scope="session")
def panic_result(tmp_path_factory: pytest.TempPathFactory) -> rig.PanicResult:
    """The vmcore is everybody's: tests that change it copy it first."""
    skip_or_fail(rig.missing_tools())
    # Less than the time a test is given, so that a machine that hangs is reported with its console.
    return rig.panic(tmp_path_factory.mktemp("panic"), timeout=100)


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
