# SPDX-License-Identifier: LGPL-2.1-or-later
import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lib.elf_writer import NT_PRSTATUS, device_dump, note
from tests.lib.paths import DATA_DIRECTORY
from vmcoredd_daemon.errors import InvalidArgs, InvalidVmcore, TooLarge
from vmcoredd_daemon.note import (
    NT_VMCOREDD,
    VMCOREDD_HEADER_SIZE,
    ByteOrder,
    Note,
    check_dump_name,
    note_size,
    pack_vmcoredd_header,
    system_page_size,
    walk_notes,
)

GOLDEN = (DATA_DIRECTORY / "proc-vmcore-prefix.bin").read_bytes()
GOLDEN_HEADERS = [
    (0x1000, b"golden_a", 100),
    (0x2000, b"golden_b", 4032),
    (0x3000, b"golden_c", 4033),
    (0x5000, b"golden_d_65536", 65536),
    (0x16000, b"0123456789" * 4 + b"ABCD", 1),
    (0x17000, b"golden_a", 8192),
]
UINT_MAX = 0xFFFFFFFF
LARGEST_NOTE = 1 << 32
"""n_descsz is 20 bytes less than its note."""

byteorders = st.sampled_from(ByteOrder)
uints = st.integers(0, UINT_MAX)


def walk(data: bytes, byteorder: ByteOrder = ByteOrder.LITTLE, size: int | None = None) -> list[Note]:
    def pread(size: int, offset: int) -> bytes:
        return data[offset : offset + size]

    return list(walk_notes(pread, 0, len(data) if size is None else size, byteorder))


@pytest.mark.parametrize(("offset", "name", "size"), GOLDEN_HEADERS)
def test_header_is_the_kernels(offset: int, name: bytes, size: int) -> None:
    header = pack_vmcoredd_header(name, note_size(size, 4096), ByteOrder.LITTLE)
    assert header == GOLDEN[offset : offset + 64]


def test_walk_finds_what_the_kernel_wrote() -> None:
    notes = list(
        walk_notes(lambda size, offset: GOLDEN[offset : offset + size], 0x1000, 0x19E04, ByteOrder.LITTLE)
    )
    dumps, others = notes[:6], notes[6:]
    assert [(n.offset, n.dump_name, n.data_size) for n in dumps] == [
        (offset, name, note_size(size, 4096) - 64) for offset, name, size in GOLDEN_HEADERS
    ]
    assert [n.data_offset for n in dumps] == [0x1040, 0x2040, 0x3040, 0x5040, 0x16040, 0x17040]
    assert [(n.name, n.n_type, n.dump_name) for n in others] == [
        (b"CORE", NT_PRSTATUS, None),
        (b"VMCOREINFO", 0, None),
    ]
    assert notes[-1].end == 0x1000 + 0x19E04


def test_big_endian_header() -> None:
    header = pack_vmcoredd_header(b"nic0", 4096, ByteOrder.BIG)
    assert header[:12] == bytes.fromhex("00000008 00000fec 00000700")
    assert header[12:20] == b"LINUX\0\0\0"
    assert header[20:] == b"nic0".ljust(44, b"\0")


@given(
    st.lists(st.tuples(st.text("abc.:_-0", min_size=1, max_size=44), st.integers(1, 10_000)), max_size=4),
    byteorders,
)
def test_packed_headers_are_walked(dumps: list[tuple[str, int]], byteorder: ByteOrder) -> None:
    sizes = [note_size(size, 4096) for _, size in dumps]
    data = b"".join(
        pack_vmcoredd_header(name.encode(), size, byteorder).ljust(size, b"\xa5")
        for (name, _), size in zip(dumps, sizes, strict=True)
    )
    notes = walk(data, byteorder)
    assert [(n.dump_name, n.end - n.offset, n.n_type) for n in notes] == [
        (name.encode(), size, NT_VMCOREDD) for (name, _), size in zip(dumps, sizes, strict=True)
    ]


