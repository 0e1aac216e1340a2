# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads that never return: of a FUSE file system that does not answer, so that the thread is in D state."""

import _thread
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lib.elf_writer import NT_PRSTATUS, PAGE, Core, Load, note
from tests.lib.fuse import Source, fuse_source
from tests.lib.resources import open_fds
from tests.lib.vmcore_rig import VMCORE, VMCORE_INCOMPLETE, Rig, load_bytes
from vmcoredd_daemon.errors import InvalidVmcore
from vmcoredd_daemon.note import VMCOREDD_HEADER_SIZE
from vmcoredd_daemon.progress import Progress
from vmcoredd_daemon.vmcore.copy.extents import CopyReport
from vmcoredd_daemon.vmcore.copy.page_cache import Writes
from vmcoredd_daemon.vmcore.copy.source import BlockedCall, BlockedSource, TimedCalls, TimedFile, TimedNotes
from vmcoredd_daemon.vmcore.copy.write import write_vmcore
from vmcoredd_daemon.vmcore.elf import read_headers

BLOCK_SIZE = Writes.block_size
BLOCK_PAGES = BLOCK_SIZE // PAGE
PAGES = 3 * BLOCK_PAGES
MEMORY = b"".join(bytes([1 + page % 255]) * PAGE for page in range(PAGES))


@pytest.fixture
def calls() -> Iterator[TimedCalls]:
    calls = TimedCalls(timeout=1.5, retry_timeout=1.0)
    yield calls
    calls.stop()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    core = Core(note(NT_PRSTATUS, b"registers"), (Load(0x1000, MEMORY),))
    with fuse_source(core.write(tmp_path / "original"), tmp_path / "fuse") as source:
        yield source


def first_page(source: Source) -> int:
    """The page of the file in which its memory begins."""
    headers = read_headers(TimedFile(TimedCalls(), source.fd).image("FILE"))
    return headers.loads[0].p_offset // PAGE


def copy(rig: Rig, source: Source, calls: TimedCalls) -> tuple[CopyReport, int]:
    """Write a vmcore from *source*; return how that went, and the size that it would have as a whole."""
    fd = calls.open(source.path)
    dumps = [rig.dump("ours", b"data"), replace(rig.dump("manifest", b"before"), sha256="")]
    try:
        # The plan is made of the same bytes, but through a file that answers.
        layout = rig.plan(source.path.parent.parent / "original", dumps)
        layout = replace(layout, loads=tuple(replace(load, fd=fd) for load in layout.loads))
        reads = TimedFile(calls, fd)
        report = write_vmcore(layout, rig.target, VMCORE, Progress(), lambda report: b"complete", reads)
        return report, layout.size
    finally:
        os.close(fd)


def expected(bad: range) -> bytes:
    return MEMORY[: bad.start * PAGE] + bytes(len(bad) * PAGE) + MEMORY[bad.stop * PAGE :]


@pytest.mark.parametrize("bad", [range(5, 6), range(PAGES - 1, PAGES)])
def test_page_that_blocks_costs_that_page(rig: Rig, source: Source, calls: TimedCalls, bad: range) -> None:
    first = first_page(source)
    source.block_pages(*(first + page for page in bad))
    report, _ = copy(rig, source, calls)
    assert report == CopyReport(len(bad))
    # The block, and the page.
    assert calls.blocked == 2
    ((_, written),) = load_bytes(rig.vmcore)
    assert written == expected(bad)
    assert rig.data(1, 8) == b"complete"


def test_what_a_read_says_too_late_reaches_nothing(rig: Rig, source: Source, calls: TimedCalls) -> None:
    first = first_page(source)
    later = []

    def read(offset: int, size: int) -> int | None:
        if offset <= first * PAGE < offset + size and not source.hanging:
            return None
        if source.hanging:
            later.append(offset)
        # When the first half of the block is there, it comes once more, as something else.
        if len(later) == 40:
            source.answer_late(b"\xff")
        return 0

    source.read = read
    report, _ = copy(rig, source, calls)
    assert (report, calls.blocked, source.late) == (CopyReport(), 1, [])
    ((_, written),) = load_bytes(rig.vmcore)
    assert written == MEMORY


def test_source_that_does_not_answer_any_more(rig: Rig, source: Source) -> None:
    calls = TimedCalls(timeout=1.5, retry_timeout=1.0, max_blocked=3)
    first = first_page(source)
    source.block_pages(*range(first + BLOCK_PAGES, first + PAGES))
    report, size = copy(rig, source, calls)
    assert report.blocked
    assert len(source.hanging) == calls.blocked == 3
    assert not rig.vmcore.exists()
    incomplete = rig.target / VMCORE_INCOMPLETE
    assert incomplete.stat().st_size == size - report.left_out
    ((_, written),) = load_bytes(incomplete)
    assert written == expected(range(BLOCK_PAGES, PAGES))
    assert b"complete" in incomplete.read_bytes()[: 4 * PAGE + 2 * VMCOREDD_HEADER_SIZE]
    # No caller waits for it again, until those that hang have returned.
    with pytest.raises(BlockedSource, match="3 calls have not returned"):
        calls.open(source.path)
    calls.stop()


