# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a daemon takes of its machine: memory, descriptors, threads, asyncio tasks."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lib.service import Service, unit_environment

PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Usage:
    """At one moment; memory is in KiB."""

    rss: int
    anonymous: int
    fds: int
    threads: int
    tasks: int

    def __str__(self) -> str:
        return (
            f"VmRSS {self.rss} KiB, RssAnon {self.anonymous} KiB, {self.fds} descriptors, {self.threads} threads, "
            f"{self.tasks} tasks"
        )


class WatchedService(Service):
    """A daemon that counts its tasks, in the environment that its unit gives it."""

    def _command(self) -> Sequence[str]:
        command = super()._command()
        where = list(command).index("vmcoredd_daemon")
        program = ["tests.torture.counted_daemon", *command[where + 1 :]]
        environment = [f"{name}={value}" for name, value in unit_environment().items()]
        return ["env", *environment, f"VMCOREDD_WATCHED={self._tasks}", *command[:where], *program]

    @property
    def _tasks(self) -> Path:
        return self.target.parent / "tasks"

    def usage(self) -> Usage:
        """Return what it takes now."""
        self._tasks.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR2)
        until = time.monotonic() + PATIENCE
        while not self._tasks.exists():
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"the daemon does not count its tasks:\n{self.log()[-2000:]}")
            time.sleep(0.005)
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        )
        sizes = [int(status[name].split()[0]) for name in ("VmRSS", "RssAnon")]
        fds = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        return Usage(*sizes, fds, int(status["Threads"]), int(self._tasks.read_text()))

    def settled(self, tasks: int, fds: int) -> Usage:
        """Return what it takes as soon as it has no more than so many tasks and descriptors, or after a while."""
        until = time.monotonic() + PATIENCE
        while (usage := self.usage()).tasks > tasks or usage.fds > fds:
            if time.monotonic() > until:
                break
            time.sleep(0.1)
        return usage
