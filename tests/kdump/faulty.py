# SPDX-License-Identifier: LGPL-2.1-or-later
"""Machines whose capture kernel fails while it writes, and a judge of the disk that is left."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.kdump import capture, rig, units
from tests.lib.paths import ROOT
from tests.torture import disk as judge
from vmcoredd_daemon.collectors.builtin import BUILT_IN
from vmcoredd_daemon.manifest import MANIFEST_NAME
from vmcoredd_daemon.vmcore.inspect.inspect import inspect

BLOCK = 4096
RESERVED_BLOCKS = 4096
"""At most, and at most one in fifty: ext4_calculate_resv_clusters() in Linux fs/ext4/super.c."""

ADDING = f"{units.VENDOR}/acknowledging_helper.py"
WRITING = f"{units.VENDOR}/second_panic_helper.py"

SMALL = {"memory_mib": 512, "crashkernel": "192M", "first_command_line": "nokaslr"}
"""A machine whose memory is read in seconds."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the service has answered, as the console has it."""

    acknowledged: dict[str, str]
    """SHA-256 by name."""
    refused: dict[str, str]
    """D-Bus error by name."""


def answers(console: str) -> Answers:
    """Return what the helper in the capture kernel has said."""
    acknowledged = re.findall(r"vmcoredd rig: acknowledged (\S+) ([0-9a-f]{64})\n", console)
    return Answers(dict(acknowledged), dict(re.findall(r"vmcoredd rig: refused (\S+): (\S+)\n", console)))


def adding(*names: str) -> units.Files:
    """A unit that adds device dumps, and says what was answered."""
    command = f"exec {units.interpreter()} /{ADDING} {units.BUS_ADDRESS} {' '.join(names)}"
    return {**units.helper("adding", command), ADDING: ROOT / "tests" / "lib" / Path(ADDING).name}


def writing(what: str, *percent: int) -> units.Files:
    """A unit that stops the service when all is added, and says how far the vmcore is, or panics there."""
    marks = " ".join(map(str, percent))
    command = f"{units.interpreter()} /{WRITING} {units.BUS_ADDRESS} {what} {marks}"
    unit = "DefaultDependencies=no\nAfter=vmcoredd-capture.target"
    text = units.ONESHOT.format(unit=unit, timeout=90, command=command)
    return {**units.wanted("writing", text), WRITING: ROOT / "tests" / "lib" / Path(WRITING).name}


def scenario(*files: units.Files, **machine: object) -> capture.Scenario:
    """A small machine without collectors of our own."""
    masks = {f"etc/vmcoredd/collectors.d/{name}.conf": b"" for name in BUILT_IN}
    every = {name: file for unit in [masks, *files] for name, file in unit.items()}
    return capture.Scenario(files=every, **{**SMALL, "timeout": 110.0, **machine})  # type: ignore[arg-type]


def make_disk(path: Path, mib: int, free: int | None = None) -> Path:
    """Make an ext4 image of which a file leaves *free* bytes, by statvfs(3)."""
    rig.sparse_file(path, mib)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(BLOCK), path], check=True)
    if free is not None:
        blocks = _free_blocks(path) - min((mib << 20) // BLOCK // 50, RESERVED_BLOCKS) - free // BLOCK
        # Its extents need a block, too, if there are more than four.
        _debugfs(path, "write /dev/null filler", f"fallocate /filler 0 {blocks - 1}")
        _debugfs(path, f"set_inode_field /filler size {blocks * BLOCK}")
        subprocess.run(["e2fsck", "-f", "-y", path], capture_output=True, check=False)
    return path


def remove_filler(path: Path) -> None:
    """Remove the file that left so little room: what is wanted of the disk is the rest."""
    _debugfs(path, "rm /filler")


def _free_blocks(path: Path) -> int:
    shown = subprocess.run(["dumpe2fs", "-h", path], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"^Free blocks: +(\d+)$", shown, re.MULTILINE)[0])


def _debugfs(path: Path, *requests: str) -> None:
    for request in requests:
        subprocess.run(["debugfs", "-w", "-R", request, path], capture_output=True, check=True)


def mounted_again(image: Path, destination: Path) -> Path:
    """Return what is on a disk after the next boot has looked at it: the journal is replayed, on a copy."""
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir()
    copy = destination.with_suffix(".image")
    subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    # 1: errors were corrected. More is what no user is asked at a boot.
    checked = subprocess.run(["e2fsck", "-p", copy], capture_output=True, text=True, check=False)
    assert checked.returncode in {0, 1}, checked.stdout
    capture.fetch(copy, destination)
    copy.unlink()
    return destination


def held(target: Path) -> set[str]:
    """Return the names of the device dumps that are on a disk, bit for bit as they were acknowledged.

    Raises judge.Lost where one is altered, or a file under a final name is partial.
    """
    found = judge.check_spool(target)
    for vmcore in sorted(target.glob("*/vmcore*")):
        if vmcore.name in judge.FINAL_NAMES:
            found |= dumps_of(vmcore)
    return found


def dumps_of(vmcore: Path) -> set[str]:
    """Return the names of the device dumps in a vmcore; raise judge.Lost where one is altered, or where it is cut
    off and has a final name.
    """
    final = vmcore.name in judge.FINAL_NAMES
    with vmcore.open("rb") as file:
        if final and os.pread(file.fileno(), 4, 0) == b"\x7fELF":
            return set(judge.check_vmcore(vmcore, None))
        inspection = inspect(file.fileno(), str(vmcore))
        if final and inspection.problems:
            raise judge.Lost(f"{vmcore}: {inspection.problems}")
        found = [dump for dump in inspection.device_dumps if dump.name != MANIFEST_NAME]
        for dump in found:
            data = judge.data_of(dump.name)
            if dump.true_size != len(data) or inspection.image.pread(len(data), dump.offset) != data:
                raise judge.Lost(f"{vmcore}: device dump {dump.name} is altered")
    return {dump.name for dump in found}
