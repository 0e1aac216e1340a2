# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a check has found."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Whether a panic would go well, as far as one check can tell."""

    OK = "ok"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer of one check, and what to do about it."""

    check: str
    state: State
    finding: str
    advice: str = ""


def ok(check: str, finding: str) -> Finding:
    """Return that all is well."""
    return Finding(check, State.OK, finding)


def problem(check: str, finding: str, advice: str) -> Finding:
    """Return that a panic would leave no vmcore, or one without some or all device dumps."""
    return Finding(check, State.PROBLEM, finding, advice)


def unknown(check: str, finding: str) -> Finding:
    """Return that this cannot be told here."""
    return Finding(check, State.UNKNOWN, finding)
