# SPDX-License-Identifier: LGPL-2.1-or-later
"""The collector: it fills the buffer of one device dump.

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
    """Whether the source had more than the buffer holds, or the collector was cut off."""
    error: VmcoreddError | None = None
    """Why it is truncated, unless just because its source had more."""


class Collector(Protocol):
    """Collects one device dump."""

    @property
    def description(self) -> str:
        """Who this is, for journal and manifest: one line of printable text, which :meth:`collect` may change."""

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        """Write at most ``buffer.size`` bytes. Raises CollectorFailed.

        It is cancelled when its deadline has passed or the service stops. What it returns then, instead of raising
        CancelledError, is kept.
        """

    def close(self) -> None:
        """Release what is held; called once, even if :meth:`collect` was never called."""
