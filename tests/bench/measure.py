# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs contenders one after the other, again and again, and compares what they took within each round."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import TypeVar

_T = TypeVar("_T")


class Unavailable(Exception):
    """This machine lacks what a row needs; the message says what."""


class Kind(StrEnum):
    """How a figure of ours is compared with a peer's."""

    AT_MOST = "at most, as a ratio"
    AT_LEAST = "at least, as a ratio"
    MORE = "at most so much more"
    SHOWN = "no goal"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a comparison should come to."""

    kind: Kind = Kind.SHOWN
    limit: float = 0.0

    def compare(self, ours: float, theirs: float) -> float:
        """Return the ratio, or the difference."""
        if self.kind is Kind.MORE:
            return ours - theirs
        return ours / theirs if theirs else float("inf")

    def met(self, value: float) -> bool | None:
        """Tell whether *value* is good enough; None where nothing is asked for."""
        match self.kind:
            case Kind.SHOWN:
                return None
            case Kind.AT_LEAST:
                return value >= self.limit
            case _:
                return value <= self.limit

    def text(self, unit: str) -> str:
        """Return it as in a table."""
        match self.kind:
            case Kind.SHOWN:
                return "-"
            case Kind.AT_LEAST:
                return f">= {self.limit:g}x"
            case Kind.AT_MOST:
                return f"<= {self.limit:g}x"
            case _:
                return f"<= {self.limit:+g} {unit}"


def at_most(limit: float) -> Goal:
    """Return the goal of a ratio."""
    return Goal(Kind.AT_MOST, limit)


def at_least(limit: float) -> Goal:
    """Return the goal of a ratio of what should be large."""
    return Goal(Kind.AT_LEAST, limit)


def more(limit: float) -> Goal:
    """Return the goal of a difference."""
    return Goal(Kind.MORE, limit)


@dataclass(frozen=True, slots=True)
class Contender:
    """Does the work once; *run* returns its figure, whatever prepares and cleans is not in it."""

    name: str
    run: Callable[[], float]
    x: float | None = None
    """Where its figure stands on a curve."""


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison: of us with each of the peers, in figures of *unit*."""

    row: str
    name: str
    unit: str
    ours: Contender
    peers: Sequence[tuple[Contender, Goal]]
    axis: str = ""
    """What a curve's x stands for; empty where there is no curve."""
    once: bool = False
    """There is one figure of each, however many rounds there are."""


@dataclass(frozen=True, slots=True)
class NotRun:
    """A case without figures."""

    row: str
    name: str
    reason: str
    failed: bool = False
    """It was begun, and went wrong."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Us and one peer."""

    peer: str
    value: float
    """Median of what the goal compares, round by round."""
    low: float
    high: float
    goal: Goal
    met: bool | None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a case."""

    case: Case
    figures: Mapping[str, Sequence[float]]
    """By contender, one for each round."""
    comparisons: Sequence[Comparison] = field(default_factory=list)

    def median(self, contender: str) -> float:
        """Return the median of a contender's figures."""
        return median(self.figures[contender])


def alternately(contenders: Sequence[_T], rounds: int) -> Iterator[_T]:
    """Yield all of them for each round, another first in each."""
    for number in range(rounds):
        first = number % len(contenders)
        yield from [*contenders[first:], *contenders[:first]]


def measure(case: Case, rounds: int) -> Result:
    """Run every contender once a round, another first in each round. Raises what they raise."""
    contenders = [case.ours, *(peer for peer, _ in case.peers)]
    figures: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in alternately(contenders, 1 if case.once else rounds):
        figures[contender.name].append(contender.run())
    return Result(case, figures, [_compare(case, peer, goal, figures) for peer, goal in case.peers])


def _compare(case: Case, peer: Contender, goal: Goal, figures: Mapping[str, Sequence[float]]) -> Comparison:
    pairs = zip(figures[case.ours.name], figures[peer.name], strict=True)
    values = [goal.compare(ours, theirs) for ours, theirs in pairs]
    value = median(values)
    return Comparison(peer.name, value, min(values), max(values), goal, goal.met(value))
