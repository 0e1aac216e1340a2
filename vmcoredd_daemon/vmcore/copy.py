# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write a planned vmcore: copy, sync, verify, and only then give it its name.

The copy itself is in :mod:`.extents`. The steps follow systemd-coredump: a temporary name, fsync, rename, fsync of
the directory.
"""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import NoSpace, VmcoreddError, WriteFailed
from ..note import VMCOREDD_HEADER_SIZE, ByteOrder, pack_vmcoredd_header
from .elf import read_headers, walk
from .extents import NO_SPACE, CopyReport, ExtentCopy, Preadv, Progress, pwrite
from .image import file_image
from .layout import DeviceDumpNote, Layout
from .verify import own_offsets, verify_notes

VMCORE_INCOMPLETE = "vmcore-incomplete"
"""Name of a vmcore that is being written, as kdump-utils has it; a file of another name has its own."""

Complete = Callable[[CopyReport], bytes]
"""Returns the data for the last device dump of ours, once it is known how the copy went."""


def write_vmcore(
    layout: Layout,
    dumps: Sequence[DeviceDumpNote],
    directory: Path,
    name: str,
    page_size: int,
    progress: Progress,
    complete: Complete | None = None,
    preadv: Preadv = os.preadv,
) -> CopyReport:
    """Write the vmcore *name* into *directory*; on an error nothing of that name is there, or what was there
    before. Where there is room for part of the memory only, that part stays under the name *name*-incomplete.

    Blocks for as long as the copy takes: call it in a thread. Raises NoSpace when not even the notes fit, and
    WriteFailed for any other error, or when what was written does not read back.
    """
    try:
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise WriteFailed(f"{directory}: cannot open the target: {error.strerror}") from error
    try:
        return _write(layout, dumps, parent, name, page_size, progress, complete, preadv)
    except OSError as error:
        kind = NoSpace if error.errno in NO_SPACE else WriteFailed
        raise kind(f"{directory / name}: cannot write: {error.strerror}") from error
    except VmcoreddError as error:
        raise WriteFailed(f"{directory / name}: {error}") from error
    finally:
        os.close(parent)


def _write(
    layout: Layout,
    dumps: Sequence[DeviceDumpNote],
    parent: int,
    name: str,
    page_size: int,
    progress: Progress,
    complete: Complete | None,
    preadv: Preadv,
) -> CopyReport:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # Of its own name: device dumps that are written apart must not cost the part of the memory that there is.
    incomplete = f"{name}-incomplete"
    with suppress(FileNotFoundError):
        os.unlink(incomplete, dir_fd=parent)
    fd = os.open(incomplete, flags, 0o600, dir_fd=parent)
    try:
        copy = ExtentCopy(fd, page_size, progress, preadv=preadv)
        pwrite(fd, layout.headers.pack(), 0)
        for extent in layout.notes:
            copy.extent(extent)
        if complete is not None and layout.last_dump is not None:
            # Room for what comes last, before the memory takes it all.
            os.posix_fallocate(fd, layout.last_dump.offset, layout.last_dump.size)
        end = copy.loads(layout.loads, layout.size)
        own = own_offsets(layout.notes, dumps)
        write_headers(fd, own, layout.headers.byteorder)
        if complete is not None and layout.last_dump is not None:
            pwrite(fd, complete(copy.report), layout.last_dump.offset + VMCOREDD_HEADER_SIZE)
        os.ftruncate(fd, end)
        sync(fd)
        copy.report.altered = _verify(fd, layout, own)
        if not copy.report.left_out:
            os.rename(incomplete, name, src_dir_fd=parent, dst_dir_fd=parent)
        sync(parent)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(incomplete, dir_fd=parent)
        raise
    finally:
        os.close(fd)
    return copy.report


def write_headers(fd: int, own: Mapping[int, DeviceDumpNote], byteorder: ByteOrder) -> None:
    """Write the headers of the device dumps *own*, by offset. Raises OSError.

    Once more than the spool: a collector may have kept its mapping, and a broken header would hide all that
    follows. And the vmcore may be of another machine.
    """
    for offset, dump in own.items():
        pwrite(fd, pack_vmcoredd_header(dump.dump_name.encode("ascii"), dump.note_size, byteorder), offset)


def _verify(fd: int, layout: Layout, own: Mapping[int, DeviceDumpNote]) -> tuple[str, ...]:
    """Read headers and notes back; return the names of our dumps whose data changed since they were taken."""
    # From the disk, as far as that can be had, and not from the memory that was written a moment ago.
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    image = file_image(fd, VMCORE_INCOMPLETE)
    headers = read_headers(image)
    if headers.segments != layout.headers.segments:
        raise WriteFailed("the program headers do not read back as written")
    start = headers.notes[0].p_offset
    return verify_notes(image, walk(image, headers), start, start + headers.notes[0].p_filesz, own)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)


def sync(fd: int) -> None:
    """Make a file, or the names in a directory, durable, where the file system has a way. Raises OSError."""
    try:
        os.fsync(fd)
    except OSError as error:
        # Some file systems, of the network above all, know no fsync(2), most often of directories.
        if error.errno != errno.EINVAL:
            raise
