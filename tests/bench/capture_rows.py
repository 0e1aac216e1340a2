# SPDX-License-Identifier: LGPL-2.1-or-later
"""The row about the capture kernel: /proc/vmcore in QEMU, and what we take of that kernel's memory and time.

All rounds are in one boot of one capture kernel: a boot takes longer than a write, and boots differ.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.measure import Case, Contender, Goal, NotRun, Unavailable, alternately, at_most, more
from tests.bench.rig import Rig
from tests.bench.write_rows import COPIES
from tests.kdump import capture as kdump
from tests.kdump import rig as machines
from tests.kdump import units
from vmcoredd_daemon.collectors.builtin import BUILT_IN

MIB = 1 << 20
OURS = "vmcoredd"
PEERS = tuple(COPIES)
MEMORY, SMALLEST, CRASHKERNEL = 1280, 768, 256
"""MiB of the machine that panics, at least, and what of it the capture kernel has."""
PROGRAMS = ("bash", "busctl", "cp", "dd", "makedumpfile", "rm", "stat", "sync", "systemctl")
"""What the guest runs: not busybox's."""
PIECE_MIB = 8
PATIENCE = 300.0
"""Seconds for two boots and what belongs to them."""
PATIENCE_FOR_ONE = 60.0
"""Seconds for one write of the whole memory."""

FILL = """\
mkdir /full
mount -t tmpfs -o size=100% tmpfs /full || fail "mount of a tmpfs"
dd if=/dev/urandom of=/piece bs=1M count={piece} 2> /dev/null || fail "dd: status $?"
left={count}
while [ $left -gt 0 ]; do
    cat /piece || fail "there is no room to fill the memory"
    left=$((left - 1))
done > /full/data
"""

UNIT = f"""\
[Unit]
After=dbus.service vmcoredd.service
RequiresMountsFor={kdump.TARGET}
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=bash /{units.VENDOR}/in_guest.sh {{arguments}}
StandardError=journal+console
"""

_WRITTEN = re.compile(r"vmcoredd rig: bench: (\w+): (\d+) us, (\d+) kB, (\d+) bytes$", re.MULTILINE)
_PEAK = re.compile(r"vmcoredd rig: bench: VmHWM: (\d+) kB$", re.MULTILINE)
_VMCORE = re.compile(r"vmcoredd rig: bench: source: (\d+) bytes$", re.MULTILINE)


@dataclass(slots=True)
class _Written:
    """What one contender has done, one figure a round."""

    seconds: list[float] = field(default_factory=list)
    lowest: list[float] = field(default_factory=list)
    """MiB available."""


def capture(rig: Rig) -> Iterator[Case | NotRun]:
    """Native ELF from /proc/vmcore, in one capture kernel, and what we take of it."""
    missing = [name for name in PROGRAMS if machines.which(name) is None]
    if missing := [*kdump.missing_tools(), *missing]:
        raise Unavailable(f"{missing[0]} is not installed")
    directory = rig.directory / "capture"
    directory.mkdir()
    memory = max(int(MEMORY * rig.scale), SMALLEST)
    try:
        initramfs = kdump.build(directory)
        console = _boot(directory / "complete", initramfs, memory, rig.rounds)
        yield from _cases(f"{memory - CRASHKERNEL} MiB", initramfs, console)
        if rig.scale >= 1:
            yield _memory_taken(directory / "without", initramfs, memory, console)
    except machines.RigError as error:
        print(error, file=sys.stderr)
        raise RuntimeError(str(error).splitlines()[0]) from error


def _boot(directory: Path, initramfs: kdump.Initramfs, memory: int, rounds: int) -> str:
    """Panic a machine of *memory* MiB whose capture kernel does all rounds; return its console."""
    arguments = " ".join(alternately((OURS, *PEERS), rounds))
    copies = "".join(f"copy_{name}() {{\n{command}\n}}\n" for name, command in COPIES.items())
    files = {
        **_usual_files(),
        **units.measured(OURS),
        **units.wanted("bench", UNIT.format(arguments=arguments)),
        # That of the target would end the bench.
        f"{units.SYSTEM}/vmcoredd-capture.target.d/long.conf": b"[Unit]\nJobTimeoutSec=infinity\n",
        f"{units.VENDOR}/in_guest.sh": Path(__file__).with_name("in_guest.sh"),
        f"{units.VENDOR}/copies": copies.encode(),
    }
    timeout = PATIENCE + PATIENCE_FOR_ONE * rounds * (1 + len(PEERS))
    return _run(directory, initramfs, memory, files, timeout)


