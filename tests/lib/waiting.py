# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waits for a condition, in coroutines and in blocking code."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

from vmcoredd_daemon.errors import Busy

TIMEOUT = 30.0
"""Seconds."""
INTERVAL = 0.01
"""Seconds between two calls."""

Until = Callable[[Any], object]
"""Tells whether a value is the one that the test waits for."""


async def eventually(
    look: Callable[[], Any], until: Until = bool, *, timeout: float = TIMEOUT, interval: float = INTERVAL
) -> Any:
    """Call *look*, a function or a coroutine function, until *until* accepts its result; return that.

    Raises AssertionError, which shows the last result, after *timeout* seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if inspect.isawaitable(found):
            found = await found
        if until(found):
            return found
        assert time.monotonic() < deadline, f"after {timeout} s still {found!r}"
        await asyncio.sleep(interval)


def wait_until(look: Callable[[], Any], until: Until = bool, *, timeout: float = TIMEOUT) -> Any:
    """Do as :func:`eventually`, in blocking code."""
    deadline = time.monotonic() + timeout
    while not until(found := look()):
        assert time.monotonic() < deadline, f"after {timeout} s still {found!r}"
        time.sleep(INTERVAL)
    return found


def is_busy(check: Callable[[], object]) -> bool:
    """Return whether *check*, which counts threads that hang, raises Busy."""
    try:
        check()
    except Busy:
        return True
    return False
