# SPDX-License-Identifier: LGPL-2.1-or-later
import asyncio
import errno
import hashlib
import mmap
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
import pytest_asyncio

from tests.lib.fuse import Source, fuse_source
from tests.lib.resources import open_fds, tmpfs
from tests.lib.waiting import eventually
from vmcoredd_daemon.dumps.buffer import SYNCED, Buffer
from vmcoredd_daemon.dumps.commit import Commit
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.dumps.transfer import PIECE, WINDOW, Rest, Transfers
from vmcoredd_daemon.errors import CollectorFailed, InvalidArgs, NoSpace, WriteFailed
from vmcoredd_daemon.manifest import ManifestDump
from vmcoredd_daemon.note import VMCOREDD_HEADER_SIZE, ByteOrder, DeviceDumpNote

PAGE = 4096


def kept(size: int) -> tuple[int, Callable[[str], ManifestDump]]:
    """Return what a buffer is told when *size* bytes are to be kept."""
    return size, lambda sha256: ManifestDump("nic0", size, 5000, sha256, "test", "complete", 1, 2)


async def commit(buffer: Buffer, size: int, spool: Spool | None = None) -> DeviceDumpNote:
    """Commit *size* bytes of *buffer* to *spool*, by default to memory."""
    spool = spool or Spool.in_memory(PAGE, ByteOrder.LITTLE)
    return await spool.commit(Commit(1, buffer, *kept(size)))


@pytest_asyncio.fixture
async def buffer() -> AsyncIterator[Buffer]:
    buffer = await Spool.in_memory(PAGE, ByteOrder.LITTLE).create("nic0", 5000)
    yield buffer
    buffer.close()


async def test_room_is_the_notes(buffer: Buffer) -> None:
    assert (buffer.offset, buffer.size, buffer.reserved) == (VMCOREDD_HEADER_SIZE, 5000, 8192)
    assert os.pread(buffer.fd, 10_000, 0) == bytes(8192)
    assert not os.get_inheritable(buffer.fd)


async def test_reads_into_place(buffer: Buffer, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"0123456789")
    with (tmp_path / "data").open("rb") as file:
        before = open_fds()
        reached: list[int] = []
        assert await buffer.read_from(file.fileno(), 0, reached.append) is Rest.NONE
        assert reached == [10]
        assert await buffer.read_from(file.fileno(), 10, reached.append) is Rest.NONE
        assert reached == [10]
        assert open_fds() == before
    assert os.pread(buffer.fd, 12, 64) == b"0123456789\0\0"
    note = await commit(buffer, 10)
    assert note.sha256 == hashlib.sha256(b"0123456789").hexdigest()
    os.close(note.fd)


async def test_reads_no_more_than_there_is_room_for(buffer: Buffer, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 6000)
    with (tmp_path / "data").open("rb", buffering=0) as file:
        assert await buffer.read_from(file.fileno(), 0) is Rest.UNKNOWN
        assert file.tell() == 5000
    assert os.pread(buffer.fd, 10_000, 64 + 5000) == bytes(8192 - 64 - 5000)


