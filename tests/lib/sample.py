# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real vmcore that the repository ships."""

import lzma
import shutil
from pathlib import Path

from tests.lib.paths import DATA_DIRECTORY

SAMPLE = DATA_DIRECTORY / "vmcore-6.1-x86_64.elf.xz"


def unpack(destination: Path) -> Path:
    """Write the vmcore at *destination*, and return that."""
    with lzma.open(SAMPLE) as packed, destination.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
    return destination
