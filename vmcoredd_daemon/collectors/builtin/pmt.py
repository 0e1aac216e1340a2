# SPDX-License-Identifier: LGPL-2.1-or-later
"""Intel PMT: crash logs that processors and other devices keep in their own memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .files import copy


class Pmt:
    """One device dump for each, ``crashlog1``: the bytes of ``/sys/class/intel_pmt/crashlog1/crashlog``.

    The hardware fills it on a fatal error, or when triggered, and keeps it across a warm reset (Linux
    ``Documentation/ABI/testing/sysfs-class-intel_pmt``). Some kB to some MB; how to decode it depends on its
    GUID, see ``crashlog1/guid`` on the machine. Needs the module pmt_crashlog.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._directory = root / "sys/class/intel_pmt"

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        """Return one for each crash log."""
        for path in sorted(self._directory.glob("crashlog*/crashlog")):
            if size := path.stat().st_size:
                yield path.parent.name, size

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        """Write one; raise OSError if it cannot be read."""
        copy(self._directory / dump_name / "crashlog", data)
