# SPDX-License-Identifier: LGPL-2.1-or-later
"""How much of something long is done: counted by who does it, shown by terminals, the console and sd_notify."""

import time
from collections.abc import Callable
from dataclasses import dataclass


def how_far(done: int, total: int, seconds: float) -> str:
    """Return how far *done* of *total* bytes are after *seconds*: ``45%, 540.0M of 1.2G, 120.0M/s, 5s left``.

    A *total* of 0: nobody knows.
    """
    rate = int(done / seconds) if seconds > 0 else 0
    parts = [f"{human_size(done)}", f"{human_size(rate)}/s"]
    if total:
        parts[0] += f" of {human_size(total)}"
        parts.insert(0, f"{min(100, 100 * done // total)}%")
        if rate:
            parts.append(f"{_duration(max(0, total - done) // rate)} left")
    return ", ".join(parts)


def human_size(size: int) -> str:
    """Return *size* in bytes as systemd shows it (``format_bytes()``), cut off behind one decimal."""
    if size < 1024:
        return f"{size}B"
    units = iter("KMGTPE")
    unit = next(units)
    while size >= 1 << 20 and unit != "E":
        size, unit = size >> 10, next(units)
    return f"{size >> 10}.{size % 1024 * 10 >> 10}{unit}"


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes}min"
    return f"{minutes}min {seconds}s" if minutes else f"{seconds}s"


Step = Callable[[str, int, int], None]
"""``step(what, total, size)``: of *what*, a verb and its object, *size* more bytes of *total* are done."""


def ignore_steps(what: str, total: int, size: int) -> None:
    """Show nothing."""


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
