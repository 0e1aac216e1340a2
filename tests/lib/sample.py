# SPDX-License-Identifier: LGPL-2.1-or-later
"""Vmcores to read from: the real one that the repository ships, and a small one."""

import lzma
import shutil
from pathlib import Path

from tests.lib.elf_writer import NT_PRSTATUS, Core, Load, note
from tests.lib.paths import DATA_DIRECTORY

SAMPLE = DATA_DIRECTORY / "vmcore-6.1-x86_64.elf.xz"


def unpack(destination: Path, sample: Path = SAMPLE) -> Path:
    """Write the vmcore at *destination*, and return that."""
    with lzma.open(sample) as packed, destination.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
    return destination


def unpack_machine(name: str, destination: Path) -> Path:
    """Write one of the vmcores of other machines, named without its ``.xz``."""
    return unpack(destination, DATA_DIRECTORY / f"{name}.xz")


def small_source(directory: Path) -> Path:
    """Write a vmcore that takes no time to copy."""
    return Core(note(NT_PRSTATUS, b"registers"), (Load(0x1000, b"memory" * 1000),)).write(directory / "source")
