# SPDX-License-Identifier: LGPL-2.1-or-later
import asyncio
import errno
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.lib.collectors import written
from tests.lib.fuse import Source, answers, fuse_source
from tests.lib.resources import open_fds, settled
from tests.lib.waiting import eventually, is_busy
from vmcoredd_daemon.collectors import descriptor
from vmcoredd_daemon.collectors.descriptor import DescriptorCollector, check_source
from vmcoredd_daemon.dumps.buffer import Buffer
from vmcoredd_daemon.dumps.collector import Collected
from vmcoredd_daemon.dumps.spool import Spool
from vmcoredd_daemon.dumps.transfer import POLLED_BY_KERNEL, Rest, kernel_name_of
from vmcoredd_daemon.errors import Busy, CollectorFailed, InvalidArgs
from vmcoredd_daemon.note import ByteOrder
from vmcoredd_daemon.threads.fd_closer import FdCloser
from vmcoredd_daemon.threads.loop import READ_POLL, AbandonedThreads

SIZE = 5000


@pytest_asyncio.fixture
async def buffer() -> AsyncIterator[Buffer]:
    """Threads close descriptors after the tests: there is no counting them."""
    buffer = await Spool.in_memory(4096, ByteOrder.LITTLE).create("nic0", SIZE)
    yield buffer
    buffer.close()


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptor, "EOF_GRACE", 0.1)


async def collect(fd: int, buffer: Buffer) -> Collected:
    """Collect from *fd*, and close it."""
    polls = kernel_name_of(fd).startswith(POLLED_BY_KERNEL)
    collector = DescriptorCollector(fd, "test", loop_polls=polls)
    try:
        return await collector.collect("nic0", buffer)
    finally:
        collector.close()


def pipe_with(data: bytes, *, closed: bool = True) -> tuple[int, int]:
    reading, writing = os.pipe()
    os.write(writing, data)
    if closed:
        os.close(writing)
    return reading, writing


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE])
@pytest.mark.parametrize("kind", ["file", "memfd", "pipe", "socket"])
async def test_whatever_can_be_read(buffer: Buffer, tmp_path: Path, kind: str, size: int) -> None:
    before = open_fds()
    data = os.urandom(size)
    if kind == "file":
        (tmp_path / "data").write_bytes(data)
        fd = os.open(tmp_path / "data", os.O_RDONLY)
    elif kind == "memfd":
        fd = os.memfd_create("data")
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
    elif kind == "pipe":
        fd, _ = pipe_with(data)
    else:
        ours, theirs = socket.socketpair()
        theirs.sendall(data)
        theirs.close()
        fd = ours.detach()
    assert await collect(fd, buffer) == Collected(size)
    assert written(buffer, SIZE) == data.ljust(SIZE, b"\0")
    assert open_fds() == before


@pytest.mark.parametrize("kind", ["file", "pipe"])
async def test_more_than_fits_is_truncated(buffer: Buffer, tmp_path: Path, kind: str) -> None:
    data = b"x" * SIZE + b"y"
    (tmp_path / "data").write_bytes(data)
    fd = os.open(tmp_path / "data", os.O_RDONLY) if kind == "file" else pipe_with(data)[0]
    assert await collect(fd, buffer) == Collected(SIZE, truncated=True)
    assert written(buffer, SIZE) == b"x" * SIZE


@pytest.mark.parametrize("sizes", [(4096, 904), (4096, 905), (3000, 3000)])
async def test_packets_in_a_pipe(buffer: Buffer, sizes: tuple[int, int]) -> None:
    reading, writing = os.pipe2(os.O_DIRECT)
    for size in sizes:
        os.write(writing, b"x" * size)
    os.close(writing)
    assert await collect(reading, buffer) == Collected(SIZE, truncated=sum(sizes) > SIZE)
    assert written(buffer, SIZE) == b"x" * SIZE


async def test_file_is_read_from_its_position(buffer: Buffer, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"head and tail")
    fd = os.open(tmp_path / "data", os.O_RDONLY)
    os.lseek(fd, 9, os.SEEK_SET)
    assert await collect(fd, buffer) == Collected(4)
    assert written(buffer, SIZE)[:5] == b"tail\0"


async def test_file_of_the_kernel_whose_size_is_0(buffer: Buffer) -> None:
    version = Path("/proc/version").read_bytes()
    assert await collect(os.open("/proc/version", os.O_RDONLY), buffer) == Collected(len(version))
    assert written(buffer, SIZE).startswith(version)


async def test_endless_source(buffer: Buffer) -> None:
    assert await collect(os.open("/dev/zero", os.O_RDONLY), buffer) == Collected(SIZE, truncated=True)


