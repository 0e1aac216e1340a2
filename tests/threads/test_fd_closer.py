# SPDX-License-Identifier: LGPL-2.1-or-later
import asyncio
import errno
import os
from pathlib import Path

import pytest

from tests.lib.fuse import Source, fuse_source
from tests.lib.loops import run_coroutine
from tests.lib.resources import open_fds, settled
from tests.lib.waiting import eventually, is_busy
from vmcoredd_daemon.errors import Busy
from vmcoredd_daemon.threads import fd_closer
from vmcoredd_daemon.threads.fd_closer import FdCloser, close_fds


def null() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture
def source(tmp_path: Path):  # type: ignore[no-untyped-def]
    (tmp_path / "data").write_bytes(b"data")
    with fuse_source(tmp_path / "data", tmp_path / "mounted") as source:
        yield source


def test_all_are_closed_whatever_close_says(source: Source) -> None:
    source.flush = lambda: errno.EIO
    before = open_fds()
    fds = [null(), 1 << 20, os.open(source.path, os.O_RDONLY), null()]
    close_fds(fds)
    assert fds == []
    assert open_fds() == before


async def test_closed_in_the_background(source: Source) -> None:
    source.flush = lambda: errno.EIO
    before, running = open_fds(), threads()
    closer = FdCloser()
    for _ in range(100):
        fds = [null(), os.open(source.path, os.O_RDONLY), null()]
        closer.close(fds)
        assert fds == []
        # One that is there already takes them.
        assert threads() <= running + 1
    assert await settled(open_fds, before) == before
    assert await settled(threads, running) == running


async def test_one_that_hangs_is_passed_by(source: Source) -> None:
    running = threads()
    source.flush = lambda: None
    closer = FdCloser()
    closer.close([os.open(source.path, os.O_RDONLY), other := null()])
    await eventually(lambda: not is_open(other))
    closer.close([other := null()])
    await eventually(lambda: not is_open(other))
    closer.check()
    assert await settled(threads, running + 1) == running + 1
    source.answer_late(b"")
    assert await settled(threads, running) == running


async def test_only_so_many_threads_hang(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fd_closer, "CLOSE_TIMEOUT", 0.01)
    monkeypatch.setattr(fd_closer, "MAX_THREADS", 3)
    monkeypatch.setattr(fd_closer, "MAX_WAITING", 5)
    before, running = open_fds(), threads()
    source.flush = lambda: None
    closer = FdCloser()
    closer.close([os.open(source.path, os.O_RDONLY) for _ in range(3)])
    await eventually(lambda: len(source.late) == 3)
    with pytest.raises(Busy, match="closing 3 descriptors hangs: no more are taken"):
        closer.check()
    closer.close([null() for _ in range(4)])
    assert not closer.full
    closer.close([null()])
    assert closer.full
    await asyncio.sleep(0.1)
    assert threads() == running + 3
    assert open_fds() == before + 5
    source.flush = lambda: 0
    source.answer_late(b"")
    assert await settled(open_fds, before) == before
    assert await settled(threads, running) == running
    # Their ends are known as soon as the loop has its turn.
    await eventually(lambda: not is_busy(closer.check))
    assert not closer.full


def test_without_a_loop_it_is_closed_at_once() -> None:
    async def made() -> FdCloser:
        return FdCloser()

    closer, fds = run_coroutine(made()), [null()]
    (fd,) = fds
    closer.close(fds)
    assert fds == []
    assert not is_open(fd)
