# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service where it will live: a capture kernel with a systemd initramfs, made by dracut and our module for it.

The initramfs is built once; each scenario appends an archive of its own, with units that add device dumps. What
the guest measures comes over the console.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.kdump import rig
from tests.lib.paths import ROOT
from tests.lib.tools import installed_program
from vmcoredd_daemon.journal import Event
from vmcoredd_daemon.vmcore.inspect.inspect import inspect

PROGRAM = installed_program("vmcoredd-daemon")
DRACUT_DIRECTORY = Path("/usr/lib/dracut")
DRACUT_MODULES = "systemd systemd-initrd base systemd-journald fs-lib"
DRIVERS = "virtio_pci virtio_blk ext4"
CLOUD_DRIVERS = f"{DRIVERS} vmxnet3"

PROGRAMS = ("dracut", "mkfs.ext4", "debugfs", "zstd", "dbus-daemon", "journalctl", "unshare")

CAPTURE_COMMAND_LINE = (
    "console=ttyS0 nokaslr irqpoll nr_cpus=1 reset_devices panic=1 no_timer_check"
    " rd.systemd.unit=vmcoredd-capture.target"
    " systemd.crash_reboot=1 systemd.show_status=0 printk.devkmsg=on rd.shell=0 rd.emergency=poweroff"
)

TARGET = "/var/crash"

MEASURE = """\
#!/bin/sh
# measure POINT: guest time in seconds and available memory in kB
read -r uptime _ < /proc/uptime
while read -r name value _; do
    [ "$name" != MemAvailable: ] || available=$value
done < /proc/meminfo
echo "vmcoredd rig: at $1: $uptime s, $available kB" > /dev/kmsg
"""


@dataclass(frozen=True, slots=True)
class Initramfs:
    """An initramfs of a capture kernel."""

    file: Path
    kernel: rig.Kernel
    without: Path
    """The same without us."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A machine, and what its capture initramfs has on top."""

    files: Mapping[str, Path | bytes] = field(default_factory=dict)
    """By their path in the initramfs; bytes become a program."""
    memory_mib: int = 768
    """With less, address space randomization may put the kernel where it leaves no room for crashkernel=256M."""
    crashkernel: str = "256M"
    disk_mib: int = 1024
    """0: there is no disk."""
    cpus: int = 1
    devices: tuple[str, ...] = ()
    """Options of QEMU's."""
    first_files: Mapping[str, Path | bytes] = field(default_factory=dict)
    """Of the kernel that panics; modules/*.ko are loaded, see rig.module_files()."""
    before: str = ""
    """A shell script that runs there, before the panic."""
    first_command_line: str = ""
    command_line: str = ""
    """More for the capture kernel."""
    watch: Callable[[str], None] = lambda console: None
    """Called with the console, again and again."""
    timeout: float = 100.0


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement in the guest."""

    seconds: float
    available_kib: int


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture kernel has left."""

    target: Path
    """Copy of the target's files on this machine."""
    console: str
    points: Mapping[str, Point]
    off: float
    """Guest seconds until the machine was switched off."""

    def journal(self) -> list[dict[str, str]]:
        """Return what the service has logged, saved beside its vmcore."""
        (path,) = self.target.glob("*/vmcoredd-journal.json")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def explained(self, *options: str) -> str:
        """Return what `journalctl -x` shows of the service in the capture kernel's journal."""
        state = self.target.parent / "catalog"
        catalog = state / "usr/lib/systemd/catalog"
        catalog.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "systemd/vmcoredd.catalog", catalog)
        database = state / "var/lib/systemd/catalog"
        database.mkdir(parents=True, exist_ok=True)
        subprocess.run(["journalctl", f"--root={state}", "--update-catalog"], check=True)
        # It always looks at the same place for its database.
        script = 'mount --bind "$0" /var/lib/systemd/catalog; exec journalctl -x --unit=vmcoredd --no-pager "$@"'
        command: list[str | Path] = ["unshare", "--mount", "sh", "-euc", script, database]
        command += ["-D", self.target / "journal", *options]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return shown.stdout

    def events(self, event: Event) -> list[dict[str, str]]:
        """Return its log entries of one kind."""
        return [entry for entry in self.journal() if entry.get("MESSAGE_ID") == event.value]

    def vmcore(self, name: str = "vmcore") -> Path:
        """Return the one that was written."""
        (path,) = self.target.glob(f"*/{name}")
        return path


def missing_tools() -> list[str]:
    programs = [name for name in PROGRAMS if rig.which(name) is None]
    return [*programs, *rig.missing_tools()]


def build(
    workdir: Path, *, dbus: bool = True, kernel: rig.Kernel | None = None, drivers: str = CLOUD_DRIVERS
) -> Initramfs:
    """Build an initramfs that writes to the first virtio disk; what comes then is the business of scenarios."""
    kernel = kernel or rig.find_kernel()
    staged = workdir / "installed"
    _run([ROOT / "systemd" / "install", staged], "systemd/install")
    base = workdir / "dracut"
    # dracut has one directory of modules.
    shutil.copytree(DRACUT_DIRECTORY, base, symlinks=True)
    shutil.copytree(staged / DRACUT_DIRECTORY.relative_to("/"), base, dirs_exist_ok=True)
    configuration = workdir / "dracut.conf"
    configuration.write_text(
        f"vmcoredd_root={staged}\n"
        f"vmcoredd_program={PROGRAM}\n"
        'vmcoredd_mount="/dev/vda ext4"\n'
        f"vmcoredd_dbus={'yes' if dbus else 'no'}\n"
        "vmcoredd_finish=none\n"
    )
    modules = f"{DRACUT_MODULES} dbus dbus-daemon" if dbus else DRACUT_MODULES
    options: list[str | Path] = ["--add-drivers", drivers, "--conf", configuration]
    without = _dracut(workdir / "without.initramfs", base, kernel, ["--modules", modules, *options])
    complete = _dracut(workdir / "capture.initramfs", base, kernel, ["--modules", f"{modules} vmcoredd", *options])
    return Initramfs(complete, kernel, without)


