# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service tells the service manager, by sd_notify(3)."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any, TypeVar

from systemd import daemon

from ..writer.writer import VmcoreWriter

log = logging.getLogger(__name__)

_T = TypeVar("_T")

EXTEND_TIMEOUT = 30.0
"""Seconds that the service manager is asked for, again and again while the work goes on."""

STALL_TIMEOUT = 300.0
"""Seconds without progress after which it is asked for no more: a slow disk may need them for one fsync."""

STATUS_INTERVAL = 1.0
"""Seconds between two status lines."""

_TAKING = "STATUS=Taking device dumps"


def notify(state: str) -> None:
    """Tell the service manager; where that cannot be, the vmcore is written all the same."""
    try:
        daemon.notify(state)
    except OSError as error:
        _cannot_tell(error.strerror or str(error))


@cache
def _cannot_tell(reason: str) -> None:
    # Once: it is told something every second.
    log.warning("Cannot tell the service manager how far it is: %s", reason)


def ready() -> None:
    """Say that the service takes device dumps."""
    notify(f"READY=1\n{_TAKING}")


def stopping() -> None:
    """Say that the service stops, and first waits for collectors."""
    notify("STOPPING=1")
    notify("STATUS=Waiting for collectors")


def writing(writer: VmcoreWriter) -> None:
    """Say how much of the vmcore is written."""
    notify(f"STATUS={writer.progress.text}")


async def follow(writer: VmcoreWriter) -> None:
    """Say, for ever, how far a vmcore is that somebody has asked for."""
    was_writing = False
    while True:
        if writer.writing:
            writing(writer)
        elif was_writing:
            notify(_TAKING)
        was_writing = writer.writing
        await asyncio.sleep(STATUS_INTERVAL)


async def extended(work: Coroutine[Any, Any, _T], progress: Callable[[], int]) -> _T:
    """Await *work*, while the service manager is asked for more time as long as *progress* changes."""
    task = asyncio.create_task(work)
    seen, since = -1, time.monotonic()
    while True:
        now = progress()
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since < STALL_TIMEOUT:
            notify(f"EXTEND_TIMEOUT_USEC={int(EXTEND_TIMEOUT * 1e6)}")
        done, _ = await asyncio.wait([task], timeout=STATUS_INTERVAL)
        if done:
            return task.result()
