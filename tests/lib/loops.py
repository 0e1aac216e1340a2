# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs coroutines in tests that are not asynchronous."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


def runner_of_its_own() -> asyncio.Runner:
    """Return a runner that leaves the loop of the process alone.

    ``asyncio.run()`` ends with ``set_event_loop(None)``: the loop that pytest-asyncio 0.20 has set behind its last
    test has no owner then, and the test that is running when it is collected fails for its sockets. So does a
    Runner that makes its own loop.
    """
    return asyncio.Runner(loop_factory=asyncio.new_event_loop)


def run_coroutine(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run *coroutine* on a loop of its own."""
    with runner_of_its_own() as runner:
        return runner.run(coroutine)
