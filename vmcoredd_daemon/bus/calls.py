# SPDX-License-Identifier: LGPL-2.1-or-later
"""Limits for method calls that are not answered yet.

A bus limits the answers that one connection waits for, but not calls without an answer, nor all callers together.
"""

from collections import Counter

from ..config.limits import CallLimits
from ..errors import LimitsExceeded


class CallsInFlight:
    """The calls that are not answered yet."""

    def __init__(self, limits: CallLimits) -> None:
        self._limits = limits
        self._by_caller: Counter[str] = Counter()

    def begin(self, caller: str) -> None:
        """Count a call of *caller* until :meth:`end`. Raises LimitsExceeded; then it is not counted."""
        if self._by_caller.total() >= self._limits.max_calls:
            raise LimitsExceeded(f"MaxCalls={self._limits.max_calls} is reached: wait for answers")
        if self._by_caller[caller] >= self._limits.max_calls_per_caller:
            limit = self._limits.max_calls_per_caller
            raise LimitsExceeded(f"{caller} has reached MaxCallsPerCaller={limit}: wait for answers")
        self._by_caller[caller] += 1

    def end(self, caller: str) -> None:
        """Count a call of *caller* no longer: it was answered."""
        self._by_caller[caller] -= 1
        if not self._by_caller[caller]:
            del self._by_caller[caller]
