# SPDX-License-Identifier: LGPL-2.1-or-later
import pytest

from vmcoredd_daemon.bus.calls import CallsInFlight
from vmcoredd_daemon.config.limits import CallLimits
from vmcoredd_daemon.errors import LimitsExceeded

LIMITS = CallLimits(max_calls=5, max_calls_per_caller=3)


def test_one_caller_leaves_room_for_others() -> None:
    calls = CallsInFlight(LIMITS)
    for _ in range(3):
        calls.begin(":1.1")
    with pytest.raises(LimitsExceeded, match=r"^:1\.1 has reached MaxCallsPerCaller=3: wait for answers$"):
        calls.begin(":1.1")
    calls.begin(":1.2")
    calls.end(":1.1")
    calls.begin(":1.1")


def test_all_callers_together() -> None:
    calls = CallsInFlight(LIMITS)
    for number in range(5):
        calls.begin(f":1.{number}")
    with pytest.raises(LimitsExceeded, match=r"^MaxCalls=5 is reached: wait for answers$"):
        calls.begin(":1.9")


def test_callers_that_are_gone_are_forgotten() -> None:
    calls = CallsInFlight(LIMITS)
    for number in range(100):
        calls.begin(f":1.{number}")
        calls.end(f":1.{number}")
    for _ in range(5):
        calls.begin(":1.1")
        calls.end(":1.1")
    assert not calls._by_caller
