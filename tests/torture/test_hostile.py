# SPDX-License-Identifier: LGPL-2.1-or-later
"""A short run of hostile.py; ``make torture`` has the whole campaign."""

import tempfile
from pathlib import Path

from tests.tools import require
from tests.torture.hostile import run

MESSAGES = 1000
KIB_ALLOWED = 8192
"""Buffers and arenas that grow to their size; 10 KB for each message would be more."""


def test_hostile_callers() -> None:
    require("dbus-daemon")
    # Another user must reach it; pytest's directories are for one user.
    with tempfile.TemporaryDirectory() as directory:
        outcome = run(Path(directory), MESSAGES, seed=1)
    print(outcome)
    assert outcome.before is not None
    assert outcome.after is not None
    assert outcome.unexplained == []
    assert outcome.messages >= MESSAGES
    assert outcome.after.fds == outcome.before.fds
    assert outcome.after.tasks == outcome.before.tasks
    assert outcome.after.anonymous < outcome.before.anonymous + KIB_ALLOWED
    assert outcome.latencies
