# SPDX-License-Identifier: LGPL-2.1-or-later
"""The event loop, and threads that it uses for calls that may never return.

A read from another program's file, a pipe that another process drains, a device in D state: such a call cannot be
stopped. Python has no way to end a thread, a signal that kills one kills the process, and in D state not even that
helps. In asyncio's executor it would take a place from the spool, and the process would wait for it at its end.
"""

import _thread
import asyncio
import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

from ..errors import Busy, VmcoreddError
from ..files import close
from .watched import START_TIMEOUT

_P = ParamSpec("_P")
_T = TypeVar("_T")

EXECUTOR_THREADS = 8
"""For the calls of the spool, which end. The writer has a thread of its own."""

READ_POLL = 0.2
"""Seconds that a thread waits for data. One that was abandoned ends within that time."""


class Loop(asyncio.SelectorEventLoop):
    """An event loop that ends without starting another thread."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Leave it to the interpreter to wait for the executor's threads, at its end.

        asyncio would start a thread that waits for them, and wait for ever if there is no memory for that one.
        """

    def remove_signal_handler(self, sig: int) -> bool:
        """Ignore *sig* from here on; :meth:`close` calls this for each signal that the loop has handled.

        Its default action would end the process, with another exit status, while the journal is saved.
        """
        signal.set_wakeup_fd(-1)
        signal.signal(sig, signal.SIG_IGN)
        return True


def started_executor(threads: int = EXECUTOR_THREADS) -> ThreadPoolExecutor:
    """Return an executor whose *threads* run already. Blocks. Raises VmcoreddError when one cannot be started.

    An executor that starts its threads late, and cannot, raises RuntimeError, but keeps the call in its queue, and
    makes it when another thread has time: by then its descriptors are closed, and their numbers other files'.
    """
    executor = ThreadPoolExecutor(threads)
    running = threading.Barrier(threads)
    try:
        for _ in range(threads):
            executor.submit(running.wait)
    except RuntimeError as error:
        running.abort()
        executor.shutdown(wait=False)
        raise VmcoreddError(f"cannot start a thread: {error}") from error
    return executor


def wait_for_threads(seconds: float) -> bool:
    """Wait up to *seconds* for the threads that the interpreter waits for at its end; return whether none is left.

    Blocks. An executor must be shut down for its threads to end.
    """
    deadline = time.monotonic() + seconds
    ours = threading.current_thread()
    threads = [thread for thread in threading.enumerate() if thread is not ours and not thread.daemon]
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return not any(thread.is_alive() for thread in threads)


class ThreadNotStarted(OSError):
    """A thread was started, and has never begun."""


class ThreadFuture(asyncio.Future[_T]):
    """What comes of a call in a thread."""

    ignored = False
    """No caller asks for its error any more."""

    def set_exception(self, exception: type | BaseException) -> None:
        """End with *exception*."""
        super().set_exception(exception)
        if self.ignored:
            # At once: when the loop ends in this turn, it calls no callback that would ask.
            self.exception()


def run_in_own_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> "asyncio.Future[_T]":
    """Run *function* in a thread of its own, for which the process does not wait at its end.

    Raises OSError when no thread can be started. The future has ThreadNotStarted if it does not begin.
    """
    call = _Call(partial(function, *args, **kwargs))
    call.start(call.fail)
    return call.future


Run = Callable[[Callable[[], _T]], "asyncio.Future[_T]"]
"""Has a thread make a call. Raises OSError when no thread can be started."""


def run_in_executor(function: Callable[[], _T]) -> "asyncio.Future[_T]":
    """Run *function*, which ends, in a thread of the executor. Neither blocks nor fails."""
    call = _Call(function)
    call.run_in_executor()
    return call.future


def run_apart(function: Callable[[], _T]) -> "asyncio.Future[_T]":
    """Run *function* in a thread of its own, so that no other waits if it hangs; without one, in the executor."""
    call = _Call(function)
    try:
        call.start(call.run_in_executor)
    except OSError:
        call.run_in_executor()
    return call.future


class _Call(Generic[_T]):
    """One call, which the first thread makes that begins, and the future of what comes of it."""

    def __init__(self, function: Callable[[], _T]) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: ThreadFuture[_T] = ThreadFuture(loop=self._loop)
        self._function = function
        self._begun = _thread.allocate_lock()

    def start(self, late: Callable[[], None]) -> None:
        """Start a thread; call *late* if it does not begin. Raises OSError when none can be started."""
        try:
            # threading.Thread waits until the thread runs: a tenth of a second if many begin at the same time, and
            # for ever if the thread has no memory to begin with.
            _thread.start_new_thread(self._make, ())
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, "cannot start a thread") from error
        timer = self._loop.call_later(START_TIMEOUT, late)
        self.future.add_done_callback(lambda _: timer.cancel())

    def fail(self) -> None:
        """Fail, unless a thread makes the call."""
        if self._begun.acquire(blocking=False):
            self._settle(None, ThreadNotStarted(errno.EAGAIN, "a thread does not begin"))

    def run_in_executor(self) -> None:
        """Have the executor make the call, unless another thread does."""
        self._loop.run_in_executor(None, self._make)

    def _make(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        result, error = None, None
        try:
            result = self._function()
        except Exception as caught:
            error = caught
        # The loop may be closed by now.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: _T | None, error: Exception | None) -> None:
        if self.future.cancelled():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)  # type: ignore[arg-type]


def run_with_duplicate(
    function: Callable[[int], _T], fd: int, run: Run[_T] = run_in_own_thread
) -> "asyncio.Future[_T]":
    """Have a thread call *function* with a duplicate of *fd*, and close that. Raises OSError.

    When it is the thread's turn, *fd* may be closed, and its number another file's.
    """
    duplicate = os.dup(fd)

    def work() -> _T:
        try:
            return function(duplicate)
        finally:
            # Data that was read is good, even if the file system answers close(2) with an error.
            close(duplicate)

    try:
        future = run(work)
    except OSError:
        os.close(duplicate)
        raise
    future.add_done_callback(partial(_close_unused, duplicate))
    return future


def _close_unused(fd: int, future: "asyncio.Future[Any]") -> None:
    if not future.cancelled() and isinstance(future.exception(), ThreadNotStarted):
        os.close(fd)


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
            raise Busy(f"{len(self._running)} threads hang: no more are started")


def ignore_result(future: "asyncio.Future[Any]") -> None:
    """Keep asyncio from logging, with a traceback, what *future* fails with, because no caller asks for it."""
    if isinstance(future, ThreadFuture):
        future.ignored = True
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
        # Unlike wait_for() and shield(), it leaves the future alone when the wait ends.
        await asyncio.wait([running], timeout=seconds)
    finally:
        if not running.done():
            abandon(running, abandoned)
        elif not running.cancelled():
            # If the wait was cancelled in this moment, asyncio would log an error that no caller asks for.
            running.exception()
    if not running.done():
        raise TimeoutError
    return running.result()
