# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write a planned vmcore: copy, sync, verify, and only then give it its name.

Runs of zero pages become holes. A page that cannot be read becomes zeros and is counted: one bad page makes a
whole read() of ``/proc/vmcore`` fail with EFAULT (``read_vmcore()`` in Linux ``fs/proc/vmcore.c``), so a failed
read is bisected down to the page. The steps follow systemd-coredump: a temporary name, fsync, rename, fsync of
the directory.
"""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import NoSpace, VmcoreddError, WriteFailed
from ..note import VMCOREDD_HEADER_SIZE, ByteOrder, pack_vmcoredd_header
from .elf import read_headers, walk
from .image import file_image
from .layout import DeviceDumpNote, Extent, Layout
from .verify import own_offsets, verify_notes

VMCORE_INCOMPLETE = "vmcore-incomplete"
"""Name of a vmcore that is being written, as kdump-utils has it; a file of another name has its own."""

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

BLOCK_SIZE = 256 * 1024
_ZEROS = bytes(BLOCK_SIZE)

Progress = Callable[[int], None]
"""Called with the number of bytes just read, from the thread that copies."""


@dataclass(slots=True)
class CopyReport:
    """What was not as it should be."""

    unreadable_pages: int = 0
    first_unreadable: int | None = None
    """Offset in the source of the first page that could not be read."""
    missing_bytes: int = 0
    """Bytes that the headers promise, behind the end of a truncated source."""
    left_out: int = 0
    """Bytes of memory that the target has no room for; then the file keeps the name vmcore-incomplete."""
    altered: tuple[str, ...] = ()
    """Device dumps of ours whose data is no longer what was acknowledged."""


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
        return _write(layout, dumps, parent, name, page_size, progress, complete)
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
) -> CopyReport:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # Of its own name: device dumps that are written apart must not cost the part of the memory that there is.
    incomplete = f"{name}-incomplete"
    with suppress(FileNotFoundError):
        os.unlink(incomplete, dir_fd=parent)
    fd = os.open(incomplete, flags, 0o600, dir_fd=parent)
    try:
        copy = ExtentCopy(fd, page_size, progress)
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


class ExtentCopy:
    """Copies extents into one file, through one buffer; *sparse* where the file has nothing but zeros so far."""

    def __init__(self, fd: int, page_size: int, progress: Progress, *, sparse: bool = True) -> None:
        self.report = CopyReport()
        self._sparse = sparse
        self._fd = fd
        self._page_size = page_size
        self._progress = progress
        self._buffer = bytearray(BLOCK_SIZE)
        self._last_unreadable = (-1, -1)
        self._position = 0

    def loads(self, extents: Sequence[Extent], end: int) -> int:
        """Copy as much of the memory as there is room for; return where the file ends, *end* when all is in it.

        Part of the memory is better than none: makedumpfile keeps it, too, and what comes first is the kernel.
        """
        for number, extent in enumerate(extents):
            try:
                self.extent(extent)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                rest = sum(later.size for later in extents[number + 1 :])
                self.report.left_out = extent.offset + extent.size - self._position + rest
                return self._position
        return end

    def extent(self, extent: Extent) -> None:
        """Copy one extent, with zeros for what cannot be read. Raises OSError when it cannot be written."""
        for done in range(0, extent.size, BLOCK_SIZE):
            size = min(BLOCK_SIZE, extent.size - done)
            missing = self.report.missing_bytes
            with memoryview(self._buffer) as view:
                self._read(extent.fd, view[:size], extent.source_offset + done)
            self._position = extent.offset + done
            self._write_nonzero(size, self._position)
            self._progress(size)
            if self.report.missing_bytes - missing == size:
                # A flipped bit can make p_filesz larger than anybody wants to wait for.
                rest = extent.size - done - size
                self.report.missing_bytes += rest
                self._progress(rest)
                return

    def _read(self, fd: int, view: memoryview, offset: int) -> None:
        """Fill *view* from *offset*, with zeros where nothing can be read."""
        while view:
            try:
                size = os.preadv(fd, [view], offset)
            except OSError as error:
                if error.errno == errno.EBADF:
                    raise
                self._bisect(fd, view, offset)
                return
            if not size:
                self.report.missing_bytes += len(view)
                view[:] = _ZEROS[: len(view)]
                return
            view, offset = view[size:], offset + size

    def _bisect(self, fd: int, view: memoryview, offset: int) -> None:
        # Pages of the source, which need not be those of the view.
        first = self._page_size - offset % self._page_size
        if len(view) > first:
            middle = (offset + len(view) // 2) // self._page_size * self._page_size
            half = max(middle - offset, first)
            self._read(fd, view[:half], offset)
            self._read(fd, view[half:], offset + half)
            return
        view[:] = _ZEROS[: len(view)]
        # A page that lies across two blocks is one page.
        page = (fd, offset // self._page_size)
        self.report.unreadable_pages += page != self._last_unreadable
        self._last_unreadable = page
        if self.report.first_unreadable is None:
            self.report.first_unreadable = offset

    def _write_nonzero(self, size: int, offset: int) -> None:
        if not self._sparse:
            self._flush(0, size, offset)
            return
        # bytearray == bytes compares at memcmp speed, a memoryview element by element.
        if self._buffer.startswith(_ZEROS[:size]):
            return
        step = self._page_size
        start = None
        for position in range(0, size, step):
            zero = self._buffer.startswith(_ZEROS[: min(step, size - position)], position)
            if zero and start is not None:
                self._flush(start, position, offset)
                start = None
            elif not zero and start is None:
                start = position
        if start is not None:
            self._flush(start, size, offset)

    def _flush(self, start: int, end: int, offset: int) -> None:
        with memoryview(self._buffer) as view:
            pwrite(self._fd, view[start:end], offset + start)


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


def pwrite(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of *data* at *offset*. Raises OSError."""
    view = memoryview(data)
    while view:
        size = os.pwrite(fd, view, offset)
        view, offset = view[size:], offset + size
