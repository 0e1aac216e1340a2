# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rows about the service itself: many small calls, its start, its memory."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.measure import Case, Contender, Goal, NotRun, Unavailable, at_least, at_most, more
from tests.bench.rig import TIMEOUT, Daemon, Rig, bus, connected, manager_call, running
from tests.bench.service_start import command, memory, sampled, started
from tests.bench.source import write_source
from tests.bench.storage import disk, settle, tmpfs
from tests.lib.caller import NAME, PATH
from tests.lib.service import mask_built_in
from tests.lib.tools import installed_program

MIB = 1 << 20
CALLS = 1000
IN_FLIGHT = 64
DUMP = 4096


def rate(rig: Rig) -> Iterator[Case | NotRun]:
    """1,000 device dumps of 4 KiB, 64 at a time, against empty calls, and a service with one fsync for each."""
    count = rig.count(CALLS)
    with disk(rig.directory, 64 * MIB) as (kind, directory):
        with ExitStack() as stack:
            try:
                memory_directory = stack.enter_context(tmpfs())
            except Unavailable as error:
                yield NotRun("rate", "tmpfs", str(error))
            else:
                yield from _rate("tmpfs", directory, memory_directory, count, at_least(0.5), Goal())
        yield from _rate(kind, directory, directory, count, Goal(), at_least(3))


def _rate(name: str, directory: Path, spool: Path, count: int, empty: Goal, synced: Goal) -> Iterator[Case]:
    # The daemon's default is what crash reads; here it is the rate that matters.
    limits = f"MaxDumps={count}\nMaxCollectingPerCaller={IN_FLIGHT}\nSpool={spool / 'spool'}"
    kept = spool / "kept"
    kept.mkdir()
    with running(directory, directory / "no-source", limits) as daemon, ExitStack() as stack:
        smallest = stack.enter_context(_serving("minimal_service", "Minimal"))
        fsyncing = stack.enter_context(_serving("fsyncing", "Fsyncing", kept))
        ours = Contender("AddDeviceDumpFd", lambda: _add_many(daemon, spool, count))
        peers = [
            (Contender("empty calls", lambda: smallest(count)), empty),
            (Contender("one fsync each", lambda: fsyncing(count)), synced),
        ]
        yield Case("rate", name, "calls/s", ours, peers)


@contextmanager
def _serving(module: str, name: str, *arguments: Path) -> Iterator[Callable[[int], float]]:
    """Run a simple service; yields what returns how many calls it answers in a second."""
    with (
        bus() as address,
        started(address, command(module, address, *arguments)),
        connected(address) as (runner, connection),
    ):
        interface = f"org.vmcoredd1.{name}"

        async def nothing(number: int) -> None:
            await connection.method_call(NAME, PATH, interface, "Nothing")

        async def keep(number: int) -> None:
            with _small_dump(number) as fd:
                body = [f"file{number}", DUMP, 0]
                await connection.method_call(NAME, PATH, interface, "Keep", "suh", body, [fd])

        def run(count: int) -> float:
            for directory in arguments:
                for file in directory.iterdir():
                    file.unlink()
                settle(directory)
            return runner.run(_rate_of(keep if arguments else nothing, count))

        yield run


def _add_many(daemon: Daemon, spool: Path, count: int) -> float:
    paths = []

    async def add(number: int) -> None:
        with _small_dump(number) as fd:
            body = [f"dump{number}", DUMP, 0, {}]
            paths.append(await manager_call(daemon.bus, "AddDeviceDumpFd", "suha{sv}", body, [fd]))

    settle(spool)
    found = daemon.run(_rate_of(add, count))
    for path in paths:
        daemon.remove(path)
    return found


