# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attach to an ELF vmcore: in place if there is space before the first PT_LOAD, otherwise through a new file.

crash reads only the notes of the first segment, and only those before the first PT_LOAD. In place, the new notes
are written over zeros that nothing refers to, then fsync; then one write within a sector changes the first program
header, as in :mod:`.kdump`. A new file has the same loads, other segments and sections, cloned if the file system
can do that, and takes the old one's name, owner, mode and extended attributes when it is complete and on disk.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from ...errors import InvalidVmcore, WriteFailed
from ...files import BLOCK_SIZE, pwrite, replace_file
from ...note import MAX_NOTES_END, DeviceDumpNote, round_up
from ...progress import Progress
from ..copy.clone import copy_sparse
from ..copy.extents import ExtentCopy
from ..copy.read_back import own_offsets, verify_notes
from ..copy.write import write_headers
from ..elf import PT_LOAD, PT_NOTE, Headers, reachable, read_headers, read_sections, walk
from ..formats import Notes, Vmcore
from ..image import file_image
from ..layout import Extent, Layout, Source, keep_sections, order_notes, plan, plan_moved

_ZEROS = bytes(BLOCK_SIZE)


def attach_elf(
    fd: int,
    path: str,
    vmcore: Vmcore,
    page_size: int,
    notes: Notes,
    dumps: Sequence[DeviceDumpNote],
    committing: Callable[[], None],
    progress: Progress,
) -> tuple[bool, tuple[str, ...]]:
    """Attach *dumps* to *notes*; return whether that was done in place, and the names of altered device dumps.

    Raises OSError, InvalidVmcore, QuotaExceeded and WriteFailed; the file is then as it was.
    """
    headers = read_headers(vmcore.image)
    headers = replace(headers, sections=read_sections(vmcore.image, headers.structs))
    order = order_notes(notes(), sum(dump.note_size for dump in dumps))
    size = order.size
    place = _find_zeros(fd, vmcore, headers, page_size, size)
    if place is None:
        new = _NewFile(fd, path, vmcore, reachable(headers).headers, page_size, progress)
        return False, replace_file(fd, path, lambda out: new.write(out, notes, dumps), committing)
    placed = order.extents(fd, dumps, place)
    own = own_offsets(placed, dumps)
    try:
        progress.start("writing the notes", size)
        _copy(fd, placed, page_size, progress, sparse=False)
        write_headers(fd, own, headers.byteorder)
        os.fsync(fd)
        altered = verify_notes(
            vmcore.image, vmcore.image.notes(place, size, headers.byteorder), place, place + size, own
        )
        committing()
    except BaseException:
        _write_zeros(fd, place, size)
        raise
    _commit(fd, headers, place, size)
    return True, altered


def _copy(fd: int, extents: Sequence[Extent], page_size: int, progress: Progress, *, sparse: bool) -> None:
    copy = ExtentCopy(fd, page_size, progress, sparse=sparse)
    for extent in extents:
        copy.extent(extent)
    if copy.report.unreadable_pages or copy.report.missing_bytes > 3:
        raise WriteFailed("a note or a device dump cannot be read")


def _find_zeros(fd: int, vmcore: Vmcore, headers: Headers, page_size: int, size: int) -> int | None:
    """Return the offset of *size* unused zeros before the first PT_LOAD; None if there are none."""
    types = [segment.p_type for segment in headers.segments]
    structs = headers.structs
    ehdr = structs.unpack_ehdr(os.pread(fd, structs.ehdr.size, 0))
    only_loads = types[:1] == [PT_NOTE] and set(types[1:]) == {PT_LOAD}
    if not only_loads or ehdr.e_shoff or ehdr.e_phoff != structs.ehdr.size:
        return None
    note = headers.segments[0]
    end = min(load.p_offset for load in headers.loads) // page_size * page_size
    gaps = ((headers.size, note.p_offset), (max(headers.size, note.p_offset + note.p_filesz), end))
    for begin, stop in gaps:
        start = round_up(begin, page_size)
        if start + size <= min(stop, end, MAX_NOTES_END, vmcore.image.size) and _is_zero(fd, start, size):
            return start
    return None


def _is_zero(fd: int, offset: int, size: int) -> bool:
    end = offset + size
    while offset < end:
        data = os.pread(fd, min(BLOCK_SIZE, end - offset), offset)
        if not data or data != _ZEROS[: len(data)]:
            return False
        offset += len(data)
    return True


