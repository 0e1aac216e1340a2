# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Debian machine as users have it: full root file system, systemd, kdump-tools, and our package.

The root is built by debootstrap from where this machine has its own packages; the commands of docs/kdump.md run in
it with chroot. In QEMU it boots, kdump-tools loads the capture kernel, and a unit panics.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kdump import capture, rig, units
from tests.lib.paths import ROOT
from tests.lib.shell_program import shell_program

PROGRAMS = ("debootstrap", "chroot", "unshare", "dpkg-buildpackage", "dh_python3")
MACHINE_PROGRAMS = ("mkfs.ext4", "debugfs", "qemu-system-x86_64")
PACKAGES = "linux-image-cloud-amd64,initramfs-tools,systemd,systemd-sysv,udev,kmod,ifupdown,openssh-server"
SUITES = ("bookworm", "trixie")
"""The Debians that docs/kdump.md is about: 12 and 13."""
CRASHKERNEL = "192M"
"""As docs/kdump.md says."""
SECTION = "## Debian with kdump-tools, from installation to a test panic"

DUMP = "/usr/lib/vendor/registers.bin"
REGISTERS = bytes(range(256)) * 20
FOREVER = "rig.forever"
"""On the kernel's command line: there is a helper that ends only after the service, and then calls it."""
LATE = "late_0000:02:00.1"
LARGE = "rig.large"
"""On the kernel's command line: there is a helper with a device dump of so many MiB."""
LARGE_NAME, LARGE_MIB = "large_0000:02:00.2", 150
TARGET_TIMEOUT = 60

PANIC = f"""\
[Unit]
After=kdump-tools.service
ConditionPathExists=!/proc/vmcore
[Service]
Type=idle
ExecStart=sh -c "[ $$(cat /sys/kernel/kexec_crash_loaded) = 1 ] || poweroff -f; \\
    echo {rig.MARKER} > /dev/kmsg; echo c > /proc/sysrq-trigger"
"""

PRINTED = "/root/printed"
"""A file of the machine: a getty hangs the serial line up."""
INSTEAD = f"""\
[Service]
ExecStart=
ExecStart=sh -c "sh /root/instead-of-panic > {PRINTED} 2>&1; sync; poweroff -f"
"""

RESOLVED = "resolved.log"
"""In /var/crash: what the unit has logged at the next boot."""
NEXT_BOOT = f"""\
[Unit]
After=vmcoredd-resolve.service
[Service]
Type=oneshot
ExecStart=sh -c "journalctl -o cat -u vmcoredd-resolve SYSLOG_IDENTIFIER=vmcoredd > /var/crash/{RESOLVED}; \\
    systemctl --no-block poweroff"
"""
NEXT_BOOT_OPTIONS = "systemd.mask=panic.service systemd.mask=kdump-tools.service systemd.wants=next-boot.service"

ENDLESS = f"""\
[Unit]
After=vmcoredd.service
ConditionKernelCommandLine={FOREVER}
[Service]
Type=oneshot
ExecStart=sh -c "until [ $$(systemctl is-active vmcoredd) = inactive ]; do sleep 1; done; \\
    exec vmcoredd add {LATE} {DUMP}"
"""

ADDS_MUCH = f"""\
[Unit]
After=vmcoredd.service
ConditionKernelCommandLine={LARGE}
[Service]
Type=oneshot
ExecStart=sh -c "head -c {LARGE_MIB}M /dev/urandom | vmcoredd add {LARGE_NAME} - --size {LARGE_MIB}M"
"""

# As it is on a machine, / is where something is mounted.
MOUNTS = 'mount --bind "$0" "$0"; for name in proc sys dev; do mount --rbind "/$name" "$0/$name"; done'
"""A shell script: mounts what a program in the root $0 needs."""

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
    # The machine is not running yet.
    "SYSTEMD_OFFLINE": "1",
}


@dataclass(frozen=True, slots=True)
class Captured:
    """What a panic has left in /var/crash."""

    crash: Path
    console: str
    """Of the capture kernel."""
    points: Mapping[str, capture.Point]
    seconds: float
    """From the panic to the restart."""

    def files(self) -> list[Path]:
        """Return the files in it."""
        return sorted(file for file in self.crash.rglob("*") if file.is_file())

    @property
    def kdump_tools(self) -> Path:
        """The directory of this crash that is that of kdump-tools."""
        (path,) = self.crash.glob("2*")
        return path


HOST = "debian-rig"


