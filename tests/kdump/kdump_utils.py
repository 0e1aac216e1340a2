# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine whose capture kernel is set up by kdump-utils, as on Fedora and RHEL: an unmodified checkout of it.

The checkout is the user's, named by KDUMP_UTILS. The machine is a Debian 13; what it lacks of a Fedora is added
here. The lines of kdump.conf are those of docs/kdump.md. kdump-utils asks the running kernel for disk and network,
so kdump.service makes the initramfs in the machine. That takes minutes, because the machine is emulated.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kdump import capture, debian, rig, units
from tests.lib.paths import ROOT
from tests.lib.shell_program import shell_program

SUITE = "trixie"
BASE = "systemd,systemd-sysv,udev,kmod,dbus"
PACKAGES = (
    "dracut dracut-network dracut-squash ethtool fdisk hostname iproute2 kexec-tools keyutils makedumpfile mawk"
    " network-manager nfs-common nfs-kernel-server openssh-client openssh-server procps zstd"
)
"""What kdump-utils requires on Fedora, and the servers. After dracut, or the kernel brings initramfs-tools."""

SECTION = "## RHEL and Fedora with kdump-utils"
CONFIGURATION = "etc/kdump.conf"
STATE = "var/lib/kdump"
"""Where the initramfs is if the first kernel's has another name than on Fedora."""

COLLECTOR, REGISTERS = "registers", bytes(range(256)) * 20
"""The device dump of a file in collectors.d."""
BROKEN_PYTHON = "systemd.setenv=PYTHONHOME=/nonexistent"
"""On the kernel's command line: no Python starts; kdumpctl passes it on to the capture kernel."""

ADDRESS, ADDRESS_OF_SERVER = "10.0.2.15", "10.0.2.100"
MAC, MAC_OF_SERVER = "52:54:00:00:00:15", "52:54:00:00:01:00"
EXPORT = "srv/crash"
SAVE_PATH = "var/crash"

BOOT_TIMEOUT = 300.0
TIMEOUT = 1500.0
"""Seconds of a machine that makes an initramfs and panics, emulated, on a busy machine."""

CHECKED = "vmcoredd rig: check ended with"
# With crashkernel= alone: the server boots the same root.
PANIC = f"""\
[Unit]
After=kdump.service
ConditionPathExists=!/proc/vmcore
ConditionKernelCommandLine=crashkernel
[Service]
Type=idle
ExecStart=sh -c "[ $$(cat /sys/kernel/kexec_crash_loaded) = 1 ] || poweroff -f; \\
    vmcoredd check > /dev/console 2>&1; echo {CHECKED} $$? > /dev/kmsg; \\
    echo {rig.MARKER} > /dev/kmsg; echo c > /proc/sysrq-trigger"
"""

SERVING = "vmcoredd rig: serving"
SERVER = f"""\
[Unit]
Requires=nfs-server.service
After=nfs-server.service network-online.target
[Service]
Type=oneshot
ExecStart=sh -c "echo {SERVING} > /dev/kmsg"
"""

CONNECTION = """\
[connection]
id={name}
type=ethernet
[ethernet]
mac-address={mac}
[ipv4]
method=manual
address1={address}/24
[ipv6]
method=disabled
"""

# One process for each connection, and no port of this machine. Its /var/crash is a directory of the test.
SSH_SERVER = """\
exec unshare --mount sh -euc '
    mount --bind "$0" "$0"
    for name in proc sys dev; do mount --rbind "/$name" "$0/$name"; done
    mount --bind "$1" "$0/var/crash"
    mkdir -p "$0/run/sshd"
    exec chroot "$0" /usr/sbin/sshd -i -E /var/log/sshd.log -o UsePAM=no' "{root}" "{crash}"
"""


@dataclass(frozen=True, slots=True)
class Captured:
    """What a panic has left on the target."""

    directory: Path
    """That of the crash."""
    before: str
    """The console before the panic."""
    console: str
    """Of the capture kernel."""
    points: Mapping[str, capture.Point]

    def seconds_of_end(self) -> float:
        """Return the capture kernel's time when it restarted the machine."""
        return float(re.findall(r"\[\s*([\d.]+)\] reboot: Restarting system", self.console)[-1])


def checkout() -> Path | None:
    """Return the user's kdump-utils; None without one."""
    named = os.environ.get("KDUMP_UTILS")
    return Path(named).resolve() if named else None


def missing_tools() -> list[str]:
    return [*debian.missing_tools(), *([] if rig.which("make") else ["make"])]


