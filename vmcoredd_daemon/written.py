# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far a vmcore is, and what comes of it; for those who only want to know."""

import time
from dataclasses import dataclass
from pathlib import Path

from .how_far import how_far, human_size

VMCORE = "vmcore"
DEVICE_DUMPS_ONLY = "vmcore-device-dumps"
"""Name of the file that holds device dumps and no memory, so that nobody takes it for the vmcore."""


@dataclass(slots=True)
class Progress:
    """How far the copy is, in bytes."""

    total: int = 0
    done: int = 0
    steps: int = 0
    """Grows with all that is done, also where nothing is copied yet."""
    started: float = 0.0
    """When the first of these bytes was done, on the monotonic clock."""

    @property
    def text(self) -> str:
        """How far it is, in words."""
        if self.done:
            return f"Writing the vmcore: {how_far(self.done, self.total, time.monotonic() - self.started)}"
        # The source is looked at: there is neither a rate yet nor an end.
        return f"Writing the vmcore: 0% of {human_size(self.total)}" if self.total else "Writing the vmcore"

    def start(self, total: int) -> None:
        """Begin to count."""
        self.total, self.done = total, 0
        self.steps += 1

    def advance(self, size: int) -> None:
        """Count *size* more bytes."""
        self.reach(self.done + size)

    def reach(self, done: int) -> None:
        """Count *done* bytes in all."""
        if not self.done:
            self.started = time.monotonic()
        self.done = done
        self.steps += 1


@dataclass(frozen=True, slots=True)
class Written:
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
