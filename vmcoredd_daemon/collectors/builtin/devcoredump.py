# SPDX-License-Identifier: LGPL-2.1-or-later
"""devcoredump: what drivers have saved of devices that failed."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .files import copy

SIZE = 16 << 20
"""Bytes of one at most; sysfs does not tell its size. Only the start of a longer one is kept."""


class Devcoredump:
    """One device dump for each, ``devcd1_0000:01:00.0``: the bytes of ``/sys/class/devcoredump/devcd1/data``.

    The format is the driver's (Linux ``drivers/base/devcoredump.c``). They come from drivers that failed in the
    capture kernel: those of the crashed kernel are in its memory. The kernel drops one after five minutes; reading
    does not remove it.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._directory = root / "sys/class/devcoredump"

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        """Return one for each that exists now."""
        for name in self._found():
            yield name, SIZE

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        """Write one; raise OSError if it is gone."""
        copy(self._directory / dump_name.partition("_")[0] / "data", data)

    def _found(self) -> list[str]:
        return sorted(
            f"{path.parent.name}_{(path.parent / 'failing_device').resolve().name}"[:43]
            for path in self._directory.glob("devcd*/data")
        )
