# SPDX-License-Identifier: LGPL-2.1-or-later
import ctypes
import hashlib
import mmap
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lib.elf_writer import NT_PRSTATUS, PAGE, Core, Load, device_dump, note
from tests.lib.resources import file_size_limit, open_fds, remount_read_only, tmpfs
from tests.lib.vmcore_rig import VMCORE, VMCORE_INCOMPLETE, Rig, load_bytes
from vmcoredd_daemon.digest import sha256
from vmcoredd_daemon.errors import InvalidVmcore, NoSpace, VmcoreddError, WriteFailed
from vmcoredd_daemon.files import pwrite, sync_directory
from vmcoredd_daemon.note import VMCOREDD_HEADER_SIZE
from vmcoredd_daemon.vmcore.copy.extents import CopyReport
from vmcoredd_daemon.vmcore.copy.page_cache import Writes
from vmcoredd_daemon.vmcore.layout import Layout

OTHERS = note(NT_PRSTATUS, b"registers")
SMALL = Core(OTHERS, (Load(0x1000, b"memory" * 1000),))
BLOCK_SIZE = Writes.block_size
BLOCK_PAGES = BLOCK_SIZE // PAGE


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return SMALL.write(tmp_path / "source")


def memory(pages: int, bad: list[int]) -> bytes:
    """What is to be read of :func:`bad_memory`."""
    return b"".join(bytes([0 if page in bad else 1 + page % 255]) * PAGE for page in range(pages))


