# SPDX-License-Identifier: LGPL-2.1-or-later
"""`python -m tests.bench.large_machine [DIRECTORY]` prints what a vmcore of 2 TiB takes, by smaller ones.

For makedumpfile the memory is a user's, but for the kernel's description of it (``struct page``, 1/64). It reads
no page of a user, so these are a hole in the source. For ELF half of the pages are zeros, the others data.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.rig import running
from tests.bench.service_start import memory, sampled
from tests.bench.source import write_source
from tests.lib.resources import children
from tests.lib.sample import unpack

GIB = 1 << 30
SIZES = {"kdump": (4, 64, 256), "elf": (2, 4, 8)}
"""GiB of the source's memory, for each format."""
WANTED = 2048


@dataclass(frozen=True, slots=True)
class Figures:
    """What one write takes."""

    size: float
    """GiB of memory."""
    seconds: float
    written: float
    """MB that the vmcore takes on the disk."""
    peak: float
    """MiB of memory that the service and makedumpfile have of their own."""

    def row(self, name: str) -> str:
        return f"| {name} | {self.size:,.0f} | {self.seconds:,.1f} | {self.written:,.0f} | {self.peak:,.0f} |"


def main() -> None:
    """Print a table, in Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.large_machine", description=__doc__.splitlines()[0]
    )
    parser.add_argument("directory", nargs="?", default="/var/tmp", help="with 20 GB of space")
    options = parser.parse_args()
    print("| format | GiB | seconds | MB written | peak MiB |", "|---|---|---|---|---|", sep="\n")
    for kind, sizes in SIZES.items():
        found = [measure(options.directory, kind, size) for size in sizes]
        for figures in found:
            print(figures.row(kind), flush=True)
        print(extrapolated(found).row(f"{kind}, extrapolated"), flush=True)


def extrapolated(found: Sequence[Figures]) -> Figures:
    """Return what a straight line through the first and the last gives for 2 TiB."""
    first, last = found[0], found[-1]
    steps = (WANTED - last.size) / (last.size - first.size)

    def beyond(least: float, most: float) -> float:
        return most + (most - least) * steps

    return Figures(
        WANTED,
        beyond(first.seconds, last.seconds),
        beyond(first.written, last.written),
        beyond(first.peak, last.peak),
    )


def measure(parent: str, kind: str, size: int) -> Figures:
    """Write a vmcore of *size* GiB as *kind*."""
    with tempfile.TemporaryDirectory(dir=parent) as temporary:
        directory = Path(temporary)
        sample = unpack(directory / "sample")
        source = write_source(directory / "source", sample, size * GIB, user=kind == "kdump", kept=kind == "elf")
        with running(directory, source, f"Format={kind}") as daemon:
            process = daemon.service.process.pid

            def own_memory() -> float:
                return sum(memory(int(each), "RssAnon") for each in [process, *children(process).split()])

            with sampled(own_memory) as peak:
                started = time.perf_counter()
                path = Path(daemon.call("WriteVmcore", "a{sv}", [{}]))
                seconds = time.perf_counter() - started
            if path.name != "vmcore" or "The vmcore is" in daemon.service.log():
                raise RuntimeError(daemon.service.log())
            return Figures(size, seconds, path.stat().st_blocks * 512 / 1e6, max(peak))


if __name__ == "__main__":
    main()
