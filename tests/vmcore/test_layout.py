# SPDX-License-Identifier: LGPL-2.1-or-later
import os
import struct
from pathlib import Path

import pytest

from tests.lib.elf_writer import EM_386, NT_PRSTATUS, PAGE, Core, Load, device_dump, note, round_out
from tests.lib.paths import DATA_DIRECTORY
from tests.lib.vmcore_rig import Rig, load_bytes
from vmcoredd_daemon.errors import InvalidVmcore, QuotaExceeded
from vmcoredd_daemon.note import MAX_NOTES_END, ByteOrder, DeviceDumpNote
from vmcoredd_daemon.vmcore.elf import empty_headers
from vmcoredd_daemon.vmcore.layout import Source, plan

GOLDEN = (DATA_DIRECTORY / "proc-vmcore-prefix.bin").read_bytes()
GOLDEN_OTHERS = GOLDEN[0x1A000:0x1AE04]
"""NT_PRSTATUS and VMCOREINFO."""

OTHERS = note(NT_PRSTATUS, b"registers") + note(0, b"OSRELEASE=6.1\n", b"VMCOREINFO\0")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


def golden_loads() -> tuple[Load, ...]:
    """The kernel's PT_LOADs, without their places."""
    loads = []
    for index in range(1, 5):
        fields = struct.unpack_from("<IIQQQQQQ", GOLDEN, 64 + index * 56)
        p_type, p_flags, _, p_vaddr, p_paddr, p_filesz, p_memsz, p_align = fields
        assert p_type == 1
        loads.append(Load(p_paddr, b"", p_filesz, None, p_memsz, p_vaddr, p_flags, p_align))
    return tuple(loads)


def pattern(size: int) -> bytes:
    return bytes((i * 7 + 3) & 0xFF for i in range(size))


def golden_dumps(rig: Rig) -> list[DeviceDumpNote]:
    """What the calls that the kernel took leave in the spool."""
    return [
        rig.dump("golden_a", b"\xa5" * 100),
        rig.dump("golden_b", pattern(4032)),
        rig.dump("golden_c", pattern(4033)),
        rig.dump("golden_d_65536", pattern(65536)),
        rig.dump("0123456789" * 4 + "ABCD", b"\xa5"),
        rig.dump("golden_a", pattern(8192)),
    ]


def test_vmcore_is_the_kernels_byte_for_byte(rig: Rig, source: Path) -> None:
    loads = golden_loads()
    Core(GOLDEN_OTHERS, loads).write(source)
    report = rig.convert(source, *golden_dumps(rig))
    with rig.vmcore.open("rb") as file:
        written = file.read(len(GOLDEN))
    assert len(written) == 0x1B000
    # Not in one comparison: what pytest would print of it helps no reader.
    assert [offset for offset in range(0, 0x1B000, 64) if written[offset:][:64] != GOLDEN[offset:][:64]] == []
    assert (report.unreadable_pages, report.missing_bytes, report.altered) == (0, 0, ())
    assert rig.vmcore.stat().st_size == 0xDBEA000 + 0xFDD000


def test_golden_vmcore_as_the_source_stays_as_it_is(rig: Rig, source: Path) -> None:
    source.write_bytes(GOLDEN)
    os.truncate(source, 0xDBEA000 + 0xFDD000)
    rig.convert(source)
    with rig.vmcore.open("rb") as file:
        assert file.read(len(GOLDEN)) == GOLDEN


def test_kernels_own_device_dumps_come_first(rig: Rig, source: Path) -> None:
    kernels = device_dump(b"kernel_a", b"a" * 5000) + device_dump(b"kernel_b", b"b")
    Core(kernels + OTHERS, (Load(0x1000, b"memory"),)).write(source)
    rig.convert(source, rig.dump("ours_a", b"A" * 100), rig.dump("ours_b", b"B"))
    assert rig.names() == [b"kernel_a", b"kernel_b", b"ours_a", b"ours_b"]
    assert [rig.data(i, n) for i, n in ((0, 5000), (1, 1), (2, 100), (3, 1))] == [
        b"a" * 5000,
        b"b",
        b"A" * 100,
        b"B",
    ]
    written = rig.vmcore.read_bytes()
    assert written[PAGE : 4 * PAGE] == kernels
    assert written[6 * PAGE : 6 * PAGE + len(OTHERS)] == OTHERS