@contextmanager
def bad_memory(pages: int, bad: list[int]) -> Iterator[tuple[int, int]]:
    """Yield a file and the offset in it of some pages of which the *bad* ones cannot be read: EIO.

    The file is this process's own memory; the bad pages are mapped from behind the end of a file.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    number = ctypes.c_size_t
    libc.mmap.argtypes = [ctypes.c_void_p, number, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, number]
    map_fixed, protection = 0x10, mmap.PROT_READ | mmap.PROT_WRITE
    address = libc.mmap(None, pages * PAGE, protection, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    ctypes.memmove(address, memory(pages, []), pages * PAGE)
    empty = os.memfd_create("empty", os.MFD_CLOEXEC)
    for page in bad:
        where = address + page * PAGE
        assert libc.mmap(where, PAGE, mmap.PROT_READ, mmap.MAP_SHARED | map_fixed, empty, 0) == where
    fd = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd, address
    finally:
        os.close(fd)
        os.close(empty)
        libc.munmap(address, pages * PAGE)


def reading_from(layout: Layout, fd: int, offset: int) -> Layout:
    """Take the only load of *layout* from elsewhere."""
    (load,) = layout.loads
    return replace(layout, loads=(replace(load, fd=fd, source_offset=offset),))


def holes(path: Path) -> list[tuple[int, int]]:
    found = []
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        position = 0
        while position < end:
            hole = os.lseek(file.fileno(), position, os.SEEK_HOLE)
            if hole >= end:
                break
            position = end
            with suppress(OSError):
                # ENXIO: the hole is the last.
                position = os.lseek(file.fileno(), hole, os.SEEK_DATA)
            found.append((hole, position))
    return found


def test_nothing_but_the_vmcore_is_left(rig: Rig, source: Path) -> None:
    before = open_fds()
    dumps = [rig.dump("ours", b"data")]
    layout = rig.plan(source, dumps)
    opened = open_fds()
    report = rig.write(layout)
    assert os.listdir(rig.target) == [VMCORE]
    assert report == CopyReport()
    assert rig.vmcore.stat().st_mode & 0o777 == 0o600
    assert open_fds() == opened > before


def test_earlier_vmcore_and_leftovers_are_replaced(rig: Rig, source: Path) -> None:
    rig.vmcore.write_text("earlier")
    (rig.target / VMCORE_INCOMPLETE).write_text("left by a crash" * 10_000)
    rig.convert(source, rig.dump("ours", b"data"))
    assert os.listdir(rig.target) == [VMCORE]
    assert rig.names() == [b"ours"]


def test_leftover_link_is_not_followed(rig: Rig, source: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (rig.target / VMCORE_INCOMPLETE).symlink_to(tmp_path / "precious")
    rig.convert(source)
    assert (tmp_path / "precious").read_text() == "precious"
    assert not rig.vmcore.is_symlink()


def test_zero_pages_become_holes(rig: Rig, tmp_path: Path) -> None:
    zeros = bytes(PAGE)
    page = b"x" * PAGE
    data = page + zeros * 3 + page + zeros * 2 * BLOCK_PAGES + page + zeros * 5
    core = Core(OTHERS, (Load(0x1000, data), Load(0x2000000, zeros), Load(0x3000000, b"y")))
    source = core.write(tmp_path / "source")
    # A copy without holes; the device dump has zeros of its own.
    dump = rig.dump("ours", b"z" * 100 + zeros * 4)
    layout = rig.plan(source, [dump])
    rig.write(layout)
    assert load_bytes(rig.vmcore) == load_bytes(source)
    start = layout.loads[0].offset
    behind = layout.loads[1].offset + PAGE
    assert [(begin - start, end - start) for begin, end in holes(rig.vmcore) if begin >= start] == [
        (PAGE, 4 * PAGE),
        (5 * PAGE, (5 + 2 * BLOCK_PAGES) * PAGE),
        ((6 + 2 * BLOCK_PAGES) * PAGE, behind - start),
    ]
    assert holes(rig.vmcore)[0] == (2 * PAGE, 6 * PAGE)


def test_load_of_zeros_takes_no_room(rig: Rig, tmp_path: Path) -> None:
    rig.convert(Core(OTHERS, (Load(0x1000, b"", 64 << 20),)).write(tmp_path / "source"))
    assert rig.vmcore.stat().st_size > 64 << 20
    assert rig.vmcore.stat().st_blocks * 512 < 1 << 20


def test_page_that_is_zero_but_for_its_last_byte(rig: Rig, tmp_path: Path) -> None:
    data = bytes(BLOCK_SIZE - 1) + b"x" + bytes(PAGE - 1) + b"y"
    source = Core(OTHERS, (Load(0x1000, data),)).write(tmp_path / "source")
    rig.convert(source)
    assert load_bytes(rig.vmcore) == [(0x1000, data)]


@settings(max_examples=25, deadline=None)
@given(
    runs=st.lists(st.tuples(st.sampled_from([b"\0", b"x"]), st.integers(1, 3 * PAGE)), max_size=6),
    paddr=st.integers(0, PAGE - 1),
    packed=st.booleans(),
)
def test_any_mix_of_zeros_and_data(
    runs: list[tuple[bytes, int]], paddr: int, packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("mix")
    data = b"".join(byte * size for byte, size in runs)
    load = Load(0x10000 + paddr, data, offset=0x3001 if packed else None)
    source = Core(OTHERS, (load, Load(0x900000, b"end", offset=0x20000))).write(directory / "source")
    (directory / "target").mkdir()
    with Rig(directory / "target") as rig:
        rig.convert(source, rig.dump("ours", b"\0\0\0data"))
        assert load_bytes(rig.vmcore) == load_bytes(source)
        assert rig.data(0, 7) == b"\0\0\0data"
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("pages", "bad"),
    [
        (1, [0]),
        (3, [1]),
        (64, [0]),
        (64, [63]),
        (64, [0, 31, 32, 63]),
        (100, [*range(10, 20), 50, 99]),
        (3 * BLOCK_PAGES + 5, [BLOCK_PAGES - 1, BLOCK_PAGES, 2 * BLOCK_PAGES + 7, 3 * BLOCK_PAGES + 4]),
        (40, list(range(40))),
    ],
)
def test_pages_that_cannot_be_read(rig: Rig, tmp_path: Path, pages: int, bad: list[int]) -> None:
    source = Core(OTHERS, (Load(0x1000, b"", pages * PAGE),)).write(tmp_path / "source")
    dumps = [rig.dump("ours", b"data")]
    with bad_memory(pages, bad) as (fd, address):
        layout = reading_from(rig.plan(source, dumps), fd, address)
        report = rig.write(layout)
    assert report == CopyReport(len(bad))
    # Not in one comparison: what pytest would print of it helps no reader.
    ((_, written),) = load_bytes(rig.vmcore)
    expected = memory(pages, bad)
    assert [p for p in range(pages) if written[p * PAGE :][:PAGE] != expected[p * PAGE :][:PAGE]] == []
    assert rig.progress.done == layout.copied


@pytest.mark.parametrize("bad", [[5], [0, 1], [64], [63, 64, 65], [2, 30, 31]])
@pytest.mark.parametrize("inside", [1, 100, 4095])
def test_bad_pages_under_a_load_that_starts_inside_a_page(
    rig: Rig, tmp_path: Path, bad: list[int], inside: int
) -> None:
    size = 70 * PAGE - inside
    source = Core(OTHERS, (Load(0x1000, b"", size),)).write(tmp_path / "source")
    with bad_memory(70, bad) as (fd, address):
        layout = reading_from(rig.plan(source), fd, address + inside)
        layout = replace(layout, loads=(replace(layout.loads[0], size=size),))
        report = rig.write(layout)
    assert report.unreadable_pages == len(bad)
    ((_, written),) = load_bytes(rig.vmcore)
    assert written == memory(70, bad)[inside:]


def test_source_that_fails_otherwise(rig: Rig, source: Path) -> None:
    # A descriptor that cannot be read at all: EBADF.
    writing = os.open(source, os.O_WRONLY)
    try:
        with pytest.raises(WriteFailed, match="cannot write: Bad file descriptor"):
            rig.write(reading_from(rig.plan(source), writing, 0))
    finally:
        os.close(writing)
    assert os.listdir(rig.target) == []


@pytest.mark.parametrize("cut", [1, 100, PAGE, 2 * BLOCK_SIZE, 2 * BLOCK_SIZE + 4 * PAGE])
def test_truncated_source(rig: Rig, tmp_path: Path, cut: int) -> None:
    data = b"x" * (2 * BLOCK_SIZE + 4 * PAGE)
    source = Core(OTHERS, (Load(0x1000, data),)).write(tmp_path / "source")
    os.truncate(source, source.stat().st_size - cut)
    layout = rig.plan(source)
    report = rig.write(layout)
    assert report == CopyReport(missing_bytes=cut)
    assert load_bytes(rig.vmcore) == [(0x1000, data[: len(data) - cut] + bytes(cut))]
    assert rig.progress.done == layout.copied


def test_source_cut_behind_its_headers(rig: Rig, tmp_path: Path) -> None:
    core = Core(OTHERS, (Load(0x1000, b"x" * 5000), Load(0x10000, b"y" * 5000)))
    source = core.write(tmp_path / "source")
    os.truncate(source, core.note_offsets[0] + len(OTHERS))
    report = rig.convert(source, rig.dump("ours", b"data"))
    assert report.missing_bytes == 10_000
    assert rig.names() == [b"ours"]


@pytest.mark.timeout(20)
def test_size_of_a_load_that_nobody_could_copy(rig: Rig, tmp_path: Path) -> None:
    core = Core(OTHERS, (Load(0x1000, b"x" * PAGE, 1 << 43),))
    source = tmp_path / "source"
    source.write_bytes(core.headers().ljust(PAGE, b"\0") + OTHERS.ljust(PAGE, b"\0") + b"x" * PAGE)
    assert rig.convert(source).missing_bytes == (1 << 43) - PAGE
    assert rig.vmcore.stat().st_size == (1 << 43) + 2 * PAGE


def test_flipped_bit_is_seen(rig: Rig, source: Path) -> None:
    dumps = [rig.dump(name, b"data" * 5000) for name in ("a", "b", "c")]
    layout = rig.plan(source, dumps)
    os.pwrite(dumps[1].fd, b"D", 64 + 19_999)
    report = rig.write(layout)
    assert report.altered == ("b",)
    assert rig.names() == [b"a", b"b", b"c"]


def test_change_of_the_padding_is_none(rig: Rig, source: Path) -> None:
    dumps = [rig.dump("a", b"data")]
    layout = rig.plan(source, dumps)
    os.pwrite(dumps[0].fd, b"x", 64 + 4)
    assert rig.write(layout).altered == ()


def test_same_name_twice_is_told_apart(rig: Rig, source: Path) -> None:
    dumps = [rig.dump("a", b"first"), rig.dump("a", b"second")]
    layout = rig.plan(source, dumps)
    os.pwrite(dumps[1].fd, b"S", 64)
    assert rig.write(layout).altered == ("a",)
    assert [rig.data(0, 5), rig.data(1, 6)] == [b"first", b"Second"]


@pytest.mark.parametrize("offset", [0, 4, 8, 12, 20])
def test_broken_header_of_a_device_dump_is_mended(rig: Rig, source: Path, offset: int) -> None:
    # A collector that kept its mapping can still write to what it has handed in.
    dumps = [rig.dump("a", b"data"), rig.dump("b", b"data")]
    layout = rig.plan(source, dumps)
    rig.write(layout)
    whole = rig.vmcore.read_bytes()
    os.pwrite(dumps[0].fd, b"\xff\xff", offset)
    assert rig.write(layout) == CopyReport()
    assert rig.vmcore.read_bytes() == whole


def test_device_dump_that_was_cut(rig: Rig, source: Path) -> None:
    dumps = [rig.dump("a", b"data" * 2000), rig.dump("b", b"data")]
    layout = rig.plan(source, dumps)
    os.ftruncate(dumps[0].fd, 100)
    report = rig.write(layout)
    # Nothing of it is missing in the source.
    assert report == CopyReport(altered=("a",), unread=("a",))
    assert rig.names() == [b"a", b"b"]
    assert rig.data(0, 8000) == (b"data" * 9).ljust(8000, b"\0")


def test_last_dump_is_completed_when_the_copy_is_done(rig: Rig, tmp_path: Path) -> None:
    source = Core(OTHERS, (Load(0x1000, b"x" * 3 * PAGE),)).write(tmp_path / "source")
    os.truncate(source, source.stat().st_size - 100)
    dumps = [rig.dump("a", b"data"), replace(rig.dump("last", b"before" * 10), sha256="")]

    def complete(report: CopyReport) -> bytes:
        return f"{report.missing_bytes} missing".encode()

    layout = rig.plan(source, dumps)
    rig.write(layout, complete)
    assert rig.data(0, 4) == b"data"
    assert rig.data(1, 60) == b"100 missing" + (b"before" * 10)[11:]


def test_target_without_room_for_the_notes(rig: Rig, source: Path, tmp_path: Path) -> None:
    dumps = [rig.dump("ours", b"x" * 100_000)]
    with tmpfs(tmp_path / "small", 64 << 10) as rig.target:
        rig.vmcore.write_text("earlier")
        layout = rig.plan(source, dumps)
        before = open_fds()
        message = f"{rig.vmcore}: cannot write: No space left on device"
        with pytest.raises(NoSpace, match=f"^{re.escape(message)}$"):
            rig.write(layout)
        assert open_fds() == before
        assert os.listdir(rig.target) == [VMCORE]
        assert rig.vmcore.read_text() == "earlier"
        # What was taken of the file system is given back.
        (rig.target / "x").write_bytes(b"x" * (48 << 10))


def test_target_without_room_for_the_memory(rig: Rig, tmp_path: Path) -> None:
    data = os.urandom(5 * BLOCK_SIZE)
    loads = (Load(0x1000, data), Load(0x1000000, data))
    source = Core(OTHERS, loads).write(tmp_path / "source")
    dumps = [rig.dump("ours", b"data" * 5000)]
    with tmpfs(tmp_path / "small", 1 << 20) as rig.target, rig:
        rig.vmcore.write_text("earlier")
        layout = rig.plan(source, dumps)
        report = rig.write(layout)
        assert rig.vmcore.read_text() == "earlier"
        incomplete = rig.target / VMCORE_INCOMPLETE
        written = incomplete.stat().st_size - layout.loads[0].offset
        assert 2 * BLOCK_SIZE <= written < 5 * BLOCK_SIZE
        assert (report.left_out, report.missing_bytes) == (2 * len(data) - written, 0)
        assert incomplete.read_bytes()[layout.loads[0].offset :] == data[:written]
        incomplete.rename(rig.vmcore)
        assert rig.names() == [b"ours"]
        assert rig.data(0, 20_000) == b"data" * 5000


def test_last_dump_grows_on_a_full_target(rig: Rig, tmp_path: Path) -> None:
    # The page that its longer text needs was a hole, and the memory has taken all room.
    source = Core(OTHERS, (Load(0x1000, os.urandom(2 << 20)),)).write(tmp_path / "source")
    last = replace(rig.dump("last", b"short" + bytes(8000)), sha256="")
    with tmpfs(tmp_path / "small", 1 << 20) as rig.target, rig:
        report = rig.write(rig.plan(source, [last]), lambda report: b"longer" * 1000)
        assert report.left_out
        (rig.target / VMCORE_INCOMPLETE).rename(rig.vmcore)
        assert rig.data(0, 6000) == b"longer" * 1000


def test_target_without_room_for_the_zeros_at_the_end(rig: Rig, tmp_path: Path) -> None:
    # A limit for the size of files has the kernel refuse what a file system without holes refuses.
    data = os.urandom(3 * BLOCK_SIZE)
    loads = (Load(0x1000, data), Load(0x1000000, b"", 64 << 20))
    dumps = [rig.dump("ours", b"data"), replace(rig.dump("last", b"before" * 10), sha256="")]
    layout = rig.plan(Core(OTHERS, loads).write(tmp_path / "source"), dumps)
    end = layout.loads[0].offset + len(data)
    with file_size_limit(end):
        report = rig.write(layout, lambda report: f"{report.left_out} left out".encode())
    assert report == CopyReport(left_out=64 << 20)
    incomplete = rig.target / VMCORE_INCOMPLETE
    assert os.listdir(rig.target) == [VMCORE_INCOMPLETE]
    assert incomplete.stat().st_size == end
    assert incomplete.read_bytes()[layout.loads[0].offset :] == data
    incomplete.rename(rig.vmcore)
    assert rig.names() == [b"ours", b"last"]
    assert rig.data(1, 17) == b"67108864 left out"


def test_page_of_the_spool_that_cannot_be_read(rig: Rig, source: Path) -> None:
    data = os.urandom(3 * PAGE - VMCOREDD_HEADER_SIZE)
    dumps = [rig.dump("a", data), rig.dump("b", b"data")]
    layout = rig.plan(source, dumps)
    with bad_memory(3, [1]) as (fd, address):
        notes = [
            replace(note, fd=fd, source_offset=address) if note.fd == dumps[0].fd else note
            for note in layout.notes
        ]
        dumps[0] = replace(dumps[0], fd=fd)
        report = rig.write(replace(layout, notes=tuple(notes)))
    assert report == CopyReport(altered=("a",), unread=("a",))
    assert rig.names() == [b"a", b"b"]


def test_read_only_target(rig: Rig, source: Path, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", 1 << 20) as rig.target:
        rig.vmcore.write_text("earlier")
        remount_read_only(rig.target)
        with pytest.raises(WriteFailed, match=r"cannot write: Read-only file system"):
            rig.convert(source)
        assert rig.vmcore.read_text() == "earlier"


@pytest.mark.parametrize("kind", ["missing", "file", "link"])
def test_target_that_is_no_directory(rig: Rig, source: Path, tmp_path: Path, kind: str) -> None:
    rig.target = tmp_path / "other"
    if kind == "file":
        rig.target.touch()
    if kind == "link":
        rig.target.symlink_to(tmp_path)
    with pytest.raises(WriteFailed, match=rf"^{re.escape(str(rig.target))}: cannot open the target: "):
        rig.convert(source)


def test_name_that_is_taken_by_a_directory(rig: Rig, source: Path) -> None:
    rig.vmcore.mkdir()
    with pytest.raises(WriteFailed, match=r"cannot write: Is a directory"):
        rig.convert(source)
    assert os.listdir(rig.target) == [VMCORE]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("error", [Interrupted, InvalidVmcore, KeyboardInterrupt])
@pytest.mark.parametrize("earlier", [False, True])
def test_error_at_the_end_leaves_what_was_there(
    rig: Rig, source: Path, error: type[BaseException], earlier: bool
) -> None:
    if earlier:
        rig.vmcore.write_text("earlier")

    def complete(_report: CopyReport) -> bytes:
        assert (rig.target / VMCORE_INCOMPLETE).exists()
        raise error("stop")

    dumps = [rig.dump("last", b"data")]
    layout = rig.plan(source, dumps)
    before = open_fds()
    with pytest.raises(WriteFailed if issubclass(error, VmcoreddError) else error):
        rig.write(layout, complete)
    assert open_fds() == before
    assert os.listdir(rig.target) == ([VMCORE] if earlier else [])
    assert not earlier or rig.vmcore.read_text() == "earlier"


def test_large_device_dump_of_the_kernel(rig: Rig, tmp_path: Path) -> None:
    data = os.urandom(3 * BLOCK_SIZE + 17)
    source = Core(device_dump(b"kernel", data) + OTHERS, (Load(0x1000, b"x"),)).write(tmp_path / "source")
    rig.convert(source, rig.dump("ours", data[:100_000]))
    assert rig.data(0, len(data)) == data
    assert rig.data(1, 100_000) == data[:100_000]


def test_sha256(tmp_path: Path) -> None:
    data = os.urandom(BLOCK_SIZE + 100)
    with (tmp_path / "file").open("w+b") as file:
        file.write(data)
        file.flush()
        fd = file.fileno()
        pread = partial(os.pread, fd)
        assert sha256(pread, 10, BLOCK_SIZE) == hashlib.sha256(data[10 : 10 + BLOCK_SIZE]).hexdigest()
        assert sha256(pread, 10, 1 << 40) == hashlib.sha256(data[10:]).hexdigest()
        assert sha256(pread, 0, 0) == sha256(pread, 1 << 40, 10) == hashlib.sha256().hexdigest()


def test_pwrite(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        pwrite(file.fileno(), b"", 100)
        pwrite(file.fileno(), b"abc", 3)
        pwrite(file.fileno(), memoryview(b"xyz")[1:], 0)
        assert file.read() == b"yz\0abc"


def test_directory_that_knows_no_fsync() -> None:
    # As those of some network file systems.
    fd = os.open("/proc/self", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(Path("/proc/self"))