@contextmanager
def _small_dump(number: int) -> Iterator[int]:
    fd = os.memfd_create("dump")
    try:
        os.pwrite(fd, number.to_bytes(4, "little") * (DUMP // 4), 0)
        yield fd
    finally:
        os.close(fd)


async def _rate_of(work: Callable[[int], Awaitable[None]], count: int) -> float:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    begun = time.perf_counter()
    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - begun)


def start(rig: Rig) -> Iterator[Case | NotRun]:
    """From exec to the name being owned, against the smallest service."""
    with bus() as address:
        ours, smallest = _daemon_command(rig, address), command("minimal_service", address)
        # Python writes its byte code once.
        for first in (ours, smallest):
            _start_time(address, first)
        peer = Contender("smallest service", lambda: _start_time(address, smallest))
        own = Contender("vmcoredd-daemon", lambda: _start_time(address, ours))
        yield Case("start", "exec to name owned", "s", own, [(peer, at_most(1.3))])


def _daemon_command(rig: Rig, address: str) -> list[str]:
    target = rig.directory / "target"
    target.mkdir(exist_ok=True)
    configuration = rig.directory / "vmcoredd.conf"
    configuration.write_text("[Vmcoredd]\n")
    mask_built_in(rig.directory / "collectors.d")
    files = ["--config", str(configuration), "--source", str(rig.sample), "--target", str(target)]
    # As the unit starts it.
    return [str(installed_program("vmcoredd-daemon")), *files, "--bus-address", address]


def _start_time(address: str, service: list[str]) -> float:
    with started(address, service) as (_, seconds):
        return seconds


def idle(rig: Rig) -> Iterator[Case | NotRun]:
    """Memory of the service that waits, and of the smallest one."""
    with bus() as address:
        ours, smallest = _daemon_command(rig, address), command("minimal_service", address)
        for name in ("Rss", "Pss"):

            def figure(service: list[str], name: str = name) -> float:
                return _idle_memory(address, service, name, rig.idle)

            own = Contender("vmcoredd-daemon", lambda figure=figure: figure(ours))
            peer = Contender("smallest service", lambda figure=figure: figure(smallest))
            yield Case("idle", name, "MiB", own, [(peer, more(8))])


def _idle_memory(address: str, service: list[str], name: str, seconds: float) -> float:
    with started(address, service) as (process, _):
        time.sleep(seconds)
        return memory(process.pid, name)


def peak(rig: Rig) -> Iterator[Case | NotRun]:
    """The most memory that 2 GiB in 64 device dumps cost, collected and written, over the smallest service."""
    # 2,016 MiB in all: crash reads no more than 2 GiB of notes.
    each = rig.size(63 * MIB // 2, 65536)
    with disk(rig.directory, 64 * each * 2 + 512 * MIB) as (_, directory):
        source = write_source(directory / "source", rig.sample, 96 * MIB)
        data = directory / "data"
        data.write_bytes((os.urandom(MIB) * (each // MIB + 1))[:each])
        for name, resting in {"VmHWM": "Rss", "RssAnon": "RssAnon", "Pss": "Pss"}.items():

            def ours(name: str = name) -> float:
                return _peak(directory, source, data, name)

            def theirs(resting: str = resting) -> float:
                with bus() as address:
                    return _idle_memory(address, command("minimal_service", address), resting, rig.idle)

            peer = (Contender("smallest service, idle", theirs), more(20))
            yield Case("peak", name, "MiB", Contender("vmcoredd-daemon", ours), [peer])


def _peak(directory: Path, source: Path, data: Path, name: str) -> float:
    """Return the most of *name*; what the kernel does not keep itself is sampled."""
    with (
        running(directory, source, "Format=elf\nMaxDumpSize=64M\nMaxTotalSize=2047M") as daemon,
        data.open("rb") as file,
    ):
        process = daemon.service.process.pid
        with sampled(lambda: memory(process, name)) as seen:
            for _ in range(64):
                daemon.add(data.stat().st_size, file.fileno())
                file.seek(0)
            daemon.write()
            seen.append(memory(process, name))
    return max(seen)
