# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rows about writing a vmcore: native ELF, kdump format, an attach, and how cost grows."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.measure import Case, Contender, Goal, NotRun, Unavailable, at_most, more
from tests.bench.rig import Daemon, Rig, running, timed_command
from tests.bench.source import write_source
from tests.bench.storage import disk, loop_mounted, settle, warm
from tests.lib.tools import installed_program

GIB = 1 << 30
MIB = 1 << 20

COPIES = {
    "cp": 'cp --sparse=always "$2" "$1"',
    "dd": 'dd if="$2" of="$1" bs=1M conv=sparse status=none',
    "makedumpfile": 'makedumpfile -E -d 0 --message-level 0 "$2" "$1"',
}
"""What users would take for a vmcore without filtering; each is followed by sync -d."""

COMPRESSIONS = {"none": "", "zlib": "-c", "lzo": "-l", "snappy": "-p", "zstd": "-z"}


def elf(rig: Rig) -> Iterator[Case | NotRun]:
    """Native ELF against cp, dd and makedumpfile, with a warm and a cold cache, on ext4 and xfs.

    The source is in another file system: as /proc/vmcore, it cannot be cloned.
    """
    size = rig.size(4 * GIB, 112 * MIB)
    source = write_source(rig.directory / "source", rig.sample, size, kept=True)
    for kind in ("ext4", "xfs"):
        try:
            with (
                loop_mounted(kind, rig.directory, size + size // 4) as mount,
                running(mount, source, "Format=elf") as daemon,
            ):
                yield _elf(daemon, f"{kind}, warm", source, warm)
                yield _elf(daemon, f"{kind}, cold", source, rig.empty_cache)
        except Unavailable as error:
            yield NotRun("elf", kind, str(error))
    source.unlink()


def _elf(daemon: Daemon, name: str, source: Path, prepare: Callable[[Path], None]) -> Case:
    target = daemon.service.target / "copy"

    def write() -> float:
        prepare(source)
        return daemon.write()

    def copy(command: str) -> Callable[[], float]:
        def run() -> float:
            prepare(source)
            return timed_command(target, command, source)

        return run

    peers = [(Contender(program, copy(command)), at_most(0.8)) for program, command in COPIES.items()]
    return Case("elf", name, "s", Contender("vmcoredd", write), peers)


def kdump(rig: Rig) -> Iterator[Case | NotRun]:
    """Format kdump, level 31, by the service and by core-collector, against makedumpfile alone."""
    if shutil.which("makedumpfile") is None:
        raise Unavailable("makedumpfile is not installed")
    built = subprocess.run(["makedumpfile", "-v"], check=False, capture_output=True, text=True).stdout
    size = rig.size(4 * GIB, 112 * MIB)
    with disk(rig.directory, 2 * size) as (_, directory):
        source = write_source(directory / "source", rig.sample, size, kept=True)
        for compression in rig.some(COMPRESSIONS):
            if f"{compression}\tdisabled" in built:
                yield NotRun("kdump", compression, "makedumpfile was built without it, and would compress nothing")
                continue
            option = COMPRESSIONS[compression]
            lines = f"Format=kdump\nDumpLevel=31\nCompression={compression}"
            with running(directory, source, lines) as daemon:
                alone = Contender("makedumpfile", _filter(source, f"makedumpfile {option}"))
                service = Contender("vmcoredd", daemon.write)
                yield Case("kdump", compression, "s", service, [(alone, at_most(1.02))])
                bus = f"DBUS_SYSTEM_BUS_ADDRESS='{daemon.service.address}'"
                program = f"{bus} {installed_program('vmcoredd')} core-collector {option}"
                collector = Contender("core-collector", _filter(source, program))
                yield Case("kdump", f"{compression}, core-collector", "s", collector, [(alone, at_most(1.02))])


def _filter(source: Path, program: str) -> Callable[[], float]:
    command = f'{program} -d 31 --message-level 0 "$2" "$1"'
    return lambda: timed_command(source.with_name("filtered"), command, source)


def attach(rig: Rig) -> Iterator[Case | NotRun]:
    """A device dump of 1 MiB into a finished file of 20 GiB, against the start of the same program."""
    if shutil.which("makedumpfile") is None:
        raise Unavailable("makedumpfile is not installed")
    with disk(rig.directory, 256 * MIB) as (_, directory):
        finished, vmcore, data = (directory / name for name in ("finished", "vmcore", "data"))
        command = ["makedumpfile", "-l", "-d", "31", "--message-level", "0", str(rig.sample), str(finished)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        # Headers, bitmaps, descriptors and pages stay; a hole is in the place of more pages.
        os.truncate(finished, max(rig.size(20 * GIB), 2 * finished.stat().st_size))
        data.write_bytes(os.urandom(MIB))
        program = str(installed_program("vmcoredd"))

        def run() -> float:
            subprocess.run(["cp", "--sparse=always", str(finished), str(vmcore)], check=True)
            settle(directory)
            return _seconds(program, "attach", str(vmcore), f"nic={data}")

        ours = Contender("vmcoredd attach", run)
        version = Contender("vmcoredd --version", lambda: _seconds(program, "--version"))
        yield Case("attach", "1 MiB to 20 GiB", "s", ours, [(version, more(0.05))])


def _seconds(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def sizes(rig: Rig) -> Iterator[Case | NotRun]:
    """Native ELF from 64 MiB to 16 GiB: seconds for each GiB, an eighth of them data, the rest holes."""
    wanted = [rig.size(size, 96 * MIB) for size in (64 * MIB, 256 * MIB, GIB, 4 * GIB, 16 * GIB)]
    if rig.scale < 1:
        wanted = [96 * MIB, 128 * MIB]
    # Without room for all of it, the service would compress it.
    used = sum(wanted) // 8 + wanted[-1] // 8 + GIB
    with disk(rig.directory, used + wanted[-1], used if rig.scale >= 1 else 0) as (_, directory):
        contenders = []
        for size in wanted:
            source = write_source(directory / f"source{size}", rig.sample, size, holes=True)
            contenders.append(Contender(f"{size >> 20} MiB", _per_gib(directory, source), size / GIB))
        *smaller, largest = contenders
        goals = [Goal() if peer is not smaller[-1] else at_most(1.1) for peer in smaller]
        yield Case("sizes", "seconds for a GiB", "s/GiB", largest, list(zip(smaller, goals, strict=True)), "GiB")


def _per_gib(directory: Path, source: Path) -> Callable[[], float]:
    def run() -> float:
        with running(directory, source, "Format=elf") as daemon:
            return daemon.write() / (source.stat().st_size / GIB)

    return run


def dumps(rig: Rig) -> Iterator[Case | NotRun]:
    """1 to 64 device dumps with 64 MiB together, in a vmcore of 1 GiB."""
    total, counts = rig.size(64 * MIB), (1, 4, 16, 64)
    size = rig.size(GIB, 112 * MIB)
    with disk(rig.directory, 2 * size + 4 * total) as (_, directory):
        source = write_source(directory / "source", rig.sample, size)
        data = directory / "data"
        data.write_bytes(os.urandom(total))

        def write(count: int) -> float:
            with running(directory, source, "Format=elf") as daemon, data.open("rb") as file:
                for _ in range(count):
                    daemon.add(total // count, file.fileno())
                return daemon.write()

        def contender(count: int) -> Contender:
            return Contender(f"{count} device dumps", lambda: write(count), count)

        *fewer, most = map(contender, counts)
        goals = [at_most(1.1), *(Goal() for _ in fewer[1:])]
        yield Case("dumps", "seconds to write", "s", most, list(zip(fewer, goals, strict=True)), "device dumps")
