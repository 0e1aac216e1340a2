# SPDX-License-Identifier: LGPL-2.1-or-later
"""Points in time, against date(1) of coreutils and systemd-analyze(1), which read more of them."""

import re
import subprocess

import pytest

from tests.lib.tools import require
from vmcoredd_daemon.cli.timestamps import timestamp

NOW = 1795515630.5
"""2026-11-24 10:20:30.5 UTC."""


DATES = ["2026-11-24", "2026-11-24 10:20", "2026-11-24 10:20:30", "2026-02-28 23:59:59", "1970-01-01"]


@pytest.mark.parametrize("text", [*DATES, "2026-11-24T10:20"])
def test_dates_as_date_reads_them(text: str) -> None:
    seconds = subprocess.run(["date", "-u", "-d", text, "+%s"], capture_output=True, check=True).stdout
    for spelling in (text, f"{text} UTC", f" {text}"):
        assert timestamp(spelling, NOW) == int(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("now", "today", "yesterday", "tomorrow", "-2h", "+2h", "-1h 30min", "-90s", "2 days ago", "1h30min ago"),
        *("-1w", "3 weeks ago", "-1month", "2M ago", "-1y", "@1795464321", "10:20", "9:05", "5 minutes ago", "-5"),
    ],
)
def test_spans_as_systemd_reads_them(text: str) -> None:
    require("systemd-analyze")
    environment = {"TZ": "UTC", "PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    said = subprocess.run(
        ["systemd-analyze", "timestamp", "--", text], capture_output=True, text=True, check=True, env=environment
    ).stdout
    (theirs,) = re.findall(r"UNIX seconds: @([\d.]+)", said)
    now = float(subprocess.run(["date", "+%s.%N"], capture_output=True, check=True).stdout)
    # Both clocks tick.
    assert timestamp(text, now) == pytest.approx(float(theirs), abs=5)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-", "+", "2", "h", "2h", "-2 hares", "ago", " ago", "2026-13-01", "2026-02-30"),
        *("2026-11-24 25:00", "2026-11-24 10:20:61", "26-11-24", "@", "@-5", "@99999999999999", "\u0662 days ago"),
        *("-" + "9" * 30 + "y", "2026-11-24x10:20", "x" * 100_000, "-" + "1h" * 50_000 + "x", "2026-11-2410:20"),
        "UTC",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a time, as 2026-11-24 10:20, today, -2h or '2 days ago'$"):
        timestamp(text, NOW)


def test_long_ago() -> None:
    assert timestamp("-999999999y", NOW) < 0
