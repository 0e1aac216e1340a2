# SPDX-License-Identifier: LGPL-2.1-or-later
"""As many collectors at the same time as crash reads device dumps: what they cost the daemon."""

import asyncio
import fcntl
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.lib.caller import add, call, names, options
from tests.lib.service import Service, mask_built_in, unit_environment
from tests.lib.tools import require
from tests.lib.vmcore_dumps import manifest
from tests.lib.waiting import eventually
from vmcoredd_daemon.bus import Connection

KINDS = {"command": 24, "python": 20, "helper": 20}
SIZE = 1 << 20

MEMORY_GOAL_KB = (40 if sys.version_info < (3, 14) else 42) << 10
"""Of 64 collectors it takes 36 MB with Python 3.11, 37 with 3.13, 40 with 3.14, 41 with 3.15."""
STALL_LIMIT = 0.5
"""Seconds; the goal is a tenth of it, on a machine that does nothing else."""

VENDOR = """
import fcntl

class Many:
    def device_dumps(self):
        for number in range({count}):
            yield f"python{{number}}", {size}

    def collect(self, dump_name, data):
        with open({lock!r}) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
        for _ in range({size} // 4096):
            data.write(dump_name.encode().ljust(4096))
"""


def data(name: str) -> bytes:
    """What the collector of this name has to say."""
    return name.encode().ljust(4096) * (SIZE // 4096)


@pytest.fixture(autouse=True)
def as_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its environment each thread has a heap of its own, and the memory is above the goal now and then."""
    for name, value in unit_environment().items():
        monkeypatch.setenv(name, value)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep all collectors waiting."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Collectors are installed that wait for this file to be unlocked."""
    require("flock")
    lock = tmp_path / "lock"
    package = tmp_path / "packages" / "many-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: many\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[vmcoredd.collectors]\nmany = many_collectors:Many\n")
    vendor = VENDOR.format(count=KINDS["python"], size=SIZE, lock=str(lock))
    (package.parent / "many_collectors.py").write_text(vendor)
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}:{os.getcwd()}")
    directory = tmp_path / "collectors.d"
    mask_built_in(directory)
    for number in range(KINDS["command"]):
        (tmp_path / f"command{number}").write_bytes(data(f"command{number}"))
        text = f"[Collector]\nExec=flock --shared {lock} cat {tmp_path}/%n\nSize={SIZE}\n"
        (directory / f"command{number}.conf").write_text(text)
    return lock


async def test_sixty_four_at_once(
    lock: Path, bus_address: str, bus: Connection, source_vmcore: Path, tmp_path: Path
) -> None:
    async def helper(name: str, buffer: int, offset: int, size: int) -> int:
        await eventually(lambda: not lock_is_held(lock))
        return os.pwrite(buffer, data(name), offset)

    report = tmp_path / "report.json"
    module = ("tests.lib.stall_detector", str(report))
    with Service(
        bus_address, source_vmcore, tmp_path, "RunCollectors=no", dev_mode=False, module=module
    ) as daemon:
        daemon.start()
        with held(lock):
            calls = [asyncio.create_task(add(bus, f"helper{n}", SIZE, helper)) for n in range(KINDS["helper"])]
            await call(bus, "RunCollectors", "asa{sv}", [[], options(wait=False)])
            await eventually(
                lambda: names(bus), lambda found: [*found.values()].count("collecting") == sum(KINDS.values())
            )
        await asyncio.gather(*calls)
        await eventually(lambda: names(bus), lambda found: "collecting" not in found.values())
        assert daemon.stop() == 0
        kept = manifest(daemon.vmcore())
    expected = {f"{kind}{number}" for kind, count in KINDS.items() for number in range(count)}
    assert len(expected) == 64
    assert {dump.name: (dump.state, dump.sha256) for dump in kept.device_dumps} == {
        name: ("complete", hashlib.sha256(data(name)).hexdigest()) for name in expected
    }
    check(report)


async def test_sixty_four_files_at_once(
    bus_address: str, bus: Connection, source_vmcore: Path, tmp_path: Path
) -> None:
    size = 2 << 20
    (tmp_path / "file").write_bytes(b"data" * (size // 4))
    report = tmp_path / "report.json"
    module = ("tests.lib.stall_detector", str(report))
    with (
        Service(
            bus_address, source_vmcore, tmp_path, "MaxCollectingPerCaller=64", dev_mode=False, module=module
        ) as daemon,
        ExitStack() as files,
    ):
        daemon.start()
        opened = [files.enter_context((tmp_path / "file").open("rb")) for _ in range(64)]
        calls = (
            call(bus, "AddDeviceDumpFd", "suha{sv}", [f"file{number}", size, 0, {}], [file.fileno()])
            for number, file in enumerate(opened)
        )
        await asyncio.gather(*calls)
        assert Counter((await names(bus)).values()) == {"complete": 64}
        assert daemon.stop() == 0
    check(report)


def check(report: Path) -> None:
    figures = json.loads(report.read_text())
    print(figures)
    assert figures["wakeups"] > 20
    assert figures["resident"] < MEMORY_GOAL_KB
    assert figures["own_stall"] < STALL_LIMIT


def lock_is_held(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
