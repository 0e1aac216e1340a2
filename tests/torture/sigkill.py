# SPDX-License-Identifier: LGPL-2.1-or-later
"""SIGKILL at random moments under load, and a restart each time: nothing that was acknowledged may be lost.

    python -m tests.torture.sigkill --kills 2000 --seed 1

A round has a directory of its own; it ends when the daemon was asked to stop and lived to the end. After every
kill each file in the spool and each vmcore is judged, after every restart each device dump is read over D-Bus.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.lib.bus import private_bus
from tests.lib.caller import call
from tests.lib.loops import run_coroutine
from tests.lib.service import Service
from tests.torture import disk
from tests.torture.disk import Lost
from tests.torture.load import GONE, Client, Ledger
from vmcoredd_daemon.bus import Connection, take_fds
from vmcoredd_daemon.errors import CallFailed

CLIENTS = 4
MOST_IN_ROUND = 12
"""Kills after which a round is brought to its end."""
PHASES = {"starting": 3, "serving": 10, "writing": 5, "stopping": 5}
"""When the kill comes, and how often."""
SPANS = {"starting": 0.6, "serving": 0.3, "writing": 0.12, "stopping": 0.2}
"""Seconds within which it comes."""
CONFIGURATION = "Format=elf\nDrainTimeoutSec=5\nBusTimeoutSec=30\nMaxTotalSize=256M"


@dataclass
class Figures:
    """What came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    acknowledged: int = 0
    removed: int = 0
    in_vmcore: int = 0
    read_back: int = 0
    unanswered: int = 0
    """Device dumps of calls that were cut off, and that were whole in the spool."""
    longest_cycle: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)

    def lines(self, seed: int, seconds: float) -> list[str]:
        """Return them for people."""
        kills = ", ".join(f"{count} {phase}" for phase, count in sorted(self.kills.items()))
        total = max(self.kills.total(), 1)
        return [
            f"seed {seed}: {self.kills.total()} kills ({kills}) in {self.rounds} rounds, {seconds:.0f} s, "
            f"{seconds / total:.2f} s a kill, longest {self.longest_cycle:.2f} s",
            f"{self.acknowledged} device dumps acknowledged, {self.removed} of them removed again, "
            f"{self.in_vmcore} found in vmcores, {self.read_back} times one read back after a restart",
            f"{self.unanswered} times a complete device dump was found whose caller got no answer",
            "0 lost, 0 altered, 0 partial files under final names",
            "answers: " + ", ".join(f"{count} {answer}" for answer, count in sorted(self.answers.items())),
        ]


