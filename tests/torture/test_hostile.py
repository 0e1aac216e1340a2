# SPDX-License-Identifier: LGPL-2.1-or-later
"""A short run of hostile.py; ``make torture`` has the whole campaign."""

import tempfile
from pathlib import Path

from tests.lib.tools import require
from tests.torture.hostile import run

MESSAGES = 1000


def test_hostile_callers() -> None:
    require("dbus-daemon")
    # Another user must reach it; pytest's directories are for one user.
    with tempfile.TemporaryDirectory() as directory:
        outcome = run(Path(directory), MESSAGES, seed=1)
    print(outcome)
    assert outcome.unexplained == []
    assert outcome.messages >= MESSAGES
    assert not outcome.left, outcome
    assert outcome.latencies
