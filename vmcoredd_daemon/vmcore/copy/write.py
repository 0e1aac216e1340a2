# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write a planned vmcore: copy, sync, verify, and only then give it its name.

The copy itself is in :mod:`.extents`. The steps follow systemd-coredump: a temporary name, fsync, rename, fsync of
the directory.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ...errors import NO_SPACE, VmcoreddError, WriteFailed, of_storage
from ...files import close, open_directory, open_new, pwrite, sync
from ...note import VMCOREDD_HEADER_SIZE, ByteOrder, DeviceDumpNote, pack_vmcoredd_header
from ...progress import Progress
from ..elf import read_headers, walk
from ..image import file_image
from ..layout import Layout
from .extents import CopyReport, ExtentCopy
from .read_back import own_offsets, verify_notes
from .source import Reads

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
    reads: Reads | None = None,
) -> CopyReport:
    """Write the vmcore *name* into *directory*. Where there is room for part of the memory only, that part stays
    under the name *name*-incomplete.

    On an error nothing of that name is there, or what was there before; where only the directory could not be
    synced, the new one. Blocks for as long as the copy takes: call it in a thread. Raises NoSpace when not even
    the notes fit, and WriteFailed for any other error, or when what was written does not read back.
    """
    try:
        parent = open_directory(directory)
    except OSError as error:
        raise WriteFailed(f"{directory}: cannot open the target: {error.strerror}") from error
    try:
        # Of its own name: device dumps that are written apart must not cost the part of the memory that there is.
        incomplete = f"{name}-incomplete"
        fd = open_new(parent, incomplete)
        try:
            report = _NewFile(fd, layout, dumps, complete, page_size, progress, reads).write()
            if not report.left_out:
                os.rename(incomplete, name, src_dir_fd=parent, dst_dir_fd=parent)
            sync(parent)
        except BaseException:
            _remove(parent, incomplete, fd)
            raise
        finally:
            close(fd)
    except OSError as error:
        raise of_storage(error, f"{directory / name}: cannot write") from error
    except VmcoreddError as error:
        raise WriteFailed(f"{directory / name}: {error}") from error
    finally:
        close(parent)
    return report


class _NewFile:
    """A vmcore that is written to the new file *fd*."""

    def __init__(
        self,
        fd: int,
        layout: Layout,
        dumps: Sequence[DeviceDumpNote],
        complete: Complete | None,
        page_size: int,
        progress: Progress,
        reads: Reads | None,
    ) -> None:
        self._fd = fd
        self._layout = layout
        self._own = own_offsets(layout.notes, dumps)
        self._complete = complete
        self._source = ExtentCopy(fd, page_size, progress, reads=reads)
        # What the spool does not give is not missing in the source.
        self._spool = ExtentCopy(fd, page_size, progress, reads=reads)

    def write(self) -> CopyReport:
        """Write it, as far as there is room; return when it is on disk, and reads back. Raises OSError and
        WriteFailed.
        """
        self._write_notes()
        self._cut(self._source.loads(self._layout.loads, self._layout.size))
        try:
            self._finish()
        except OSError as error:
            if error.errno not in NO_SPACE or not self._layout.loads:
                raise
            # A file system that allocates late, and does not say for which bytes it found no room.
            self._leave_out_memory()
        report = self._source.report
        report.altered = _verify(self._fd, self._layout, self._own)
        return report

    def _write_notes(self) -> None:
        pwrite(self._fd, self._layout.headers.pack(), 0)
        unread = []
        for extent in self._layout.notes:
            dump = self._own.get(extent.offset)
            if dump is None:
                self._source.extent(extent)
                continue
            before = self._spool.report.zeroed
            self._spool.extent(extent)
            if self._spool.report.zeroed != before:
                unread.append(dump.dump_name)
        self._source.report.unread = tuple(unread)
        last = self._layout.last_dump
        if self._complete is not None and last is not None:
            # Room for what comes last, before the memory takes it all.
            os.posix_fallocate(self._fd, last.offset, last.size)

    def _cut(self, end: int) -> None:
        """Let the file end at *end*, or where what is in it ends."""
        try:
            os.ftruncate(self._fd, end)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            # A file system without holes, as FAT, has no room for the zeros at the end.
            self._source.report.left_out += end - os.fstat(self._fd).st_size

    def _finish(self) -> None:
        write_headers(self._fd, self._own, self._layout.headers.byteorder)
        last = self._layout.last_dump
        if self._complete is not None and last is not None:
            pwrite(self._fd, self._complete(self._source.report), last.offset + VMCOREDD_HEADER_SIZE)
        sync(self._fd)

    def _leave_out_memory(self) -> None:
        os.ftruncate(self._fd, self._layout.loads[0].offset)
        report = self._source.report
        report.left_out, report.blocked = sum(extent.size for extent in self._layout.loads), False
        # What could not be written may have been of the notes, and is not tried again by itself.
        self._write_notes()
        self._finish()


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
    notes_end = layout.loads[0].offset if layout.loads else layout.size
    os.posix_fadvise(fd, 0, notes_end, os.POSIX_FADV_DONTNEED)
    image = file_image(fd, VMCORE_INCOMPLETE)
    headers = read_headers(image)
    if headers.segments != layout.headers.segments:
        raise WriteFailed("the program headers do not read back as written")
    start = headers.notes[0].p_offset
    return verify_notes(image, walk(image, headers), start, start + headers.notes[0].p_filesz, own)


def _remove(parent: int, name: str, fd: int) -> None:
    """Remove the file *fd* if its name is still *name*, and free its room, whoever else has it open."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)
        with suppress(OSError):
            os.ftruncate(fd, 0)
