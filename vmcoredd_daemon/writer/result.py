# SPDX-License-Identifier: LGPL-2.1-or-later
"""What came of writing a vmcore, and the names of its files."""

from dataclasses import dataclass
from pathlib import Path

from ..text import counted

VMCORE = "vmcore"
WRITING = "Writing the vmcore"
"""What the progress of a write is shown as."""
DEVICE_DUMPS_ONLY = "vmcore-device-dumps"
"""Name of a file that has device dumps and no memory, so that it is not taken for the vmcore."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """A vmcore that is on disk."""

    path: Path
    size: int
    device_dumps: int
    """How many are ours, without the manifest."""
    error: str = ""
    """What it lacks."""
    fallback: str = ""
    """Which format it has instead of the configured one, or of the best one, and why."""

    @property
    def summary(self) -> str:
        """The result in one line."""
        count = counted(self.device_dumps, "device dump")
        if self.error:
            return f"{self.path} written with {count}, but incomplete: {self.error}"
        return f"{self.path} written with {count}, {self.size} bytes"