@pytest.mark.parametrize("name", ["x", "a" * 43, "cxgb4_0000:02:00.4", "with space", "~!%/"])
def test_dump_name_is_taken(name: str) -> None:
    check_dump_name(name)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("a" * 44, "has 44 bytes, at most 43 are allowed"),
        ("a" * 10_000, "has 10000 bytes"),
        ("gerät", r"'ger\\xe4t' has characters other than printable ASCII"),
        ("two\nlines", r"'two\\nlines' has characters"),
        ("nul\0", r"'nul\\x00' has characters"),
        ("\x7f", "has characters"),
        ("\ud800", "has characters"),
    ],
)
def test_dump_name_is_refused(name: str, problem: str) -> None:
    with pytest.raises(InvalidArgs, match=problem) as raised:
        check_dump_name(name)
    assert str(raised.value).isascii()
    assert len(str(raised.value)) < 400


def test_note_size_rounds_as_the_kernel_does() -> None:
    sizes = {1: 4096, 4032: 4096, 4033: 8192, 65536: 69632, 33_554_432: 33_558_528}
    assert {size: note_size(size, 4096) for size in sizes} == sizes
    assert note_size(1, 65536) == 65536


def test_note_size_ends_where_n_descsz_does() -> None:
    largest = LARGEST_NOTE - VMCOREDD_HEADER_SIZE
    assert note_size(largest, 4096) == LARGEST_NOTE
    (descsz,) = struct.unpack_from("<I", pack_vmcoredd_header(b"x", LARGEST_NOTE, ByteOrder.LITTLE), 4)
    assert descsz == LARGEST_NOTE - 20
    for size in (largest + 1, 2**32, 2**63):
        with pytest.raises(TooLarge, match=f"{size} bytes does not fit n_descsz"):
            note_size(size, 4096)


@given(st.integers(1, 2**33))
def test_note_size_fits_its_header(size: int) -> None:
    try:
        data_size = note_size(size, 4096)
    except TooLarge:
        assert size > LARGEST_NOTE - VMCOREDD_HEADER_SIZE
    else:
        assert data_size % 4096 == 0
        assert 0 <= data_size - VMCOREDD_HEADER_SIZE - size < 4096
        pack_vmcoredd_header(b"x", data_size, ByteOrder.BIG)


def test_page_size_is_a_power_of_two() -> None:
    assert system_page_size().bit_count() == 1


def test_zeros_behind_the_last_note_are_no_notes() -> None:
    assert len(walk(note(NT_PRSTATUS, b"desc") + bytes(4096))) == 1
    assert walk(bytes(100)) == []
    assert walk(b"") == []


def test_unpadded_end_of_the_last_note() -> None:
    data = note(NT_PRSTATUS, b"12345")
    (whole,) = walk(data)
    (cut,) = walk(data[:-3])
    assert whole == cut
    assert whole.n_descsz == 5


@pytest.mark.parametrize("order", ByteOrder)
def test_note_that_leaves_its_segment(order: ByteOrder) -> None:
    data = note(NT_PRSTATUS, b"x" * 100, byteorder=order.value)
    with pytest.raises(InvalidVmcore, match=r"note at offset 0x0 ends at 0x78, beyond its segment, .* 0x77"):
        walk(data, order, size=0x77)


@pytest.mark.parametrize("end", [5, 14, 30])
def test_file_that_ends_inside_a_note(end: int) -> None:
    data = device_dump(b"nic", b"data")
    with pytest.raises(InvalidVmcore, match=rf"the file ends at offset {end:#x}, inside a note"):
        walk(data[:end], size=len(data))


def test_device_dump_without_room_for_a_name() -> None:
    (short,) = walk(note(NT_VMCOREDD, b"x" * 43, b"LINUX\0\0\0"))
    assert short.dump_name is None


@settings(max_examples=300)
@given(st.binary(max_size=300), byteorders)
def test_hostile_bytes(data: bytes, byteorder: ByteOrder) -> None:
    try:
        notes = walk(data, byteorder)
    except InvalidVmcore:
        return
    assert all(0 <= n.offset < n.desc_offset <= n.end <= len(data) + 3 for n in notes)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(uints, uints, uints, st.binary(max_size=80)), max_size=5), byteorders, st.integers(0, 2**63)
)
def test_hostile_headers(notes: list[tuple[int, int, int, bytes]], byteorder: ByteOrder, size: int) -> None:
    data = b"".join(struct.pack(f"{byteorder.prefix}III", *sizes) + rest for *sizes, rest in notes)
    with suppress(InvalidVmcore):
        assert len(walk(data, byteorder, size)) <= len(data) // 12