def test_device_dumps_behind_other_notes_come_to_the_front(rig: Rig, source: Path) -> None:
    first, last = note(NT_PRSTATUS, b"1"), note(NT_PRSTATUS, b"2")
    kernels = [device_dump(b"x", b"x"), device_dump(b"y", b"y")]
    Core(first + kernels[0] + last + kernels[1], (Load(0, b"memory"),)).write(source)
    rig.convert(source, rig.dump("ours", b""))
    written = rig.vmcore.read_bytes()
    assert rig.names() == [b"x", b"y", b"ours"]
    assert written[PAGE : 3 * PAGE] == kernels[0] + kernels[1]
    assert written[4 * PAGE : 4 * PAGE + len(first + last)] == first + last


def test_order_of_notes_over_several_pt_notes(rig: Rig, source: Path) -> None:
    notes = (
        device_dump(b"x", b"x") + note(1, b"one"),
        note(2, b"two") + device_dump(b"y", b"y"),
        note(3, b"three"),
    )
    Core(notes, (Load(0, b"memory"),)).write(source)
    rig.convert(source, rig.dump("ours", b""))
    assert rig.names() == [b"x", b"y", b"ours"]
    (segment,) = rig.headers().notes
    assert rig.headers().segments[0] == segment
    others = note(1, b"one") + note(2, b"two") + note(3, b"three")
    assert segment.p_filesz == segment.p_memsz == 3 * PAGE + len(others)
    assert rig.vmcore.read_bytes()[4 * PAGE : 4 * PAGE + len(others)] == others


def test_zeros_behind_the_last_note_are_left_out(rig: Rig, source: Path) -> None:
    Core(OTHERS + bytes(3000), (Load(0x1000, b"memory"),)).write(source)
    rig.convert(source, rig.dump("ours", b"data"))
    (segment,) = rig.headers().notes
    assert segment.p_filesz == PAGE + len(OTHERS)


def test_source_without_notes_in_its_pt_note(rig: Rig, source: Path) -> None:
    Core(bytes(100), (Load(0x1000, b"memory"),)).write(source)
    rig.convert(source, rig.dump("ours", b"data"))
    assert rig.names() == [b"ours"]
    assert rig.headers().notes[0].p_filesz == PAGE


def test_no_device_dump_at_all(rig: Rig, source: Path) -> None:
    Core(OTHERS, (Load(0x1000, b"memory"),)).write(source)
    layout = rig.plan(source)
    assert layout.own == {}
    rig.write(layout)
    assert rig.vmcore.read_bytes() == source.read_bytes()


def test_last_dump_is_the_last_of_ours(rig: Rig, source: Path) -> None:
    Core(device_dump(b"kernel", b"") + OTHERS).write(source)
    dumps = [rig.dump("a", b"a"), rig.dump("b", b"b")]
    layout = rig.plan(source, dumps)
    assert [*layout.own.items()][-1] == (3 * PAGE, dumps[1])


@pytest.mark.parametrize(("theirs", "ours"), [(0, 0), (4, 4), (8, 0), (1, 0), (4096, 0)])
def test_p_align_of_the_notes(rig: Rig, source: Path, theirs: int, ours: int) -> None:
    Core(OTHERS, (Load(0x1000, b"memory", align=8192),), note_align=theirs).write(source)
    rig.convert(source, rig.dump("ours", b"data"))
    assert rig.headers().notes[0].p_align == ours
    assert rig.headers().loads[0].p_align == 8192


def test_headers_that_need_more_than_a_page(rig: Rig, source: Path) -> None:
    loads = tuple(Load(i * PAGE, bytes([i])) for i in range(1, 101))
    Core(OTHERS, loads).write(source)
    rig.convert(source, rig.dump("ours", b"data"))
    assert rig.headers().notes[0].p_offset == 2 * PAGE
    assert load_bytes(rig.vmcore) == load_bytes(source)


