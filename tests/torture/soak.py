# SPDX-License-Identifier: LGPL-2.1-or-later
"""A soak of mixed load: ``python -m tests.torture.soak [SECONDS]``, 20 minutes by default.

Device dumps by callback, from pipes, sockets, files and memfds, by registered collectors and by the command
line; removals, lists, failed calls, vmcores, collectors that change, fail and hang. The daemon's memory is
sampled, and its slope after a tenth of the time is stated, with descriptors, threads, tasks, and what was logged.
"""

import asyncio
import itertools
import os
import re
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.lib.bus import private_bus
from tests.lib.caller import NAME, PATH, PROPERTIES, add, add_bytes, call, options
from tests.lib.loops import run_coroutine
from tests.lib.sample import small_source
from tests.torture.watching import Usage, WatchedService
from vmcoredd_daemon.bus import Connection, take_fds
from vmcoredd_daemon.errors import Busy, CallFailed, CollectorFailed

SAMPLE = 2.0
"""Seconds."""
PATIENCE = 60.0
"""Seconds that each part of the load has to end."""
KIB_A_MINUTE_ALLOWED = 100
"""Of anonymous memory, in a run of twenty minutes; in a short one it has not grown to its size."""

COLLECTORS = {
    "good": "Exec=echo %n\nName=by-collector",
    "fails": "Exec=sh -c 'exit 3'\nName=fails",
    "hangs": "Exec=sleep 60\nName=hangs\nTimeoutSec=200ms",
    "floods": "Exec=yes\nName=floods\nSize=100K",
    "broken": "Exec=",
}
EXPECTED = re.compile(
    r"(Collecting failed: (device dump (fails|hangs|nobody|gone)|broken.conf: Exec= is missing"
    r"|device dump callback-\d+: collector |a vmcore is being written)"
    r"|Device dump (floods|truncated) truncated to "
    r"|No vmcore-dmesg.txt: makedumpfile failed .*log_buf)"
)
"""Warnings that the load brings about on purpose, and that of a source that holds no kernel log."""


