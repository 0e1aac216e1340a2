# SPDX-License-Identifier: LGPL-2.1-or-later
"""A campaign of hostile callers: ``python -m tests.torture.hostile [MESSAGES [SEED]]``.

Callers of every kind of hostile_caller.py together, each a process, and one that behaves: it adds a device dump,
finds it in the list, reads it back, and removes it, again and again. Its worst latency is reported, and what the
daemon took of its machine before and after. Device dumps that hostile callers leave are removed, as an operator
would do: while the list is full, no caller is served.
"""

import asyncio
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.lib.bus import private_bus
from tests.lib.caller import NAME, add_bytes, call
from tests.lib.loops import run_coroutine
from tests.lib.sample import small_source
from tests.torture.hostile_caller import KINDS_OF_CALLERS
from tests.torture.watching import Usage, WatchedService
from vmcoredd_daemon.bus import Connection, take_fds
from vmcoredd_daemon.errors import CallFailed

EXPLAINED = re.compile(
    r"vmcoredd-daemon\[\d+\]: (INFO|WARNING): (Taking device dumps|Device dump [ -~]{1,43} (added|removed|trunc)|"
    r"Collecting failed: device dump |Collecting failed: collector |Collector |Stopped|/.* written with )[ -~]*"
)
"""Lines that may be in the log: what became of device dumps, in printable ASCII."""

_T = TypeVar("_T")

PORTIONS = 10
"""After each of these parts of all messages, what the daemon takes is looked at."""
KIB_ALLOWED = 4096
"""How much more anonymous memory it may have afterwards: Python's and glibc's arenas have gaps, of which there are
more after some ten thousand messages than after the first. Forty bytes that each message left would be more."""
RETRY = 0.01
"""Seconds."""
SWEEP = 0.1
"""Seconds between two looks for device dumps that hostile callers have left."""


@dataclass(slots=True)
class Outcome:
    """What came of a campaign."""

    messages: int = 0
    samples: list[Usage] = field(default_factory=list)
    """Before, and after each portion."""
    latencies: list[float] = field(default_factory=list)
    """Seconds, of each call of the caller that behaves."""
    refused: int = 0
    """Attempts that found no room, in the queue of the bus or in the list; it tries again, and that takes time."""
    unexplained: list[str] = field(default_factory=list)
    """Lines of the log that should not be there."""

    @property
    def left(self) -> bool:
        """Whether descriptors, tasks or memory are left of it."""
        before, after = self.samples[0], self.samples[-1]
        grown = after.anonymous > before.anonymous + KIB_ALLOWED
        return grown or after.fds > before.fds or after.tasks > before.tasks

    def __str__(self) -> str:
        latencies = sorted(self.latencies)
        middle, late, worst = (
            1e3 * latencies[min(int(len(latencies) * part), len(latencies) - 1)] for part in (0.5, 0.99, 1)
        )
        before, *between, after = self.samples
        return (
            f"{self.messages} hostile messages\nbefore: {before}\nafter:  {after}\n"
            f"RssAnon in between: {', '.join(str(usage.anonymous) for usage in between)} KiB\n"
            f"a caller that behaves: {len(latencies)} calls served, {self.refused} times again for want of room; "
            f"latency {middle:.1f} ms in the middle, {late:.0f} ms for one in a hundred, {worst:.0f} ms at worst\n"
            f"lines of the log that nothing explains: {len(self.unexplained)}"
        )


