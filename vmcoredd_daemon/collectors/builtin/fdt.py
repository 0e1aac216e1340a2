# SPDX-License-Identifier: LGPL-2.1-or-later
"""The devicetree that describes this machine to the kernel: arm64, powerpc, riscv and others."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .files import copy


class Fdt:
    """One device dump, ``fdt``: ``/sys/firmware/fdt`` as it is, for ``dtc -I dtb``.

    Linux ``Documentation/ABI/testing/sysfs-firmware-ofw``. kexec gives the capture kernel the devicetree of the
    crashed one, with another ``/chosen``. Some kB to 2 MB; on a machine with ACPI only a stub.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._fdt = root / "sys/firmware/fdt"

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        """Return the one, if the firmware has a devicetree."""
        if self._fdt.exists():
            yield "fdt", self._fdt.stat().st_size

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        """Write it; raise OSError if it cannot be read."""
        copy(self._fdt, data)
