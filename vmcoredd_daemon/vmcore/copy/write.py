# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write a planned vmcore: copy, sync, verify, rename, sync the directory.

Each step protects the next one, as in systemd-coredump. Until the rename the file has a temporary name, so that a
power cut leaves no partial vmcore under the final one. It is synced before it is verified, because clean pages can
be dropped from the page cache: what is read back then comes from the disk. It is verified before it is renamed,
because the old vmcore of that name must not be lost to a bad one. The directory is synced last: only then is the
new name durable, and the spool may be cleared.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from ...errors import NO_SPACE, VmcoreddError, WriteFailed, of_storage
from ...files import begin_write_back, close, open_directory, open_new, pwrite, sync
from ...note import VMCOREDD_HEADER_SIZE, ByteOrder, DeviceDumpNote, pack_vmcoredd_header
from ...progress import Progress
from ..elf import read_headers, walk
from ..image import file_image
from ..layout import Layout
from .extents import CopyReport, ExtentCopy
from .read_back import verify_notes
from .source import Reads

VMCORE_INCOMPLETE = "vmcore-incomplete"
"""Name of the file ``vmcore`` while it is being written, and if memory is missing in it; as in kdump-utils."""

Complete = Callable[[CopyReport], bytes]
"""Returns the data of our last device dump, when it is known how the copy went."""


def write_vmcore(
    layout: Layout,
    directory: Path,
    name: str,
    progress: Progress,
    complete: Complete | None = None,
    reads: Reads | None = None,
    *,
    partial: bool = False,
) -> CopyReport:
    """Write the vmcore *name* into *directory*; as *name*-incomplete, if only part of the memory fits, or if
    *partial* says that the source does not give all of it.

    After an error, what had that name before is still there; if only the directory could not be synced, the new
    vmcore. Blocks for as long as the copy takes: call it in a thread. Raises NoSpace when not even the notes fit,
    and WriteFailed for any other error, or when what was written does not read back.
    """
    try:
        parent = open_directory(directory)
    except OSError as error:
        raise WriteFailed(f"{directory}: cannot open the target: {error.strerror}") from error
    try:
        # Device dumps that are written apart must not replace the part of the memory that was saved.
        incomplete = f"{name}-incomplete"
        fd = open_new(parent, incomplete)
        try:
            report = _NewFile(fd, layout, progress, complete, reads).write()
            if not (report.left_out or partial):
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
        self, fd: int, layout: Layout, progress: Progress, complete: Complete | None, reads: Reads | None
    ) -> None:
        self._fd = fd
        self._layout = layout
        self._complete = complete if layout.own else None
        self._source = ExtentCopy(fd, layout.page_size, progress, reads=reads)
        # With a report of its own: what the spool does not give is not missing in the source.
        self._spool = ExtentCopy(fd, layout.page_size, progress, reads=reads)

    def write(self) -> CopyReport:
        """Write as much as there is space for; return when it is on disk and reads back. Raises OSError and
        WriteFailed.
        """
        self._write_notes()
        self._truncate_to(self._source.loads(self._layout.loads, self._layout.size))
        try:
            self._finish()
        except OSError as error:
            if error.errno not in NO_SPACE or not self._layout.loads:
                raise
            # This file system allocates late, and does not say for which bytes it found no space.
            self._leave_out_memory()
        report = self._source.report
        report.altered = self._verify()
        return report

    def _write_notes(self) -> None:
        pwrite(self._fd, self._layout.headers.pack(), 0)
        unread = []
        for extent in self._layout.notes:
            dump = self._layout.own.get(extent.offset)
            if dump is None:
                self._source.extent(extent)
                continue
            before = self._spool.report.zeroed
            self._spool.extent(extent)
            if self._spool.report.zeroed != before:
                unread.append(dump.dump_name)
        self._source.report.unread = tuple(unread)
        if self._complete is not None:
            # Reserve the space of what is written last, before the memory takes all that is left.
            offset, last = self._last_dump
            os.posix_fallocate(self._fd, offset, last.note_size)

    @property
    def _last_dump(self) -> tuple[int, DeviceDumpNote]:
        return list(self._layout.own.items())[-1]

    def _truncate_to(self, end: int) -> None:
        """Let the file end at *end*, or where its data ends."""
        try:
            os.ftruncate(self._fd, end)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            # A file system without holes, such as FAT, has no space for the zeros at the end.
            self._source.report.left_out += end - os.fstat(self._fd).st_size

    def _finish(self) -> None:
        write_headers(self._fd, self._layout.own, self._layout.headers.byteorder)
        if self._complete is not None:
            pwrite(self._fd, self._complete(self._source.report), self._last_dump[0] + VMCOREDD_HEADER_SIZE)
        sync(self._fd)

    def _leave_out_memory(self) -> None:
        os.ftruncate(self._fd, self._layout.loads[0].offset)
        report = self._source.report
        report.left_out, report.blocked = sum(extent.size for extent in self._layout.loads), False
        # The bytes without space may have been those of the notes, and the kernel does not write them again.
        self._write_notes()
        self._finish()

    def _verify(self) -> tuple[str, ...]:
        """Read headers and notes back; return the names of our dumps whose data changed since they were taken."""
        notes_end = self._layout.loads[0].offset if self._layout.loads else self._layout.size
        begin_write_back(self._fd, 0, notes_end)
        image = file_image(self._fd, VMCORE_INCOMPLETE)
        headers = read_headers(image)
        if headers.segments != self._layout.headers.segments:
            raise WriteFailed("the program headers do not read back as written")
        start = headers.notes[0].p_offset
        end = start + headers.notes[0].p_filesz
        return verify_notes(image, walk(image, headers), start, end, self._layout.own)


def write_headers(fd: int, own: Mapping[int, DeviceDumpNote], byteorder: ByteOrder) -> None:
    """Write the headers of the device dumps *own*, by offset. Raises OSError.

    They replace those of the spool: a collector that kept its mapping may have altered one, which would hide all
    notes behind it; and the vmcore may have another byte order.
    """
    for offset, dump in own.items():
        pwrite(fd, pack_vmcoredd_header(dump.dump_name.encode("ascii"), dump.note_size, byteorder), offset)


def _remove(parent: int, name: str, fd: int) -> None:
    """Remove the file *fd* if its name is still *name*, and free its space even if another process has it open."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)
        with suppress(OSError):
            os.ftruncate(fd, 0)
