# SPDX-License-Identifier: LGPL-2.1-or-later
"""Panic a stock Debian kernel in QEMU and hand back the /proc/vmcore of its capture kernel.

Two boots in one run: the first kernel's initramfs loads the capture kernel with `kexec -p` and panics through
sysrq; the capture kernel's copies /proc/vmcore to a raw virtio disk and powers off. What the guest has to say goes
through /dev/kmsg, because the kernel puts its messages on the console as whole lines.

No KVM is needed. VMCOREDD_QEMU_ACCEL names another accelerator of QEMU's (kvm, hvf).
"""

from __future__ import annotations

import argparse
import lzma
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARKER = "vmcoredd rig: panicking on purpose"

PROGRAMS = ("qemu-system-x86_64", "kexec", "busybox", "cpio", "ldd")
DISK_MODULES = ("virtio_pci", "virtio_blk")

KERNEL_IMAGES = ("vmlinuz-*-cloud-amd64", "vmlinuz-*-amd64")
FULL_KERNEL_IMAGES = ("vmlinuz-*[0-9]-amd64",)
"""Of linux-image-amd64, which has drivers of real devices."""
BOOT = Path("/boot")
MODULES = Path("/lib/modules")

# The ELF header, the notes and the rounding of each PT_LOAD: far less than this.
VMCORE_OVERHEAD_MIB = 16
CONSOLE_LINES_IN_ERRORS = 30
POLL = 0.02
"""Seconds between two looks at the console."""

