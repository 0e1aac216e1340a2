# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service with a /proc/vmcore of which only a part can be read, by its headers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.caller import add, fill
from tests.lib.external_tools import crash_names, loads, osrelease, readelf
from tests.lib.fuse import Source, fuse_source
from tests.lib.service import Service
from tests.lib.tools import require
from tests.lib.unreachable import FILE_SIZE, MEMORY, READABLE, RELEASE, unreachable_source
from tests.lib.vmcore_dumps import manifest
from vmcoredd_daemon.bus import Connection
from vmcoredd_daemon.manifest import MANIFEST_NAME


@pytest.fixture(params=[False, True], ids=["nothing", "what lies before"])
def readable(request: pytest.FixtureRequest) -> bool:
    """Whether some of the memory can be read."""
    return bool(request.param)


@pytest.fixture
def source(tmp_path: Path, readable: bool) -> Iterator[Source]:
    with fuse_source(unreachable_source(tmp_path / "original", readable=readable), tmp_path / "fuse") as source:
        source.size, source.end = FILE_SIZE, (tmp_path / "original").stat().st_size
        yield source


@pytest.mark.parametrize("configuration", ["", "Format=elf", "Format=kdump"])
async def test_what_can_be_read_is_kept(
    bus_address: str, bus: Connection, source: Source, readable: bool, tmp_path: Path, configuration: str
) -> None:
    require("makedumpfile", "crash", "readelf")
    with Service(bus_address, source.path, tmp_path, configuration) as daemon:
        daemon.start()
        await add(bus, "one", 5000, fill)
        assert daemon.stop() == 1
    vmcore = daemon.vmcore("vmcore-incomplete")
    assert os.listdir(vmcore.parent) == ["vmcore-incomplete"] or "vmcore" not in os.listdir(vmcore.parent)
    assert crash_names(vmcore) == ["one", MANIFEST_NAME]
    assert osrelease(vmcore) == RELEASE
    assert [owner for owner, _ in readelf(vmcore)] == ["LINUX", "LINUX", "CORE", "VMCOREINFO"]
    expected = [(0x1000, len(READABLE))] if readable else []
    expected += [(paddr, 0) for paddr, _ in MEMORY]
    assert [(paddr, size) for paddr, _, _, size in loads(vmcore)] == expected
    if readable:
        assert READABLE in vmcore.read_bytes()
    said = manifest(vmcore).source
    lost, count = (3, 4) if readable else (3, 3)
    problem = f"beyond what a file can hold: {lost} of {count} PT_LOADs cannot be read"
    assert problem in said.error
    assert said.missing_bytes == sum(size for _, size in MEMORY)
    assert problem in daemon.log()
    assert "KALLSYMS_ALL" in daemon.log()
    assert "Traceback" not in daemon.log()
    # What the vmcore lacks may be found elsewhere, and the device dumps with it.
    assert list(daemon.target.rglob("*.note"))