@pytest.mark.parametrize("counted", [0, -3])
async def test_sha256_behind_what_is_read(tmp_path: Path, counted: int) -> None:
    """That of a large one is computed while it is read; some collectors then say that they wrote less."""
    data = os.urandom(PIECE) * (3 * WINDOW // PIECE) + b"rest"
    buffer = await Spool.in_memory(PAGE, ByteOrder.LITTLE).create("nic0", len(data))
    (tmp_path / "data").write_bytes(data)
    with (tmp_path / "data").open("rb") as file:
        assert await buffer.read_from(file.fileno(), 0) is Rest.NONE
    size = len(data) + counted
    note = await commit(buffer, size)
    assert note.sha256 == hashlib.sha256(data[:size]).hexdigest()
    assert not buffer.busy
    os.close(note.fd)


@pytest.mark.parametrize("size", [SYNCED - 1, SYNCED, 3 * SYNCED])
async def test_large_one_that_a_collector_has_written(tmp_path: Path, size: int) -> None:
    """Its SHA-256 is computed while the disk writes it."""
    spool = Spool.open(tmp_path / "spool", PAGE, ByteOrder.LITTLE, 0)
    data = os.urandom(size)
    buffer = await spool.create("nic0", size)
    os.pwrite(buffer.fd, data, buffer.offset)
    note = await commit(buffer, size, spool)
    assert note.sha256 == hashlib.sha256(data).hexdigest()
    assert os.pread(note.fd, size, buffer.offset) == data
    os.close(note.fd)
    spool.close()


async def test_nothing_there_yet(buffer: Buffer) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    assert await buffer.read_from(reading, 0) is Rest.UNKNOWN
    os.close(writing)
    assert await buffer.read_from(reading, 0) is Rest.NONE
    os.close(reading)


async def test_source_that_cannot_be_read(buffer: Buffer, tmp_path: Path) -> None:
    before = open_fds()
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(InvalidArgs, match="its data is a directory"):
        await buffer.read_from(directory, 0)
    os.close(directory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        await buffer.read_from(directory, 0)
    assert open_fds() == before


@pytest.mark.parametrize("size", [0, 8191, 8193, 1 << 30])
async def test_size_that_a_collector_changed(buffer: Buffer, size: int) -> None:
    os.ftruncate(buffer.fd, size)
    with pytest.raises(
        CollectorFailed, match=f"nic0: the collector resized its buffer from 8192 to {size} bytes"
    ) as raised:
        await commit(buffer, 0)
    assert raised.value.errno == errno.EOVERFLOW


@pytest.mark.parametrize("written", [-1, 5001, 1 << 40])
async def test_collector_that_says_too_much(buffer: Buffer, written: int) -> None:
    with pytest.raises(CollectorFailed, match=f"nic0: the collector reports {written} bytes"):
        await commit(buffer, written)


async def test_write_past_the_end(buffer: Buffer) -> None:
    os.pwrite(buffer.fd, b"x", buffer.reserved)
    with pytest.raises(CollectorFailed, match="resized its buffer from 8192 to 8193"):
        await commit(buffer, 0)


async def test_no_space_when_it_is_filled(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "mount", 64 << 10) as mount:
        spool = Spool.open(mount / "spool", PAGE, ByteOrder.LITTLE, 0)
        buffer = await spool.create("nic0", 32 << 10)
        # A collector gives the room back and takes it for itself.
        os.ftruncate(buffer.fd, 0)
        (mount / "hog").write_bytes(bytes(os.statvfs(mount).f_bavail * PAGE))
        (tmp_path / "data").write_bytes(b"x" * 8192)
        with (tmp_path / "data").open("rb") as file, pytest.raises(NoSpace, match="No space left"):
            await buffer.read_from(file.fileno(), 0)
        buffer.close()
        spool.close()


async def test_buffer_that_cannot_be_written(tmp_path: Path) -> None:
    reading = os.open("/dev/zero", os.O_RDONLY)
    buffer = Buffer(reading, "nic0", 100, PAGE, Transfers())
    with pytest.raises(WriteFailed, match="cannot be kept in the spool: Bad file descriptor"):
        await buffer.read_from(reading, 0)
    buffer.close()


async def test_committed_buffer_is_not_closed(buffer: Buffer) -> None:
    note = await commit(buffer, 0)
    buffer.close()
    assert os.fstat(note.fd).st_size == 8192
    os.close(note.fd)


@pytest.mark.parametrize("durable", [False, True])
async def test_closed_buffer_keeps_no_room(tmp_path: Path, durable: bool) -> None:
    """A collector that has it open or mapped, and is late, writes to what no reader gets, and lives on."""
    spool = Spool.in_memory(PAGE, ByteOrder.LITTLE)
    if durable:
        spool = Spool.open(tmp_path / "spool", PAGE, ByteOrder.LITTLE, 0)
    buffer = await spool.create("nic0", 50_000)
    kept = os.dup(buffer.fd)
    with mmap.mmap(kept, buffer.reserved) as mapped:
        closing = buffer.close()
        assert closing is not None
        await closing
        assert (os.fstat(kept).st_blocks, os.fstat(kept).st_size) == (0, buffer.reserved)
        mapped[64:68] = b"late"
    os.close(kept)
    spool.close()


async def test_closed_buffer_that_has_a_name_is_whole(tmp_path: Path) -> None:
    """It could not be made durable, nor could its name be taken away."""
    spool = Spool.open(tmp_path / "spool", PAGE, ByteOrder.LITTLE, 0)
    buffer = await spool.create("nic0", 4000)
    os.pwrite(buffer.fd, b"data", 64)
    directory = os.open(tmp_path, os.O_RDONLY)
    os.link(f"/proc/self/fd/{buffer.fd}", "note", dst_dir_fd=directory, follow_symlinks=True)
    os.close(directory)
    closing = buffer.close()
    assert closing is not None
    await closing
    assert (tmp_path / "note").read_bytes() == bytes(64) + b"data" + bytes(4028)
    spool.close()


@contextmanager
def hanging_file(tmp_path: Path) -> Iterator[tuple[Source, int]]:
    """Provide a file of which a read returns when the test says so, and a descriptor of it."""
    (tmp_path / "original").write_bytes(b"late")
    with fuse_source(tmp_path / "original", tmp_path / "mounted") as source:
        source.read = lambda offset, size: None
        yield source, os.open(source.path, os.O_RDONLY)


async def test_thread_that_still_writes_finishes_first(tmp_path: Path) -> None:
    with hanging_file(tmp_path) as (source, fd):
        before = open_fds()
        buffer = await Spool.in_memory(PAGE, ByteOrder.LITTLE).create("nic0", 5000)
        kept = os.dup(buffer.fd)
        task = asyncio.create_task(buffer.read_from(fd, 0))
        await eventually(lambda: source.hanging)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        running = buffer.close()
        assert running is not None
        assert not running.done()
        os.close(fd)
        assert os.fstat(kept).st_blocks > 0
        source.answer_late(b"x")
        await eventually(lambda: os.fstat(kept).st_blocks == 0 and open_fds() == before)
        os.close(kept)
        assert open_fds() == before - 1


async def test_late_thread_does_not_read_from_another(buffer: Buffer, tmp_path: Path) -> None:
    go = Event()
    executor = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(executor)
    executor.submit(go.wait)
    memory = os.memfd_create("given up")
    task = asyncio.create_task(buffer.read_from(memory, 0))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The caller has given up, and the number is another file's now.
    os.close(memory)
    (tmp_path / "another").write_bytes(b"data")
    others = os.open(tmp_path / "another", os.O_RDONLY)
    assert others == memory
    go.set()
    await asyncio.to_thread(lambda: None)
    assert os.lseek(others, 0, os.SEEK_CUR) == 0
    os.close(others)
