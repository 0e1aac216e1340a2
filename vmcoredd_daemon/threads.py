# SPDX-License-Identifier: LGPL-2.1-or-later
"""Threads for calls that may never return.

A read from somebody else's file, a pipe that another process drains, a device in D state: such a call cannot be
stopped. In asyncio's executor it would take a place from the spool and the writer, and the process would wait for
it at its end.
"""

import _thread
import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def run_alone(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> "asyncio.Future[_T]":
    """Run *function* in a thread of its own, that nobody waits for when the process ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: Exception | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = function(*args, **kwargs)
        except Exception as caught:
            error = caught
        # Too late for a loop that is closed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    # Thread.start() would wait until the thread runs: with many that begin at once, for a tenth of a second.
    _thread.start_new_thread(work, ())
    return future