COMMON_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
say() { echo "vmcoredd rig: $*" > /dev/kmsg; }
fail() { say "FAILED: $*"; poweroff -f; }
for module in /modules/*.ko; do
    [ ! -e "$module" ] || insmod "$module" || fail "insmod $module"
done
"""

# The capture kernel's files stay: removed before the panic, some of their pages pass makedumpfile -d 31, which
# otherwise drops nearly all of them.
FIRST_INIT = """\
{before}
kexec -p /capture/vmlinuz --initrd=/capture/initramfs --append={capture_command_line} || fail "kexec -p: status $?"
[ "$(cat /sys/kernel/kexec_crash_loaded)" = 1 ] || fail "/sys/kernel/kexec_crash_loaded is not 1"
echo "{marker}" > /dev/kmsg
echo c > /proc/sysrq-trigger
"""

CAPTURE_INIT = """\
[ -b /dev/vda ] || fail "the capture kernel has no /dev/vda"
size=$(stat -c %s /proc/vmcore) || fail "the capture kernel has no /proc/vmcore"
dd if=/proc/vmcore of=/dev/vda bs=1M conv=fsync || fail "dd of /proc/vmcore: status $?"
say "vmcore copied: $size bytes"
poweroff -f
"""


class RigError(Exception):
    """The machine did not do what it was started for; the text ends with the last lines of its console."""

    def __init__(self, cause: str, console: str = "") -> None:
        last_lines = console.splitlines()[-CONSOLE_LINES_IN_ERRORS:]
        super().__init__("\n".join([cause, *(f"    {line}" for line in last_lines)]))


@dataclass(frozen=True, slots=True)
class Kernel:
    image: Path
    release: str

    @property
    def modules(self) -> Path:
        return MODULES / self.release


@dataclass(frozen=True, slots=True)
class Machine:
    kernel: Kernel
    initramfs: Path
    command_line: str
    memory_mib: int
    disks: tuple[Path, ...] = ()
    qemu_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PanicResult:
    vmcore: Path
    console: str
    kernel_release: str
    seconds: float


def missing_tools() -> list[str]:
    missing = [name for name in PROGRAMS if which(name) is None]
    try:
        kernel = find_kernel()
    except RigError:
        return [*missing, str(BOOT / KERNEL_IMAGES[0])]
    try:
        module_files(kernel, DISK_MODULES)
    except (RigError, OSError) as error:
        missing.append(str(error))
    return missing


def panic(
    workdir: Path, *, memory_mib: int = 512, crashkernel: str = "160M", timeout: float = 180.0
) -> PanicResult:
    """Panic a machine of memory_mib and leave its whole vmcore in workdir."""
    started = time.monotonic()
    kernel = find_kernel()
    workdir.mkdir(parents=True, exist_ok=True)
    capture = build_initramfs(workdir / "capture.initramfs", copying_files(kernel))
    first = build_initramfs(workdir / "first.initramfs", panicking_files(kernel, capture))
    disk = sparse_file(workdir / "vmcore", memory_mib + VMCORE_OVERHEAD_MIB)
    machine = Machine(
        kernel=kernel,
        initramfs=first,
        command_line=f"console=ttyS0 crashkernel={crashkernel} panic=1",
        memory_mib=memory_mib,
        disks=(disk,),
    )
    console = boot(machine, workdir / "console.log", timeout=timeout)
    os.truncate(disk, _copied_bytes(console))
    return PanicResult(disk, console, kernel.release, time.monotonic() - started)


def find_kernel(patterns: Sequence[str] = KERNEL_IMAGES) -> Kernel:
    """Newest cloud kernel (small, boots fastest), or else the newest of any flavour; or of other *patterns*."""
    for pattern in patterns:
        images = sorted(BOOT.glob(pattern), key=lambda image: [int(n) for n in re.findall(r"\d+", image.name)])
        if images:
            return Kernel(images[-1], images[-1].name.removeprefix("vmlinuz-"))
    raise RigError(f"no kernel: {BOOT / patterns[-1]}")


def copying_files(kernel: Kernel) -> dict[str, Path | bytes]:
    """Initramfs of a capture kernel that copies /proc/vmcore to the first virtio disk."""
    return {
        "init": (COMMON_INIT + CAPTURE_INIT).encode(),
        **program_files("busybox"),
        **module_files(kernel, DISK_MODULES),
    }


def panicking_files(
    kernel: Kernel,
    capture_initramfs: Path,
    capture_command_line: str = "console=ttyS0 nokaslr irqpoll nr_cpus=1 reset_devices panic=1 no_timer_check",
    before: str = "",
) -> dict[str, Path | bytes]:
    """Initramfs of a first kernel that runs *before*, loads its own image as the capture kernel, and panics."""
    command_line = shlex.quote(capture_command_line)
    script = FIRST_INIT.format(before=before, capture_command_line=command_line, marker=MARKER)
    return {
        "init": (COMMON_INIT + script).encode(),
        "capture/vmlinuz": kernel.image,
        "capture/initramfs": capture_initramfs,
        **program_files("busybox"),
        **program_files("kexec"),
    }


def program_files(name: str) -> dict[str, Path | bytes]:
    """A program as bin/NAME, and its shared libraries where it looks for them (a static program has none)."""
    program = _program(name)
    ldd = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    libraries = re.findall(r"(/\S+) \(0x", ldd.stdout)
    return {f"bin/{name}": program, **{library.lstrip("/"): Path(library) for library in libraries}}


def module_files(kernel: Kernel, names: Iterable[str]) -> dict[str, Path | bytes]:
    """Modules with all they depend on, numbered in the order in which insmod takes them."""
    dependencies = _module_dependencies(kernel)
    builtin = {_module_name(line) for line in (kernel.modules / "modules.builtin").read_text().splitlines()}
    ordered: dict[str, Path | bytes] = {}
    for name in names:
        if name in builtin:
            continue
        if name not in dependencies:
            raise RigError(f"module {name} of {kernel.release}")
        for path in dependencies[name]:
            ordered.setdefault(_module_name(path), _module(kernel.modules / path))
    return {f"modules/{index:02}-{name}.ko": module for index, (name, module) in enumerate(ordered.items())}


def build_initramfs(destination: Path, files: Mapping[str, Path | bytes]) -> Path:
    """Write an initramfs of files by their path in it: a Path is copied with its mode, bytes become a program."""
    with tempfile.TemporaryDirectory(dir=destination.parent) as root:
        for name, content in files.items():
            target = Path(root, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
                target.chmod(0o755)
            else:
                shutil.copy(content, target)
        names = "\0".join(str(path.relative_to(root)) for path in sorted(Path(root).rglob("*")))
        cpio = [str(_program("cpio")), "--create", "--null", "--format=newc", "--owner=0:0", "--quiet"]
        with destination.open("wb") as archive:
            subprocess.run(cpio, input=names.encode(), stdout=archive, cwd=root, check=True)
    return destination


def sparse_file(path: Path, mib: int) -> Path:
    with path.open("wb") as file:
        file.truncate(mib << 20)
    return path


def boot(
    machine: Machine, console_log: Path, *, timeout: float, watch: Callable[[str], None] = lambda console: None
) -> str:
    """Run a machine until it powers off or reboots, and return what it wrote to its serial console.

    *watch* is called with that meanwhile, again and again.
    """

    def cut(console: str) -> bool:
        watch(console)
        return False

    status, console = run(machine, console_log, timeout=timeout, cut=cut)
    if status != 0:
        raise RigError(f"{PROGRAMS[0]} exited with status {status}", console)
    return console


def run(
    machine: Machine, console_log: Path, *, timeout: float, cut: Callable[[str], bool] = lambda console: False
) -> tuple[int, str]:
    """Run a machine until it ends, or until *cut* has seen enough of the console: then QEMU is killed.

    Returns the status of QEMU, and the console. The machine goes on while *cut* looks.
    """
    deadline, seen = time.monotonic() + timeout, ""
    with console_log.open("wb") as log:
        qemu = subprocess.Popen(
            _qemu_command(machine), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while (status := qemu.poll()) is None and not cut(seen) and time.monotonic() < deadline:
                time.sleep(POLL)
                seen = _read(console_log)
        finally:
            late = qemu.poll() is None and time.monotonic() >= deadline
            qemu.kill()
            ended = qemu.wait()
    console = _read(console_log)
    if late:
        raise RigError(f"the machine still ran after {timeout:g} s", console)
    if failure := re.search(r"vmcoredd rig: FAILED: (.*)", console):
        raise RigError(failure[1], console)
    return (ended if status is None else status), console


def _read(console_log: Path) -> str:
    return console_log.read_text(errors="replace").replace("\r", "")


def _qemu_command(machine: Machine) -> list[str]:
    command = [str(_program("qemu-system-x86_64")), "-accel", os.environ.get("VMCOREDD_QEMU_ACCEL", "tcg")]
    command += ["-m", str(machine.memory_mib), "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
    command += ["-kernel", str(machine.kernel.image), "-initrd", str(machine.initramfs)]
    # On a busy machine the emulated timer can be too late for the kernel's check, and it panics.
    command += ["-append", f"{machine.command_line} no_timer_check", *machine.qemu_options]
    for disk in machine.disks:
        # The disk outlives the machine only if the run succeeds, so nothing is gained by flushing it.
        command += ["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe,discard=unmap,detect-zeroes=unmap"]
    return command


def _copied_bytes(console: str) -> int:
    report = re.search(r"vmcoredd rig: vmcore copied: (\d+) bytes", console)
    if report is None:
        raise RigError("the capture kernel did not report a copied vmcore", console)
    return int(report[1])


def _module_dependencies(kernel: Kernel) -> dict[str, list[str]]:
    """modules.dep by module name: what to load, in order, the module itself last."""
    dependencies: dict[str, list[str]] = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        dependencies[_module_name(path)] = [*reversed(needed.split()), path]
    return dependencies


def _module_name(path: str) -> str:
    return Path(path).name.split(".")[0].replace("-", "_")


def _module(path: Path) -> Path | bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path


def which(name: str) -> Path | None:
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
    return Path(found) if found else None


def _program(name: str) -> Path:
    found = which(name)
    if found is None:
        raise RigError(f"{name} is not installed")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kdump.rig", description=__doc__.splitlines()[0])
    parser.add_argument("destination", type=Path, metavar="DEST")
    parser.add_argument("--memory", type=int, default=512, metavar="MIB")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.destination.absolute().parent) as workdir:
        try:
            result = panic(Path(workdir), memory_mib=options.memory)
        except RigError as error:
            parser.exit(1, f"{parser.prog}: {error}\n")
        result.vmcore.replace(options.destination)
    stat = options.destination.stat()
    print(
        f"{options.destination}: vmcore of {result.kernel_release}, {stat.st_size} bytes"
        f" ({stat.st_blocks * 512} on disk), {result.seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
