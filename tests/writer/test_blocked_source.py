# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service with a source that does not answer: a vmcore with the device dumps, and an end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lib import external_tools as judges
from tests.lib.caller import add, call, fill
from tests.lib.fuse import Source, fuse_source
from tests.lib.service import STOP_TIMEOUT, Service
from tests.lib.tools import require
from tests.lib.vmcore_dumps import manifest
from tests.lib.waiting import wait_until
from vmcoredd_daemon.bus import Connection
from vmcoredd_daemon.vmcore.elf import read_headers
from vmcoredd_daemon.vmcore.image import file_image

MIB = 1 << 20


@pytest.fixture
def source(source_vmcore: Path, tmp_path: Path) -> Iterator[Source]:
    with fuse_source(source_vmcore, tmp_path / "fuse") as source:
        yield source


@contextmanager
def started(address: str, source: Source, directory: Path, configuration: str = "") -> Iterator[Service]:
    service = Service(address, source.path, directory, configuration, module=("tests.lib.short_timeouts",))
    with service:
        yield service.start()
    assert "Traceback" not in service.log()
    assert "Warning" not in service.log()


def stop(service: Service, source: Source) -> int:
    """Stop the service, and let what hangs go when it has nothing more to say; return its exit status."""
    service.process.send_signal(signal.SIGTERM)
    wait_until(service.log, lambda log: "Stopped" in log, timeout=STOP_TIMEOUT)
    # A thread in D state keeps the process, whatever it does: that is the kernel's, not ours.
    source.answer_late(b"")
    return service.process.wait(STOP_TIMEOUT)


def memory(source: Source) -> int:
    """Return where the source has its first memory."""
    headers = read_headers(file_image(source.fd, "FILE"))
    return min(load.p_offset for load in headers.loads if load.p_filesz)


async def test_source_that_does_not_answer_at_all(
    bus_address: str, bus: Connection, source: Source, tmp_path: Path
) -> None:
    source.read = lambda offset, size: None
    with started(bus_address, source, tmp_path) as daemon:
        await add(bus, "one", 5000, fill)
        assert stop(daemon, source) == 1
    vmcore = daemon.vmcore("vmcore-device-dumps")
    assert [dump.name for dump in manifest(vmcore).device_dumps] == ["one"]
    reason = f"{source.path}: cannot read the headers: did not return within 1.5 s"
    assert manifest(vmcore).source.error == reason
    assert f"ERROR: {reason}" in daemon.log()
    assert "No vmcore-dmesg.txt: makedumpfile made no progress for 1 s" in daemon.log()
    # Nothing that was acknowledged leaves the spool before a whole vmcore has it.
    assert list(daemon.target.rglob("*.note"))


async def test_source_that_cannot_be_opened(
    bus_address: str, bus: Connection, source: Source, tmp_path: Path
) -> None:
    source.open = lambda: False
    with started(bus_address, source, tmp_path) as daemon:
        await add(bus, "one", 5000, fill)
        assert stop(daemon, source) == 1
    vmcore = daemon.vmcore("vmcore-device-dumps")
    assert manifest(vmcore).source.error == f"{source.path}: cannot open the source: did not return within 1.5 s"


@pytest.mark.parametrize("configuration", ["", "Format=elf", "Format=kdump"])
async def test_page_that_blocks(
    bus_address: str, bus: Connection, source: Source, tmp_path: Path, configuration: str
) -> None:
    require("makedumpfile", "crash")
    number = memory(source) // 4096 + 1000
    source.block_pages(number)
    with started(bus_address, source, tmp_path, configuration) as daemon:
        await add(bus, "one", 5000, fill)
        status = stop(daemon, source)
    # It is what was asked for, but for a page.
    assert status == (1 if configuration == "Format=kdump" else 0)
    vmcore = daemon.vmcore()
    assert judges.crash(vmcore)[0].name == "one"
    assert manifest(vmcore).source.unreadable_pages == 1
    assert "2 reads did not return in time and were abandoned" in daemon.log()
    assert ("makedumpfile made no progress" in manifest(vmcore).source.fallback) == (configuration != "Format=elf")


async def test_source_that_ceases_to_answer(
    bus_address: str, bus: Connection, source: Source, tmp_path: Path
) -> None:
    start = memory(source) + 2 * MIB
    source.read = lambda offset, size: 0 if offset + size <= start else None
    with started(bus_address, source, tmp_path) as daemon:
        await add(bus, "one", 5000, fill)
        assert stop(daemon, source) == 1
    vmcore = daemon.vmcore("vmcore-incomplete")
    assert [dump.name for dump in manifest(vmcore).device_dumps] == ["one"]
    assert manifest(vmcore).source.missing_bytes > 0
    assert manifest(vmcore).source.error.startswith("the source stopped responding: ")


async def test_service_goes_on_after_a_write_that_was_given_up(
    bus_address: str, bus: Connection, source: Source, tmp_path: Path
) -> None:
    source.read = lambda offset, size: None
    with started(bus_address, source, tmp_path, "Format=elf") as daemon:
        await add(bus, "one", 5000, fill)
        path = (await call(bus, "WriteVmcore", "a{sv}", [{}])).body[0]
        assert path.endswith("/vmcore-device-dumps")
        await add(bus, "two", 5000, fill)
        # It answers again, and then it is all there.
        source.read = lambda offset, size: 0
        source.answer_late(b"")
        assert stop(daemon, source) == 0
    assert [dump.name for dump in manifest(daemon.vmcore()).device_dumps] == ["one", "two"]
    assert judges.same_memory(daemon.vmcore(), source.path)