def _dracut(destination: Path, base: Path, kernel: rig.Kernel, options: Sequence[str | Path]) -> Path:
    (base / "empty.d").mkdir(exist_ok=True)
    command: list[str | Path] = ["dracut", "--quiet", "--force", "--no-hostonly", "--zstd"]
    command += ["--tmpdir", base.parent]
    command += ["--confdir", base / "empty.d"]
    command += [*options, destination, kernel.release]
    output = _run(command, "dracut", {"dracutbasedir": str(base)})
    if "vmcoredd:" in output:
        raise rig.RigError("dracut: a warning of our module", output)
    return destination


def _run(command: Sequence[str | Path], name: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a program that starts others, and return what all of them print. Raises RigError."""
    with subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            # Or they would go on, and write into a directory that is being removed. The pipe ends with the last.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
    if process.returncode:
        raise rig.RigError(f"{name}: status {process.returncode}", output)
    return output


def capture(workdir: Path, initramfs: Initramfs, scenario: Scenario) -> Captured:
    """Panic a machine, and fetch what the capture kernel has left on the disk."""
    machine = prepare(workdir, initramfs, scenario)
    console = rig.boot(machine, workdir / "console.log", timeout=scenario.timeout, watch=scenario.watch)
    target = workdir / "target"
    target.mkdir()
    for disk in machine.disks:
        fetch(disk, target)
    return Captured(target, console, points(console), _off(console))


def prepare(workdir: Path, initramfs: Initramfs, scenario: Scenario) -> rig.Machine:
    """Return a machine that will panic, and its disk with it."""
    workdir.mkdir(parents=True, exist_ok=True)
    own = rig.build_initramfs(workdir / "own.initramfs", {"usr/bin/measure": MEASURE.encode(), **scenario.files})
    combined = workdir / "combined.initramfs"
    with combined.open("wb") as file:
        file.write(initramfs.file.read_bytes())
        # The kernel looks for the next archive at a multiple of four.
        file.write(bytes(-file.tell() % 4))
        file.write(own.read_bytes())
    command_line = f"{CAPTURE_COMMAND_LINE} {scenario.command_line}".strip()
    panicking = rig.panicking_files(initramfs.kernel, combined, command_line, scenario.before)
    first = rig.build_initramfs(workdir / "first.initramfs", {**panicking, **scenario.first_files})
    disks = (_ext4(workdir / "disk", scenario.disk_mib),) if scenario.disk_mib else ()
    return rig.Machine(
        kernel=initramfs.kernel,
        initramfs=first,
        command_line=f"console=ttyS0 crashkernel={scenario.crashkernel} panic=1 {scenario.first_command_line}",
        memory_mib=scenario.memory_mib,
        disks=disks,
        qemu_options=("-smp", str(scenario.cpus), *scenario.devices),
    )


def _ext4(path: Path, mib: int) -> Path:
    rig.sparse_file(path, mib)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    return path


def fetch(disk: Path, destination: Path) -> None:
    """Copy all files out of an ext4 image, without mounting it."""
    subprocess.run(["e2fsck", "-f", "-n", disk], check=True, capture_output=True)
    subprocess.run(["debugfs", "-R", f"rdump / {destination}", disk], check=True, capture_output=True)


def points(console: str) -> dict[str, Point]:
    """Return what `measure` has written."""
    found = re.findall(r"vmcoredd rig: at (\S+): ([\d.]+) s, (\d+) kB", console)
    return {name: Point(float(seconds), int(available)) for name, seconds, available in found}


def device_dumps(vmcore: Path) -> dict[str, bytes]:
    """Return the device dumps of a vmcore, as the manifest has their sizes."""
    with vmcore.open("rb") as file:
        inspection = inspect(file.fileno(), str(vmcore))
        assert inspection.problems == ()
        return {dump.name: inspection.image.pread(dump.data_size, dump.offset) for dump in inspection.device_dumps}


def report(initramfs: Initramfs, captured: Captured) -> None:
    """Print the figures."""
    size, without = initramfs.file.stat().st_size, initramfs.without.stat().st_size
    print(f"initramfs: {size / 1e6:.1f} MB, {(size - without) / 1e6:.1f} MB of it ours")
    for name, point in captured.points.items():
        print(f"{point.seconds:6.2f} s  {point.available_kib / 1024:6.1f} MiB available  {name}")
    print(f"{captured.off:6.2f} s  off")


def _off(console: str) -> float:
    found = re.findall(r"\[\s*([\d.]+)\] reboot: Power down", console)
    if not found:
        raise rig.RigError("the machine was not switched off", console)
    return float(found[-1])
