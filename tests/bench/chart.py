# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draws results as SVG: a bar for each goal, with the goal as a line, and curves."""

from collections.abc import Iterator, Sequence
from html import escape

from tests.bench.measure import Comparison, Kind, NotRun, Result

WIDTH, MARGIN, BAR, STEP = 960, 16, 14, 22
LABELS, FIGURES = 430, 150
GOAL_AT = 0.5
"""Where the goal is, as a part of the room for bars: what takes twice of it fills the room."""
PLOT = 200
MET, MISSED, GRID = "#2f7d4f", "#b3422f", "#999999"


def svg(outcomes: Sequence[Result | NotRun]) -> str:
    """Return a chart of everything that has a goal, and of every curve."""
    results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    bars = [(result, found) for result in results for found in result.comparisons if found.met is not None]
    curves = [result for result in results if result.case.axis]
    top = 3 * STEP
    below = top + STEP * len(bars) + STEP
    height = below + (PLOT + 4 * STEP) * len(curves) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(MARGIN, STEP, "What vmcoredd takes, as a part of what the goal allows; shorter is better"),
        *_goal_line(top, below - STEP),
        *(part for number, bar in enumerate(bars) for part in _bar(top + STEP * number, *bar)),
        *(
            part
            for number, result in enumerate(curves)
            for part in _curve(below + (PLOT + 4 * STEP) * number + STEP, result)
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def share(found: Comparison) -> float:
    """Return what was seen as a part of what the goal allows; at most 1 where it is met."""
    limit = found.goal.limit
    match found.goal.kind:
        case Kind.AT_LEAST:
            return limit / found.value if found.value else float("inf")
        case _:
            return max(found.value / limit, 0)


def _room() -> int:
    return WIDTH - LABELS - FIGURES - 2 * MARGIN


def _goal_line(top: int, bottom: int) -> Iterator[str]:
    x = MARGIN + LABELS + GOAL_AT * _room()
    yield f'<line x1="{x:.0f}" y1="{top - 8}" x2="{x:.0f}" y2="{bottom}" stroke="{GRID}" stroke-dasharray="4 3"/>'
    yield _text(x, top - 12, "goal", "middle")


def _bar(y: int, result: Result, found: Comparison) -> Iterator[str]:
    case = result.case
    length = min(share(found) * GOAL_AT, 1) * _room()
    x = MARGIN + LABELS
    yield _text(x - 8, y + BAR - 3, f"{case.row}: {case.name}, {case.ours.name} / {found.peer}", "end")
    yield (
        f'<rect x="{x}" y="{y}" width="{max(length, 1):.1f}" height="{BAR}" '
        f'fill="{MET if found.met else MISSED}"/>'
    )
    value = f"{found.value:+.3g}" if found.goal.kind is Kind.MORE else f"{found.value:.3g}x"
    yield _text(x + _room() + 8, y + BAR - 3, f"{value} ({found.goal.text(case.unit)})")


def _curve(y: int, result: Result) -> Iterator[str]:
    case = result.case
    contenders = sorted(
        (contender.x, result.median(contender.name))
        for contender in [case.ours, *(peer for peer, _ in case.peers)]
        if contender.x is not None
    )
    most = max(value for _, value in contenders) or 1
    left, width = MARGIN + 80, WIDTH - 2 * MARGIN - 160
    step = width / max(len(contenders) - 1, 1)
    points = [
        (left + step * number, y + STEP + PLOT * (1 - value / most))
        for number, (_, value) in enumerate(contenders)
    ]
    bottom = y + STEP + PLOT
    yield _text(MARGIN, y, f"{case.row}: {case.name}")
    yield f'<line x1="{left}" y1="{bottom}" x2="{left + width}" y2="{bottom}" stroke="{GRID}"/>'
    drawn = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    yield f'<polyline points="{drawn}" fill="none" stroke="{MET}" stroke-width="2"/>'
    for (px, py), (x, value) in zip(points, contenders, strict=True):
        yield f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{MET}"/>'
        yield _text(px, py - 8, f"{value:.3g} {case.unit}", "middle")
        yield _text(px, bottom + 16, f"{x:.3g} {case.axis}", "middle")


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'
