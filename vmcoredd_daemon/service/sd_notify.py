# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service tells the service manager, with sd_notify(3)."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

from systemd import daemon

from ..progress import Progress
from ..writer.writer import VmcoreWriter

log = logging.getLogger(__name__)

_T = TypeVar("_T")

EXTEND_TIMEOUT = 30.0
"""Seconds by which the start or stop timeout is extended, every second while the work goes on."""

STALL_TIMEOUT = 300.0
"""Seconds without progress after which it is not extended; a slow disk may need that long for one fsync(2)."""

STATUS_INTERVAL = 1.0
"""Seconds between two status lines."""


def notify(state: str) -> None:
    """Tell the service manager; if that fails, the vmcore is written anyway."""
    try:
        daemon.notify(state)
    except OSError as error:
        _warn(error.strerror or str(error))


@cache
def _warn(reason: str) -> None:
    # Only once: there is a notification every second.
    log.warning("Cannot notify the service manager: %s", reason)


def ready(status: str) -> None:
    """Say that callers can come, and what they can expect."""
    notify(f"READY=1\nSTATUS={status}")


def stopping() -> None:
    """Say that the service stops, and first waits for collectors."""
    notify("STOPPING=1")
    notify("STATUS=Waiting for collectors")


async def follow(writer: VmcoreWriter, status: str) -> None:
    """Tell, until cancelled, how far a vmcore is that a caller asked for, and after that *status* again."""
    was_writing = False
    while True:
        if writer.writing:
            notify(f"STATUS={writer.progress.text}")
        elif was_writing:
            notify(f"STATUS={status}")
        was_writing = writer.writing
        await asyncio.sleep(STATUS_INTERVAL)


async def extended(work: Coroutine[Any, Any, _T], progress: Progress | None = None) -> _T:
    """Await *work*, and ask the service manager for more time as long as there is *progress*.

    Without *progress*, *work* has a deadline of its own, and is given all the time that it takes.
    """
    task = asyncio.create_task(work)
    seen, since = -1, time.monotonic()
    while True:
        if progress is None or progress.steps != seen:
            seen, since = progress.steps if progress else 0, time.monotonic()
        if progress is not None and progress.text:
            notify(f"STATUS={progress.text}")
        if time.monotonic() - since < STALL_TIMEOUT:
            notify(f"EXTEND_TIMEOUT_USEC={int(EXTEND_TIMEOUT * 1e6)}")
        done, _ = await asyncio.wait([task], timeout=STATUS_INTERVAL)
        if done:
            return task.result()
