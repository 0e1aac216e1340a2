# SPDX-License-Identifier: LGPL-2.1-or-later
"""Both ways of writing much, on the file system that temporary files have."""

import ctypes
import errno
import mmap
import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.lib.elf_writer import NT_PRSTATUS, PAGE, Core, Load, note
from tests.lib.resources import open_fds
from tests.lib.vmcore_rig import Rig, load_bytes
from tests.lib.waiting import wait_until
from vmcoredd_daemon.vmcore.copy.page_cache import DIRECT_SIZE, DirectWrites, write_back_while, writes

MIB = 1 << 20
CACHESTAT = 451


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, 2 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[:] = random.Random(1).randbytes(len(memory))
        yield memory


def is_cached(fd: int, offset: int) -> bool:
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


def takes_direct_writes(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


def test_long_runs_are_not_in_the_cache(fd: int, memory: mmap.mmap, tmp_path: Path) -> None:
    if not takes_direct_writes(tmp_path / "file"):
        pytest.skip(f"{tmp_path} takes no direct writes")
    os.ftruncate(fd, 4 * MIB)
    with closing(DirectWrites(fd)) as direct, memoryview(memory) as view:
        direct.write(view[:MIB], 0)
        direct.write(view[: DIRECT_SIZE - PAGE], 2 * MIB)
    assert [is_cached(fd, offset) for offset in (0, MIB - 1, 2 * MIB)] == [False, False, True]


@pytest.mark.parametrize("processors", [{0}, {0, 1}])
@pytest.mark.parametrize(
    ("start", "end", "offset"),
    [
        (0, MIB, 0),
        (PAGE, MIB, 3 * PAGE),
        (0, MIB + 17, PAGE),
        # Neither the memory nor the file begins at a page: the kernel refuses that.
        (1, MIB, 0),
        (0, MIB, 512 + 1),
        (0, 100, PAGE),
    ],
)
def test_all_is_written(
    fd: int,
    memory: mmap.mmap,
    monkeypatch: pytest.MonkeyPatch,
    processors: set[int],
    start: int,
    end: int,
    offset: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: processors)
    before = open_fds()
    with writes(fd) as file, memoryview(memory) as view:
        file.write(view[start:end], offset)
        # What comes next is written, too, whatever became of the first.
        file.write(view[:MIB], 4 * MIB)
    assert isinstance(file, DirectWrites) == (len(processors) == 1)
    assert os.pread(fd, end - start, offset) == memory[start:end]
    assert os.pread(fd, 2 * MIB, 4 * MIB) == memory[:MIB]
    assert open_fds() == before


@pytest.mark.parametrize("seed", range(4))
def test_vmcore_is_the_same_with_one_processor_and_with_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    runs = [(chance.randrange(3), 1 << chance.randrange(10)) for _ in range(40)]
    data = b"".join(bytes(PAGE * count) if kind == 0 else chance.randbytes(PAGE * count) for kind, count in runs)
    loads = (Load(0x1000, data + b"end"), Load(0x10000000, bytes(5 * MIB)), Load(0x20000123, data[::-1]))
    source = Core(note(NT_PRSTATUS, b"registers"), loads).write(tmp_path / "source")
    written = []
    for processors in ({0}, {0, 1}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, processors=processors: processors)
        target = tmp_path / f"target{len(processors)}"
        target.mkdir()
        with Rig(target) as rig:
            dump = rig.dump("ours", b"data")
            rig.convert(source, dump)
            assert rig.names() == [b"ours"]
        written.append(target / "vmcore")
    assert written[0].read_bytes() == written[1].read_bytes()
    assert load_bytes(written[0]) == load_bytes(source)
    sizes = [path.stat().st_blocks * 512 for path in written]
    assert max(sizes) < sum(count * PAGE for kind, count in runs if kind) * 2 + 2 * MIB


def dirty_pages(path: Path) -> int:
    """Return how many pages of a file are in the cache, and neither on disk nor on the way there."""
    libc = ctypes.CDLL(None, use_errno=True)
    everything = (ctypes.c_uint64 * 2)(0, 0)
    found = (ctypes.c_uint64 * 5)()
    with path.open("rb") as file:
        if libc.syscall(CACHESTAT, file.fileno(), everything, found, 0):
            if ctypes.get_errno() == errno.ENOSYS:
                pytest.skip("this kernel has no cachestat(2)")
            raise OSError(ctypes.get_errno(), "cachestat")
    return found[1]


def threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def test_what_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with write_back_while(path):
        with path.open("wb") as file:
            for _ in range(2):
                file.write(os.urandom(8 * MIB))
                file.flush()
                wait_until(lambda: dirty_pages(path), lambda dirty: dirty == 0)
            content = path.read_bytes()
            path.unlink()
        path.write_bytes(content)
        assert path.read_bytes() == content


def test_pipe_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with write_back_while(path):
        time.sleep(0.2)
        with pytest.raises(OSError, match="No such device"):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)


def test_file_that_is_never_there(tmp_path: Path) -> None:
    before = threads()
    with write_back_while(tmp_path / "nothing" / "file"):
        (new,) = threads() - before
        time.sleep(0.2)
        assert new in threads()
    wait_until(lambda: new not in threads())