def build_root(workdir: Path, kdump_utils: Path) -> Path:
    """Build the root file system; raise RigError where a step fails, with what it said last."""
    root = debian.bootstrap(workdir / "root", BASE, SUITE)
    install = "apt-get --quiet --yes --no-install-recommends install"
    debian.chroot(root, f"apt-get --quiet update; {install} {PACKAGES}; {install} linux-image-cloud-amd64")
    package = debian.build_package(root / "root/build/deb")
    debian.chroot(root, f"{install} /{package.relative_to(root)}")
    _install_kdump_utils(root, kdump_utils, workdir)
    _follow_document(root)
    _make_like_fedora(root)
    _configure(root)
    _add_rig(root)
    return root


def panic(disk: Path, root: Path, workdir: Path, qemu_options: Sequence[str] = (), options: str = "") -> str:
    """Boot a disk with the root, let it panic, and return the console."""
    kernel = _kernel(root)
    machine = rig.Machine(
        kernel=kernel,
        initramfs=root / f"boot/initrd.img-{kernel.release}",
        command_line=f"root=/dev/vda ro console=ttyS0 panic=1 crashkernel=256M {options}",
        memory_mib=1024,
        disks=(disk,),
        # dracut makes use of two.
        qemu_options=("-smp", "2", *qemu_options),
    )
    console = rig.boot(machine, workdir / "console.log", timeout=TIMEOUT)
    if "Linux version" not in console.partition(rig.MARKER)[2]:
        raise rig.RigError("the capture kernel did not boot", console)
    return console


def captured(directory: Path, console: str) -> Captured:
    """Return what is in the one directory of a crash that *directory* has."""
    (crash,) = directory.glob("*-2*")
    before, _, capturing = console.partition(rig.MARKER)
    return Captured(crash, before, capturing, capture.points(capturing))


def make_disk(root: Path, path: Path, *lines: str) -> Path:
    """Make a disk of the root, with more lines in kdump.conf."""
    with debian.changed(root / CONFIGURATION, "".join(f"{line}\n" for line in lines)):
        rig.sparse_file(path, 3072)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-d", root, path], check=True)
    return path


def fetch(disk: Path, name: str, destination: Path) -> Path:
    """Copy a directory out of a disk, and return the copy."""
    destination.mkdir()
    # The journal has what was written last.
    subprocess.run(["sh", "-c", f"e2fsck -fp {disk} || [ $? = 1 ]"], check=True, capture_output=True)
    subprocess.run(["debugfs", "-R", f"rdump /{name} {destination}", disk], check=True, capture_output=True)
    return destination / Path(name).name