@pytest.mark.parametrize("blocking", [True, False])
async def test_slow_writer(buffer: Buffer, blocking: bool) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, blocking)

    def write() -> None:
        for _ in range(10):
            time.sleep(0.01)
            os.write(writing, b"x" * 100)
        os.close(writing)

    thread = threading.Thread(target=write)
    thread.start()
    assert await collect(reading, buffer) == Collected(1000)
    thread.join()
    assert written(buffer, SIZE) == (b"x" * 1000).ljust(SIZE, b"\0")


async def test_more_than_a_pipe_holds() -> None:
    data = os.urandom(3 << 20)
    buffer = await Spool.in_memory(4096, ByteOrder.LITTLE).create("nic0", len(data))
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    assert await collect(reading, buffer) == Collected(len(data))
    thread.join()
    assert os.pread(buffer.fd, len(data), buffer.offset) == data
    buffer.close()


async def test_full_buffer_and_a_writer_that_stays(buffer: Buffer) -> None:
    reading, writing = pipe_with(b"x" * SIZE, closed=False)
    assert await asyncio.wait_for(collect(reading, buffer), 2) == Collected(SIZE)
    os.close(writing)


async def test_silent_writer_is_waited_for(buffer: Buffer) -> None:
    before = open_fds()
    reading, writing = pipe_with(b"x" * 100, closed=False)
    collecting = asyncio.create_task(collect(reading, buffer))
    await eventually(lambda: written(buffer, SIZE).startswith(b"x" * 100))
    await asyncio.sleep(0.1)
    assert not collecting.done()
    collecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collecting
    os.close(writing)
    assert open_fds() == before


@pytest.mark.parametrize(
    ("family", "kind", "name"),
    [
        (socket.AF_UNIX, socket.SOCK_SEQPACKET, "SOCK_SEQPACKET"),
        (socket.AF_UNIX, socket.SOCK_DGRAM, "SOCK_DGRAM"),
        (socket.AF_INET6, socket.SOCK_DGRAM, "SOCK_DGRAM"),
        (socket.AF_NETLINK, socket.SOCK_RAW, "SOCK_RAW"),
    ],
)
def test_sockets_of_messages_are_refused(family: int, kind: int, name: str) -> None:
    before = open_fds()
    with socket.socket(family, kind) as source:
        with pytest.raises(
            InvalidArgs, match=f"^device dump nic0: its data come from a socket of type {name}, .*$"
        ):
            check_source("nic0", source.fileno(), kernel_name_of(source.fileno()))
        assert open_fds() == before + 1
        assert not os.get_inheritable(source.fileno())


def test_whatever_else_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data")
    ours, theirs = socket.socketpair()
    file, pipe = os.open(tmp_path / "file", os.O_RDONLY), os.pipe()
    for fd in (file, *pipe, ours.fileno(), theirs.fileno()):
        check_source("nic0", fd, kernel_name_of(fd))
        os.fstat(fd)
    assert ours.getblocking()
    for fd in (file, *pipe, ours.detach(), theirs.detach()):
        os.close(fd)


async def test_reset_connection(buffer: Buffer) -> None:
    ours, theirs = socket.socketpair()
    # Closing a socket with unread data resets the connection.
    ours.send(b"unread")
    theirs.close()
    with pytest.raises(CollectorFailed, match="nic0: cannot read its data: Connection reset by peer") as raised:
        await collect(ours.detach(), buffer)
    assert raised.value.errno == errno.ECONNRESET


async def test_what_cannot_be_read(buffer: Buffer, tmp_path: Path) -> None:
    before = open_fds()
    (tmp_path / "file").write_text("data")
    fd = os.open(tmp_path / "file", os.O_WRONLY)
    with pytest.raises(CollectorFailed, match="device dump nic0: cannot read its data: ") as raised:
        await asyncio.wait_for(collect(fd, buffer), 2)
    assert raised.value.errno == errno.EBADF
    assert open_fds() == before


async def test_directory_is_no_data(buffer: Buffer, tmp_path: Path) -> None:
    before = open_fds()
    with pytest.raises(InvalidArgs, match=r"^device dump nic0: its data is a directory, which is never read$"):
        await collect(os.open(tmp_path, os.O_RDONLY), buffer)
    assert open_fds() == before


async def test_data_without_bytes_is_a_failure(buffer: Buffer) -> None:
    reading, _ = pipe_with(b"")
    for fd in (reading, os.open(os.devnull, os.O_RDONLY), os.memfd_create("empty")):
        collector = DescriptorCollector.duplicating("nic0", fd, "test", FdCloser(), AbandonedThreads(1))
        with pytest.raises(CollectorFailed, match="no data were received") as caught:
            await collector.collect("nic0", buffer)
        assert caught.value.errno == errno.ENODATA
        collector.close()
        os.close(fd)


