# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that a test needs: without them it is skipped, or fails in continuous integration."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest


def installed_program(name: str) -> Path:
    """Return where a program of ours is: with this Python, or where its package of the distribution has put it."""
    own = Path(sysconfig.get_path("scripts"), name)
    return own if own.exists() else Path(shutil.which(name) or own)


def require(*programs: str) -> None:
    skip_or_fail([program for program in programs if shutil.which(program) is None])


def skip_or_fail(missing: Sequence[str]) -> None:
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
