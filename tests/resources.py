# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a test takes from its machine and has to give back: file descriptors, file systems."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tools import require, skip_or_fail


def open_fds() -> int:
    """Return how many file descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


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
