# SPDX-License-Identifier: LGPL-2.1-or-later
"""File descriptors, threads, limits and file systems, which a test takes and gives back."""

import _thread
import os
import resource
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lib.tools import require, skip_or_fail
from tests.lib.waiting import eventually


def open_fds() -> int:
    """Return how many file descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


async def settled(count: Callable[[], int], expected: int) -> int:
    """Return what *count* finds as soon as that is *expected*, or after a while: threads close them, too."""
    with suppress(AssertionError):
        await eventually(lambda: count() == expected, timeout=10)
    return count()


def lingering_socket(seconds: int) -> tuple[socket.socket, socket.socket]:
    """Return a socket whose last close waits for that long, and its peer, which ends that when it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    ours.setblocking(False)
    try:
        while True:
            ours.send(bytes(65536))
    except BlockingIOError:
        return ours, peer


def children(pid: int) -> str:
    """Return the numbers of the child processes of *pid*, separated by spaces."""
    found = ""
    for task in Path(f"/proc/{pid}/task").iterdir():
        # Threads end at any time.
        with suppress(FileNotFoundError, ProcessLookupError):
            found += (task / "children").read_text()
    return found


@contextmanager
def few_threads(number: int) -> Iterator[None]:
    """Let *number* more threads start while the context lasts, as on a machine that has no memory for others."""
    real, left = _thread.start_new_thread, iter(range(number))

    def start(*arguments: Any) -> int:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", start)
        yield


@contextmanager
def tmpfs(path: Path, size: int) -> Iterator[Path]:
    """Mount a file system of *size* bytes at *path* while the context lasts."""
    require("mount", "umount")
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        skip_or_fail(["a tmpfs (no right to mount)"])
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def remount_read_only(path: Path) -> None:
    """Make a mounted file system read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)


def limit_files(path: Path, number: int) -> None:
    """Let a mounted tmpfs have that many files and directories, its own included."""
    subprocess.run(["mount", "-o", f"remount,nr_inodes={number}", str(path)], check=True)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond *size* bytes (EFBIG) while the context lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
