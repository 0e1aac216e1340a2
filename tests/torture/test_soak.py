# SPDX-License-Identifier: LGPL-2.1-or-later
"""A short run of soak.py; ``make torture`` has the whole one."""

from pathlib import Path

from tests.lib.tools import require
from tests.torture.soak import run

SECONDS = 14
"""A vmcore is written every ten."""


def test_mixed_load(tmp_path: Path) -> None:
    require("dbus-daemon", "makedumpfile")
    outcome = run(tmp_path, SECONDS)
    assert outcome.strange == []
    assert not outcome.left, outcome
    assert outcome.status == 0
    # Each part of the load has run.
    assert set(outcome.soak.done) == {
        *("callback", "pipe", "files", "refused", "look", "collectors", "write", "command_line", "leave")
    }
    assert len(outcome.soak.samples) > 1
