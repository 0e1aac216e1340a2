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
from tests.lib.waiting import eventually
from vmcoredd_daemon.bus import Connection
from vmcoredd_daemon.errors import CallFailed
from vmcoredd_daemon.manifest import MANIFEST_NAME


@pytest.fixture
def service(bus_address: str, source_vmcore: Path, tmp_path: Path) -> Iterator[Service]:
    module = ("tests.lib.short_timeouts",)
    with Service(bus_address, source_vmcore, tmp_path, "", module=module) as service:
        yield service.start()


@pytest.fixture
def writes(service: Service, tmp_path: Path) -> Iterator[HangingWrites]:
    """Ends before the service: no process ends with a thread in the kernel."""
    with hanging_writes(tmp_path / "mounted") as writes:
        yield writes


async def test_when_it_has_answered(service: Service, bus: Connection, writes: HangingWrites) -> None:
    async def still_writes(name: str, buffer: int, offset: int, size: int) -> int:
        await asyncio.to_thread(writes.begin, buffer, offset)
        return size

    adding = asyncio.create_task(add(bus, "hangs", 5000, still_writes))
    await eventually(lambda: names(bus), lambda found: "hangs" in found)
    # Others are made durable meanwhile.
    await add(bus, "nic", 100, fill)
    await add_bytes(bus, "registers", b"registers")
    with pytest.raises(CallFailed, match="device dump hangs: its collector still writes to it") as caught:
        await adding
    assert caught.value.name == f"{ERROR}.TimedOut"
    await add_bytes(bus, "log", b"log")
    service.process.send_signal(signal.SIGTERM)
    await eventually(lambda: "Stopped" in service.log())
    writes.end()
    assert await asyncio.to_thread(service.process.wait, 30) == 0
    assert judges.crash_names(service.vmcore()) == ["nic", "registers", "log", MANIFEST_NAME]


async def test_when_it_was_added(service: Service, bus: Connection, writes: HangingWrites) -> None:
    kept = []

    async def keeps(name: str, buffer: int, offset: int, size: int) -> int:
        kept.append(os.dup(buffer))
        os.pwrite(buffer, b"data", offset)
        return 4

    path = await add(bus, "kept", 5000, keeps)
    await asyncio.to_thread(writes.begin, kept[0], 4096)
    with pytest.raises(CallFailed, match="cannot remove device dumps from the spool: not done within 1 s"):
        await call(bus, "RemoveDeviceDump", "o", [path])
    await add(bus, "nic", 100, fill)
    await add_bytes(bus, "registers", b"registers")
    assert set(await names(bus)) == {"kept", "nic", "registers"}
    service.process.send_signal(signal.SIGTERM)
    await eventually(lambda: "Stopped" in service.log())
    writes.end()
    os.close(kept[0])
    assert await asyncio.to_thread(service.process.wait, 30) == 1
    # The spool still has them, and says so.
    assert service.log().count("Cannot remove device dumps from the spool: not done within 1 s") == 2
    assert judges.crash_names(service.vmcore()) == ["kept", "nic", "registers", MANIFEST_NAME]