LAYOUTS = {
    "pages": Core(OTHERS, (Load(0x1000, b"x" * PAGE), Load(0x100000, b"y" * 3 * PAGE))),
    "start and end inside a page": Core(
        OTHERS, (Load(0x1234, b"x" * 100), Load(0x3FFF, b"y" * 2), Load(0x5000, b"z"))
    ),
    "empty load": Core(OTHERS, (Load(0x1000, b"x"), Load(0x2000, b"", memsz=PAGE), Load(0x3000, b"y" * 5000))),
    "empty load in a page": Core(OTHERS, (Load(0x1001, b"", memsz=7), Load(0x2000, b"y" * 5000))),
    "only an empty load": Core(OTHERS, (Load(0x1000, b"", memsz=PAGE),)),
    # makedumpfile -E packs its segments without regard to pages.
    "packed": Core(
        OTHERS,
        (
            *(Load(0x1000, b"x" * PAGE, offset=0x2345), Load(0x100000, b"y" * 3 * PAGE, offset=0x3345)),
            Load(0x200000, b"z" * 5000, offset=0x6345),
        ),
    ),
    "packed, physical addresses inside a page": Core(
        OTHERS, (Load(0x1010, b"x" * 100, offset=0x2345), Load(0x2F00, b"y" * 600, offset=0x23A9))
    ),
    "p_paddr 0 throughout": Core(OTHERS, (Load(0, b"x" * 5000), Load(0, b"y" * 100))),
    "in another order": Core(
        OTHERS, (Load(0x5000, b"x" * 10, offset=0x9000), Load(0x1000, b"y" * 10, offset=0x3000))
    ),
    "overlapping in the file": Core(
        OTHERS, (Load(0x1000, b"x" * 8192, offset=0x4000), Load(0x8000, b"", 4096, 0x5000))
    ),
    "large": Core(OTHERS, (Load(0x1000, os.urandom(600_000)), Load(0x900123, os.urandom(300_000)))),
    "32-bit": Core(OTHERS, (Load(0x1234, b"x" * 100), Load(0x7000, b"y" * 5000)), 32, e_machine=EM_386),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_load_byte_is_the_sources(rig: Rig, source: Path, name: str) -> None:
    LAYOUTS[name].write(source)
    report = rig.convert(source, rig.dump("ours", b"data" * 3000))
    assert load_bytes(rig.vmcore) == load_bytes(source)
    assert (report.unreadable_pages, report.missing_bytes) == (0, 0)
    assert rig.names() == [b"ours"]
    headers = rig.headers()
    for segment in headers.loads:
        assert segment.p_offset % PAGE == segment.p_paddr % PAGE
    assert rig.vmcore.stat().st_size % PAGE == 0
    ends = [round_out(load.p_offset + load.p_filesz) for load in headers.loads if load.p_filesz]
    notes_end = headers.notes[0].p_offset + headers.notes[0].p_filesz
    assert rig.vmcore.stat().st_size == max([round_out(notes_end), *ends])


@pytest.mark.parametrize("name", LAYOUTS)
def test_written_vmcore_is_a_source_that_stays_as_it_is(rig: Rig, source: Path, name: str) -> None:
    LAYOUTS[name].write(source)
    rig.convert(source, rig.dump("ours", b"data"))
    first = rig.vmcore.read_bytes()
    again = rig.vmcore.rename(source)
    rig.convert(again)
    assert rig.vmcore.read_bytes() == first


def test_big_endian(rig: Rig, source: Path) -> None:
    others = note(NT_PRSTATUS, b"registers", byteorder="big")
    Core(others, (Load(0x1234, b"x" * 100),), 64, "big").write(source)
    rig.convert(source, rig.dump("ours", b"data", ByteOrder.BIG))
    assert rig.names() == [b"ours"]
    assert load_bytes(rig.vmcore) == [(0x1234, b"x" * 100)]


def test_whole_pages_around_a_load_are_kept(rig: Rig, source: Path) -> None:
    # The kernel's vmcore has the rest of a load's first and last page too.
    core = Core(OTHERS, (Load(0x1100, b"x" * 100),))
    page = core.load_offsets[0] - 0x100
    Core(OTHERS, core.loads, extra=((page, b"before"), (page + 0xFFA, b"behind"))).write(source)
    rig.convert(source)
    assert rig.vmcore.read_bytes() == source.read_bytes()


def test_source_that_ends_inside_its_last_page(rig: Rig, source: Path) -> None:
    core = Core(OTHERS, (Load(0x1000, b"x" * PAGE), Load(0x5010, b"y" * 100)))
    core.write(source)
    os.truncate(source, core.load_offsets[1] + 100)
    report = rig.convert(source, rig.dump("ours", b"data"))
    assert report.missing_bytes == 0
    assert load_bytes(rig.vmcore) == [(0x1000, b"x" * PAGE), (0x5010, b"y" * 100)]
    assert rig.vmcore.stat().st_size % PAGE == 0


def test_other_segment_types_are_left_out(rig: Rig, source: Path) -> None:
    core = Core(OTHERS, (Load(0x1000, b"x"), Load(0x2000, b"y")))
    data = bytearray(core.write(source).read_bytes())
    struct.pack_into("<I", data, 64 + 56, 0x6474E551)
    source.write_bytes(data)
    rig.convert(source)
    assert [load.p_paddr for load in rig.headers().loads] == [0x2000]


def test_device_dumps_alone(rig: Rig) -> None:
    dumps = [rig.dump("a", b"a" * 5000), rig.dump("b", b"b")]
    rig.write(plan(Source(-1, 0), empty_headers(), (), dumps, PAGE))
    assert rig.names() == [b"a", b"b"]
    assert rig.vmcore.stat().st_size == 4 * PAGE
    assert [load.p_filesz for load in rig.headers().loads] == [0]


def test_what_is_counted_for_progress_is_read(rig: Rig, source: Path) -> None:
    LAYOUTS["large"].write(source)
    dumps = [rig.dump("ours", b"data" * 100_000)]
    layout = rig.plan(source, dumps)
    rig.write(layout)
    assert rig.progress.done == layout.copied


def test_neighbouring_notes_are_one_extent(rig: Rig, source: Path) -> None:
    Core(note(1, b"x") * 10_000, (Load(0x1000, b"x"),)).write(source)
    assert len(rig.plan(source).notes) == 1


@pytest.mark.parametrize("page", [4096, 65536])
def test_notes_end_where_crash_stops_reading(rig: Rig, source: Path, page: int) -> None:
    Core(b"", (Load(0x10000, b"x"),)).write(source)
    size = MAX_NOTES_END // page * page - 2 * page

    def planned(size: int) -> int:
        fd = rig.open(source)
        dump = DeviceDumpNote("large", -1, size, 1, "")
        return plan(Source(fd, 0), empty_headers(), (), [dump], page).size

    assert planned(size) < MAX_NOTES_END
    with pytest.raises(
        QuotaExceeded, match=r"the notes end at 0x80000000, but crash reads them only below 0x7ffff000"
    ):
        planned(size + 2 * page)


def test_kernels_own_device_dumps_count_too(rig: Rig, source: Path) -> None:
    size = 0x40000000
    header = struct.pack("<III8s44s", 8, size - 20, 0x700, b"LINUX\0\0\0", b"kernel")
    core = Core(b"", (Load(0x1000, b"", 0, 0),))
    data = bytearray(core.write(source).read_bytes().ljust(0x2000, b"\0"))
    struct.pack_into("<QQQQQ", data, 64 + 8, 0x1000, 0, 0, size, size)
    data[0x1000 : 0x1000 + len(header)] = header
    source.write_bytes(data)
    os.truncate(source, 0x1000 + size)
    assert rig.plan(source, [DeviceDumpNote("ours", -1, size - 0x4000, 1, "")]).notes[1].offset == 0x1000 + size
    with pytest.raises(QuotaExceeded):
        rig.plan(source, [DeviceDumpNote("ours", -1, size - 0x1000, 1, "")])


@pytest.mark.parametrize(
    ("elfclass", "size", "problem"),
    [
        (32, 0x7FFFFFFF, "the vmcore would end at 0x100003000, but ELF32 ends by 0xffffffff"),
        (64, 2**62, "the vmcore would end at 0x8000000000003000, but ELF64 ends by 0x7fffffffffffffff"),
    ],
)
def test_loads_beyond_what_program_headers_can_say(
    rig: Rig, source: Path, elfclass: int, size: int, problem: str
) -> None:
    loads = (Load(0x1000, b"", size, 0x2000), Load(0x10000, b"", size, 0x2000))
    core = Core(OTHERS, loads, elfclass)
    source.write_bytes(core.headers().ljust(PAGE, b"\0") + OTHERS)
    with pytest.raises(InvalidVmcore, match=problem):
        rig.plan(source, [rig.dump("ours", b"data")])
