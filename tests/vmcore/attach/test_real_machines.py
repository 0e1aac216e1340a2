# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device dumps into real vmcores of other machines."""

import os
import struct
from pathlib import Path

import pytest

from tests.lib.attaching import attach_data, contents, other_notes
from tests.lib.flattened_writer import restore, split
from tests.lib.sample import unpack_machine
from tests.lib.vmcoredd import run
from vmcoredd_daemon.vmcore.image import file_image
from vmcoredd_daemon.vmcore.kdump import KdumpHeader, read_header

DATA = b"registers" * 1000


def header(path: Path) -> KdumpHeader:
    with path.open("rb") as file:
        return read_header(file_image(file.fileno(), str(path)))


def found_by_libkdumpfile(path: Path) -> tuple[str, int, int]:
    """Return which 32-bit sub header it takes, and where the notes then are, as ``read_sub_hdr_32()`` does."""
    data = path.read_bytes()
    (page,) = struct.unpack_from("<I", data, 416)
    (sub_header_blocks,) = struct.unpack_from("<i", data, 420)
    offset, size = struct.unpack_from("<QI", data, page + 20)
    bitmaps = page * (1 + sub_header_blocks)
    if (not offset and not size) or (page < offset and offset + size <= bitmaps):
        return ("packed", *struct.unpack_from("<QI", data, page + 32))
    return ("padded", *struct.unpack_from("<QI", data, page + 40))


def vmcoreinfo(path: Path) -> bytes:
    """Return what crash and makedumpfile find of it, through offset_vmcoreinfo."""
    read = header(path)
    with path.open("rb") as file:
        return os.pread(file.fileno(), read.size_vmcoreinfo, read.offset_vmcoreinfo)


def test_i386_kdump_keeps_its_vmcoreinfo_for_every_reader(tmp_path: Path) -> None:
    vmcore = unpack_machine("i386-6.1.kdump", tmp_path / "vmcore")
    before, notes, info = found_by_libkdumpfile(vmcore), other_notes(vmcore), vmcoreinfo(vmcore)
    assert before == ("packed", 4176, 3064)
    assert info.startswith(b"OSRELEASE=6.1.0-50-686-pae\n")
    for dumps in ({"nic": DATA}, {"disk": b"d"}, {"nic": b"n"}):
        attach_data(vmcore, **dumps)
        read = header(vmcore)
        assert found_by_libkdumpfile(vmcore) == ("packed", read.offset_note, read.size_note)
        assert vmcoreinfo(vmcore) == info
        assert other_notes(vmcore) == notes
    assert contents(vmcore) == {"disk": b"d", "nic": b"n"}


def test_i386_stream(tmp_path: Path) -> None:
    flat = unpack_machine("i386-6.1.flattened", tmp_path / "flat")
    (tmp_path / "file").write_bytes(DATA)
    result = run("attach", "--stream", f"nic={tmp_path / 'file'}", input=flat.read_bytes(), text=False)
    assert (result.returncode, result.stderr) == (0, b"")
    restored = tmp_path / "restored"
    restored.write_bytes(restore(split(result.stdout)))
    read = header(restored)
    assert found_by_libkdumpfile(restored) == ("packed", read.offset_note, read.size_note)
    assert vmcoreinfo(restored).startswith(b"OSRELEASE=6.1.0-50-686-pae\n")
    assert contents(restored) == {"nic": DATA}


@pytest.mark.parametrize("flattened", [True, False])
def test_packed_sub_header_of_a_machine_that_is_not_known(tmp_path: Path, flattened: bool) -> None:
    vmcore = unpack_machine("armhf-6.1-qemu.flattened", tmp_path / "vmcore")
    if not flattened:
        vmcore.write_bytes(restore(split(vmcore.read_bytes())))
    notes = other_notes(vmcore)
    assert [name for name, _ in notes] == [b"CORE", b"LINUX"]
    for dumps in ({"nic": DATA}, {"disk": b"d"}, {"nic": b"n"}):
        attach_data(vmcore, **dumps)
        assert other_notes(vmcore) == notes
    assert contents(vmcore) == {"disk": b"d", "nic": b"n"}
    if flattened:
        vmcore.write_bytes(restore(split(vmcore.read_bytes())))
    read = header(vmcore)
    assert (read.elfclass, read.machine) == (32, "Unknown")
    assert found_by_libkdumpfile(vmcore) == ("packed", read.offset_note, read.size_note)