def missing_tools(*, machine: bool = True) -> list[str]:
    missing = [name for name in (*PROGRAMS, *(MACHINE_PROGRAMS if machine else ())) if rig.which(name) is None]
    return missing if missing or os.geteuid() == 0 else ["root's rights"]


def build_root(workdir: Path, suite: str) -> Path:
    """Build the root file system; raise RigError where a step fails, with what it said last."""
    root = bootstrap(workdir / "root", PACKAGES, suite)
    _configure(root)
    # Where that page has it.
    build_package(root / "root/build/deb")
    follow(root, "docs/kdump.md", SECTION)
    _add_rig(root)
    # What `kdump-config load` does, which takes a minute when it is emulated; in a chroot 1.10 leaves it to that.
    release = _kernel(root).release
    chroot(root, f"mount --bind /bin/false /usr/bin/ischroot; /etc/kernel/postinst.d/kdump-tools {release}")
    shutil.copy(root / "etc/kdump/sysctl.conf", root / f"var/lib/kdump/latest_sysctls-{release}")
    return root


def build_package(directory: Path) -> Path:
    """Build the Debian package with what `make deb` runs, and return it."""
    _run(ROOT / ".ci/debian-build", directory)
    (package,) = directory.glob("*.deb")
    return package


def bootstrap(root: Path, packages: str, suite: str = "") -> Path:
    """Make a root file system of a Debian, by default this machine's; *packages* are separated by commas."""
    own = platform.freedesktop_os_release()["VERSION_CODENAME"]
    _run("debootstrap", "--variant=minbase", f"--include={packages}", suite or own, root, _mirror(own))
    return root


def follow(root: Path, document: str, section: str) -> None:
    """Do in the root what a section of a document tells to do on the machine before the panic."""
    for block in blocks_of(document, section):
        commands = block.replace("apt install", "apt-get --quiet --yes install")
        chroot(root, f"cd /root\n{commands}")


def blocks_of(document: str, section: str) -> list[str]:
    """Return what a section of a document tells to do, as shell scripts."""
    text = (ROOT / document).read_text().partition(section)[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    scripts = [re.sub(r"^    ", "", block, flags=re.MULTILINE).strip("\n") for block in blocks]
    return [script for script in scripts if script.startswith(("apt install", "cat >"))]


def default_crashkernel(root: Path) -> str:
    """Return the crashkernel= that kdump-tools sets by default."""
    configured = (root / "etc/default/grub.d/kdump-tools.cfg").read_text()
    return str(re.findall(r"crashkernel=(\S*[0-9]+M)", configured)[0])


def panic(
    root: Path,
    workdir: Path,
    *,
    disk_mib: int,
    crashkernel: str = CRASHKERNEL,
    options: str = "",
    disks: tuple[Path, ...] = (),
    qemu_options: tuple[str, ...] = (),
    next_boot: bool = False,
) -> Captured:
    """Boot the root in a machine with 1 GiB, let it panic, and fetch what is in /var/crash then.

    With *next_boot* it boots again before that, and powers itself off after vmcoredd-resolve.service.
    """
    disk = _disk(root, workdir, disk_mib)
    machine = _machine(root, (disk, *disks), f"crashkernel={crashkernel} {options}", qemu_options)
    panicked: list[float] = []

    def watch(console: str) -> None:
        if not panicked and rig.MARKER in console:
            panicked.append(time.monotonic())

    console = rig.boot(machine, workdir / "console.log", timeout=240, watch=watch)
    ended = time.monotonic()
    _, _, capturing = console.partition(rig.MARKER)
    if "Linux version" not in capturing:
        raise rig.RigError("the capture kernel did not boot", console)
    if next_boot:
        rig.boot(_machine(root, (disk,), NEXT_BOOT_OPTIONS), workdir / "next-boot.log", timeout=240)
    fetch(disk, "/var/crash", workdir)
    disk.unlink()
    return Captured(workdir / "crash", capturing, capture.points(capturing), ended - panicked[0])


def run_instead_of_panic(root: Path, workdir: Path, script: str) -> str:
    """Boot the root, with a capture kernel, and run a shell script in it; return what that has printed."""
    program = root / "root/instead-of-panic"
    with changed(program, script), changed(root / units.SYSTEM / "panic.service.d/script.conf", INSTEAD):
        disk = _disk(root, workdir, 2048)
    rig.boot(_machine(root, (disk,), f"crashkernel={CRASHKERNEL}"), workdir / "console.log", timeout=400)
    # The journal has what was written last.
    _run("sh", "-c", f"e2fsck -fp {disk} || [ $? = 1 ]")
    _run("debugfs", "-R", f"dump {PRINTED} {workdir}/printed", disk)
    disk.unlink()
    return (workdir / "printed").read_text()


def _disk(root: Path, workdir: Path, mib: int) -> Path:
    return file_system(workdir / "disk", mib, "-d", root)


def file_system(disk: Path, mib: int, *options: str | Path) -> Path:
    """Make a disk with a file system, with options of mkfs.ext4."""
    _run("mkfs.ext4", "-q", "-F", *options, rig.sparse_file(disk, mib))
    return disk


def fetch(disk: Path, path: str, directory: Path) -> None:
    """Copy a directory of a disk into *directory*."""
    _run("debugfs", "-R", f"rdump {path} {directory}", disk)


def _machine(root: Path, disks: tuple[Path, ...], options: str, qemu_options: tuple[str, ...] = ()) -> rig.Machine:
    kernel = _kernel(root)
    return rig.Machine(
        kernel=kernel,
        initramfs=root / f"boot/initrd.img-{kernel.release}",
        command_line=f"root=/dev/vda ro console=ttyS0 panic=1 {options}",
        memory_mib=1024,
        disks=disks,
        qemu_options=qemu_options,
    )


@contextmanager
def changed(file: Path, text: str) -> Iterator[None]:
    """Append *text* to a file of the root, which may not exist, while the context lasts."""
    before = file.read_text() if file.exists() else None
    file.parent.mkdir(exist_ok=True)
    file.write_text((before or "") + text)
    try:
        yield
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before)