def ssh_server(root: Path, workdir: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the directory that a machine's dumps over ssh come to, and QEMU's options for that machine."""
    crash = workdir / "crash"
    crash.mkdir()
    server = shell_program(workdir / "ssh-server", SSH_SERVER.format(root=root, crash=crash))
    network = f"user,id=lan,restrict=on,guestfwd=tcp:{ADDRESS_OF_SERVER}:22-cmd:{server}"
    return crash, ("-netdev", network, "-device", f"virtio-net-pci,netdev=lan,mac={MAC}")


@contextmanager
def nfs_server(root: Path, workdir: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Run a machine that exports a directory; yield its disk, and QEMU's options for a machine beside it."""
    disk, log = make_disk(root, workdir / "server"), workdir / "server.log"
    # The name of a socket is short.
    with tempfile.TemporaryDirectory() as short:
        wire = f"stream,id=lan,addr.type=unix,addr.path={short}/wire"
        kernel = _kernel(root)
        machine = rig.Machine(
            kernel=kernel,
            initramfs=root / f"boot/initrd.img-{kernel.release}",
            command_line="root=/dev/vda rw console=ttyS0 systemd.wants=serving.service",
            memory_mib=512,
            disks=(disk,),
            qemu_options=("-netdev", f"{wire},server=on", *_card(MAC_OF_SERVER)),
        )
        log.touch()
        ended = threading.Event()

        def serve() -> None:
            rig.run(machine, log, timeout=BOOT_TIMEOUT + TIMEOUT, cut=lambda console: ended.is_set())

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            deadline = time.monotonic() + BOOT_TIMEOUT
            while SERVING not in log.read_text(errors="replace"):
                if time.monotonic() > deadline or not serving.is_alive():
                    raise rig.RigError("the NFS server did not boot", log.read_text(errors="replace"))
                time.sleep(1)
            yield disk, ("-netdev", f"{wire},server=off", *_card(MAC))
        finally:
            ended.set()
            serving.join()


def image_size(disk: Path) -> int:
    """Return the bytes of the capture kernel's initramfs."""
    listing = subprocess.run(
        ["debugfs", "-R", f"ls -p /{STATE}", disk], check=True, capture_output=True, text=True
    ).stdout
    return int(re.findall(r"/initramfs-[^/]*kdump\.img/(\d+)/", listing)[0])


def _card(mac: str) -> tuple[str, str]:
    return "-device", f"virtio-net-pci,netdev=lan,mac={mac}"


def _install_kdump_utils(root: Path, kdump_utils: Path, workdir: Path) -> None:
    # make writes into its directory, and the user's stays as it is.
    copy = shutil.copytree(kdump_utils, workdir / "kdump-utils", ignore=shutil.ignore_patterns(".git"))
    command: list[str | Path] = ["make", "--directory", copy, "install", f"DESTDIR={root}", "ARCH=x86_64"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise rig.RigError(f"make install of {kdump_utils}: status {done.returncode}", done.stdout)


def documented_lines() -> dict[str, str]:
    """Return the lines of kdump.conf that docs/kdump.md has, by their first word."""
    text = (ROOT / "docs/kdump.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    return {line.split()[0]: line for line in re.findall(r"^    (\w+ .*)$", text, re.MULTILINE)}


def _follow_document(root: Path) -> None:
    """Replace the lines that are there: kdumpctl refuses a file that has one twice."""
    lines = documented_lines()
    configuration = root / CONFIGURATION
    stock = configuration.read_text().splitlines()
    kept = [line for line in stock if line.partition(" ")[0] not in lines]
    configuration.write_text("\n".join([*kept, *lines.values(), ""]))


def _make_like_fedora(root: Path) -> None:
    """Add what kdump-utils finds on a Fedora and not on a Debian."""
    # It copies /sbin/makedumpfile.
    (root / "usr/sbin/makedumpfile").symlink_to("../bin/makedumpfile")
    # kdump.sh sets pipefail if /bin/sh, which dracut copies, is bash.
    (root / "usr/bin/sh").unlink()
    (root / "usr/bin/sh").symlink_to("bash")
    # kdump.sh runs them; with Fedora's dracut modules they are in the initramfs anyway.
    with (root / CONFIGURATION).open("a") as file:
        file.write("extra_bins /usr/bin/grep /usr/bin/id\n")


def _configure(root: Path) -> None:
    """What an installer does, on client and server."""
    (root / "etc/fstab").write_text("/dev/vda / ext4 errors=remount-ro 0 1\n")
    (root / "etc/hostname").write_text(f"{debian.HOST}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {debian.HOST}\n")
    for name, mac, address in (("lan", MAC, ADDRESS), ("server", MAC_OF_SERVER, ADDRESS_OF_SERVER)):
        connection = root / f"etc/NetworkManager/system-connections/{name}.nmconnection"
        connection.write_text(CONNECTION.format(name=name, mac=mac, address=address))
        connection.chmod(0o600)
    (root / "etc/exports").write_text(f"/{EXPORT} *(rw,no_root_squash,no_subtree_check)\n")
    (root / EXPORT / SAVE_PATH).mkdir(parents=True)
    # What `kdumpctl propagate` does, and the first connection.
    debian.chroot(
        root,
        "mkdir -m 700 -p /root/.ssh; cd /root/.ssh; ssh-keygen -q -t rsa -N '' -f kdump_id_rsa;"
        " cp kdump_id_rsa.pub authorized_keys;"
        f" echo {ADDRESS_OF_SERVER} $(cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub) >known_hosts;"
        " systemctl enable kdump; systemctl disable ssh nfs-server",
    )


def _add_rig(root: Path) -> None:
    """Add measurements, a panic, and a collector."""
    system = root / units.SYSTEM
    (system / "panic.service").write_text(PANIC)
    (system / "serving.service").write_text(SERVER)
    (system / "multi-user.target.wants").mkdir(exist_ok=True)
    (system / "multi-user.target.wants/panic.service").symlink_to("../panic.service")
    dropin = system / "kdump.service.d/console.conf"
    dropin.parent.mkdir()
    dropin.write_text("[Service]\nStandardOutput=journal+console\nStandardError=journal+console\n")
    for when in ("pre", "post"):
        measure = root / f"etc/kdump/{when}.d/measure"
        measure.write_text(capture.MEASURE.replace("$1", when))
        measure.chmod(0o755)
    registers = root / units.VENDOR / "registers.bin"
    registers.parent.mkdir()
    registers.write_bytes(REGISTERS)
    collector = root / f"etc/vmcoredd/collectors.d/{COLLECTOR}.conf"
    collector.write_text(f"[Collector]\nExec=cat /{units.VENDOR}/registers.bin\n")


def _kernel(root: Path) -> rig.Kernel:
    (image,) = (root / "boot").glob("vmlinuz-*")
    return rig.Kernel(image, image.name.removeprefix("vmlinuz-"))
