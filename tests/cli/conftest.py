# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small vmcore with known device dumps, and core-collector with one collector and no bus."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lib.core_collector import NOWHERE, OPTIONS, Collect, add_collector
from tests.lib.elf_writer import Core, device_dump
from tests.lib.service import mask_built_in
from tests.lib.shell_program import shell_program
from tests.lib.tools import require
from tests.lib.vmcore_dumps import DATA, MANIFEST, truncated_manifest
from tests.lib.vmcoredd import run
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


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Configuration with one collector."""
    (tmp_path / "etc").mkdir()
    mask_built_in(tmp_path / "etc" / "collectors.d")
    path = tmp_path / "etc" / "vmcoredd.conf"
    path.write_text(f"[Vmcoredd]\nTarget={tmp_path}/target\n")
    add_collector(path, "version", "cat /proc/version")
    return path


@pytest.fixture
def collect(config: Path) -> Collect:
    """Run the program; without a bus unless an address is given."""

    def collect(
        *arguments: object, bus: str | None = NOWHERE, **options: Any
    ) -> "subprocess.CompletedProcess[Any]":
        own = [f"--vmcoredd-config={config}", f"--vmcoredd-bus-address={bus}"]
        return run("core-collector", *own, *arguments, **options)

    return collect


@pytest.fixture(scope="module")
def plain(source_vmcore: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makedumpfile alone makes of the sample."""
    require("makedumpfile")
    path = tmp_path_factory.mktemp("plain") / "vmcore"
    subprocess.run(["makedumpfile", *OPTIONS, source_vmcore, path], check=True)
    return path


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Make a program of that name of a shell's commands."""

    def program(script: str) -> Path:
        return shell_program(tmp_path / "makedumpfile", script)

    return program
