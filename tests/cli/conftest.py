# SPDX-License-Identifier: LGPL-2.1-or-later
"""A vmcore with device dumps, small enough to be known by heart."""

from pathlib import Path

import pytest

from tests.lib.elf_writer import Core, device_dump
from tests.lib.vmcore_dumps import DATA, MANIFEST, truncated_manifest
from vmcoredd_daemon.manifest import MANIFEST_NAME


@pytest.fixture
def vmcore(tmp_path: Path) -> Path:
    """A kernel's device dump, one of ours and the manifest."""
    notes = [
        device_dump(b"kernel", b"k"),
        device_dump(b"nic", DATA),
        device_dump(MANIFEST_NAME.encode(), MANIFEST),
    ]
    return Core(b"".join(notes)).write(tmp_path / "vmcore")


@pytest.fixture
def truncated(tmp_path: Path) -> Path:
    """A device dump that is not whole, of memory that is not whole either."""
    notes = device_dump(b"nic", DATA) + device_dump(MANIFEST_NAME.encode(), truncated_manifest().dump())
    return Core(notes).write(tmp_path / "vmcore")


@pytest.fixture
def altered(vmcore: Path) -> Path:
    with vmcore.open("r+b") as file:
        file.seek(vmcore.read_bytes().index(DATA))
        file.write(b"!")
    return vmcore
