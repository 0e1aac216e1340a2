# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far something long is, in words: for terminals, the console and the service manager."""


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