def _mirror(suite: str) -> str:
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Release: {suite}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if not listed:
        raise rig.RigError(f"this machine's sources of packages do not have {suite}")
    return listed[0]


def _configure(root: Path) -> None:
    """What an installer does."""
    (root / "etc/fstab").write_text("/dev/vda / ext4 errors=remount-ro 0 1\n")
    (root / "etc/hostname").write_text(f"{HOST}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {HOST}\n")
    # In a chroot it is not known which drivers this root's device needs.
    (root / "etc/initramfs-tools/conf.d/modules").write_text("MODULES=list\n")
    (root / "etc/initramfs-tools/modules").write_text("virtio_pci\nvirtio_blk\next4\n")
    # It is for the dump that goes to another machine, which is this root, too.
    chroot(root, "update-initramfs -u; systemctl disable ssh")


def _add_rig(root: Path) -> None:
    """Add what the page does not have: measurements, a panic, a device, and helpers that are a burden."""
    system = root / units.SYSTEM
    for name in ("vmcoredd", "my-registers", "kdump-tools-dump"):
        dropin = system / f"{name}.service.d/measured.conf"
        dropin.parent.mkdir()
        dropin.write_text("[Service]\nExecStartPost=+-measure %p\nExecStopPost=+-measure %p-stopped\n")
    measure = root / "usr/bin/measure"
    measure.write_text(capture.MEASURE)
    measure.chmod(0o755)
    device = root / DUMP.lstrip("/")
    device.parent.mkdir()
    device.write_bytes(REGISTERS)
    # The device of the page's helper is this file.
    shell_program(root / "usr/local/bin/my-driver-tool", f"exec cat {DUMP}")
    (system / "panic.service").write_text(PANIC)
    (system / "endless.service").write_text(ENDLESS)
    (system / "next-boot.service").write_text(NEXT_BOOT)
    (system / "large.service").write_text(ADDS_MUCH)
    capturing = "vmcoredd-capture"
    for name, wanting in {"panic": "multi-user", "endless": capturing, "large": capturing}.items():
        wants = system / f"{wanting}.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / f"{name}.service").symlink_to(f"../{name}.service")
    dropin = system / "vmcoredd-capture.target.d/timeout.conf"
    dropin.parent.mkdir()
    dropin.write_text(f"[Unit]\nJobTimeoutSec={TARGET_TIMEOUT}\n")


def _kernel(root: Path) -> rig.Kernel:
    (image,) = (root / "boot").glob("vmlinuz-*")
    return rig.Kernel(image, image.name.removeprefix("vmlinuz-"))


def chroot(root: Path, script: str) -> str:
    """Run a shell script in the root, in a mount namespace that goes with it; return what it has written."""
    outside = f'{MOUNTS}; exec chroot "$0" sh -euxc "$1"'
    return _run("unshare", "--mount", "sh", "-euc", outside, root, script, environment=ENVIRONMENT)


def _run(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    program = rig.which(str(command[0]))
    done = subprocess.run(
        [program or command[0], *command[1:]],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise rig.RigError(f"{command[0]}: status {done.returncode}", done.stdout)
    return done.stdout
