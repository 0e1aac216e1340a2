# SPDX-License-Identifier: LGPL-2.1-or-later
"""A collector that keeps its buffer, and hangs in a write to it, holds the lock of that file."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib import external_tools as judges
from tests.lib.caller import ERROR, add, add_bytes, call, fill, names
from tests.lib.hanging_write import HangingWrites, hanging_writes
from tests.lib.service import Service
from tests.lib.vmcore_dumps import manifest
from tests.lib.waiting import eventually
from vmcoredd_daemon.bus import Connection
from vmcoredd_daemon.errors import CallFailed
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.threads.loop import EXECUTOR_THREADS


@pytest.fixture
def service(bus_address: str, source_vmcore: Path, tmp_path: Path) -> Iterator[Service]:
    module = ("tests.lib.impatient",)
    with Service(bus_address, source_vmcore, tmp_path, module=module) as service:
        yield service.start()


@pytest.fixture
def writes(service: Service, tmp_path: Path) -> Iterator[HangingWrites]:
    """Ends before the service: no process ends with a thread in the kernel."""
    with hanging_writes(tmp_path / "mounted") as writes:
        yield writes


async def stopped(service: Service, writes: HangingWrites) -> int:
    """Stop the service, which says that it has, and let it end; return its exit status."""
    service.process.send_signal(signal.SIGTERM)
    await eventually(lambda: "Stopped" in service.log(), timeout=60)
    writes.end()
    return await asyncio.to_thread(service.process.wait, 30)


async def others_are_added(bus: Connection) -> None:
    async with asyncio.timeout(3):
        await add(bus, "nic", 100, fill)
        await add_bytes(bus, "registers", b"registers")


OTHERS = ["nic", "registers", MANIFEST_NAME]


async def test_before_it_has_answered(service: Service, bus: Connection, writes: HangingWrites) -> None:
    """As many as the executor has threads, which commit device dumps."""

    async def hangs(name: str, buffer: int, offset: int, size: int) -> int:
        await asyncio.to_thread(writes.begin, buffer, offset)
        return await asyncio.Future()

    hanging = [f"hangs{number}" for number in range(EXECUTOR_THREADS)]
    adding = [add(bus, name, 5000, hangs, timeout=2) for name in hanging]
    answers = await asyncio.gather(*adding, return_exceptions=True)
    assert {getattr(answer, "name", "") for answer in answers} == {f"{ERROR}.TimedOut"}
    await others_are_added(bus)
    assert await stopped(service, writes) == 0
    vmcore = service.vmcore()
    assert judges.crash_names(vmcore) == OTHERS
    assert sorted(failure.name for failure in manifest(vmcore).failures) == hanging


async def test_when_it_has_answered(service: Service, bus: Connection, writes: HangingWrites) -> None:
    begun = asyncio.Event()

    async def still_writes(name: str, buffer: int, offset: int, size: int) -> int:
        await asyncio.to_thread(writes.begin, buffer, offset)
        begun.set()
        return size

    adding = asyncio.create_task(add(bus, "hangs", 5000, still_writes))
    await begun.wait()
    await others_are_added(bus)
    with pytest.raises(CallFailed, match="device dump hangs: its collector still writes to it") as caught:
        await adding
    assert caught.value.name == f"{ERROR}.TimedOut"
    await add_bytes(bus, "log", b"log")
    assert await stopped(service, writes) == 0
    assert judges.crash_names(service.vmcore()) == [*OTHERS[:2], "log", MANIFEST_NAME]


async def test_when_it_was_added(service: Service, bus: Connection, writes: HangingWrites) -> None:
    kept = []

    async def keeps(name: str, buffer: int, offset: int, size: int) -> int:
        kept.append(os.dup(buffer))
        os.pwrite(buffer, b"data", offset)
        return 4

    path = await add(bus, "kept", 5000, keeps)
    await asyncio.to_thread(writes.begin, kept[0], 4096)
    removing = asyncio.create_task(call(bus, "RemoveDeviceDump", "o", [path]))
    await others_are_added(bus)
    with pytest.raises(CallFailed, match="device dump kept is not removed: a program writes to it") as caught:
        await removing
    assert caught.value.name == f"{ERROR}.WriteFailed"
    assert set(await names(bus)) == {"kept", "nic", "registers"}
    # The spool still has them, and the log says so.
    assert await stopped(service, writes) == 1
    assert "Cannot remove device dumps from the spool: not done within 5 s" in service.log()
    os.close(kept[0])
    assert judges.crash_names(service.vmcore()) == ["kept", *OTHERS]
