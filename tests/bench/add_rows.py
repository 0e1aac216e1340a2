# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rows about device dumps on their way into the spool: large ones, by descriptor and by callback."""

import asyncio
import mmap
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.measure import Case, Contender, NotRun, at_most
from tests.bench.rig import Daemon, Rig, manager_call, running, timed_command
from tests.bench.storage import disk, settle
from tests.lib.caller import Collector, options

GIB = 1 << 30
PIECE = 1 << 20
CONFIGURATION = "MaxDumpSize=1536M\nMaxTotalSize=1536M\nCollectorTimeoutSec=1800"


def descriptor(rig: Rig) -> Iterator[Case | NotRun]:
    """AddDeviceDumpFd of 1 GiB from a file, a memfd and a pipe, against cat and sync -d."""
    size = rig.size(GIB)
    with disk(rig.directory, 3 * size) as (kind, directory):
        data = directory / "data"
        _write_data(data, size)
        with running(directory, rig.sample, CONFIGURATION) as daemon:
            for name, opened in {"file": _file, "memfd": _memfd, "pipe": _pipe}.items():

                def ours(opened: Callable[[Path], Iterator[int]] = opened) -> float:
                    settle(directory)
                    with contextmanager(opened)(data) as fd:
                        started = time.perf_counter()
                        path = daemon.add(size, fd)
                        seconds = time.perf_counter() - started
                    daemon.remove(path)
                    return seconds

                def theirs(opened: Callable[[Path], Iterator[int]] = opened) -> float:
                    with contextmanager(opened)(data) as fd:
                        return timed_command(directory / "copy", 'cat > "$1"', fd=fd)

                peer = (Contender("cat; sync -d", theirs), at_most(1.1))
                yield Case("descriptor", f"{name}, {kind}", "s", Contender("AddDeviceDumpFd", ours), [peer])


def _write_data(path: Path, size: int) -> None:
    piece = os.urandom(PIECE)
    with path.open("wb") as file:
        for done in range(0, size, PIECE):
            file.write(piece[: size - done])


def _file(data: Path) -> Iterator[int]:
    with data.open("rb") as file:
        yield file.fileno()


def _memfd(data: Path) -> Iterator[int]:
    fd = os.memfd_create("data")
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            subprocess.run(["cat", str(data)], check=True, stdout=file)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _pipe(data: Path) -> Iterator[int]:
    # The one that writes waits from the beginning, when the pipe is full.
    with subprocess.Popen(["cat", str(data)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        yield writer.stdout.fileno()


Fill = Callable[[int, int, int], None]
"""Writes so many bytes into a file at an offset."""


def callback(rig: Rig) -> Iterator[Case | NotRun]:
    """AddDeviceDump of 1 GiB, the helper writing or mapping, against the helper's own file and fsync."""
    size = rig.size(GIB)
    with (
        disk(rig.directory, 2 * size) as (kind, directory),
        running(directory, rig.sample, CONFIGURATION) as daemon,
    ):
        for name, fill in {"pwrite": _pwrite, "mmap": _map}.items():

            def ours(fill: Fill = fill) -> float:
                settle(directory)
                return _call_back(daemon, size, fill)

            def theirs(fill: Fill = fill) -> float:
                return _own_file(directory / "own", size, fill)

            peer = (Contender("own file, fsync", theirs), at_most(1.1))
            yield Case("callback", f"{name}, {kind}", "s", Contender("AddDeviceDump", ours), [peer])


def _pwrite(fd: int, offset: int, size: int) -> None:
    piece = b"registers\0" * (PIECE // 10)
    end = offset + size
    while offset < end:
        offset += os.pwrite(fd, piece[: end - offset], offset)


def _map(fd: int, offset: int, size: int) -> None:
    piece = b"registers\0" * (PIECE // 10)
    with mmap.mmap(fd, offset + size) as memory:
        for at in range(offset, offset + size, len(piece)):
            part = piece[: offset + size - at]
            memory[at : at + len(part)] = part


def _own_file(path: Path, size: int, fill: Fill) -> float:
    path.unlink(missing_ok=True)
    settle(path.parent)
    started = time.perf_counter()
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(fd, size)
        fill(fd, 0, size)
        os.fsync(fd)
    finally:
        os.close(fd)
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def _call_back(daemon: Daemon, size: int, fill: Fill) -> float:
    async def behaviour(dump_name: str, buffer: int, offset: int, room: int) -> int:
        fd = os.dup(buffer)
        try:
            await asyncio.to_thread(fill, fd, offset, room)
        finally:
            os.close(fd)
        return room

    async def add() -> tuple[str, float]:
        daemon.bus.export("/collector", Collector(behaviour))
        try:
            body = [daemon.new_name(), size, "/collector", options(timeout=1800)]
            started = time.perf_counter()
            path = await manager_call(daemon.bus, "AddDeviceDump", "suoa{sv}", body)
            return path, time.perf_counter() - started
        finally:
            daemon.bus.unexport("/collector")

    path, seconds = daemon.run(add())
    daemon.remove(path)
    return seconds