def test_short_reads_and_a_source_that_shrinks(rig: Rig, source: Source, calls: TimedCalls) -> None:
    first = first_page(source)
    source.limit, source.end = 1000, (first + 70) * PAGE + 10
    report, _ = copy(rig, source, calls)
    assert report == CopyReport(missing_bytes=(PAGES - 70) * PAGE - 10)
    ((_, written),) = load_bytes(rig.vmcore)
    assert written == MEMORY[: 70 * PAGE + 10].ljust(len(MEMORY), b"\0")


def test_pages_that_fail_and_pages_that_block(rig: Rig, source: Source, calls: TimedCalls) -> None:
    first = first_page(source)
    source.block_pages(first + 5)
    blocks = source.read
    source.read = lambda offset, size: 5 if offset <= (first + 7) * PAGE < offset + size else blocks(offset, size)
    report, _ = copy(rig, source, calls)
    assert report == CopyReport(2)
    ((_, written),) = load_bytes(rig.vmcore)
    assert [page for page in range(PAGES) if not any(written[page * PAGE : (page + 1) * PAGE])] == [5, 7]


def test_device_dumps_that_block_cost_themselves(rig: Rig, calls: TimedCalls, tmp_path: Path) -> None:
    dumps = [rig.dump(name, b"data" * 3 * PAGE) for name in ("a", "b", "c")]
    source = Core(note(NT_PRSTATUS, b"registers"), (Load(0x1000, MEMORY),)).write(tmp_path / "original")
    layout = rig.plan(source, dumps)
    (tmp_path / "note").write_bytes(os.pread(dumps[0].fd, dumps[0].note_size, 0))
    with fuse_source(tmp_path / "note", tmp_path / "fuse") as spool:
        # The first one has a part that can be read; another file of the same disk hangs from its start.
        spool.read = lambda offset, size: None if spool.reads > 1 else 0
        spool.limit = 2 * PAGE
        files = {dump.fd: os.open(spool.path, os.O_RDONLY) for dump in dumps[:2]}
        notes = tuple(replace(extent, fd=files.get(extent.fd, extent.fd)) for extent in layout.notes)
        layout, reads = replace(layout, notes=notes), TimedNotes(calls)
        try:
            report = write_vmcore(layout, rig.target, VMCORE, Progress(), reads=reads)
        finally:
            for fd in files.values():
                os.close(fd)
        assert len(spool.hanging) == 2
    assert report == CopyReport(altered=("a", "b"), unread=("a", "b"))
    assert rig.names() == [b"a", b"b", b"c"]
    assert rig.data(2, 12) == b"data" * 3
    ((_, written),) = load_bytes(rig.vmcore)
    assert written == MEMORY


def test_headers_that_block(source: Source, calls: TimedCalls) -> None:
    source.read = lambda offset, size: None
    fd = calls.open(source.path)
    image = TimedFile(calls, fd).image("FILE")
    with pytest.raises(InvalidVmcore, match=r"^FILE: cannot read the headers: did not return within 1.5 s$"):
        read_headers(image)
    os.close(fd)


def test_open_that_blocks(source: Source, calls: TimedCalls) -> None:
    before = open_fds()
    source.open = lambda: False
    with pytest.raises(BlockedCall):
        calls.open(source.path)
    assert open_fds() == before


def test_open_that_is_late_is_closed(tmp_path: Path, calls: TimedCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    before = open_fds()
    late = threading.Event()
    original = os.open

    def slow(path: Path, flags: int) -> int:
        late.wait()
        return original(path, flags)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", slow)
        with pytest.raises(BlockedCall):
            calls.open(tmp_path / "file")
        late.set()
        while calls._blocking:
            pass
    assert open_fds() == before


def test_calls_that_return_after_all_are_forgotten(calls: TimedCalls) -> None:
    released = threading.Event()
    for _ in range(3):
        with pytest.raises(BlockedCall):
            calls.call(0.01, released.wait)
    assert calls.blocked == len(calls._blocking) == 3
    released.set()
    while calls._blocking:
        pass
    assert calls.call(10, len, "abc") == 3
    calls.restart()
    assert calls.blocked == 0


def test_errors_come_back(calls: TimedCalls, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        calls.open(tmp_path / "nothing")
    assert calls.size(tmp_path / "nothing") == 0
    with pytest.raises(ZeroDivisionError):
        calls.call(1, divmod, 1, 0)


def test_pipe_without_a_writer_is_not_waited_for(calls: TimedCalls, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    fd = calls.open(tmp_path / "pipe")
    with pytest.raises(InvalidVmcore, match="cannot tell its size"):
        TimedFile(calls, fd).image("FILE")
    calls.close(fd)


def test_without_a_thread_nobody_watches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    (tmp_path / "file").write_bytes(b"x" * 10)
    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", none)
        calls = TimedCalls()
    fd = calls.open(tmp_path / "file")
    assert TimedFile(calls, fd).pread(100, 0) == b"x" * 10
    calls.close(fd)
    calls.stop()


def test_no_thread_for_another_call(calls: TimedCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    released = threading.Event()
    assert calls.call(10, len, "") == 0
    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", none)
        with pytest.raises(BlockedCall):
            calls.call(0.01, released.wait)
    with pytest.raises(BlockedSource, match="no thread for another"):
        calls.call(10, len, "")
    released.set()
