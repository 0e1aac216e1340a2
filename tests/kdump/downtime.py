# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a machine with kdump-tools is down after a panic, with our package and without it.

`python -m tests.kdump.downtime [--rounds N] [SUITE...]` prints the table of docs/kdump.md. It needs what
make kdump-test needs, and quiet processors.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import alternately
from tests.kdump import debian, units

DISK_MIB = 2048
WITHOUT_US = "apt-get --quiet --yes purge vmcoredd"
HELPERS = ("my-registers", "endless", "large")


@dataclass(frozen=True, slots=True)
class _Run:
    seconds: float
    size: int
    """Bytes of all files in /var/crash."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kdump.downtime", description=__doc__.splitlines()[0])
    parser.add_argument("suites", nargs="*", default=debian.SUITES, metavar="SUITE")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    options = parser.parse_args(arguments)
    if missing := debian.missing_tools():
        parser.exit(1, f"{parser.prog}: {missing[0]} is not installed\n")
    print("| machine | seconds | MB |\n|---|---|---|")
    for suite in options.suites:
        with tempfile.TemporaryDirectory() as directory:
            for name, runs in _compare(Path(directory), suite, options.rounds).items():
                seconds = _span([run.seconds for run in runs])
                print(f"| {suite}, {name} | {seconds} | {_span([run.size / 1e6 for run in runs])} |", flush=True)


def _compare(directory: Path, suite: str, rounds: int) -> dict[str, list[_Run]]:
    """Let two machines panic, one after the other, again and again."""
    ours = debian.build_root(directory, suite)
    theirs = directory / "without"
    subprocess.run(["cp", "--archive", ours, theirs], check=True)
    for name in HELPERS:
        (theirs / units.SYSTEM / f"vmcoredd-capture.target.wants/{name}.service").unlink()
    debian.chroot(theirs, WITHOUT_US)
    roots = {"kdump-tools alone": theirs, "with vmcoredd": ours}
    runs: dict[str, list[_Run]] = {name: [] for name in roots}
    for name in alternately(tuple(roots), rounds):
        with tempfile.TemporaryDirectory(dir=directory) as workdir:
            captured = debian.panic(roots[name], Path(workdir), disk_mib=DISK_MIB)
            run = _Run(captured.seconds, sum(file.lstat().st_size for file in captured.files()))
        load = f"load average {os.getloadavg()[0]:.1f}"
        print(f"{suite}, {name}: {run.seconds:.1f} s, {run.size / 1e6:.1f} MB, {load}", file=sys.stderr)
        runs[name].append(run)
    return runs


def _span(figures: Sequence[float]) -> str:
    return f"{min(figures):.0f} to {max(figures):.0f}"


if __name__ == "__main__":
    main()
