# SPDX-License-Identifier: LGPL-2.1-or-later
"""Headers of kdump-compressed files: of makedumpfile's own, and of machines that are not at hand."""

import os
import re
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import kdump as fuzz
from tests.lib.elf_writer import device_dump
from tests.lib.external_tools import makedumpfile
from tests.lib.image import image_of
from tests.lib.kdump_writer import HEADERS, MACHINES, SUB_HEADERS, VMCOREINFO, Kdump, notes
from tests.lib.tools import require
from vmcoredd_daemon.errors import InvalidVmcore
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import file_image
from vmcoredd_daemon.vmcore.kdump import KdumpHeader, read_header

OFFSETS = st.integers(0, (1 << 63) - 1)


def header(data: bytes) -> KdumpHeader:
    return read_header(image_of(data))


def kdump(machine: bytes, elfclass: int, byteorder: str, sub_header: str, **fields: object) -> Kdump:
    own = notes(byteorder, device_dump(b"nic", b"registers", byteorder))
    return Kdump(own, machine, elfclass, byteorder, sub_header, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["-c", "-l", "-p", "-z"])
def test_what_makedumpfile_writes(source_vmcore: Path, tmp_path: Path, option: str) -> None:
    path = makedumpfile(source_vmcore, tmp_path / "vmcore", option, "-d", "31")
    with path.open("rb") as file:
        own = read_header(file_image(file.fileno(), "FILE"))
        assert (own.header_version, own.elfclass, own.byteorder, own.machine) == (6, 64, "little", "x86_64")
        assert (own.block_size, own.dump_level, own.split, own.incomplete) == (4096, 31, False, False)
        assert own.offset_note == 4096 + 104
        assert os.pread(file.fileno(), 11, own.offset_vmcoreinfo) == b"OSRELEASE=6"
        assert (own.offset_eraseinfo, own.size_eraseinfo) == (0, 0)
        names = [note.name for note in recognise(file_image(file.fileno(), "FILE")).notes()]
    assert names == [b"CORE", b"VMCOREINFO"]


def test_part_of_a_split_dump(source_vmcore: Path, tmp_path: Path) -> None:
    require("makedumpfile")
    first, second = tmp_path / "first", tmp_path / "second"
    command = ["makedumpfile", "--message-level", "0", "--split", "-c", "-d", "31", source_vmcore, first, second]
    subprocess.run(command, check=True, capture_output=True)
    assert header(first.read_bytes()).split
    assert header(second.read_bytes()).split


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine[0].decode()}-{machine[2]}")
@pytest.mark.parametrize("version", range(7))
def test_every_machine_and_version(machine: tuple[bytes, int, str, str], version: int) -> None:
    written = kdump(*machine, header_version=version, split=1, status=9)
    read, fields = header(written.pack()), written.fields
    assert (read.header_version, read.elfclass, read.byteorder) == (version, machine[1], machine[2])
    assert (read.machine, read.block_size) == (machine[0].decode(), 4096)
    assert (read.sub_hdr_size, read.bitmap_blocks) == (fields["sub_hdr_size"], 2)
    assert (read.status, read.incomplete) == (9, True)
    assert (read.dump_level, read.split) == (31 if version >= 1 else 0, version >= 2)
    expected = (fields["offset_vmcoreinfo"], fields["size_vmcoreinfo"]) if version >= 3 else (0, 0)
    assert (read.offset_vmcoreinfo, read.size_vmcoreinfo) == expected
    expected = (fields["offset_note"], fields["size_note"]) if version >= 4 else (0, 0)
    assert (read.offset_note, read.size_note) == expected
    vmcore = recognise(image_of(written.pack()))
    assert [dump.dump_name for dump in vmcore.device_dumps()] == ([b"nic"] if version >= 4 else [])
    told = version < 4 and f"header_version is {version}: notes need 4, it has none"
    assert [problem for problem in vmcore.problems if "version" in problem] == ([told] if told else [])


@pytest.mark.parametrize("block_size", [4096, 8192, 16384, 65536, 1 << 18])
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine[0].decode()}-{machine[2]}")
def test_every_block_size(machine: tuple[bytes, int, str, str], block_size: int) -> None:
    read = header(kdump(*machine, block_size=block_size).pack())
    assert (read.block_size, read.byteorder, read.elfclass) == (block_size, machine[2], machine[1])


@pytest.mark.parametrize("machine", [b"i686", b"", b"unknown"])
def test_machine_of_32_bits_with_a_gigabyte(machine: bytes) -> None:
    # max_mapnr, where a 64-bit header has block_size, is a power of two.
    sub_header = "packed" if machine == b"i686" else "32"
    own = kdump(machine, 32, "little", sub_header, max_mapnr=0x40000)
    assert header(own.pack()).elfclass == 32


