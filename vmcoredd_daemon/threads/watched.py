# SPDX-License-Identifier: LGPL-2.1-or-later
"""A thread whose calls may never return, so that somebody waits for it, and gives it up."""

import _thread
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Request = Callable[[], None] | None
_Result = tuple[Any, Exception | None]
_Results = SimpleQueue[_Result]
"""Of each request its own: one that nobody waits for any more must not be taken for the next one's."""

POLL = 2.0
"""Seconds after which it is seen whether a call of a turn takes too long."""

_SETTLE = 0.01
"""Seconds between two looks whether a thread still writes."""

_START_TIMEOUT = 5.0
"""Seconds that a thread may take to begin."""


class _GivenUp(Exception):
    """Nobody waits for this thread any more, and it is to leave everything as it is."""


class Turn:
    """What a thread does, and of that the calls that have a deadline."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._until = math.inf
        self._given_up = False

    def call(self, seconds: float, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what *function* returns, within *seconds*. Raises _GivenUp when that took too long."""
        with self._lock:
            if self._given_up:
                raise _GivenUp
            self._until = time.monotonic() + seconds
        try:
            return function(*args, **kwargs)
        finally:
            with self._lock:
                if self._given_up:
                    raise _GivenUp
                self._until = math.inf

    def left(self, seconds: float) -> float:
        """Return for how long to wait, at most *seconds*; with 0, it is given up."""
        with self._lock:
            left = min(max(self._until - time.monotonic(), 0), seconds)
            self._given_up = left == 0
            return left

    def end(self) -> bool:
        """Let it make no more calls; return whether it makes one now."""
        with self._lock:
            self._given_up = True
            return self._until < math.inf


class WatchedThread:
    """One thread, which makes one call after the other, and that nobody waits for when the process ends."""

    def __init__(self) -> None:
        self._requests: SimpleQueue[_Request] = SimpleQueue()
        self._beginning = _Results()
        self._began = False
        # threading.Thread waits until the thread runs: for ever where it has no memory to begin with.
        _thread.start_new_thread(self._serve, ())

    def running(self) -> bool:
        """Wait until it has begun; return False when it does not."""
        if not self._began:
            with suppress(Empty):
                self._beginning.get(timeout=_START_TIMEOUT)
                self._began = True
        return self._began

    def call(self, seconds: float, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what *function* returns. Raises Empty when that takes too long, and what it raises."""
        return _value(self._request(partial(function, *args, **kwargs)).get(timeout=seconds))  # type: ignore[no-any-return]

    def run(self, turn: Turn, function: Callable[[Turn], None]) -> None:
        """Call *function* with *turn*. Raises Empty when one of its calls takes too long, and what it raises."""
        _value(self._wait(turn, self._request(partial(function, turn))))

    def _wait(self, turn: Turn, results: _Results) -> _Result:
        try:
            while left := turn.left(POLL):
                with suppress(Empty):
                    return results.get(timeout=left)
        except BaseException:
            # This thread has an error: of memory, say. What the other writes to must not be closed under it.
            while not turn.end() and results.empty():
                time.sleep(_SETTLE)
            raise
        raise Empty

    def _request(self, function: Callable[[], Any]) -> _Results:
        results = _Results()

        def work() -> None:
            try:
                results.put((function(), None))
            except Exception as error:
                results.put((None, error))

        self._requests.put(work)
        return results

    def end(self, last: Callable[[], None]) -> None:
        """Call *last* in the thread, and let it end, when what it does is done."""
        self._requests.put(last)
        self._requests.put(None)

    def _serve(self) -> None:
        self._beginning.put((None, None))
        while (request := self._requests.get()) is not None:
            request()


def _value(result: _Result) -> Any:
    value, error = result
    if error is not None:
        raise error
    return value
