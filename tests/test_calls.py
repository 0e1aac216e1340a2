# SPDX-License-Identifier: LGPL-2.1-or-later
from contextlib import ExitStack

import pytest

from vmcoredd_daemon.calls import CallLimits, CallsInFlight
from vmcoredd_daemon.errors import LimitsExceeded

LIMITS = CallLimits(max_calls=5, max_calls_per_caller=3)


def test_one_caller_leaves_room_for_others() -> None:
    calls = CallsInFlight(LIMITS)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(calls.one_more(":1.1"))
        with pytest.raises(LimitsExceeded, match=r"3 calls of :1\.1 are not answered yet"), calls.one_more(":1.1"):
            pass
        stack.enter_context(calls.one_more(":1.2"))
    with calls.one_more(":1.1"):
        pass


def test_all_callers_together() -> None:
    calls = CallsInFlight(LIMITS)
    with ExitStack() as stack:
        for number in range(5):
            stack.enter_context(calls.one_more(f":1.{number}"))
        with pytest.raises(LimitsExceeded, match="5 calls are not answered yet"), calls.one_more(":1.9"):
            pass


def test_callers_that_are_gone_are_forgotten() -> None:
    calls = CallsInFlight(LIMITS)
    for number in range(100):
        with calls.one_more(f":1.{number}"):
            pass
        with pytest.raises(KeyError), calls.one_more(f":1.{number}"):
            raise KeyError
    assert not calls._by_caller