def test_machine_of_32_bits_with_64_bits_of_time() -> None:
    own = kdump(b"armv7l", 64, "little", "32")
    read = header(own.pack())
    assert (read.elfclass, read.offset_note) == (32, own.fields["offset_note"])


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine[0].decode()}-{machine[2]}")
@given(offset_note=OFFSETS, size_note=st.integers(0, 0xFFFFFFFF), offset_vmcoreinfo=OFFSETS)
def test_note_fields_change_nothing_else(
    machine: tuple[bytes, int, str, str], offset_note: int, size_note: int, offset_vmcoreinfo: int
) -> None:
    written = kdump(*machine)
    data = bytearray(written.pack())
    # What is between the fields has to stay, whatever it is.
    if written.sub_header == "32":
        data[4096 + 36 : 4096 + 40] = b"keep"
    offset, changed = header(bytes(data)).note_fields(offset_note, size_note, offset_vmcoreinfo)
    assert offset // 512 == (offset + len(changed) - 1) // 512
    fields = {"offset_note": offset_note, "size_note": size_note, "offset_vmcoreinfo": offset_vmcoreinfo}
    expected = bytearray(written.but(**fields).pack())
    if written.sub_header == "32":
        expected[4096 + 36 : 4096 + 40] = b"keep"
    data[offset : offset + len(changed)] = changed
    assert data == expected


def test_note_fields_that_do_not_fit() -> None:
    own = header(kdump(*MACHINES[5]).pack())
    with pytest.raises(InvalidVmcore, match=r"^size_note 4294967296 at offset_note 0x1000: "):
        own.note_fields(0x1000, 1 << 32, 0x1000)


WHOLE = Kdump(notes())
SIZE = len(WHOLE.pack())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (WHOLE.pack()[:300], "the file ends at offset 0x12c, inside the header"),
        (WHOLE.pack()[:5000][:4150], "the file ends at offset 0x1036, inside the sub header"),
        (Kdump(signature=b"DISKDUMP").pack(), "has signature DISKDUMP: diskdump files are not supported"),
        (Kdump(notes(), header_version=7).pack(), "header_version at offset 8 is 7, versions 0 to 6 are known"),
        (Kdump(notes(), header_version=-1).pack(), "header_version at offset 8 is -1, "),
        (Kdump(notes(), block_size=2048).pack(), "block_size at offset 428 is 2048, not a power of two from 4096"),
        (WHOLE.but(sub_hdr_size=0).pack(), "sub_hdr_size at offset 432 is 0 blocks, not above 0"),
        (WHOLE.but(sub_hdr_size=-1).pack(), "sub_hdr_size at offset 432 is -1 blocks, not above 0"),
        (
            WHOLE.but(bitmap_blocks=0xFFFFFFFF).pack(),
            "bitmap_blocks at offset 436 is 4294967295: the bitmaps end at 0x1000000",
        ),
        (WHOLE.but(offset_note=100).pack(), "offset_note at offset 0x1030 is 0x64, inside the headers"),
        (WHOLE.but(offset_note=-8).pack(), "offset_note at offset 0x1030 is 0xfffffffffffffff8, size_note is"),
        (
            WHOLE.but(size_note=(1 << 64) - 1).pack(),
            "offset_note at offset 0x1030 is 0x1068, size_note is 18446744073709551615: ends at 0x1000000000000",
        ),
        (WHOLE.but(offset_vmcoreinfo=1 << 40).pack(), "offset_vmcoreinfo at offset 0x1020 is 0x10000000000, "),
        (
            WHOLE.but(offset_eraseinfo=5000, size_eraseinfo=1 << 62).pack(),
            "offset_eraseinfo at offset 0x1040 is 0x1388, ",
        ),
    ],
)
def test_bad_headers(data: bytes, message: str) -> None:
    with pytest.raises(InvalidVmcore, match=f"^FILE: {re.escape(message)}"):
        recognise(image_of(data))


def test_incomplete_file_may_end_early() -> None:
    own = replace_status(WHOLE, 9).but(bitmap_blocks=100)
    assert header(own.pack()).incomplete
    with pytest.raises(InvalidVmcore, match="the bitmaps end at"):
        header(WHOLE.but(bitmap_blocks=100).pack())


def replace_status(own: Kdump, status: int) -> Kdump:
    return Kdump(own.notes, status=status)


def test_incomplete_file_is_told() -> None:
    assert recognise(image_of(Kdump(notes(), status=9).pack())).problems == (
        "is incomplete: makedumpfile had no space for all of the memory",
    )


def test_no_notes() -> None:
    vmcore = recognise(image_of(Kdump().pack()))
    assert (vmcore.note_ranges, list(vmcore.notes())) == ((), [])


def test_writer_agrees_with_the_sizes_in_the_sources() -> None:
    assert {key: struct.calcsize("<" + form) for key, form in HEADERS.items()} == {64: 464, 32: 452}
    sizes = {key: struct.calcsize("<" + form) for key, form in SUB_HEADERS.items()}
    assert sizes == {"64": 104, "32": 96, "packed": 80}
    assert VMCOREINFO in WHOLE.pack()


def test_mutated_headers_raise_nothing_else() -> None:
    assert fuzz.run(2000, seed=1) > 100
