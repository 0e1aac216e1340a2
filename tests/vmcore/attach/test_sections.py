# SPDX-License-Identifier: LGPL-2.1-or-later
"""An attach that writes an ELF vmcore again keeps what it does not know: sections, and other segments."""

import os
import re
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tests.lib import qemu_elf
from tests.lib.attaching import attach_data, contents, other_notes
from tests.lib.tools import require
from vmcoredd_daemon.errors import InvalidVmcore


def sections(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        return {section.name: section.data() for section in ELFFile(file).iter_sections()}


def segments(path: Path) -> list[tuple[object, bytes]]:
    """Return type and data of all but the notes."""
    with path.open("rb") as file:
        found = [(segment["p_type"], segment.data()) for segment in ELFFile(file).iter_segments()]
    return [(p_type, data) for p_type, data in found if p_type != "PT_NOTE"]


@pytest.mark.parametrize("other", [b"", b"what it is, is not known"])
def test_protected_guest(tmp_path: Path, other: bytes) -> None:
    require("readelf")
    vmcore = qemu_elf.protected(tmp_path / "vmcore", other)
    before, notes = (sections(vmcore), segments(vmcore)), other_notes(vmcore)
    assert {"pv_mem_meta": qemu_elf.META, "pv_compl": qemu_elf.COMPLETION}.items() <= before[0].items()
    assert len(before[1]) == (2 if other else 1)
    for dumps in ({"nic": b"first"}, {"disk": b"d" * 10_000}, {"nic": b"new"}):
        attach_data(vmcore, **dumps)
        assert (sections(vmcore), segments(vmcore)) == before
        assert other_notes(vmcore) == notes
    assert contents(vmcore) == {"disk": b"d" * 10_000, "nic": b"new"}
    command = ["readelf", "-WSl", str(vmcore)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True)
    assert listed.stderr == ""
    assert "arning" not in listed.stdout
    assert re.search(r"\] pv_compl +NOTE|\] pv_compl +STRTAB", listed.stdout)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (-1, r"section 3 ends at 0x\w+, the file at 0x\w+: it cannot be kept"),
        (-600, r"section 1 ends at 0x\w+, the file at 0x\w+: it cannot be kept"),
    ],
)
def test_sections_that_are_cut_off_are_refused(tmp_path: Path, size: int, message: str) -> None:
    vmcore = qemu_elf.protected(tmp_path / "vmcore")
    os.truncate(vmcore, vmcore.stat().st_size + size)
    before = vmcore.read_bytes()
    with pytest.raises(InvalidVmcore, match=f"^{vmcore}: {message}$"):
        attach_data(vmcore, nic=b"x")
    assert vmcore.read_bytes() == before


def test_more_sections_than_are_kept_are_refused(tmp_path: Path) -> None:
    vmcore = qemu_elf.protected(tmp_path / "vmcore")
    with vmcore.open("r+b") as file:
        os.pwrite(file.fileno(), struct.pack(">H", 60000), 60)
    before = vmcore.read_bytes()
    with pytest.raises(
        InvalidVmcore, match="e_shnum is 60000, e_shentsize 64: sections are kept up to 1024, of 64 by"
    ):
        attach_data(vmcore, nic=b"x")
    assert vmcore.read_bytes() == before


def test_other_segment_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    vmcore = qemu_elf.protected(tmp_path / "vmcore", b"other")
    with vmcore.open("r+b") as file:
        # e_shoff, e_shentsize, e_shnum and e_shstrndx: no sections.
        os.pwrite(file.fileno(), bytes(8), 40)
        os.pwrite(file.fileno(), bytes(6), 58)
    os.truncate(vmcore, vmcore.stat().st_size - len(qemu_elf.META) * 2 - 33 - 1)
    before = vmcore.read_bytes()
    with pytest.raises(InvalidVmcore, match=r"a segment at 0x\w+ ends at 0x\w+, the file at 0x\w+: it cannot be"):
        attach_data(vmcore, nic=b"x")
    assert vmcore.read_bytes() == before
