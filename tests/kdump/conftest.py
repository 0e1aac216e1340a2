# SPDX-License-Identifier: LGPL-2.1-or-later
"""One panic for all tests of a session."""

from __future__ import annotations

import pytest

from tests.kdump import rig
from tests.tools import skip_or_fail


@pytest.fixture(scope="session")
def panic_result(tmp_path_factory: pytest.TempPathFactory) -> rig.PanicResult:
    """The vmcore is everybody's: tests that change it copy it first."""
    skip_or_fail(rig.missing_tools())
    # Less than the time a test is given, so that a machine that hangs is reported with its console.
    return rig.panic(tmp_path_factory.mktemp("panic"), timeout=100)