class Round:
    """One directory, and the daemons that come and go there."""

    def __init__(
        self, address: str, directory: Path, source: Path, chance: random.Random, figures: Figures
    ) -> None:
        self.kills = 0
        self._service = Service(address, source, directory, CONFIGURATION, dev_mode=False)
        self._source = source
        self._chance = chance
        self._figures = figures
        self._ledger = Ledger(answers=figures.answers)
        self._working = False
        self._written: set[str] = set()

    async def run(self, kills: int, deadline: float) -> None:
        """Kill up to *kills* times, and end with a vmcore. Raises Lost."""
        async with AsyncExitStack() as stack:
            stack.callback(self._service.__exit__)
            connections = []
            for _ in range(CLIENTS + 1):
                connections.append(await Connection.open(self._service.address, 10))
                stack.push_async_callback(connections[-1].close)
            self._bus, *others = connections
            self._clients = [
                Client(bus, chr(ord("a") + number), self._ledger, self._chance.getrandbits(32))
                for number, bus in enumerate(others)
            ]
            stopped = False
            while not stopped:
                last = self.kills >= kills or time.monotonic() > deadline
                started = time.monotonic()
                stopped = await self._cycle("" if last else self._phase())
                self._figures.longest_cycle = max(self._figures.longest_cycle, time.monotonic() - started)
        self._figures.rounds += 1
        self._figures.acknowledged += len(self._ledger.acknowledged)
        self._figures.removed += len(self._ledger.removed)
        self._figures.in_vmcore += len(self._written)
        log = self._service.log()
        if "Traceback" in log or "Set aside" in log:
            raise Lost("the log of the daemon says so")

    def log(self) -> str:
        """Return what the daemons have logged."""
        return self._service.log()

    def _phase(self) -> str:
        return self._chance.choices(list(PHASES), list(PHASES.values()))[0]

    async def _cycle(self, phase: str) -> bool:
        """Start, work, and kill in *phase*; without one, let it stop. Return whether it has stopped by itself."""
        self._service.start(wait=False)
        self._working = True
        tasks = [asyncio.create_task(self._load(client)) for client in self._clients]
        try:
            if phase != "starting":
                await self._check_list()
                await asyncio.sleep(self._chance.uniform(0, 0.15))
                if phase == "writing":
                    tasks.append(asyncio.create_task(self._write()))
                elif phase != "serving":
                    self._service.process.send_signal(signal.SIGTERM)
            if phase:
                await asyncio.sleep(self._chance.uniform(0, SPANS[phase]))
                self._service.process.send_signal(signal.SIGKILL)
            status = await asyncio.to_thread(self._service.process.wait, 120)
        finally:
            self._working = False
            await asyncio.gather(*tasks)
        if status not in {0, -signal.SIGKILL} or (status == 0 and phase in {"starting", "serving", "writing"}):
            raise Lost(f"the daemon ended with status {status}")
        if status:
            self._figures.kills[phase] += 1
            self.kills += 1
        self._check_disk(stopped=status == 0)
        return status == 0

    async def _load(self, client: Client) -> None:
        while self._working:
            await client.work()
            await asyncio.sleep(self._chance.uniform(0, 0.02))

    async def _write(self) -> None:
        promised = self._ledger.held - self._written
        try:
            path = Path((await call(self._bus, "WriteVmcore", "a{sv}", [{}])).body[0])
        except CallFailed as error:
            if error.name not in GONE:
                raise Lost(f"WriteVmcore: {error}") from error
            return
        # What was asked to be removed since then need not be in it.
        promised &= self._ledger.held
        if path.name != "vmcore" or (missing := promised - set(disk.check_vmcore(path, self._source))):
            raise Lost(f"{path} lacks {missing}")

    async def _check_list(self) -> None:
        """Wait until the daemon serves; read every device dump that it lists."""
        listed = None
        while listed is None:
            try:
                held, listed = self._ledger.held, (await call(self._bus, "ListDeviceDumps")).body[0]
            except CallFailed as error:
                if error.name not in GONE or self._service.process.poll() is not None:
                    raise Lost(f"the daemon does not start: {error}") from error
                await asyncio.sleep(0.01)
        for path, name, size, state in listed:
            if name not in self._ledger.attempted:
                raise Lost(f"device dump {name} was never added")
            if name in held:
                await self._check_dump(path, name, size, state)
        missing = (held & self._ledger.held) - {name for _, name, _, _ in listed} - self._written
        if missing:
            raise Lost(f"not listed after the restart: {missing}")

    async def _check_dump(self, path: str, name: str, size: int, state: str) -> None:
        data = disk.data_of(name)
        if (size, state) != (len(data), "truncated" if disk.truncated(name) else "complete"):
            raise Lost(f"device dump {name} is listed with {size} bytes, {state}")
        try:
            reply = await self._bus.method_call("org.vmcoredd1", path, "org.vmcoredd1.DeviceDump", "Open")
        except CallFailed as error:
            if name in self._ledger.held:
                raise Lost(f"device dump {name} cannot be opened: {error}") from error
            return
        (fd,) = take_fds(reply)
        try:
            note = disk.note_of(name)
            if os.pread(fd, len(note), 0) != note:
                raise Lost(f"device dump {name} is altered")
        finally:
            os.close(fd)
        self._figures.read_back += 1

    def _check_disk(self, *, stopped: bool) -> None:
        """Judge what lies there, now that no process writes any more."""
        spooled = disk.check_spool(self._service.target)
        self._written = disk.check_vmcores(self._service.target, self._source)
        if missing := self._ledger.held - (self._written if stopped else self._written | spooled):
            raise Lost(f"neither in the spool nor in a vmcore: {missing}")
        if back := (spooled & self._ledger.removed) | ((self._written | spooled) - self._ledger.attempted):
            raise Lost(f"in the spool again, or never added: {back}")
        self._figures.unanswered += len(spooled - self._ledger.acknowledged)


async def campaign(directory: Path, kills: int, seed: int, seconds: float = float("inf")) -> Figures:
    """Kill the daemon *kills* times, or for *seconds*; raise Lost, with the log, when a promise is broken."""
    source = disk.write_source(directory / "source")
    chance, figures, deadline = random.Random(seed), Figures(), time.monotonic() + seconds
    with private_bus(directory) as address:
        while figures.kills.total() < kills and time.monotonic() < deadline:
            place = directory / "round"
            place.mkdir()
            one = Round(address, place, source, chance, figures)
            try:
                await one.run(min(chance.randint(4, MOST_IN_ROUND), kills - figures.kills.total()), deadline)
            except Lost as error:
                raise Lost(f"seed {seed}, after {figures.kills.total()} kills: {error}\n{one.log()}") from error
            shutil.rmtree(place)
            if sys.stderr.isatty():
                print(f"\r{figures.kills.total()} kills", end="", file=sys.stderr, flush=True)
    return figures


def main() -> None:
    """Run, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vmcoredd-", dir="/var/tmp") as directory:
        try:
            figures = run_coroutine(campaign(Path(directory), options.kills, options.seed))
        except Lost as error:
            sys.exit(str(error))
    print("\n".join(figures.lines(options.seed, time.monotonic() - started)))


if __name__ == "__main__":
    main()
