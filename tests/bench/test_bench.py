# SPDX-License-Identifier: LGPL-2.1-or-later
"""Does ``make bench`` work? How fast anything is, is none of a test's business."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.bench.__main__ import ROWS, main
from tests.bench.chart import share, svg
from tests.bench.measure import Case, Contender, Goal, at_least, at_most, measure, more
from tests.bench.report import table
from tests.tools import require

SCALE = "0.001"
MAY_LACK = {"mkfs.ext4", "mkfs.xfs", "losetup", "mount"}


@pytest.mark.parametrize("row", ROWS)
def test_row_works(row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("dbus-daemon", "makedumpfile")
    results, chart = tmp_path / "results.json", tmp_path / "chart.svg"
    arguments = ["--rows", row, "--rounds", "1", "--scale", SCALE, "--cold", "fadvise"]
    files = ["--directory", str(tmp_path), "--json", str(results), "--svg", str(chart)]
    status = main([*arguments, *files])
    output = capsys.readouterr().out
    assert status == 0, output
    measured = 0
    for result in json.loads(results.read_text())["results"]:
        assert result["row"] == row
        if "reason" in result:
            # Where nobody may mount, that is said.
            assert row == "elf"
            assert result["reason"].split(" ")[0].rstrip(":") in MAY_LACK
            continue
        measured += 1
        assert all(len(contender["figures"]) == 1 for contender in result["contenders"])
        assert all(figure > 0 for contender in result["contenders"] for figure in contender["figures"])
        assert result["case"] in output
    assert ET.parse(chart).getroot().tag.endswith("svg")
    assert measured or row == "elf"
    # Nothing is left behind: neither mounted nor lying about.
    assert sorted(tmp_path.iterdir()) == [chart, results]


def figures(*values: float) -> Contender:
    """Return a contender with one figure after the other."""
    left = iter(values)
    return Contender(f"figures {values}", lambda: next(left))


@pytest.mark.parametrize(
    ("goal", "value", "met", "part"),
    [
        (at_most(0.8), 0.5, True, 0.625),
        (at_most(0.4), 0.5, False, 1.25),
        (at_least(0.25), 0.5, True, 0.5),
        (at_least(2), 0.5, False, 4),
        (more(-1), -2, True, 2),
        (more(1), -2, True, 0),
    ],
)
def test_goal(goal: Goal, value: float, met: bool, part: float) -> None:
    # Round by round: the median of the ratios is not the ratio of the medians.
    case = Case("row", "case", "s", figures(1, 2, 30), [(figures(2, 4, 60), goal)])
    if goal in (more(-1), more(1)):
        case = Case("row", "case", "s", figures(1, 2, 30), [(figures(3, 4, 31), goal)])
    (found,) = measure(case, 3).comparisons
    assert (found.value, found.met, share(found)) == (value, met, part)


def test_each_is_first_once() -> None:
    order = []
    contenders = [Contender(name, lambda name=name: order.append(name) or 1.0) for name in "abc"]
    measure(Case("row", "case", "s", contenders[0], [(peer, Goal()) for peer in contenders[1:]]), 3)
    assert "".join(order) == "abcbcacab"


def test_missed_goal_is_shown() -> None:
    result = measure(Case("row", "<case>", "s", figures(3), [(figures(1), at_most(1.5))]), 1)
    assert table([result]).splitlines()[1].split()[-1] == "NO"
    assert "&lt;case&gt;" in svg([result])