def _write_zeros(fd: int, offset: int, size: int) -> None:
    for done in range(0, size, BLOCK_SIZE):
        pwrite(fd, _ZEROS[: min(BLOCK_SIZE, size - done)], offset + done)


def _commit(fd: int, headers: Headers, place: int, size: int) -> None:
    note, structs = headers.segments[0], headers.structs
    new = replace(note, p_offset=place, p_filesz=size, p_memsz=size)
    # The first program header lies within the first sector, which disks write completely or not at all.
    data, position = structs.phdr.pack(*structs.fields(new)), structs.ehdr.size
    before = os.pread(fd, len(data), position)
    try:
        pwrite(fd, data, position)
        os.fsync(fd)
    except BaseException:
        pwrite(fd, before, position)
        os.fsync(fd)
        _write_zeros(fd, place, size)
        raise
    # So that there is space for the next attach.
    with suppress(OSError):
        _write_zeros(fd, note.p_offset, note.p_filesz)
        os.fsync(fd)


def _is_kernel_layout(headers: Headers, page_size: int) -> bool:
    return all((load.p_offset - load.p_paddr) % page_size == 0 for load in headers.loads if load.p_filesz)


def _is_complete(layout: Layout, source: Source) -> bool:
    return all(load.source_offset + load.size <= source.size for load in layout.loads)


def truncation(vmcore: Vmcore) -> str | None:
    """Return a warning if the file ends before its memory does."""
    headers = read_headers(vmcore.image)
    if problem := reachable(headers).problem:
        return problem
    end = max((load.p_offset + load.p_filesz for load in headers.loads), default=0)
    if end <= vmcore.image.size:
        return None
    return f"is truncated: its memory ends at {end:#x}, the file at {vmcore.image.size:#x}"


class _NewFile:
    """A new file that replaces the old one."""

    def __init__(
        self, fd: int, path: str, vmcore: Vmcore, headers: Headers, page_size: int, progress: Progress
    ) -> None:
        self._fd = fd
        self._path = path
        self._vmcore = vmcore
        self._headers = headers
        self._page_size = page_size
        self._progress = progress

    def write(self, out: int, notes: Notes, dumps: Sequence[DeviceDumpNote]) -> tuple[str, ...]:
        """Write the vmcore to *out*, and read the notes back; return the names of altered device dumps."""
        source = Source(self._fd, self._vmcore.image.size)
        planned = plan if _is_kernel_layout(self._headers, self._page_size) else plan_moved
        layout = planned(source, self._headers, notes(), dumps, self._page_size)
        layout = keep_sections(source, self._headers, layout)
        headers, complete = layout.headers, _is_complete(layout, source)
        if not complete and (headers.sections or len(headers.loads) + 1 < len(headers.segments)):
            # The new file would have to end before them, to end before the memory that is missing.
            raise InvalidVmcore("is truncated: its sections and other segments cannot be kept")
        own = own_offsets(layout.notes, dumps)
        self._progress.start("writing a new file", layout.copied)
        pwrite(out, headers.pack(), 0)
        _copy(out, layout.notes, self._page_size, self._progress, sparse=True)
        write_headers(out, own, self._headers.byteorder)
        for load in layout.loads:
            copy_sparse(load.fd, out, load.source_offset, load.offset, load.size, self._progress)
        # Memory that the old file lacks is missing in the new one, too, instead of being zeros there.
        ends = [load.offset + min(load.size, source.size - load.source_offset) for load in layout.loads]
        if headers.sections:
            pwrite(out, headers.pack_sections(), headers.sections.e_shoff)
        os.ftruncate(out, layout.size if complete else max([layout.loads[0].offset, *ends]))
        os.fsync(out)
        return self._verify(out, headers, own)

    def _verify(self, out: int, headers: Headers, own: dict[int, DeviceDumpNote]) -> tuple[str, ...]:
        os.posix_fadvise(out, 0, 0, os.POSIX_FADV_DONTNEED)
        image = file_image(out, self._path)
        read_back = read_headers(image)
        if read_back.segments != headers.segments:
            raise WriteFailed("the program headers do not read back as written")
        if read_sections(image, headers.structs) != headers.sections:
            raise WriteFailed("the section headers do not read back as written")
        start = headers.notes[0].p_offset
        return verify_notes(image, walk(image, read_back), start, start + headers.notes[0].p_filesz, own)
