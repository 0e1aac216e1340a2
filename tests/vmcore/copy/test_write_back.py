# SPDX-License-Identifier: LGPL-2.1-or-later

import ctypes
import errno
import os
import time
from pathlib import Path

import pytest

from tests.lib.waiting import wait_until
from vmcoredd_daemon.vmcore.copy.write_back import written_back

MIB = 1 << 20
CACHESTAT = 451


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
    with written_back(path):
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
    with written_back(path):
        time.sleep(0.2)
        with pytest.raises(OSError, match="No such device"):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)


def test_file_that_is_never_there(tmp_path: Path) -> None:
    before = threads()
    with written_back(tmp_path / "nothing" / "file"):
        (new,) = threads() - before
        time.sleep(0.2)
        assert new in threads()
    wait_until(lambda: new not in threads())
