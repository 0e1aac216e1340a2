# SPDX-License-Identifier: LGPL-2.1-or-later
"""Threads for calls that may never return.

A read from somebody else's file, a pipe that another process drains, a device in D state: such a call cannot be
stopped. In asyncio's executor it would take a place from the spool and the writer, and the process would wait for
it at its end.
"""

import _thread
import asyncio
import errno
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from ..errors import Busy, VmcoreddError

_P = ParamSpec("_P")
_T = TypeVar("_T")

EXECUTOR_THREADS = 8
"""For calls that end: of the spool. The writer has its own."""

POLL = 0.2
"""Seconds that a thread waits for data. One that nobody needs any more ends by then."""


class Loop(asyncio.SelectorEventLoop):
    """An event loop that ends without one more thread."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Leave it to the interpreter to wait for the executor's threads, at its end.

        asyncio starts a thread that waits for them: where it has no memory to begin with, that takes for ever.
        """

    def remove_signal_handler(self, sig: int) -> bool:
        """Ignore *sig* from here on, as :meth:`close` asks for each that the loop has listened to.

        Its default action would end the process, with another exit status, while the journal is saved.
        """
        signal.set_wakeup_fd(-1)
        signal.signal(sig, signal.SIG_IGN)
        return True


def started_executor(threads: int = EXECUTOR_THREADS) -> ThreadPoolExecutor:
    """Return an executor whose *threads* run already. Blocks. Raises VmcoreddError when there can be none.

    One that cannot start a thread says so, keeps the call in its queue, and makes it when another thread has time:
    by then its descriptors are closed, and their numbers those of other files.
    """
    executor = ThreadPoolExecutor(threads)
    running = threading.Barrier(threads)
    try:
        for _ in range(threads):
            executor.submit(running.wait)
    except RuntimeError as error:
        running.abort()
        executor.shutdown(wait=False)
        raise VmcoreddError(f"no thread can be started: {error}") from error
    return executor


def run_in_own_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> "asyncio.Future[_T]":
    """Run *function* in a thread of its own, that nobody waits for when the process ends.

    Raises OSError when no thread can be started.
    """
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

    try:
        # threading.Thread waits until the thread runs: a tenth of a second with many that begin at once, and for
        # ever where it has no memory to begin with.
        _thread.start_new_thread(work, ())
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, "no thread can be started") from error
    return future


Run = Callable[[Callable[[], _T]], "asyncio.Future[_T]"]
"""Has a call made by a thread. Raises OSError when there is none."""


def run_with_duplicate(
    function: Callable[[int], _T], fd: int, run: Run[_T] = run_in_own_thread
) -> "asyncio.Future[_T]":
    """Have *function* called by a thread, with a descriptor for itself, closed at its end.

    When the thread's turn comes, *fd* may be closed, and its number be another's. Raises OSError.
    """
    duplicate = os.dup(fd)

    def work() -> _T:
        try:
            return function(duplicate)
        finally:
            # What was read is read, whatever a file system says at the end.
            with suppress(OSError):
                os.close(duplicate)

    try:
        return run(work)
    except OSError:
        os.close(duplicate)
        raise


class AbandonedThreads:
    """Threads that no caller waits for any more, and that still run."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: set[asyncio.Future[Any]] = set()

    def add(self, running: "asyncio.Future[Any]") -> None:
        """Count a thread until what it does is done."""
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    def check(self) -> None:
        """Raise Busy when there are too many: each has a stack, and descriptors."""
        if len(self._running) >= self._limit:
            raise Busy(f"{len(self._running)} threads hang")


def ignore_result(future: "asyncio.Future[Any]") -> None:
    """Keep asyncio from logging, with a traceback, what *future* fails with, because no caller asks for it."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())


def abandon(running: "asyncio.Future[Any]", threads: AbandonedThreads | None) -> None:
    """Wait for a thread no longer: it cannot be stopped, and is counted among *threads* until it ends."""
    ignore_result(running)
    if threads is not None:
        threads.add(running)


async def wait_for(
    running: "asyncio.Future[_T]", seconds: float | None = None, abandoned: AbandonedThreads | None = None
) -> _T:
    """Return what comes of a thread. After *seconds*, or cancelled, abandon it: it goes on alone.

    Raises TimeoutError then, and what is raised in the thread.
    """
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.shield(running)
    finally:
        # Once the wait is cancelled, shield() drops the error of what it shields (since Python 3.8).
        ignore_result(running)
        if abandoned is not None and not running.done():
            abandoned.add(running)
