# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the manifest says of the machine: by the vmcore of the kernel that died, by SMBIOS, and by this kernel."""

from dataclasses import replace
from pathlib import Path

from ..errors import InvalidVmcore
from ..manifest import ManifestMachine
from ..text import shortened
from ..vmcore.copy.source import TimedFile
from ..vmcore.formats import Vmcore, recognise
from ..vmcore.image import file_image
from ..vmcore.utsname import read_utsname
from ..vmcore.vmcoreinfo import of_panic
from .job import Job

_DMI = Path("sys/class/dmi/id")
_MAX = 4096
"""Bytes of a file that are read."""


def this_machine(vmcore: Vmcore | None = None, root: Path = Path("/")) -> ManifestMachine:
    """Return what is known of this machine, and of the kernel that left *vmcore*. Blocks; never fails."""
    dmi = root / _DMI
    bios = " ".join(filter(None, (_line(dmi / "bios_version"), _line(dmi / "bios_date"))))
    machine = ManifestMachine(
        machine_id=_line(root / "etc/machine-id"),
        boot_id=_line(root / "proc/sys/kernel/random/boot_id"),
        vendor=_line(dmi / "sys_vendor"),
        product=_line(dmi / "product_name"),
        serial=_line(dmi / "product_serial"),
        bios=bios,
    )
    if vmcore is not None and (names := read_utsname(vmcore)) is not None:
        return replace(machine, host=shortened(names.nodename), kernel_release=shortened(names.release))
    return machine


def crash_of(source: Path) -> bytes | None:
    """Return the VMCOREINFO of the kernel that left the vmcore *source*; None if it has no time of a panic.

    Blocks. Raises OSError and InvalidVmcore.
    """
    with source.open("rb", buffering=0) as file:
        vmcore = recognise(file_image(file.fileno(), str(source)))
        return of_panic(vmcore.image, vmcore.notes())


def machine_of(job: Job) -> ManifestMachine:
    """Return what is known of the machine whose vmcore *job* writes. Blocks; never fails."""
    try:
        fd = job.reads.open(job.source)
    except OSError:
        return this_machine()
    try:
        return this_machine(recognise(TimedFile(job.reads, fd).image(str(job.source))))
    except InvalidVmcore:
        return this_machine()
    finally:
        job.reads.close(fd)


def _line(path: Path) -> str:
    """Return the first line of a small file; empty if it cannot be read: the vmcore does not depend on it."""
    try:
        with path.open("rb") as file:
            lines = file.read(_MAX).decode(errors="backslashreplace").strip().splitlines()
    except OSError:
        return ""
    return shortened(lines[0]) if lines else ""
