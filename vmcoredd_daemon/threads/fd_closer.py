# SPDX-License-Identifier: LGPL-2.1-or-later
"""Closes descriptors of other programs' files.

close(2) may take long, or fail: a socket with SO_LINGER waits until its peer has all data, a file of FUSE or NFS
until its server has answered. So it happens in threads, never on the loop.
"""

import asyncio
from collections import deque
from contextlib import suppress

from ..errors import Busy
from ..files import close
from .loop import ignore_result, run_in_own_thread

MAX_THREADS = 64
MAX_WAITING = 1024
"""Descriptors; as many again may come with the messages of one turn."""
CLOSE_TIMEOUT = 0.1
"""Seconds after which a thread that has closed nothing is considered hung, and another begins."""


def close_fds(fds: list[int]) -> None:
    """Close all of *fds*, ignore errors of close(2), and empty the list. May block."""
    while fds:
        close(fds.pop())


class FdCloser:
    """Descriptors that wait to be closed, and the threads that do it: one, unless it hangs."""

    def __init__(self) -> None:
        """Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[int] = deque()
        self._given = 0
        self._taken = 0
        self._threads: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def full(self) -> bool:
        """Whether so many wait that no more should be received."""
        return len(self._waiting) >= MAX_WAITING

    def check(self) -> None:
        """Raise Busy when no descriptor can be closed, because all threads hang."""
        if len(self._threads) >= MAX_THREADS:
            raise Busy(f"closing {len(self._threads)} descriptors hangs: no more are taken")

    def close(self, fds: list[int]) -> None:
        """Take over *fds*, and empty the list; neither waits nor fails, while the loop runs."""
        if not self._loop.is_running():
            # At the end of the process, when no client waits.
            close_fds(fds)
            return
        self._given += len(fds)
        self._waiting.extend(fds)
        fds.clear()
        if not self._threads:
            self._start()
        self._watch()

    def _start(self) -> None:
        if not self._waiting or len(self._threads) >= MAX_THREADS:
            return
        # If no thread can be started now, the timer tries again.
        with suppress(OSError):
            thread = run_in_own_thread(_close_all, self._waiting)
            self._threads.add(thread)
            thread.add_done_callback(self._ended)
            ignore_result(thread)

    def _ended(self, thread: "asyncio.Future[None]") -> None:
        self._threads.discard(thread)
        # More may have come after it saw that there were none.
        self._start()

    def _watch(self) -> None:
        if self._waiting and self._timer is None:
            self._taken = self._given - len(self._waiting)
            self._timer = self._loop.call_later(CLOSE_TIMEOUT, self._poll)

    def _poll(self) -> None:
        self._timer = None
        if self._given - len(self._waiting) == self._taken:
            self._start()
        self._watch()


def _close_all(waiting: deque[int]) -> None:
    with suppress(IndexError):
        while True:
            close(waiting.popleft())