def _run(
    directory: Path, initramfs: kdump.Initramfs, memory: int, files: units.Files, timeout: float = PATIENCE
) -> str:
    half = (memory - CRASHKERNEL) // 2
    scenario = kdump.Scenario(
        files=files,
        memory_mib=memory,
        crashkernel=f"{CRASHKERNEL}M",
        # Without room for all of it, the service would compress it.
        disk_mib=2 * memory,
        before=FILL.format(piece=PIECE_MIB, count=half // PIECE_MIB),
    )
    machine = kdump.prepare(directory, initramfs, scenario)
    return machines.boot(machine, directory / "console.log", timeout=timeout)


def _usual_files() -> units.Files:
    """What both machines have: programs, measurements, and no device dumps but what the service itself adds."""
    masks = {f"etc/vmcoredd/collectors.d/{name}.conf": b"" for name in BUILT_IN}
    programs = {path: file for name in PROGRAMS for path, file in machines.program_files(name).items()}
    # All of the memory, as the other programs copy it.
    masks |= units.configuration("Format=elf")
    return {**{_merged(path): file for path, file in programs.items()}, **masks, **units.measured("dbus")}


def _merged(path: str) -> str:
    """Return where a file of /bin or /lib is: a directory of that name would replace the initramfs' link."""
    return path if path.startswith("usr/") else f"usr/{path}"


def _cases(name: str, initramfs: kdump.Initramfs, console: str) -> Iterator[Case]:
    written, points = _written(console), kdump.points(console)
    peak = _PEAK.search(console)
    if peak is None or OURS not in points:
        raise machines.RigError("the capture kernel did not report all that is measured", console)
    seconds = {contender: _figures(contender, entry.seconds) for contender, entry in written.items()}
    lowest = {contender: _figures(contender, entry.lowest) for contender, entry in written.items()}
    limits = [(seconds[peer], at_most(1.0)) for peer in PEERS]
    yield Case("capture", f"write {name} of /proc/vmcore", "s", seconds[OURS], limits)
    yield Case("capture", "least available in a write", "MiB", lowest[OURS], [(lowest[p], Goal()) for p in PEERS])
    ready, dbus = points[OURS], points["dbus"]
    ours = _once(OURS, ready.seconds)
    yield Case("capture", "up, name owned", "s", ours, [(_once("dbus.service", dbus.seconds), more(3))], once=True)
    complete, without = (file.stat().st_size / 1e6 for file in (initramfs.file, initramfs.without))
    peers = [(_once("without us", without), more(10))]
    yield Case("capture", "initramfs", "MB", _once("complete", complete), peers, once=True)
    yield Case("capture", "available when ready", "MiB", _once("", ready.available_kib / 1024), [], once=True)
    yield Case("capture", "peak after the writes", "MiB", _once("VmHWM", int(peak[1]) / 1024), [], once=True)


def _memory_taken(directory: Path, initramfs: kdump.Initramfs, memory: int, console: str) -> Case:
    """Compare with the same capture kernel without us."""
    bare = kdump.Initramfs(initramfs.without, initramfs.kernel, initramfs.without)
    idle = units.helper("idle", "true", after="dbus.service")
    files = {**_usual_files(), **units.bare_target("dbus.service"), **idle, **units.finally_do("poweroff")}
    points = kdump.points(_run(directory, bare, memory, files))
    ours, theirs = kdump.points(console)[OURS], points["idle"]
    taken = [CRASHKERNEL - point.available_kib / 1024 for point in (ours, theirs)]
    peers = [(_once("without us", taken[1]), more(40))]
    return Case(
        "capture", f"taken of {CRASHKERNEL} MiB when ready", "MiB", _once("with us", taken[0]), peers, once=True
    )


def _written(console: str) -> dict[str, _Written]:
    """Return what each contender has taken. Raises RigError where one did not write all of the memory."""
    written = {name: _Written() for name in (OURS, *PEERS)}
    source = _VMCORE.search(console)
    for name, microseconds, available, size in _WRITTEN.findall(console):
        # The service would rather compress the memory than leave it out.
        if source is None or int(size) < int(source[1]) * 0.99:
            raise machines.RigError(f"{name} wrote {size} bytes", console)
        written[name].seconds.append(int(microseconds) / 1e6)
        written[name].lowest.append(int(available) / 1024)
    return written


def _figures(name: str, figures: Sequence[float]) -> Contender:
    left = iter(figures)
    return Contender(name, lambda: next(left))


def _once(name: str, figure: float) -> Contender:
    return Contender(name, lambda: figure)
