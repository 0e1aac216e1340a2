# SPDX-License-Identifier: LGPL-2.1-or-later
"""Does ``make bench`` work? How fast anything is, is none of a test's business."""

import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.bench.__main__ import BEFORE, ROWS, main
from tests.bench.chart import share, svg
from tests.bench.measure import Case, Contender, Goal, Result, at_least, at_most, measure, more
from tests.bench.report import as_json, read_before, table
from tests.kdump import capture
from tests.lib.tools import require, skip_or_fail
from tests.lib.waiting import wait_until

SCALE = "0.001"
MAY_LACK = {"mkfs.ext4", "mkfs.xfs", "losetup", "mount"}
# It makes two initramfs and boots two kernels.
BOOTS = {"capture": [pytest.mark.qemu, pytest.mark.kdump_matrix, pytest.mark.timeout(400)]}


@pytest.mark.parametrize("row", [pytest.param(row, marks=BOOTS.get(row, ())) for row in ROWS])
def test_row_works(row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("dbus-daemon", "makedumpfile")
    skip_or_fail(capture.missing_tools() if row in BOOTS else [])
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
            # If the user may not mount, that is said.
            assert row == "elf"
            assert result["reason"].split(" ")[0].rstrip(":") in MAY_LACK
            continue
        measured += 1
        assert result["contenders"]
        assert all(len(contender["figures"]) == 1 for contender in result["contenders"])
        assert all(figure > 0 for contender in result["contenders"] for figure in contender["figures"])
        assert result["case"] in output
    assert ET.parse(chart).getroot().tag.endswith("svg")
    assert measured or row == "elf"
    # Nothing is left behind: neither mounted nor lying about.
    assert sorted(tmp_path.iterdir()) == [chart, results]


@pytest.mark.qemu
def test_stopped_while_an_initramfs_is_made_it_leaves_nothing(tmp_path: Path) -> None:
    skip_or_fail(capture.missing_tools())
    command = [sys.executable, "-m", "tests.bench", "--rows", "capture", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bench:
        # What dracut fills.
        filled = "bench*/capture/dracut.*/initramfs/usr/bin/*"
        wait_until(lambda: list(tmp_path.glob(filled)) or bench.poll() is not None, timeout=60)
        assert bench.poll() is None
        bench.terminate()
    assert bench.returncode == 128 + signal.SIGTERM
    # What dracut has started would have written by then.
    time.sleep(1)
    assert list(tmp_path.iterdir()) == []


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
    assert table([result]).splitlines()[1].split()[-2] == "NO"
    assert "&lt;case&gt;" in svg([result])


def test_figures_of_an_earlier_run_are_shown_beside(tmp_path: Path) -> None:
    def run(ours: float) -> list[Result]:
        peer = Contender("peer", lambda: 2.0)
        compared = Case("row", "compared", "s", Contender("ours", lambda: ours), [(peer, at_most(1.5))])
        alone = Case("row", "alone", "MiB", Contender("ours", lambda: ours), [], once=True)
        return [measure(compared, 3), measure(alone, 3)]

    earlier = tmp_path / "before.json"
    assert read_before(earlier, 1.0) == ({}, {})
    earlier.write_text(json.dumps(as_json(run(6), {"kernel": "Linux"}, {"scale": 1.0})))
    # What was measured at another scale is something else.
    assert read_before(earlier, 0.5) == ({}, {})
    machine, before = read_before(earlier, 1.0)
    assert machine == {"kernel": "Linux"}
    _, compared, alone = table(run(1), before).splitlines()
    assert compared.split()[-3:] == ["6", "s,", "3x"]
    assert alone.split() == ["row", "alone", "ours", "1", "MiB", "6", "MiB"]
    assert table(run(1)).splitlines()[1].split()[-1] == "-"


def test_committed_figures_of_an_earlier_run_are_read() -> None:
    machine, before = read_before(BEFORE, 1.0)
    assert machine["vmcoredd"]
    assert any(row == "capture" for row, _, _ in before)
