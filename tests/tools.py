# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a test needs of its machine: missing, it skips the test, but fails it in continuous integration."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import pytest


def require(*programs: str) -> None:
    skip_or_fail([program for program in programs if shutil.which(program) is None])


def skip_or_fail(missing: Sequence[str]) -> None:
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
