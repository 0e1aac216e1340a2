# SPDX-License-Identifier: LGPL-2.1-or-later
"""``make bench``, ``python -m tests.bench --help``: all rows, or some, and what became of them."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from tests.bench import add_rows, capture_rows, service_rows, write_rows
from tests.bench.chart import svg
from tests.bench.machine import describe
from tests.bench.measure import Case, NotRun, Unavailable, measure
from tests.bench.report import Outcome, as_json, lines_of, read_before, table
from tests.bench.rig import Rig
from tests.bench.storage import coldest
from vmcoredd_daemon.errors import CallFailed, VmcoreddError

Row = Callable[[Rig], Iterator[Case | NotRun]]

ROWS: dict[str, Row] = {
    "elf": write_rows.elf,
    "capture": capture_rows.capture,
    "kdump": write_rows.kdump,
    "attach": write_rows.attach,
    "descriptor": add_rows.descriptor,
    "callback": add_rows.callback,
    "rate": service_rows.rate,
    "start": service_rows.start,
    "idle": service_rows.idle,
    "peak": service_rows.peak,
    "sizes": write_rows.sizes,
    "dumps": write_rows.dumps,
}
BEFORE = Path(__file__).with_name("before.json")
FAILURES = (OSError, RuntimeError, subprocess.SubprocessError, TimeoutError, VmcoreddError, CallFailed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; return 1 when a row could not be finished, whatever the figures are."""
    options = _parser().parse_args(arguments)
    # What is installed has its byte code; without this, it might be compiled at each start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    options.directory.mkdir(parents=True, exist_ok=True)
    emptied, empty_cache = coldest(options.cold)
    machine = describe(options.directory, emptied)
    for name, value in machine.items():
        print(f"{name + ':':18}{value}")
    earlier, before = read_before(options.before, options.scale)
    if earlier:
        what = ", ".join(earlier[name] for name in ("vmcoredd", "processor", "memory", "kernel", "python"))
        print(f"{'before:':18}{what}")
    outcomes: list[Outcome] = []
    settings = {"rounds": options.rounds, "scale": options.scale, "rows": options.rows}
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="bench", dir=options.directory.resolve()))
        stack.callback(shutil.rmtree, directory)
        rig = Rig(directory, options.scale, options.rounds, empty_cache)
        for outcome in _outcomes(rig, options.rows, options.rounds):
            outcomes.append(outcome)
            for line in lines_of(outcome, before):
                print("  ".join(filter(None, line)), file=sys.stderr, flush=True)
            # A long run that is stopped has what it has seen.
            if options.json:
                options.json.write_text(json.dumps(as_json(outcomes, machine, settings), indent=1) + "\n")
            if options.svg:
                options.svg.write_text(svg(outcomes))
    print(f"\n{table(outcomes, before)}")
    return int(any(isinstance(outcome, NotRun) and outcome.failed for outcome in outcomes))


def _outcomes(rig: Rig, rows: Sequence[str], rounds: int) -> Iterator[Outcome]:
    for name in rows:
        try:
            with closing(ROWS[name](rig)) as cases:  # type: ignore[type-var]
                for case in cases:
                    yield case if isinstance(case, NotRun) else _measured(case, rounds)
        except Unavailable as error:
            yield NotRun(name, "", str(error))
        except FAILURES as error:
            yield NotRun(name, "", f"{type(error).__name__}: {error}", failed=True)


def _measured(case: Case, rounds: int) -> Outcome:
    try:
        return measure(case, rounds)
    except FAILURES as error:
        return NotRun(case.row, case.name, f"{type(error).__name__}: {error}", failed=True)


def _rows(value: str) -> list[str]:
    names = value.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise argparse.ArgumentTypeError(f"no such row: {unknown[0]}; there are {', '.join(ROWS)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("--rows", type=_rows, default=list(ROWS), metavar="NAME,...", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds of each case, 5 by default")
    parser.add_argument("--scale", type=float, default=1.0, metavar="F", help="sizes and counts times F")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw a chart here")
    parser.add_argument(
        "--before",
        type=Path,
        default=BEFORE,
        metavar="FILE",
        help="figures of an earlier run, which are shown beside these",
    )
    parser.add_argument(
        "--cold", choices=("drop_caches", "fadvise"), default="drop_caches", help="how the cache is emptied"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("build/bench"),
        metavar="DIR",
        help="where image files and all else lie, some 30 GB at most",
    )
    return parser


if __name__ == "__main__":
    # Nothing stays mounted when the user stops it; in the background of a shell, Control-C is ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