@dataclass(slots=True)
class Soak:
    """One run."""

    service: WatchedService
    directory: Path
    done: Counter[str] = field(default_factory=Counter)
    """How often each part of the load ran."""
    samples: list[tuple[float, Usage]] = field(default_factory=list)
    """Seconds since the start, and what the daemon took."""

    async def run(self, seconds: float) -> None:
        """Run all parts of the load until the time is over. Raises whatever goes wrong."""
        bus = await Connection.open(self.service.address, 30)
        until = time.monotonic() + seconds
        parts = [self._callback, self._pipe, self._files, self._refused, self._look, self._collectors]
        parts += [self._write, self._command_line, self._leave]
        running: set[str] = {part.__name__ for part in parts}
        try:
            async with asyncio.timeout(seconds + PATIENCE), asyncio.TaskGroup() as group:
                for part in parts:
                    task = group.create_task(self._again(part, bus, until), name=part.__name__)
                    task.add_done_callback(lambda done: done.cancelled() or running.discard(done.get_name()))
                group.create_task(self._sample(until))
            for path, *_ in (await call(bus, "ListDeviceDumps")).body[0]:
                await remove(bus, path)
        except TimeoutError as error:
            raise RuntimeError(f"what does not end: {running}") from error
        finally:
            await bus.close()

    async def _again(
        self, part: Callable[[Connection, int], Awaitable[None]], bus: Connection, until: float
    ) -> None:
        for number in itertools.count():
            if time.monotonic() > until:
                return
            # While a vmcore is written, everything is refused.
            with suppress(CallFailed):
                await part(bus, number)
                self.done[part.__name__.strip("_")] += 1
            await asyncio.sleep(0.05)

    async def _callback(self, bus: Connection, number: int) -> None:
        async def fill(name: str, buffer: int, offset: int, size: int) -> int:
            if number % 10 == 9:
                raise CollectorFailed("on purpose")
            return os.pwrite(buffer, b"x" * size, offset)

        path = await add(bus, f"callback-{number}", 50_000, fill, timeout=10)
        await remove(bus, path)

    async def _pipe(self, bus: Connection, number: int) -> None:
        size = 1000 if number % 5 else 300_000
        path = await add_bytes(
            bus, "truncated" if number % 7 == 0 else "pipe", b"y" * size, size - (number % 7 == 0)
        )
        await remove(bus, path)

    async def _files(self, bus: Connection, number: int) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"socket")
            theirs.shutdown(socket.SHUT_WR)
            file = self.directory / "registers"
            file.write_bytes(b"file" * 1000)
            memfd = os.memfd_create("registers")
            os.write(memfd, b"memfd")
            os.lseek(memfd, 0, os.SEEK_SET)
            fds = [ours.fileno(), os.open(file, os.O_RDONLY), memfd]
            try:
                for kind, fd in zip(("socket", "file", "memfd"), fds, strict=True):
                    answer = await call(bus, "AddDeviceDumpFd", "suha{sv}", [kind, 10_000, 0, {}], [fd])
                    await remove(bus, answer.body[0])
            finally:
                for fd in fds[1:]:
                    os.close(fd)

    async def _refused(self, bus: Connection, number: int) -> None:
        wrong: Sequence[tuple[str, str, list[object]]] = (
            ("AddDeviceDump", "suoa{sv}", ["", 10, "/x", {}]),
            ("AddDeviceDump", "suoa{sv}", ["nobody", 10, "/nobody", options(timeout=1)]),
            ("AddDeviceDump", "suoa{sv}", ["large", 0xFFFFFFFF, "/x", {}]),
            ("RemoveDeviceDump", "o", ["/nothing"]),
            ("RunCollectors", "asa{sv}", [["unknown"], {}]),
            ("Nothing", "", []),
        )
        for member, signature, body in wrong:
            with suppress(CallFailed):
                await call(bus, member, signature, body)

    async def _look(self, bus: Connection, number: int) -> None:
        listed = (await call(bus, "ListDeviceDumps")).body[0]
        await call(bus, "GetManagedObjects", interface="org.freedesktop.DBus.ObjectManager")
        await bus.method_call(NAME, PATH, PROPERTIES, "GetAll", "s", ["org.vmcoredd1.Manager"])
        for path, _, _, state in listed:
            if state == "complete":
                with suppress(CallFailed):
                    for fd in take_fds(await bus.method_call(NAME, path, "org.vmcoredd1.DeviceDump", "Open")):
                        os.close(fd)

    async def _collectors(self, bus: Connection, number: int) -> None:
        configured = self.service.target.parent / "collectors.d"
        for name, lines in COLLECTORS.items():
            (configured / f"{name}.conf").write_text(f"[Collector]\n{lines}\n# {number}\n")
        names = sorted(COLLECTORS)[: 1 + number % len(COLLECTORS)]
        for path in (await call(bus, "RunCollectors", "asa{sv}", [names, {}])).body[0]:
            await remove(bus, path)

    async def _write(self, bus: Connection, number: int) -> None:
        await asyncio.sleep(10)
        await call(bus, "WriteVmcore", "a{sv}", [{}])

    async def _command_line(self, bus: Connection, number: int) -> None:
        program = [sys.executable, "-m", "vmcoredd_daemon.cli", "--bus-address", self.service.address or ""]
        for arguments in (
            ["add", "by-hand", "/proc/self/status", "--size", "9999"],
            ["list"],
            ["remove", "by-hand"],
        ):
            process = await asyncio.create_subprocess_exec(*program, *arguments, stdout=-3, stderr=-3)
            await process.wait()
        await asyncio.sleep(2)

    async def _leave(self, bus: Connection, number: int) -> None:
        own = await Connection.open(self.service.address, 30)
        reading, writing = os.pipe()
        body = ["gone", 100, 0, options(timeout=0.1)]
        answer = asyncio.create_task(call(own, "AddDeviceDumpFd", "suha{sv}", body, [reading]))
        await asyncio.sleep(0.01 * (number % 3))
        answer.cancel()
        # It may have been refused before.
        await asyncio.gather(answer, return_exceptions=True)
        await own.close()
        os.close(reading)
        os.close(writing)

    async def _sample(self, until: float) -> None:
        started = time.monotonic()
        while time.monotonic() < until:
            usage = await asyncio.to_thread(self.service.usage)
            self.samples.append((time.monotonic() - started, usage))
            await asyncio.sleep(SAMPLE)

    def slope(self) -> float:
        """Return by how many KiB a minute the anonymous memory grew, after a tenth of the time."""
        late = [(at / 60, usage.anonymous) for at, usage in self.samples[len(self.samples) // 10 :]]
        mean_at = sum(at for at, _ in late) / len(late)
        mean = sum(size for _, size in late) / len(late)
        spread = sum((at - mean_at) ** 2 for at, _ in late)
        return sum((at - mean_at) * (size - mean) for at, size in late) / (spread or 1)


async def remove(bus: Connection, path: object) -> None:
    """Remove a device dump, as soon as no vmcore is written."""
    while True:
        try:
            await call(bus, "RemoveDeviceDump", "o", [path])
            return
        except CallFailed as error:
            if error.name != Busy.dbus_name:
                raise
            await asyncio.sleep(0.1)


def unexplained(log: str) -> list[str]:
    """Return the lines of a log that are no information, and that nothing explains."""
    lines = [line for line in log.split("\n") if line and ": INFO: " not in line]
    return [line for line in lines if not EXPECTED.match(line.partition("WARNING: ")[2])]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    soak: Soak
    before: Usage
    after: Usage
    status: int
    strange: Sequence[str]
    """Lines of the log that nothing explains."""

    @property
    def left(self) -> bool:
        """Whether tasks or descriptors are left of it."""
        return self.after.tasks > self.before.tasks or self.after.fds > self.before.fds

    def __str__(self) -> str:
        samples = self.soak.samples
        lines = [str(dict(self.soak.done))]
        lines += [f"{at:6.0f} s: {usage}" for at, usage in samples[:: max(len(samples) // 12, 1)]]
        lines += [f"before: {self.before}", f"after:  {self.after}"]
        lines += [f"slope: {self.soak.slope():+.1f} KiB of RssAnon a minute"]
        lines += [f"exit status {self.status}; lines of the log that nothing explains: {len(self.strange)}"]
        return "\n".join([*lines, *self.strange[:20]])


def run(directory: Path, seconds: float) -> Outcome:
    """Start a bus and a daemon, and soak them."""
    with private_bus(directory) as address:
        service = WatchedService(address, small_source(directory), directory, "MaxDumps=200", dev_mode=False)
        with service.start():
            soak = Soak(service, directory)
            before = service.usage()
            run_coroutine(soak.run(seconds))
            time.sleep(2)
            after = service.settled(before.tasks, before.fds)
            return Outcome(soak, before, after, service.stop(), unexplained(service.log()))


def main() -> None:
    """Run, and say what came of it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1200
    with tempfile.TemporaryDirectory() as directory:
        outcome = run(Path(directory), seconds)
    print(f"{seconds:.0f} s: {outcome}")
    grown = outcome.soak.slope() > KIB_A_MINUTE_ALLOWED
    sys.exit(bool(outcome.strange) or outcome.left or grown or outcome.status != 0)


if __name__ == "__main__":
    main()