async def test_pipe_that_was_given_up_is_read_no_more(buffer: Buffer) -> None:
    reading, writing = os.pipe()
    other = os.dup(reading)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(collect(reading, buffer), READ_POLL / 4)
    os.write(writing, b"for another reader")
    await buffer.idle()
    os.set_blocking(other, False)
    assert os.read(other, 100) == b"for another reader"
    for fd in (other, writing):
        os.close(fd)


async def test_same_pipe_twice(buffer: Buffer) -> None:
    # What dup() made is another number for the same file, of which each has a part; neither is full, and looks for
    # more.
    other = await Spool.in_memory(4096, ByteOrder.LITTLE).create("nic1", SIZE)
    reading, _ = pipe_with(b"x" * (SIZE - 1))
    results = await asyncio.gather(collect(os.dup(reading), buffer), collect(reading, other))
    assert sum(result.size for result in results) == SIZE - 1
    other.close()


async def test_pipe_that_another_process_has_emptied_does_not_block(buffer: Buffer) -> None:
    # Each sees the one byte come, and all but one come too late.
    reading, writing = pipe_with(b"x", closed=False)
    ours, theirs = socket.socketpair()
    theirs.send(b"x")
    for fd in (reading, ours.fileno()):
        found: list[int] = []
        rests = await asyncio.gather(*(buffer.read_from(fd, 0, found.append) for _ in range(40)))
        assert (found, set(rests)) == ([1], {Rest.UNKNOWN})
        assert os.get_blocking(fd)
    os.close(reading)
    os.close(writing)
    ours.close()
    theirs.close()


async def test_reads_that_block_take_no_place_from_others(buffer: Buffer, tmp_path: Path) -> None:
    with fuse_file(tmp_path, SIZE) as source:
        source.read = lambda offset, size: None
        fd = os.open(source.path, os.O_RDONLY)
        found: list[int] = []
        tasks = [asyncio.create_task(buffer.read_from(fd, 0, found.append)) for _ in range(40)]
        async with asyncio.timeout(5):
            await asyncio.to_thread(lambda: None)
            assert not any(task.done() for task in tasks)
        source.read = answers
        source.answer_late(b"x")
        # What several descriptors share is their position, too.
        assert set(await asyncio.gather(*tasks)) == {Rest.NONE}
        assert found == [SIZE]
        os.close(fd)


@contextmanager
def fuse_file(directory: Path, size: int) -> Iterator[Source]:
    (directory / "data").write_bytes(b"d" * size)
    with fuse_source(directory / "data", directory / "mounted") as source:
        yield source


async def test_poll_and_close_that_are_never_answered(buffer: Buffer, tmp_path: Path) -> None:
    fd_closer, abandoned = FdCloser(), AbandonedThreads(1)
    with fuse_file(tmp_path, SIZE) as source:
        source.poll = source.flush = lambda: None
        with source.path.open("rb", buffering=0) as file:
            collector = DescriptorCollector.duplicating("nic0", file.fileno(), "test", fd_closer, abandoned)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(collector.collect("nic0", buffer), 0.1)
            collector.close()
            await eventually(lambda: len(source.late) == 2)
            source.flush = lambda: 0
            source.answer_late(b"")
            await buffer.idle()


async def test_close_that_fails(buffer: Buffer, tmp_path: Path) -> None:
    with fuse_file(tmp_path, 100) as source:
        source.flush = lambda: errno.EIO
        assert await collect(os.open(source.path, os.O_RDONLY), buffer) == Collected(100)
    assert written(buffer, SIZE).startswith(b"d" * 100 + b"\0")


async def test_read_that_hangs_behind_the_last_byte_is_counted(buffer: Buffer, tmp_path: Path) -> None:
    abandoned = AbandonedThreads(1)
    with fuse_file(tmp_path, SIZE + 1) as source:
        source.read = lambda offset, size: 0 if offset < SIZE else None
        with source.path.open("rb", buffering=0) as file:
            collector = DescriptorCollector.duplicating("nic0", file.fileno(), "test", FdCloser(), abandoned)
            assert await collector.collect("nic0", buffer) == Collected(SIZE)
            with pytest.raises(Busy):
                abandoned.check()
            source.answer_late(b"x")
            collector.close()
    await eventually(lambda: not is_busy(abandoned.check))


async def test_silent_source_leaves_no_thread(buffer: Buffer) -> None:
    before = len(os.listdir("/proc/self/task"))
    # A character device that has no more messages now.
    fd = os.open("/dev/kmsg", os.O_RDONLY)
    os.lseek(fd, 0, os.SEEK_END)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(collect(fd, buffer), 0.1)
    assert await settled(lambda: len(os.listdir("/proc/self/task")), before) == before


async def test_fifo_of_a_file_system(buffer: Buffer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(tmp_path / "fifo", os.O_WRONLY)
    collecting = asyncio.create_task(collect(reading, buffer))
    await asyncio.sleep(0.05)
    os.write(writing, b"data")
    os.close(writing)
    assert await collecting == Collected(4)
