# SPDX-License-Identifier: LGPL-2.1-or-later
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import elf as fuzz
from tests.lib.elf_writer import EM_386, EM_S390, EM_X86_64, ET_EXEC, NT_PRSTATUS, Core, Load, device_dump, note
from tests.lib.paths import DATA_DIRECTORY, ROOT
from tests.lib.resources import open_fds
from vmcoredd_daemon.errors import InvalidVmcore
from vmcoredd_daemon.note import ByteOrder
from vmcoredd_daemon.vmcore.elf import (
    EMPTY_LOAD,
    Headers,
    Reachable,
    empty_headers,
    reachable,
    read_headers,
    walk,
)
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import file_image

GOLDEN = DATA_DIRECTORY / "proc-vmcore-prefix.bin"
GOLDEN_HEADERS = GOLDEN.read_bytes()[:0x1000]
KINDS = [(32, "little", EM_386), (32, "big", EM_S390), (64, "little", EM_X86_64), (64, "big", EM_S390)]
PHDR = 64
LOADS = (Load(0x1000, b"first"), Load(0x100000, b"second", memsz=8192, vaddr=0x7F000000, flags=5, align=4096))

uint64s = st.integers(0, 2**64 - 1)


@contextmanager
def memfd(data: bytes) -> Iterator[int]:
    fd = os.memfd_create("vmcore", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


def read(path: Path) -> Headers:
    with path.open("rb") as file:
        return read_headers(file_image(file.fileno(), "FILE"))


def read_bytes(data: bytes) -> Headers:
    with memfd(data) as fd:
        return read_headers(file_image(fd, "FILE"))


def names(data: bytes) -> list[bytes | None]:
    with memfd(data) as fd:
        return [found.dump_name for found in recognise(file_image(fd, "FILE")).device_dumps()]


def golden_with(offset: int, fields: str, *values: int) -> bytes:
    data = bytearray(GOLDEN.read_bytes())
    struct.pack_into(f"<{fields}", data, offset, *values)
    return bytes(data)


def extended(segments: int, e_shoff: int = 0x800) -> bytes:
    data = bytearray(golden_with(56, "H", 0xFFFF))
    struct.pack_into("<Q", data, 40, e_shoff)
    struct.pack_into("<I", data, 0x800 + 44, segments)
    return bytes(data)


def test_the_kernels_headers() -> None:
    headers = read(GOLDEN)
    assert (headers.elfclass, headers.byteorder, headers.e_machine) == (64, ByteOrder.LITTLE, EM_X86_64)
    assert (len(headers.notes), len(headers.loads), headers.size) == (1, 4, 64 + 5 * 56)
    assert headers.notes[0].p_filesz == headers.notes[0].p_memsz == 0x19E04
    assert headers.pack().ljust(0x1000, b"\0") == GOLDEN_HEADERS


def test_debugger_is_not_loaded_and_can_be_by_others() -> None:
    program = f"""
import sys
from pathlib import Path
from vmcoredd_daemon.vmcore.elf import read_headers
from vmcoredd_daemon.vmcore.image import file_image
with Path({str(GOLDEN)!r}).open("rb") as file:
    read_headers(file_image(file.fileno(), "FILE"))
assert not {{"asyncio", "bdb", "pdb"}} & set(sys.modules)
import pdb
pdb.Pdb
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_sections_do_not_matter() -> None:
    """Version 0.32 of pyelftools refuses the first."""
    data = bytearray(golden_with(40, "Q", 0x800))
    assert read_bytes(bytes(data)).pack() == read(GOLDEN).pack()
    struct.pack_into("<Q", data, 40, 1 << 40)
    struct.pack_into("<HHH", data, 58, 64, 3, 1)
    assert read_bytes(bytes(data)).segments == read(GOLDEN).segments


def test_the_kernels_device_dumps() -> None:
    long_name = b"0123456789" * 4 + b"ABCD"
    assert names(GOLDEN.read_bytes()) == [
        *(b"golden_a", b"golden_b", b"golden_c", b"golden_d_65536"),
        *(long_name, b"golden_a"),
    ]


@pytest.mark.parametrize(("elfclass", "byteorder", "machine"), KINDS)
def test_round_trip(tmp_path: Path, elfclass: int, byteorder: str, machine: int) -> None:
    notes = note(NT_PRSTATUS, b"regs", byteorder=byteorder)
    core = Core(notes, LOADS, elfclass, byteorder, e_machine=machine, e_flags=0x12345678, note_align=4)
    headers = read(core.write(tmp_path / "core"))
    assert headers.pack() == core.headers()
    assert (headers.elfclass, headers.byteorder.value, headers.e_machine) == (elfclass, byteorder, machine)
    assert [(load.p_paddr, load.p_memsz, load.p_vaddr, load.p_flags, load.p_align) for load in headers.loads] == [
        (0x1000, 5, 0, 7, 0),
        (0x100000, 8192, 0x7F000000, 5, 4096),
    ]


@pytest.mark.parametrize(("elfclass", "byteorder"), [(64, "little"), (32, "big")])
def test_more_segments_than_e_phnum_can_count(tmp_path: Path, elfclass: int, byteorder: str) -> None:
    loads = tuple(Load(number * 4096, filesz=0) for number in range(70_000))
    notes = device_dump(b"a", b"", byteorder)
    path = Core(notes, loads, elfclass, byteorder).write(tmp_path / "core")
    headers = read(path)
    assert len(headers.loads) == 70_000
    # The writer of the test puts section 0 at the same place as makedumpfile.
    assert headers.pack() == path.read_bytes()[: headers.size]
    assert names(path.read_bytes()) == [b"a"]


@pytest.mark.parametrize(("elfclass", "byteorder", "machine"), KINDS)
def test_device_dumps_of_every_kind(tmp_path: Path, elfclass: int, byteorder: str, machine: int) -> None:
    dumps = b"".join(device_dump(name, b"data", byteorder) for name in (b"a", b"b"))
    others = note(NT_PRSTATUS, b"regs", byteorder=byteorder)
    path = Core(others + dumps, LOADS, elfclass, byteorder, e_machine=machine).write(tmp_path / "core")
    assert names(path.read_bytes()) == [b"a", b"b"]


def test_every_pt_note_is_walked(tmp_path: Path) -> None:
    path = Core((device_dump(b"a", b""), note(1, b"x") + bytes(40), device_dump(b"b", b""))).write(
        tmp_path / "core"
    )
    with path.open("rb") as file:
        headers = read_headers(file_image(file.fileno(), "FILE"))
        assert [found.dump_name for found in walk(file_image(file.fileno(), "FILE"), headers)] == [
            b"a",
            None,
            b"b",
        ]


def test_unknown_machine_and_segment_types() -> None:
    headers = read_bytes(golden_with(18, "H", 0xFEED))
    assert headers.e_machine == 0xFEED
    assert headers.pack()[18:20] == b"\xed\xfe"
    headers = read_bytes(golden_with(PHDR + 56, "I", 0x6FFFFFFF))
    assert len(headers.loads) == 3


def test_empty_headers_read_back(tmp_path: Path) -> None:
    empty = empty_headers()
    with open("/proc/self/exe", "rb") as interpreter:
        machine = interpreter.read(20)[18:20]
    assert empty.pack()[18:20] == machine
    (load,) = empty.segments
    assert (load.p_type, load.p_filesz) == (1, 0)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", r"not an ELF vmcore"),
        (b"\x7fELF", r"not an ELF vmcore"),
        (b"KDUMP   " + bytes(4096), r"not an ELF vmcore: Magic number does not match"),
        (GOLDEN_HEADERS[:4] + b"\x03" + GOLDEN_HEADERS[5:], r"not an ELF vmcore"),
        (GOLDEN_HEADERS[:5] + b"\x00" + GOLDEN_HEADERS[6:], r"not an ELF vmcore"),
        (GOLDEN_HEADERS[:40], r"not an ELF vmcore"),
        (GOLDEN_HEADERS[: PHDR + 56 * 5 - 1], r"the file ends at offset 0x157, inside the program headers"),
        (GOLDEN_HEADERS, r"PT_NOTE ends at 0x1ae04, but the file ends at 0x1000"),
        (GOLDEN.read_bytes()[:0x1AE03], r"PT_NOTE ends at 0x1ae04, but the file ends at 0x1ae03"),
        (golden_with(16, "H", ET_EXEC), r"e_type is ET_EXEC, not ET_CORE"),
        (golden_with(16, "H", 0x1234), r"e_type is 4660, not ET_CORE"),
        (golden_with(54, "H", 57), r"e_phentsize is 57, not 56 as in ELF64"),
        (golden_with(54, "H", 0), r"e_phentsize is 0, not 56 as in ELF64"),
        (golden_with(56, "H", 0xFFFE)[:4000], r"the file ends at offset 0xfa0, inside the program headers"),
        (
            golden_with(56, "H", 0xFFFF),
            r"e_phnum is PN_XNUM and sh_info of the section at offset 0x0 is 0, not 65535 to",
        ),
        (extended(0xFFFF, 2**63), r"section 0 at offset 0x80{15} would be beyond the end of the file"),
        (extended(0xFFFE), r"sh_info of the section at offset 0x800 is 65534, not 65535 to 131072"),
        (extended(2**32 - 1), r"sh_info of the section at offset 0x800 is 4294967295, not 65535 to"),
        (extended(0xFFFF), r"the file ends at offset 0x1b000, inside the program headers"),
        (golden_with(56, "H", 0), r"has no PT_NOTE segment"),
        (golden_with(PHDR, "I", 6), r"has no PT_NOTE segment"),
        (golden_with(32, "Q", 2**64 - 1), r"the program headers at offset 0xf{16} would be beyond the end"),
        (golden_with(32, "Q", 2**63), r"the program headers at offset 0x80{15} would be beyond the end"),
        (golden_with(32, "Q", 2**40), r"the program headers at offset 0x10{10} would be beyond the end"),
    ],
)
def test_what_is_refused(data: bytes, problem: str) -> None:
    before = open_fds()
    with pytest.raises(InvalidVmcore, match=rf"^FILE: .*{problem}") as raised:
        read_bytes(data)
    assert str(raised.value).isprintable()
    assert open_fds() == before


@pytest.mark.parametrize(
    ("data", "end", "missing", "kept"),
    [
        # Its place is beyond what a file can hold: it becomes empty, its addresses stay.
        (golden_with(PHDR + 56 + 8, "Q", 2**63), 0x8000000000C30000, 0xC30000, [0, 0x9EC00, 0xCF00000, 0xFDD000]),
        # Its size is: it is left out.
        (golden_with(PHDR + 56 + 32, "Q", 2**64 - 1), 0x1000000000001AFFF, 0, [0x9EC00, 0xCF00000, 0xFDD000]),
    ],
)
def test_memory_that_lies_beyond_what_a_file_can_hold(
    data: bytes, end: int, missing: int, kept: list[int]
) -> None:
    headers = read_bytes(data)
    found = reachable(headers)
    assert found.missing == missing
    said = f"its memory ends at {end:#x}, beyond what a file can hold: 1 of 4 PT_LOADs cannot be read"
    assert found.problem == said
    assert [load.p_filesz for load in found.headers.loads] == kept
    assert found.headers.notes == headers.notes
    assert reachable(found.headers) == Reachable(found.headers)


def test_nothing_but_such_memory() -> None:
    core = Core(note(1, b"registers"), (Load(0x1000, filesz=2**63, offset=0x2000),))
    found = reachable(read_bytes(core.headers().ljust(0x1000, b"\0") + bytes(0x1000)))
    assert found.headers.loads == (EMPTY_LOAD,)


@pytest.mark.parametrize("elfclass", [32, 64])
def test_wrong_e_phentsize_of_either_class(tmp_path: Path, elfclass: int) -> None:
    path = Core(note(1, b""), elfclass=elfclass, e_phentsize=40).write(tmp_path / "core")
    with pytest.raises(InvalidVmcore, match=f"e_phentsize is 40, not .* as in ELF{elfclass}"):
        read(path)


def test_more_phdrs_than_the_file_has(tmp_path: Path) -> None:
    with pytest.raises(InvalidVmcore, match=r"^FILE: the file ends at offset .*, inside the program headers"):
        read(Core(note(1, b""), e_phnum=0xFFFE).write(tmp_path / "core"))


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    before = open_fds()
    directory = os.open(tmp_path, os.O_RDONLY)
    reading, writing = os.pipe()
    try:
        for fd in (directory, reading):
            with pytest.raises(InvalidVmcore, match=r"^FILE: "):
                read_headers(file_image(fd, "FILE"))
    finally:
        for fd in (directory, reading, writing):
            os.close(fd)
    assert open_fds() == before


def test_memory_that_cannot_be_read() -> None:
    with open("/proc/self/mem", "rb", buffering=0) as file, pytest.raises(InvalidVmcore, match=r"^FILE: "):
        read_headers(file_image(file.fileno(), "FILE"))


def test_broken_note_names_the_file() -> None:
    data = golden_with(0x2004, "I", 0xFFFFFFF0)
    with pytest.raises(InvalidVmcore, match=r"^FILE: the note at offset 0x2000 ends at 0x100002004, beyond"):
        names(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: GOLDEN_HEADERS[:16] + data))
def test_hostile_bytes(data: bytes) -> None:
    with suppress(InvalidVmcore):
        read_bytes(data)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.integers(0, 8 * (PHDR + 5 * 56) - 1), min_size=1, max_size=6))
def test_flipped_bits(bits: list[int]) -> None:
    data = bytearray(GOLDEN.read_bytes())
    for bit in bits:
        data[bit // 8] ^= 1 << bit % 8
    with memfd(data) as fd, suppress(InvalidVmcore):
        headers = read_headers(file_image(fd, "FILE"))
        assert len(list(walk(file_image(fd, "FILE"), headers))) <= len(data)
        headers.pack()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 15), st.integers(0, 255), st.integers(0, 0xFFFF))
def test_flipped_identification(position: int, value: int, machine: int) -> None:
    data = bytearray(golden_with(18, "H", machine))
    data[position] = value
    with suppress(InvalidVmcore):
        read_bytes(data)


@settings(max_examples=200, deadline=None)
@given(uint64s, st.sampled_from([32, PHDR + 8, PHDR + 32, PHDR + 56 + 8, PHDR + 56 + 32]))
def test_hostile_offsets(value: int, offset: int) -> None:
    data = golden_with(offset, "Q", value)
    with memfd(data) as fd, suppress(InvalidVmcore):
        list(walk(file_image(fd, "FILE"), read_headers(file_image(fd, "FILE"))))


def test_fuzz() -> None:
    assert 100 < fuzz.run(1000, seed=1) < 900
