# SPDX-License-Identifier: LGPL-2.1-or-later
"""Method calls that are not answered yet, and how many there may be.

A bus limits the answers that one connection waits for, but not the calls that want none, nor all callers together.
"""

from collections import Counter
from dataclasses import dataclass

from .errors import LimitsExceeded


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What callers may ask for at once. A caller is a connection to the bus."""

    max_calls: int = 1024
    """Calls of all callers; each may hold 16 descriptors, and the service has 65536."""
    max_calls_per_caller: int = 128
    """As a system bus has it: its ``max_replies_per_connection``."""
    max_message_size: int = 64 << 10
    """Bytes of header or body of a message. What is larger is thrown away as it comes: unpacked, 32 MiB of the
    least variants would take gigabytes."""


class CallsInFlight:
    """The calls that are not answered yet."""

    def __init__(self, limits: CallLimits) -> None:
        self._limits = limits
        self._by_caller: Counter[str] = Counter()

    def begin(self, caller: str) -> None:
        """Count a call of *caller*, until it is ended. Raises LimitsExceeded; then it is not counted."""
        if self._by_caller.total() >= self._limits.max_calls:
            raise LimitsExceeded(f"{self._limits.max_calls} calls are not answered yet, which is the limit")
        if self._by_caller[caller] >= self._limits.max_calls_per_caller:
            raise LimitsExceeded(
                f"{self._limits.max_calls_per_caller} calls of {caller} are not answered yet, which is the limit"
            )
        self._by_caller[caller] += 1

    def end(self, caller: str) -> None:
        """A call of *caller* was answered."""
        self._by_caller[caller] -= 1
        if not self._by_caller[caller]:
            del self._by_caller[caller]
