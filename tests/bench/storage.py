# SPDX-License-Identifier: LGPL-2.1-or-later
"""File systems to measure on, and how their caches are emptied."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.measure import Unavailable

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
SMALLEST = 320 << 20
"""Bytes; mkfs.xfs refuses less than 300 MiB."""
SPARE = 1 << 30
"""Bytes that are left to others."""


@contextmanager
def loop_mounted(kind: str, directory: Path, size: int, used: int | None = None) -> Iterator[Path]:
    """Make a file system of *kind* with room for *size* bytes in an image file, and mount it while this lasts.

    No more than *used* of them, all by default, are written. The loop device reads and writes the image directly
    where it can, so that nothing is cached twice. Raises Unavailable.
    """
    for program in (f"mkfs.{kind}", "losetup", "mount", "umount"):
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed")
    size = max(size + size // 8, SMALLEST)
    used = size if used is None else max(used, SMALLEST)
    if shutil.disk_usage(directory).free < used + SPARE:
        raise Unavailable(f"{directory} has no room for an image of {used >> 20} MiB")
    with ExitStack() as stack:
        image = directory / f"{kind}.image"
        stack.callback(image.unlink, missing_ok=True)
        with image.open("wb") as file:
            file.truncate(size)
            os.posix_fallocate(file.fileno(), 0, used)
        _command(f"mkfs.{kind}", "-q", str(image))
        device = _attach(image)
        stack.callback(_command, "losetup", "--detach", device)
        path = directory / kind
        path.mkdir(exist_ok=True)
        stack.callback(path.rmdir)
        _command("mount", device, str(path))
        stack.callback(_command, "umount", str(path))
        yield path


def _attach(image: Path) -> str:
    try:
        return _command("losetup", "--find", "--show", "--direct-io=on", str(image))
    except Unavailable:
        return _command("losetup", "--find", "--show", str(image))


def _command(*command: str) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise Unavailable(f"{command[0]}: {' '.join((run.stderr or run.stdout).split()) or 'failed'}")
    return run.stdout.strip()


@contextmanager
def disk(directory: Path, size: int, used: int | None = None) -> Iterator[tuple[str, Path]]:
    """Yield ext4 on a loop device, as :func:`loop_mounted`, or else *directory* itself, and what to call it."""
    with ExitStack() as stack:
        try:
            name, path = "ext4", stack.enter_context(loop_mounted("ext4", directory, size, used))
        except Unavailable:
            name, path = file_system(directory), directory / "disk"
            path.mkdir(exist_ok=True)
            stack.callback(shutil.rmtree, path)
        yield name, path


@contextmanager
def tmpfs() -> Iterator[Path]:
    """Yield a directory in the memory's file system. Raises Unavailable."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or file_system(shared) != "tmpfs":
        raise Unavailable(f"{shared} is no tmpfs")
    path = shared / f"vmcoredd-bench-{os.getpid()}"
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def file_system(path: Path) -> str:
    """Return the type of the file system that *path* is in."""
    device = os.stat(path).st_dev
    found = "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == f"{os.major(device)}:{os.minor(device)}":
            found = fields[fields.index("-") + 1]
    return found


def settle(directory: Path) -> None:
    """Write back what others have left, so that no row pays for it."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        subprocess.run(["sync", "--file-system", str(directory)], check=True)
    finally:
        os.close(fd)


def warm(path: Path) -> None:
    """Bring a file into the cache."""
    subprocess.run(["cat", str(path)], check=True, stdout=subprocess.DEVNULL)


def drop_all(path: Path) -> None:
    """Empty all caches of the machine."""
    settle(path.parent)
    DROP_CACHES.write_text("3")


def drop_one(path: Path) -> None:
    """Empty the cache of one file."""
    with path.open("rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def coldest(wanted: str) -> tuple[str, Callable[[Path], None]]:
    """Return how a cache is emptied, in words and as a function: *wanted*, if the machine lets us."""
    if wanted == "drop_caches" and os.access(DROP_CACHES, os.W_OK) and os.geteuid() == 0:
        return "echo 3 > /proc/sys/vm/drop_caches", drop_all
    return "posix_fadvise(POSIX_FADV_DONTNEED) on the source", drop_one
