# SPDX-License-Identifier: LGPL-2.1-or-later
"""A thread whose calls may never return: its user waits until a deadline, and then abandons it."""

import _thread
import math
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Request = Callable[[], None] | None
_Result = tuple[Any, Exception | None]
_Results = SimpleQueue[_Result]
"""Each request has its own: the result of an abandoned one must not be taken for that of the next."""

DEADLINE_POLL = 0.5
"""Seconds between two looks at the deadline, which the other thread moves."""

_SETTLE_POLL = 0.01
"""Seconds between two looks whether the other thread still writes."""

START_TIMEOUT = 5.0
"""Seconds that a thread may take to begin. One that has no memory for its first frame ends without a word."""


class _Abandoned(Exception):
    """The user of this thread waits no longer, and it must leave everything as it is."""


class Turn:
    """One function that a thread runs, and the deadline of the call that it makes now."""

    def __init__(self, seconds: float = math.inf) -> None:
        """Until the first :meth:`call`, all of it may take *seconds*."""
        self.seconds = seconds
        """What the last call may take."""
        self._lock = _thread.allocate_lock()
        self._deadline = time.monotonic() + seconds
        self._abandoned = False

    def call(self, seconds: float, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what *function* returns within *seconds*. Raises _Abandoned if that took too long."""
        with self._lock:
            if self._abandoned:
                raise _Abandoned
            self.seconds, self._deadline = seconds, time.monotonic() + seconds
        try:
            return function(*args, **kwargs)
        finally:
            with self._lock:
                if self._abandoned:
                    raise _Abandoned
                self._deadline = math.inf

    def left(self, seconds: float) -> float:
        """Return how long to wait, at most *seconds*; 0 if the deadline has passed, and then it is abandoned."""
        with self._lock:
            left = min(max(self._deadline - time.monotonic(), 0), seconds)
            self._abandoned = left == 0
            return left

    def end(self) -> bool:
        """Let it make no more calls; return whether it makes one now."""
        with self._lock:
            self._abandoned = True
            return self._deadline < math.inf


class WatchedThread:
    """One thread that runs one function after the other, and does not keep the process from ending."""

    def __init__(self) -> None:
        self._requests: SimpleQueue[_Request] = SimpleQueue()
        self._beginning = _Results()
        self._began = False
        # threading.Thread waits until the thread runs: for ever, if that has no memory to begin with.
        _thread.start_new_thread(self._serve, ())

    def running(self) -> bool:
        """Wait until it has begun; return False if it does not."""
        if not self._began:
            with suppress(Empty):
                self._beginning.get(timeout=START_TIMEOUT)
                self._began = True
        return self._began

    def run(self, turn: Turn, function: Callable[[Turn], _T]) -> _T:
        """Return what *function* returns for *turn*. Raises Empty when a deadline passes, and what it raises."""
        results = _Results()

        def work() -> None:
            try:
                results.put((function(turn), None))
            except Exception as error:
                results.put((None, error))

        self._requests.put(work)
        value, error = _wait(turn, results)
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    def end(self, last: Callable[[], None]) -> None:
        """Call *last* in the thread and let it end, once what it does now is done."""
        self._requests.put(last)
        self._requests.put(None)

    def _serve(self) -> None:
        self._beginning.put((None, None))
        while (request := self._requests.get()) is not None:
            request()


def _wait(turn: Turn, results: _Results) -> _Result:
    try:
        while left := turn.left(DEADLINE_POLL):
            with suppress(Empty):
                return results.get(timeout=left)
    except BaseException:
        # This thread has failed, for lack of memory perhaps: its caller will close the file that the other one may
        # be writing to. A read may go on.
        while not turn.end() and results.empty():
            time.sleep(_SETTLE_POLL)
        raise
    raise Empty
