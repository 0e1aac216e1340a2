# SPDX-License-Identifier: LGPL-2.1-or-later
"""What external tools read in a vmcore: crash, readelf, pyelftools, makedumpfile."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from tests.lib.tools import require


@dataclass(frozen=True, slots=True)
class Listed:
    """One device dump in a listing."""

    name: str
    size: int


def crash(vmcore: Path) -> list[Listed]:
    """Return the device dumps that crash finds, without a vmlinux at hand."""
    require("crash")
    command = ["crash", "-d", "8", "--osrelease", str(vmcore)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout
    found = re.findall(r'\(NT_VMCOREDD\)\s+name: "([^"]*)"\s+size: (\d+)', output)
    return [Listed(name, int(size)) for name, size in found]


def crash_names(vmcore: Path) -> list[str]:
    """Return the names of the device dumps that crash lists."""
    return [dump.name for dump in crash(vmcore)]


def osrelease(vmcore: Path) -> str:
    """Return the kernel release that crash reads from VMCOREINFO."""
    require("crash")
    command = ["crash", "--osrelease", str(vmcore)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def readelf(vmcore: Path) -> list[str]:
    """Return owner and type or size of each note, as readelf lists them."""
    require("readelf")
    command = ["readelf", "-nW", str(vmcore)]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
    assert not output.stderr, output.stderr
    return re.findall(r"^  (\S+) +0x([0-9a-f]+)\t", output.stdout, re.MULTILINE)


def pyelftools(vmcore: Path) -> list[tuple[str, int | str]]:
    """Return name and type of each note, as pyelftools lists them."""
    with vmcore.open("rb") as file:
        return [
            (note["n_name"], note["n_type"])
            for segment in ELFFile(file).iter_segments()
            if isinstance(segment, NoteSegment)
            for note in segment.iter_notes()
        ]


def makedumpfile(vmcore: Path, destination: Path, *options: str) -> Path:
    """Filter with makedumpfile."""
    require("makedumpfile")
    # Version 1.7.2 falls over its own mappings now and then.
    command = ["makedumpfile", "--non-mmap", "--message-level", "0", *options, str(vmcore), str(destination)]
    subprocess.run(command, check=True, capture_output=True)
    return destination


def rearrange(flattened: IO[bytes], destination: Path) -> None:
    """Turn a flattened dump, as makedumpfile -F writes it, into one with everything in its place."""
    require("makedumpfile")
    command = ["makedumpfile", "-R", str(destination)]
    subprocess.run(command, stdin=flattened, check=True, capture_output=True)


def kernel_log(vmcore: Path, destination: Path) -> str:
    """Return the kernel log that makedumpfile finds."""
    require("makedumpfile")
    subprocess.run(
        ["makedumpfile", "--dump-dmesg", str(vmcore), str(destination)], check=True, capture_output=True
    )
    return destination.read_text(errors="replace")


def loads(vmcore: Path) -> list[tuple[int, int, int, int]]:
    """Return p_paddr, p_vaddr, p_offset and p_filesz of each PT_LOAD, as pyelftools reads them."""
    with vmcore.open("rb") as file:
        headers = [segment.header for segment in ELFFile(file).iter_segments() if segment["p_type"] == "PT_LOAD"]
    return [(h["p_paddr"], h["p_vaddr"], h["p_offset"], h["p_filesz"]) for h in headers]


def same_memory(vmcore: Path, source: Path) -> bool:
    """Compare every byte of every PT_LOAD."""
    ours, theirs = loads(vmcore), loads(source)
    if [(*a[:2], a[3]) for a in ours] != [(*b[:2], b[3]) for b in theirs]:
        return False
    with vmcore.open("rb") as a, source.open("rb") as b:
        return all(_same_bytes(a, mine[2], b, other[2], mine[3]) for mine, other in zip(ours, theirs, strict=True))


def _same_bytes(a, a_offset: int, b, b_offset: int, size: int) -> bool:  # type: ignore[no-untyped-def]
    a.seek(a_offset)
    b.seek(b_offset)
    while size:
        block = min(size, 1 << 20)
        if a.read(block) != b.read(block):
            return False
        size -= block
    return True
