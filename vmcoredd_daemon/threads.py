# SPDX-License-Identifier: LGPL-2.1-or-later
"""Threads for calls that may never return.

A read from somebody else's file, a pipe that another process drains, a device in D state: such a call cannot be
stopped. In asyncio's executor it would take a place from the spool and the writer, and the process would wait for
it at its end.
"""

import asyncio
import fcntl
import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from .errors import Busy

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

    threading.Thread(target=work, daemon=True).start()
    return future


def read_now(fd: int, size: int) -> bytes:
    """Read as read(2) does, but from a pipe or a socket only what is there. Raises BlockingIOError or OSError.

    Somebody else may have taken what poll(2) has announced, and then a thread would wait for as long as the writer
    likes. The file description is not ours to be made non-blocking.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        with socket.socket(fileno=os.dup(fd)) as source:
            return source.recv(size, socket.MSG_DONTWAIT)
    # Opened again, what is for writing only could be read.
    if stat.S_ISFIFO(mode) and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY:
        source_of_ours = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(source_of_ours, size)
        finally:
            os.close(source_of_ours)
    return os.read(fd, size)


class HangingThreads:
    """Threads that nobody waits for any more, and that still run."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: set[asyncio.Future[Any]] = set()

    def add(self, running: "asyncio.Future[Any] | None") -> None:
        """Count a thread until what it does is done."""
        if running is not None:
            self._running.add(running)
            running.add_done_callback(self._running.discard)

    def check(self) -> None:
        """Raise Busy when there are too many: each has a stack, and descriptors."""
        if len(self._running) >= self._limit:
            raise Busy(f"{len(self._running)} reads of descriptors hang")