async def campaign(service: WatchedService, messages: int, seed: int) -> Outcome:
    """Let them loose on a running daemon. Raises whatever goes wrong."""
    address, outcome = service.address or "", Outcome()
    # By then modules are loaded, threads started, and buffers grown.
    await _callers(address, messages // PORTIONS, seed, Outcome())
    await _clean(address)
    outcome.samples.append(service.settled(*_idle(service)))
    for number in range(1, PORTIONS + 1):
        await _callers(address, messages // PORTIONS, seed + number, outcome)
        await _clean(address)
        outcome.samples.append(service.settled(outcome.samples[0].tasks, outcome.samples[0].fds))
    outcome.unexplained = [line for line in service.log().split("\n")[:-1] if not EXPLAINED.fullmatch(line)]
    return outcome


def _idle(service: WatchedService) -> tuple[int, int]:
    # What just began: the connections have ended, their calls may not have.
    time.sleep(1)
    usage = service.usage()
    return usage.tasks, usage.fds


async def _callers(address: str, messages: int, seed: int, outcome: Outcome) -> None:
    processes = []
    for number, (kind, (_, share)) in enumerate(KINDS_OF_CALLERS.items()):
        command = [sys.executable, "-m", "tests.torture.hostile_caller", kind, str(max(int(messages * share), 1))]
        command += [str(seed * 100 + number), address]
        processes.append(await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE))
    ends = asyncio.gather(*(process.communicate() for process in processes))
    sweeping = asyncio.create_task(_sweep(address))
    try:
        number = 0
        while not ends.done():
            await _behave(address, number, outcome)
            number += 1
        for process, (output, _) in zip(processes, await ends, strict=True):
            if process.returncode != 0:
                raise RuntimeError(f"a hostile caller failed with {process.returncode}")
            outcome.messages += int(output)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
        sweeping.cancel()
        await asyncio.gather(ends, sweeping, return_exceptions=True)


async def _sweep(address: str) -> None:
    """Remove what hostile callers leave, until cancelled."""
    bus = await Connection.open(address, 30)
    try:
        while True:
            with suppress(CallFailed):
                for path, name, _, state in (await call(bus, "ListDeviceDumps")).body[0]:
                    if state != "collecting" and not name.startswith("behaved"):
                        await call(bus, "RemoveDeviceDump", "o", [path])
            await asyncio.sleep(SWEEP)
    finally:
        await bus.close()


async def _behave(address: str, number: int, outcome: Outcome) -> None:
    """Do what a caller should, and see that it is served."""
    data, name = random.Random(number).randbytes(5000), f"behaved-{number}"
    bus = await Connection.open(address, 30)
    try:
        path = await _timed(outcome, lambda: add_bytes(bus, name, data, timeout=20))
        listed = (await _timed(outcome, lambda: call(bus, "ListDeviceDumps"))).body[0]
        assert [path, name, len(data), "complete"] in listed
        opened = await _timed(outcome, lambda: bus.method_call(NAME, path, "org.vmcoredd1.DeviceDump", "Open"))
        (fd,) = take_fds(opened)
        assert os.pread(fd, len(data), 64) == data
        os.close(fd)
        await _timed(outcome, lambda: call(bus, "RemoveDeviceDump", "o", [path]))
    finally:
        await bus.close()


async def _timed(outcome: Outcome, work: Callable[[], Awaitable[_T]]) -> _T:
    """Do something until there is room for it; a bus keeps 64 descriptors for one receiver, of all callers."""
    started = time.monotonic()
    while True:
        try:
            result = await work()
        except CallFailed as error:
            if not error.name.endswith((".LimitsExceeded", ".QuotaExceeded")):
                raise
            outcome.refused += 1
            await asyncio.sleep(RETRY)
        else:
            outcome.latencies.append(time.monotonic() - started)
            return result


async def _clean(address: str) -> None:
    """Remove all device dumps, those that failed, too; wait for those that are unfinished."""
    bus = await Connection.open(address, 30)
    try:
        async with asyncio.timeout(60):
            while listed := (await call(bus, "ListDeviceDumps")).body[0]:
                for path, _, _, state in listed:
                    if state != "collecting":
                        await call(bus, "RemoveDeviceDump", "o", [path])
                await asyncio.sleep(0.01)
    finally:
        await bus.close()


def run(directory: Path, messages: int, seed: int) -> Outcome:
    """Start a bus and a daemon, and let the campaign begin."""
    # Another user must reach the bus.
    directory.chmod(0o711)
    with (
        private_bus(directory) as address,
        WatchedService(address, small_source(directory), directory, dev_mode=False).start() as service,
    ):
        outcome = run_coroutine(campaign(service, messages, seed))
        if service.stop() != 0:
            raise RuntimeError(f"the daemon has written no whole vmcore:\n{service.log()[-2000:]}")
    return outcome


def main() -> None:
    """Run, and say what came of it."""
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        started = time.monotonic()
        outcome = run(Path(directory), messages, seed)
    print(outcome, f"{time.monotonic() - started:.0f} s", *outcome.unexplained[:20], sep="\n")
    sys.exit(bool(outcome.unexplained) or outcome.left)


if __name__ == "__main__":
    main()
