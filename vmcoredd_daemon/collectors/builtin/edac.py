# SPDX-License-Identifier: LGPL-2.1-or-later
"""EDAC: counts of memory errors, and their place in the machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .files import write_lines

NAMES = (
    "mc/mc*/mc_name",
    "mc/mc*/[cu]e_*count",
    "mc/mc*/*/dimm_[ceulm]*",
    "mc/mc*/*/size",
    "mc/mc*/csrow*/ch*_[cd]*",
    "pci/pci*/*_count",
)


class Edac:
    """One device dump, ``edac``: counters, labels and slots of DIMMs, as ``grep -r`` prints files.

    From ``/sys/devices/system/edac`` (Linux ``Documentation/ABI/testing/sysfs-devices-edac``), some kB. Drivers
    of the capture kernel count from zero; labels tell which DIMM an address in the log belongs to. If the drivers
    are missing in the initramfs, there is nothing.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._directory = root / "sys/devices/system/edac"

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        """Return the one, if a driver has found a memory controller."""
        if files := self._files():
            # Each is a name and a short value.
            yield "edac", len(files) * 512

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        """Write all files; raise OSError at the end if one could not be read."""
        write_lines(self._files(), self._directory, data)

    def _files(self) -> list[Path]:
        return sorted({file for name in NAMES for file in self._directory.glob(name)})
