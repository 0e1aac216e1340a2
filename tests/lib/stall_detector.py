# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon with a detector for stalls of its loop: `python -m tests.lib.stall_detector REPORT [OPTIONS]`.

The options are the daemon's. REPORT becomes a file of JSON when the daemon ends.
"""

import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from vmcoredd_daemon.service.daemon import Daemon, RunResult
from vmcoredd_daemon.service.program import main

INTERVAL = 0.002
"""Seconds between two looks."""


@dataclass(slots=True)
class Report:
    """The figures; times are in seconds, memory in kB."""

    stall: float = 0.0
    """By how much the loop woke up too late, at worst."""
    own_stall: float = 0.0
    """The same without the time in which the thread was ready to run and other processes had the processors."""
    wakeups: int = 0
    resident: int = 0
    """VmHWM: the most that was resident, files that are mapped included."""
    anonymous: int = 0
    """RssAnon at its most, of what was seen ten times a second."""


async def watch(report: Report) -> None:
    """Look at the loop until this is cancelled."""
    loop = asyncio.get_running_loop()
    waited = run_delay()
    memory_at = 0.0
    while True:
        due = loop.time() + INTERVAL
        await asyncio.sleep(INTERVAL)
        now = loop.time()
        waited, before = run_delay(), waited
        report.wakeups += 1
        report.stall = max(report.stall, now - due)
        report.own_stall = max(report.own_stall, now - due - (waited - before))
        if now >= memory_at:
            report.anonymous = max(report.anonymous, status("RssAnon"))
            memory_at = loop.time() + 0.1
            waited = run_delay()


def run_delay() -> float:
    """Return how many seconds this thread was ready and had no processor (Documentation/scheduler/sched-stats)."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def status(name: str) -> int:
    """Return a number of proc_pid_status(5)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0])


def watched(report: Report) -> type[Daemon]:
    """Return the daemon's class with the detector."""

    class Watched(Daemon):
        async def run(self) -> RunResult:
            watching = asyncio.create_task(watch(report))
            try:
                return await super().run()
            finally:
                watching.cancel()
                with suppress(asyncio.CancelledError):
                    await watching

    return Watched


if __name__ == "__main__":
    import vmcoredd_daemon.service.daemon

    figures = Report()
    vmcoredd_daemon.service.daemon.Daemon = watched(figures)  # type: ignore[misc]
    exit_status = main(sys.argv[2:])
    figures.resident = status("VmHWM")
    Path(sys.argv[1]).write_text(json.dumps(asdict(figures)))
    sys.exit(exit_status)
