# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far a vmcore is, and what comes of it; for those who only want to know."""

from dataclasses import dataclass
from pathlib import Path

VMCORE = "vmcore"
WRITING = "Writing the vmcore"
"""What progress is of."""
DEVICE_DUMPS_ONLY = "vmcore-device-dumps"
"""Name of the file that holds device dumps and no memory, so that nobody takes it for the vmcore."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """A vmcore that is on disk."""

    path: Path
    size: int
    device_dumps: int
    """Those of ours, without the manifest."""
    error: str = ""
    """What is not in it."""
    fallback: str = ""
    """Why it is of another format than was asked for."""

    @property
    def summary(self) -> str:
        """What there is, in one line."""
        count = f"{self.device_dumps} device dump{'' if self.device_dumps == 1 else 's'}"
        if self.error:
            return f"{self.path} written with {count}, but incomplete: {self.error}"
        return f"{self.path} written with {count}, {self.size} bytes"
