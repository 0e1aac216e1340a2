# SPDX-License-Identifier: LGPL-2.1-or-later
"""Figures as a table and as JSON, beside those of an earlier run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.measure import Case, Comparison, Kind, NotRun, Result

Outcome = Result | NotRun
COLUMNS = ("row", "case", "ours", "", "against", "", "value", "spread", "goal", "met", "before")
MET = {True: "yes", False: "NO", None: "-"}


Before = Mapping[tuple[str, str, str], Sequence[float]]
"""By row, case and peer, which is empty where there is none: the median of ours, and what a goal compares."""


def read_before(path: Path, scale: float) -> tuple[Mapping[str, str], Before]:
    """Return the machine of an earlier run, and its figures; neither where there is no run at that scale."""
    if not path.exists():
        return {}, {}
    run = json.loads(path.read_text())
    if run["settings"]["scale"] != scale:
        return {}, {}
    found: dict[tuple[str, str, str], Sequence[float]] = {}
    for result in run["results"]:
        if "reason" in result:
            continue
        (ours,) = (one["median"] for one in result["contenders"] if one["name"] == result["ours"])
        found[result["row"], result["case"], ""] = (ours,)
        for one in result["comparisons"]:
            found[result["row"], result["case"], one["peer"]] = (ours, one["value"])
    return run["machine"], found


def table(outcomes: Sequence[Outcome], before: Before | None = None) -> str:
    """Return all comparisons as lines of text; rounds' medians, and the median of what the goal compares."""
    lines = [COLUMNS, *(line for outcome in outcomes for line in lines_of(outcome, before))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def lines_of(outcome: Outcome, before: Before | None = None) -> Iterator[tuple[str, ...]]:
    """Yield the table's lines of one outcome."""
    if isinstance(outcome, NotRun):
        what = "FAILED" if outcome.failed else "not run"
        yield (outcome.row, outcome.name, what, outcome.reason, *("" for _ in COLUMNS[4:]))
        return
    case = outcome.case
    ours = f"{outcome.median(case.ours.name):.4g} {case.unit}"
    if not outcome.comparisons:
        yield (case.row, case.name, case.ours.name, ours, *("" for _ in COLUMNS[5:]), _earlier(before, case))
    for found in outcome.comparisons:
        theirs = f"{outcome.median(found.peer):.4g} {case.unit}"
        low, high = _amount(found, found.low, case.unit), _amount(found, found.high, case.unit)
        yield (
            *(case.row, case.name, case.ours.name, ours, found.peer, theirs),
            *(_amount(found, found.value, case.unit), f"{low} to {high}"),
            *(found.goal.text(case.unit), MET[found.met], _earlier(before, case, found)),
        )


def _earlier(before: Before | None, case: Case, found: Comparison | None = None) -> str:
    known = (before or {}).get((case.row, case.name, found.peer if found else ""))
    if known is None:
        return "-"
    ours, *values = known
    return ", ".join([f"{ours:.4g} {case.unit}", *(_amount(found, value, case.unit) for value in values if found)])


def _amount(found: Comparison, value: float, unit: str) -> str:
    return f"{value:+.3g} {unit}" if found.goal.kind is Kind.MORE else f"{value:.3g}x"


def as_json(
    outcomes: Sequence[Outcome], machine: Mapping[str, str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything, each round's figures included."""
    return {"machine": dict(machine), "settings": dict(settings), "results": [_entry(one) for one in outcomes]}


def _entry(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, NotRun):
        return {"row": outcome.row, "case": outcome.name, "reason": outcome.reason, "failed": outcome.failed}
    case = outcome.case
    contenders = [case.ours, *(peer for peer, _ in case.peers)]
    return {
        "row": case.row,
        "case": case.name,
        "unit": case.unit,
        "axis": case.axis,
        "ours": case.ours.name,
        "contenders": [
            {
                "name": contender.name,
                "x": contender.x,
                "median": outcome.median(contender.name),
                "figures": list(outcome.figures[contender.name]),
            }
            for contender in contenders
        ],
        "comparisons": [
            {
                "peer": found.peer,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "goal": found.goal.text(case.unit),
                "met": found.met,
            }
            for found in outcome.comparisons
        ],
    }
