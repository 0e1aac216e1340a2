# SPDX-License-Identifier: LGPL-2.1-or-later
"""Time and memory of ``vmcoredd crashes`` over many vmcores: ``python -m tests.bench.crashes --help``.

The vmcores are copies of the sample, each with three device dumps, of its full size, and with a hole in the place
of its memory, which is not read: half of them ELF, half kdump-compressed. Caches are emptied of them before the
first run, as far as posix_fadvise(2) does it.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.bench.machine import describe
from tests.lib.attaching import attach_data
from tests.lib.sample import unpack
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import file_image
from vmcoredd_daemon.vmcore.inspect.regions import Kind, regions

DUMPS = {
    "nvme_0000:03:00.0": bytes(range(256)) * 80,
    "pci": b"configuration space" * 2000,
    "nic_0000:02:00.4": b"registers" * 500,
}
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
APART = timedelta(minutes=97)
HOSTS = 40


# ru_maxrss of a child is that of its parent, too.
PROGRAM = (
    "import sys; from pathlib import Path; from vmcoredd_daemon.cli.main import main;"
    "status = main(sys.argv[1:]);"
    "sys.stderr.write(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]);"
    "sys.exit(status)"
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one command took."""

    seconds: float
    processor: float
    """Seconds of processor time."""
    peak: int
    """Bytes resident."""
    output: bytes


def make(directory: Path, count: int, formats: Sequence[str] = ("elf", "kdump")) -> None:
    """Make *count* crash directories, named as the service and kdump-utils name them, each with a kernel log."""
    with tempfile.TemporaryDirectory(dir=directory.parent) as made:
        sample = unpack(Path(made, "elf"))
        patterns = {"elf": sample}
        if "kdump" in formats:
            patterns["kdump"] = Path(made, "kdump")
            _makedumpfile("-l", "-d", "31", sample, patterns["kdump"])
        log = Path(made, "log")
        _makedumpfile("--dump-dmesg", sample, log)
        for kind in formats:
            attach_data(patterns[kind], **DUMPS)
        for number in range(count):
            when = FIRST + number * APART
            crash = directory / f"node{number % HOSTS}-{when:%Y-%m-%d-%H:%M:%S}"
            crash.mkdir(parents=True)
            _copy_without_memory(patterns[formats[number % len(formats)]], crash / "vmcore", when)
            shutil.copy(log, crash / "vmcore-dmesg.txt")


def _makedumpfile(*arguments: object) -> None:
    subprocess.run(["makedumpfile", "--non-mmap", *map(str, arguments)], check=True, capture_output=True)


def _copy_without_memory(pattern: Path, path: Path, when: datetime) -> None:
    crash_time = b"\nCRASHTIME=%010d\n" % when.timestamp()
    with pattern.open("rb") as source, path.open("wb") as target:
        size = os.fstat(source.fileno()).st_size
        for region in regions(recognise(file_image(source.fileno(), str(pattern)))):
            if region.kind is not Kind.LOAD:
                data = os.pread(source.fileno(), region.size, region.offset)
                os.pwrite(target.fileno(), re.sub(rb"\nCRASHTIME=\d{10}\n", crash_time, data), region.offset)
        os.truncate(target.fileno(), size)


def empty_cache(directory: Path) -> None:
    """Drop what is cached of the files in *directory*."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(*arguments: object) -> Run:
    """Run vmcoredd with *arguments*; raise CalledProcessError if it fails."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    with tempfile.TemporaryFile() as output:
        started, before = time.monotonic(), os.times()
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, check=True)
        seconds, after = time.monotonic() - started, os.times()
        processor = sum(after[2:4]) - sum(before[2:4])
        output.seek(0)
        return Run(seconds, processor, int(done.stderr) << 10, output.read())


def measure(directory: Path, count: int) -> Iterator[str]:
    """Yield what is found, line by line."""
    few = directory / "few"
    make(few, max(1, count // 10))
    make(directory / "many", count)
    for name, path, number in (("few", few, max(1, count // 10)), ("many", directory / "many", count)):
        empty_cache(path)
        for cache in ("cold", "warm"):
            done = run("crashes", "--json=lines", path)
            assert len(done.output.splitlines()) == number
            first = json.loads(done.output.splitlines()[0])
            assert [dump["name"] for dump in first["device_dumps"]] == list(DUMPS)
            yield (
                f"{name}: {number} vmcores, cache {cache}: {done.seconds:.2f} s, processor {done.processor:.2f}, "
                f"{1000 * done.processor / number:.2f} ms each, {done.peak / (1 << 20):.1f} MiB"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="tests.bench.crashes", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1000, metavar="N", help="vmcores, by default 1000")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), metavar="DIR")
    parser.add_argument("--make", type=Path, metavar="DIR", help="only make the vmcores, there, and keep them")
    options = parser.parse_args(arguments)
    if options.make:
        make(options.make, options.count)
        return 0
    machine = describe(options.directory, "posix_fadvise")
    for name in ("vmcoredd", "processor", "memory", "kernel", "python", "load before"):
        print(f"{name + ':':18}{machine[name]}")
    with tempfile.TemporaryDirectory(prefix="crashes", dir=options.directory) as directory:
        for line in measure(Path(directory), options.count):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
