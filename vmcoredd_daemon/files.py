# SPDX-License-Identifier: LGPL-2.1-or-later
"""How bytes become durable: read and written at offsets, synced, and given their name when they are complete.

The steps are those of systemd-coredump: a file without a name or with a temporary one, fsync, link or rename,
fsync of the directory. A file that has its final name after a crash is therefore complete.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

BLOCK_SIZE = 256 * 1024
"""Bytes to read or write in one go: as many as fit into a processor's own cache, with what they are copied to."""

Pread = Callable[[int, int], bytes]
"""Reads up to *size* bytes at *offset*: ``pread(size, offset)``, in the order of :func:`os.pread`."""


def close(fd: int) -> None:
    """Close a file that was read, or written and synced: an error, as of NFS, says nothing new then. Blocks."""
    with suppress(OSError):
        os.close(fd)


def pread(fd: int, size: int, offset: int) -> bytes:
    """Read *size* bytes at *offset*, fewer only at the end of the file. Raises OSError."""
    data = os.pread(fd, size, offset)
    # A network, or a signal, may cut a read short.
    while data and len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
        data += more
    return data


def pwrite(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of *data* at *offset*. Raises OSError."""
    view = memoryview(data)
    while view:
        size = os.pwrite(fd, view, offset)
        view, offset = view[size:], offset + size


def open_standard_descriptors() -> None:
    """Open /dev/null on each of the descriptors 0 to 2 that is closed: no other file may get its number.

    What a program that we start prints would end up in that file. Raises OSError.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # Gets the lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of *data* at the file's position, or into a pipe. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


MEMORY_FILE_SYSTEMS = frozenset({"ramfs", "rootfs", "tmpfs"})
"""Types of file systems whose files are memory."""

MEMORY_RESERVE = 64 << 20
"""Bytes of memory that files in memory leave available."""


def free_space(where: int | Path, kind: str | None = None) -> int | None:
    """Return the bytes that a file system, of type *kind* if that is known, has left; None if it does not say.

    A ramfs reports 0 of 0 blocks, and so may FUSE: that is unknown, and not full. The files of a ramfs or tmpfs
    are memory, of which :data:`MEMORY_RESERVE` stays available. Raises OSError.
    """
    state = os.statvfs(where)
    free = [state.f_bavail * state.f_frsize] if state.f_blocks else []
    if (kind or file_system(where)) in MEMORY_FILE_SYSTEMS and (memory := available_memory()) is not None:
        free.append(max(0, memory - MEMORY_RESERVE))
    return min(free, default=None)


def check_space(fd: int, size: int) -> None:
    """Raise OSError unless the file system of *fd* has *size* bytes left, as :func:`free_space` counts."""
    free = free_space(fd)
    if free is not None and free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def file_system(where: int | Path) -> str:
    """Return the type of a file system, as proc_pid_mountinfo(5) has it; empty if it is not known."""
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        device = os.stat(where).st_dev
        for line in file:
            _, _, number, *rest = line.split()
            if number == f"{os.major(device)}:{os.minor(device)}":
                return rest[rest.index("-") + 1]
    return ""


def available_memory() -> int | None:
    """Return MemAvailable in bytes; None if /proc does not say."""
    with suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def wait_for_writer(fd: int) -> None:
    """Wait until no program is in the middle of a write(2) to the file *fd*. Blocks, perhaps for ever.

    A write holds the lock of the inode while it reads the writer's memory, which a server of FUSE or a userfaultfd
    may never provide (Linux mm/filemap.c, ``generic_file_write_iter()``); link(2) and unlink(2) would wait for it
    with the directory's lock held. setxattr(2) takes the lock, finds no such namespace, and changes nothing: the
    disk has nothing to do (fs/xattr.c, ``vfs_setxattr()``).
    """
    with suppress(OSError):
        os.setxattr(fd, "vmcoredd.none", b"")


def begin_write_back(fd: int, offset: int = 0, size: int = 0) -> None:
    """Have the kernel begin to write *size* dirty bytes from *offset* to the disk; a *size* of 0 is all.

    POSIX_FADV_DONTNEED starts write-back of dirty pages and drops clean ones (Linux mm/fadvise.c,
    ``generic_fadvise()``). fsync(2) then finds little left to do, and a capture kernel keeps its memory.
    """
    # A hint: what depends on the disk calls sync().
    with suppress(OSError):
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)


def open_directory(path: Path) -> int:
    """Open a directory that is no symbolic link; return its descriptor. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_unnamed(directory: int) -> int:
    """Open a new file without a name, which vanishes with its last descriptor unless :func:`link` gives it one.

    Raises OSError, with EOPNOTSUPP if the file system has no O_TMPFILE.
    """
    return os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=directory)


def link(fd: int, directory: int, name: str) -> None:
    """Give the file *fd* a name, which is durable when *directory* is synced. Raises OSError."""
    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)


def open_new(parent: int, name: str) -> int:
    """Open a new file *name* in the directory *parent*; what had that name is removed. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=parent)


def sync(fd: int) -> None:
    """Make a file, or the names in a directory, durable, if the file system can. Raises OSError."""
    try:
        os.fsync(fd)
    except OSError as error:
        # Some file systems, mostly network ones, have no fsync(2), or none of directories.
        if error.errno != errno.EINVAL:
            raise


def sync_file(path: str) -> None:
    """Make a file and its name durable, and have the kernel drop what it has of it in memory. Raises OSError.

    What is read of it then comes from the disk. That file may be another program's.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(fd)
        begin_write_back(fd)
    finally:
        close(fd)
    sync_directory(Path(os.path.realpath(path)).parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        close(fd)


@contextmanager
def new_file(path: str | Path) -> Iterator[int]:
    """Provide a new file with mode 0600 that is synced and gets the name *path* when the context ends.

    What had that name is replaced. After an error nothing is left of the new file. Raises OSError.
    """
    # The name is known before the file exists, so that it is removed even if a signal comes in between. It is
    # random, because the directory may be /tmp.
    temporary, fd = os.path.join(os.path.dirname(path), f".vmcoredd-{os.urandom(8).hex()}"), -1
    try:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        yield fd
        sync(fd)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        if fd >= 0:
            close(fd)


def replace_file(fd: int, path: str, write: Callable[[int], _T], committing: Callable[[], None]) -> _T:
    """Put a new file in the place of that at *path*, which is open at *fd*; return what *write* returned.

    *write* is given the descriptor of the new file. That gets the old one's owner, mode and extended attributes;
    *committing* is called when it is on disk, right before it takes the name. Raises OSError, and what the two
    functions raise; the old file is then unchanged.
    """
    # A rename must not replace a symbolic link, but what it leads to.
    target = Path(os.path.realpath(path))
    with new_file(target) as out:
        result = write(out)
        _take_metadata(fd, out)
        sync(out)
        committing()
    sync_directory(target.parent)
    return result


def _take_metadata(fd: int, out: int) -> None:
    state = os.fstat(fd)
    os.fchown(out, state.st_uid, state.st_gid)
    os.fchmod(out, state.st_mode & 0o7777)
    for name in os.listxattr(fd):
        # Some attributes need privileges; the one that matters is the label of SELinux.
        with suppress(OSError):
            os.setxattr(out, name, os.getxattr(fd, name))
