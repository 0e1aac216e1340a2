# SPDX-License-Identifier: LGPL-2.1-or-later
"""How much of a long job is done: one thread does it and counts, others show it."""

import time
from dataclasses import dataclass


def how_far(done: int, total: int, seconds: float) -> str:
    """Describe *done* of *total* bytes after *seconds*: ``45%, 540.0M of 1.2G, 120.0M/s, 5s left``.

    A *total* of 0 is not known.
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
    """Return *size* in bytes as systemd shows it (``format_bytes()``), truncated to one decimal."""
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


@dataclass(slots=True)
class Progress:
    """How far one thing after the other is, in bytes. One thread counts; any other may read."""

    what: str = ""
    """A verb and its object, as in ``Writing the vmcore``."""
    total: int = 0
    """0 if it is not known."""
    done: int = 0
    steps: int = 0
    """Grows with every call, even while nothing is copied: as long as it grows, the work does not hang."""
    started: float = 0.0
    """When the first of these bytes was done, in seconds of the monotonic clock."""

    @property
    def text(self) -> str:
        """How far it is, in words."""
        if self.done:
            return f"{self.what}: {how_far(self.done, self.total, time.monotonic() - self.started)}"
        # The source is still being examined: there is no rate yet, and no end.
        return f"{self.what}: 0% of {human_size(self.total)}" if self.total else self.what

    def start(self, what: str, total: int = 0) -> None:
        """Begin to count the *total* bytes of *what*."""
        self.what, self.total, self.done = what, total, 0
        self.steps += 1

    def advance(self, size: int = 0) -> None:
        """Count *size* more bytes; 0 says that the work goes on."""
        self.reach(self.done + size, self.total)

    def reach(self, done: int, total: int) -> None:
        """Set how many bytes are done, of how many."""
        if not self.done:
            self.started = time.monotonic()
        self.done, self.total = done, total
        self.steps += 1
