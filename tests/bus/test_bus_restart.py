# SPDX-License-Identifier: LGPL-2.1-or-later
"""A message bus that ends, begins again at the same address, or hangs, while device dumps are held."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from tests.lib.bus import private_bus
from tests.lib.caller import ERROR, Collector, add, add_bytes, call, fill, hang, names, options
from tests.lib.sample import small_source
from tests.lib.service import Service
from tests.lib.waiting import eventually
from vmcoredd_daemon.bus import Connection
from vmcoredd_daemon.errors import BusUnavailable, CallFailed
from vmcoredd_daemon.vmcore.inspect.inspect import inspect


async def connect(address: str) -> Connection | None:
    """Return a connection to the bus if the service is on it."""
    try:
        bus = await Connection.open(address, 5)
    except BusUnavailable:
        return None
    try:
        await call(bus, "ListDeviceDumps")
    except CallFailed:
        await bus.close()
        return None
    return bus


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Connection]:
    """Connect as soon as the service is on the bus."""
    bus = await eventually(lambda: connect(address))
    try:
        yield bus
    finally:
        await bus.close()


def written(service: Service) -> list[str]:
    """Return the names of the device dumps in the vmcore."""
    with service.vmcore().open("rb") as file:
        return [dump.name for dump in inspect(file.fileno(), "vmcore").device_dumps]


async def test_bus_that_is_started_again(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with ExitStack() as stack:
        with private_bus(tmp_path) as address:
            service = stack.enter_context(Service(address, small_source(tmp_path), tmp_path).start())
            async with connected(address) as bus:
                await add(bus, "before", 100, fill)
                body = ["through", 100, 0, options(timeout=60, wait=False)]
                await call(bus, "AddDeviceDumpFd", "suha{sv}", body, [reading])
                bus.export("/hangs", Collector(hang))
                body = ["called back", 100, "/hangs", options(timeout=60, wait=False)]
                await call(bus, "AddDeviceDump", "suoa{sv}", body)
                fds = service.fd_count()
        await eventually(lambda: "The connection to the message bus was lost" in service.log())
        # What needs no bus goes on without one.
        os.write(writing, b"data")
        os.close(writing)
        await eventually(lambda: "Device dump through added, 4 bytes" in service.log())
        for attempt in range(3):
            with private_bus(tmp_path):
                async with connected(address) as bus:
                    listed = {"before": "complete", "through": "complete", "called back": "failed"}
                    assert await names(bus) == listed | {f"after-{n}": "complete" for n in range(attempt)}
                    await add_bytes(bus, f"after-{attempt}", b"data")
        with private_bus(tmp_path):
            async with connected(address) as bus:
                await names(bus)
                # Three more device dumps, and two descriptors that are not needed any more: pipe and buffer.
                assert service.fd_count() <= fds + 3
        # Each time, and also what comes between.
        await eventually(lambda: service.log().count("The connection to the message bus was lost") == 5)
        assert service.log().count("INFO: Connected to the message bus again") == 4
        assert service.stop() == 0
        assert written(service) == ["before", "through", "after-0", "after-1", "after-2", "vmcoredd_manifest"]
        assert "Traceback" not in service.log()
    os.close(reading)


async def test_bus_that_hangs(bus_address: str, tmp_path: Path) -> None:
    with Service(bus_address, small_source(tmp_path), tmp_path).start() as service:
        async with connected(bus_address) as bus:
            await add(bus, "held", 100, fill)
            found = subprocess.run(
                ["pgrep", "-f", f"config-file={tmp_path}/bus.conf"], capture_output=True, check=True
            )
            pid = int(found.stdout)
            os.kill(pid, signal.SIGSTOP)
            try:
                assert service.stop() == 0
            finally:
                os.kill(pid, signal.SIGCONT)
        assert written(service) == ["held", "vmcoredd_manifest"]


async def test_write_that_outlives_the_bus(tmp_path: Path) -> None:
    """The caller who asked for it gets no answer, and the vmcore is there anyway."""
    with ExitStack() as stack:
        with private_bus(tmp_path) as address:
            service = stack.enter_context(Service(address, small_source(tmp_path), tmp_path).start())
            async with connected(address) as bus:
                await add(bus, "held", 100, fill)
                writing = asyncio.create_task(call(bus, "WriteVmcore", "a{sv}", [{}]))
                await asyncio.sleep(0)
        await asyncio.gather(writing, return_exceptions=True)
        assert service.stop() == 0
        assert written(service)[0] == "held"
        assert ERROR not in service.log()
