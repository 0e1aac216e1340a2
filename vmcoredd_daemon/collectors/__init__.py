# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who collects: whatever fills the buffer of one device dump.

The counterpart of ``vmcoredd_callback`` in ``struct vmcoredd_data``, Linux ``include/linux/crash_dump.h``.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..buffer import Buffer
from ..errors import VmcoreddError
from ..threads import HangingThreads, outlived

_T = TypeVar("_T")


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


def give_up(running: "asyncio.Future[Any]", hanging: HangingThreads | None) -> None:
    """Wait no longer for what runs in a thread, and count that among those *hanging* until it ends."""
    if hanging is not None:
        hanging.add(running)


async def within(seconds: float | None, running: "asyncio.Future[_T]", hanging: HangingThreads | None) -> _T:
    """Return what comes of a thread. After so many seconds, or cancelled, give it up.

    Raises TimeoutError then, and whatever is raised in the thread.
    """
    try:
        async with asyncio.timeout(seconds):
            return await outlived(running)
    finally:
        if not running.done():
            give_up(running, hanging)


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
