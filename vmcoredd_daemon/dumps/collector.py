# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who collects: whatever fills the buffer of one device dump.

The counterpart of ``vmcoredd_callback`` in ``struct vmcoredd_data``, Linux ``include/linux/crash_dump.h``.
"""

from dataclasses import dataclass
from typing import Protocol

from ..errors import VmcoreddError
from .buffer import Buffer


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collector says it did."""

    size: int
    """Bytes written from the start of the buffer."""
    truncated: bool = False
    """There was more than the buffer holds, or the collector was cut off."""
    error: VmcoreddError | None = None
    """Why it is truncated, where there is more to say than that its source has more."""


def one_line(text: str) -> str:
    """Return the beginning of *text* on one line, fit for the journal and a terminal."""
    return text[:200].encode("unicode_escape").decode("ascii")


class Collector(Protocol):
    """Collects one device dump."""

    @property
    def description(self) -> str:
        """Who this is, for the journal and the manifest: one line of printable text."""

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        """Write at most ``buffer.size`` bytes; raise CollectorFailed when that cannot be done.

        Is cancelled when its deadline has passed or the service stops; if it returns something then, instead of
        raising CancelledError, that is kept.
        """

    def close(self) -> None:
        """Give up whatever is held; called once, also when :meth:`collect` was never called."""
