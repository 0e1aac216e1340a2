# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all rows share: sizes, the daemon, and a caller that is connected before the clock runs."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.bench.storage import settle
from tests.lib.bus import private_bus
from tests.lib.caller import MANAGER, NAME, PATH
from tests.lib.elf_writer import PAGE
from tests.lib.loops import runner_of_its_own
from tests.lib.sample import unpack
from tests.lib.service import Service
from vmcoredd_daemon.bus import Connection

_T = TypeVar("_T")

TIMEOUT = 1800.0
"""Seconds for one call; a bench that hangs is none."""


FALLBACKS = ("The vmcore is compressed by makedumpfile", "The vmcore is written in ELF format")
"""What the daemon logs when it writes another format than it was told."""
SEGFAULT = 128 + signal.SIGSEGV
ATTEMPTS = 10
"""makedumpfile 1.7.2 falls over its own mappings now and then; that run does not count."""


@dataclass(frozen=True, slots=True)
class Rig:
    """One run of the bench."""

    directory: Path
    scale: float
    rounds: int
    """What measures in a machine of its own does all of them there."""
    empty_cache: Callable[[Path], None]

    def size(self, size: int, smallest: int = 1 << 20) -> int:
        """Return *size* bytes at the scale of this run, in whole pages."""
        return max(int(size * self.scale), smallest) // PAGE * PAGE

    def count(self, count: int, smallest: int = 8) -> int:
        """Return a number at the scale of this run."""
        return max(int(count * self.scale), smallest)

    def some(self, names: Iterable[str]) -> list[str]:
        """Return *names*; where it only matters whether all works, two of them."""
        return list(names) if self.scale >= 1 else list(names)[:2]

    @property
    def idle(self) -> float:
        """Seconds after which a service that has started is idle."""
        return min(self.scale, 1.0)

    @property
    def sample(self) -> Path:
        """The repository's vmcore, unpacked."""
        path = self.directory / "sample"
        return path if path.exists() else unpack(path)


@dataclass(slots=True)
class Daemon:
    """A running daemon, and a connection to its bus."""

    service: Service
    bus: Connection
    runner: asyncio.Runner
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1 << 30)))

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run something on the loop of the connection."""
        return self.runner.run(work)

    def call(self, member: str, signature: str = "", body: Sequence[Any] = (), fds: Sequence[int] = ()) -> Any:
        """Call the manager; return the first of what it answers."""
        return self.run(manager_call(self.bus, member, signature, body, fds))

    def new_name(self) -> str:
        """Return a name that no device dump has."""
        return f"bench{next(self._numbers)}"

    def add(self, size: int, fd: int) -> str:
        """Add a device dump from a descriptor; return its object path."""
        return str(self.call("AddDeviceDumpFd", "suha{sv}", [self.new_name(), size, 0, {}], [fd]))

    def remove(self, path: str) -> None:
        """Remove a device dump."""
        self.call("RemoveDeviceDump", "o", [path])

    def write(self) -> float:
        """Return the seconds that WriteVmcore takes; the vmcore is not kept."""
        settle(self.service.target)
        started = time.perf_counter()
        path = Path(self.call("WriteVmcore", "a{sv}", [{}]))
        seconds = time.perf_counter() - started
        log = self.service.log()
        if path.name != "vmcore" or any(text in log for text in FALLBACKS):
            raise RuntimeError(f"{path} is not a whole vmcore as it was asked for:\n{log[-2000:]}")
        path.unlink()
        return seconds


async def manager_call(
    bus: Connection, member: str, signature: str, body: Sequence[Any], fds: Sequence[int] = ()
) -> Any:
    """Call the manager; return the first of what it answers, or None."""
    async with asyncio.timeout(TIMEOUT):
        reply = await bus.method_call(NAME, PATH, MANAGER, member, signature, body, fds)
    return reply.body[0] if reply.body else None


@contextmanager
def connected(address: str) -> Iterator[tuple[asyncio.Runner, Connection]]:
    """Yield a loop and a connection on it."""
    with runner_of_its_own() as runner:
        bus = runner.run(Connection.open(address, 10))
        try:
            yield runner, bus
        finally:
            runner.run(bus.close())


@contextmanager
def bus(**limits: int) -> Iterator[str]:
    """Yield the address of a message bus; its socket's name is short, wherever the bench runs."""
    with (
        tempfile.TemporaryDirectory(prefix="bench") as directory,
        private_bus(Path(directory), **limits) as address,
    ):
        yield address


@contextmanager
def running(directory: Path, source: Path, configuration: str = "") -> Iterator[Daemon]:
    """Run the daemon with a target in *directory*, as a user would: without development mode."""
    with ExitStack() as stack:
        address = stack.enter_context(bus())
        service = Service(address, source, directory, configuration, dev_mode=False)
        # With its spool: the next one would take the device dumps back.
        stack.callback(shutil.rmtree, service.target)
        stack.enter_context(service).start()
        runner, connection = stack.enter_context(connected(address))
        yield Daemon(service, connection, runner)


def timed_command(target: Path, command: str, *arguments: str | os.PathLike[str], fd: int | None = None) -> float:
    """Return the seconds that *command* takes in a shell, with *target* on disk at the end.

    *target* is $1, removed before and after; *arguments* are $2 and so on; *fd* is its standard input.
    """
    for _ in range(ATTEMPTS):
        target.unlink(missing_ok=True)
        settle(target.parent)
        shell = ["sh", "-e", "-c", f'{command}\nsync -d "$1"', "sh", str(target), *map(str, arguments)]
        stdin = subprocess.DEVNULL if fd is None else fd
        started = time.perf_counter()
        run = subprocess.run(shell, check=False, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        seconds = time.perf_counter() - started
        if run.returncode != SEGFAULT:
            break
    if run.returncode:
        message = run.stderr.decode(errors="replace")[-500:]
        raise RuntimeError(f"{command}: status {run.returncode}: {message}")
    target.unlink()
    return seconds
