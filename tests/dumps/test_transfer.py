# SPDX-License-Identifier: LGPL-2.1-or-later
import os
import select
import threading
from collections.abc import Iterator

import pytest

from vmcoredd_daemon.dumps.transfer import LARGE_PIECE, PIECE, WINDOW, Rest, Transfer
from vmcoredd_daemon.errors import WriteFailed

OFFSET = 64


class Rig:
    """A buffer, and what was told of what is written to it."""

    def __init__(self, size: int) -> None:
        self.fd = os.memfd_create("buffer")
        self.reached: list[int] = []
        self.windows = 0
        self.abandoned = threading.Event()
        self.large_pieces = threading.Semaphore(1)
        self.size = size

    def run(self, source: int, position: int = 0, fd: int | None = None) -> Rest:
        fd = self.fd if fd is None else fd
        transfer = Transfer("nic0", fd, self.size, position, self.reached.append, self.window, self.abandoned)
        return transfer.run(self.large_pieces, source)

    def window(self) -> None:
        self.windows += 1

    def written(self) -> bytes:
        return os.pread(self.fd, 1 << 30, OFFSET)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(3 * WINDOW + 5)
    yield rig
    os.close(rig.fd)


def memfd(data: bytes) -> int:
    fd = os.memfd_create("data")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


@pytest.mark.parametrize(("size", "windows"), [(0, 0), (1, 0), (WINDOW - 1, 0), (WINDOW, 1), (3 * WINDOW + 5, 3)])
def test_file(rig: Rig, size: int, windows: int) -> None:
    data = os.urandom(1 << 20) * (size // (1 << 20)) + b"x" * (size % (1 << 20))
    source = memfd(data)
    assert rig.run(source) is Rest.NONE
    assert (rig.written(), rig.windows) == (data, windows)
    assert rig.reached == [*range(LARGE_PIECE, size, LARGE_PIECE), *([size] if size else [])]
    os.close(source)


@pytest.mark.parametrize("taken", [False, True])
def test_few_have_large_pieces(rig: Rig, taken: bool) -> None:
    if taken:
        rig.large_pieces.acquire()
    source = memfd(bytes(2 * LARGE_PIECE))
    assert rig.run(source) is Rest.NONE
    assert rig.reached[0] == (PIECE if taken else LARGE_PIECE)
    assert rig.large_pieces.acquire(blocking=False) is not taken
    os.close(source)


def test_small_one_needs_no_large_piece(rig: Rig) -> None:
    rig.size = WINDOW - 1
    source = memfd(bytes(2 * PIECE))
    assert rig.run(source) is Rest.NONE
    assert rig.reached == [PIECE, 2 * PIECE]
    os.close(source)


def test_goes_on_where_it_was(rig: Rig) -> None:
    source = memfd(b"0123456789")
    os.lseek(source, 4, os.SEEK_SET)
    assert rig.run(source, position=4) is Rest.NONE
    assert (rig.written(), rig.reached) == (bytes(4) + b"456789", [10])
    os.close(source)


@pytest.mark.parametrize(("more", "rest"), [(0, Rest.NONE), (1, Rest.UNKNOWN)])
def test_no_more_than_there_is_room_for(rig: Rig, more: int, rest: Rest) -> None:
    rig.size = 1000
    source = memfd(bytes(1000 + more))
    assert rig.run(source) is rest
    assert os.lseek(source, 0, os.SEEK_CUR) == 1000
    os.close(source)


def test_what_does_not_say_where_it_ends(rig: Rig) -> None:
    rig.size = 10
    reading, writing = os.pipe()
    os.write(writing, b"0123456789")
    os.close(writing)
    version = os.open("/proc/version", os.O_RDONLY)
    assert rig.run(reading) is Rest.UNKNOWN
    assert rig.run(version) is Rest.UNKNOWN
    for fd in (reading, version):
        os.close(fd)


def test_pipe_in_which_nothing_is_now(rig: Rig) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"x" * PIECE)
    assert rig.run(reading) is Rest.UNKNOWN
    os.set_blocking(writing, False)
    os.write(writing, b"y")
    os.close(writing)
    assert rig.run(reading, position=PIECE) is Rest.NONE
    assert rig.written() == b"x" * PIECE + b"y"
    assert rig.reached == [PIECE, PIECE + 1]
    os.close(reading)


def test_abandoned(rig: Rig) -> None:
    rig.abandoned.set()
    reading, writing = os.pipe()
    os.write(writing, b"for another")
    assert rig.run(reading) is Rest.UNKNOWN
    assert select.select([reading], [], [], 0) == ([reading], [], [])
    assert rig.reached == []
    for fd in (reading, writing):
        os.close(fd)


def test_buffer_that_cannot_be_written(rig: Rig) -> None:
    zero, full = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/full", os.O_RDONLY)
    with pytest.raises(WriteFailed, match=r"^device dump nic0: cannot be kept in the spool: Bad file descriptor"):
        rig.run(zero, fd=full)
    for fd in (zero, full):
        os.close(fd)
