# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls that wait for a thread are made together, in one turn of one thread.

To hand a call over to a thread, and its answer back, costs more than most calls of a spool; and many files share
one wait for the disk.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from .loop import ThreadFuture

_T = TypeVar("_T")
_R = TypeVar("_R")

Work = Callable[[Sequence[_T]], Sequence[_R | Exception]]
"""Works on all items. Blocks, but ends. Returns for each a result, or why there is none."""


class Batches(Generic[_T, _R]):
    """Has a thread of the executor call *work* with a batch of items at a time; new ones wait for the next."""

    def __init__(self, work: Work[_T, _R]) -> None:
        self._work = work
        self._waiting: list[tuple[_T, asyncio.Future[_R]]] = []
        self._begun = False

    def add(self, item: _T) -> "asyncio.Future[_R]":
        """Put *item* into the next batch; its future must never be cancelled. Needs a running loop."""
        loop = asyncio.get_running_loop()
        future: ThreadFuture[_R] = ThreadFuture(loop=loop)
        self._waiting.append((item, future))
        if not self._begun:
            self._begun = True
            # More may come in this turn of the loop.
            loop.call_soon(self._begin)
        return future

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, []
        items = [item for item, _ in batch]
        working = asyncio.get_running_loop().run_in_executor(None, self._work, items)
        working.add_done_callback(partial(self._ended, [future for _, future in batch]))

    def _ended(
        self, futures: Sequence["asyncio.Future[_R]"], working: "asyncio.Future[Sequence[_R | Exception]]"
    ) -> None:
        self._begun = bool(self._waiting)
        if self._begun:
            self._begin()
        error = working.exception()
        results = working.result() if error is None else [error] * len(futures)
        for future, result in zip(futures, results, strict=True):
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)


def each(function: Callable[[_T], _R]) -> Work[_T, _R]:
    """Return work that calls *function* for one item after the other."""

    def work(items: Sequence[_T]) -> list[_R | Exception]:
        return [attempt(function, item) for item in items]

    return work


def attempt(function: Callable[[_T], _R], item: _T) -> _R | Exception:
    """Return what *function* returns, or raises."""
    try:
        return function(item)
    except Exception as error:
        return error
