# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where everything lies in the vmcore to be written: exactly as the kernel lays out ``/proc/vmcore``.

::

    [ELF header, program headers | pad to a page]
    [device dumps: the source's own, then ours]     each a multiple of a page
    [other notes | pad to a page]
    [PT_LOADs, each rounded out to pages]
    [data of other segments and of sections, and the section headers, of a file that is not the kernel's]

Device dumps come first because the other notes need not fill their page-rounded buffer, and tools would decode the
zeros after them as notes. Mirrors ``merge_note_headers_elf64()``, ``process_ptload_program_headers_elf64()`` and
``vmcoredd_update_program_headers()`` in Linux ``fs/proc/vmcore.c``.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import InvalidVmcore, QuotaExceeded
from ..note import MAX_NOTES_END, NT_VMCOREDD, DeviceDumpNote, Note, round_up
from .elf import PT_LOAD, PT_NOTE, SH_OFFSET, SH_SIZE, SH_TYPE, SHT_NOBITS, SHT_NULL, Headers, Segment

MAX_RUNS = 1 << 14
"""Runs of notes that a source may have; the kernel's has two. A forged one must not exhaust the memory."""
_ALIGNMENT = 8
"""Bytes, of what goes behind the memory."""


@dataclass(frozen=True, slots=True)
class Source:
    """The file that the memory comes from."""

    fd: int
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes to be copied: *size* of them from *source_offset* of file *fd* to *offset* of the vmcore."""

    fd: int
    source_offset: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A planned vmcore."""

    headers: Headers
    notes: tuple[Extent, ...]
    loads: tuple[Extent, ...]
    """Of the PT_LOADs, then of what is behind them."""
    size: int
    """Bytes of the complete file."""
    own: Mapping[int, DeviceDumpNote]
    """Our own device dumps, in their order, by their offset."""
    page_size: int
    """Bytes."""

    @property
    def copied(self) -> int:
        """Bytes that are read to write it, which is what progress counts."""
        return sum(extent.size for extent in self.notes + self.loads)


def plan(
    source: Source, headers: Headers, notes: Iterable[Note], dumps: Sequence[DeviceDumpNote], page_size: int
) -> Layout:
    """Plan a vmcore from *source*, with *dumps* after the device dumps that it has already.

    *headers* and *notes* are all of the source's. Raises QuotaExceeded if the notes end beyond what crash can
    read, InvalidVmcore if the loads end beyond what program headers can express.
    """
    note, extents, own = _place_notes(source.fd, headers, notes, dumps, page_size)
    end = note.p_offset + note.p_filesz
    offset = round_up(end, page_size)
    segments, loads = [note], []
    for segment in _kept(headers):
        if segment.p_type != PT_LOAD:
            segments.append(segment)
            continue
        remainder = segment.p_paddr % page_size
        segments.append(replace(segment, p_offset=offset + remainder, p_align=_load_align(segment, page_size)))
        if segment.p_filesz:
            loads.append(_load_extent(source, segment, offset, page_size))
            offset = round_up(offset + remainder + segment.p_filesz, page_size)
    last = max((segment.p_offset for segment in segments if segment.p_type == PT_LOAD), default=0)
    behind = _Behind(source, [*extents, *loads], offset)
    segments = behind.segments(segments)
    _check_ends(headers, round_up(end, page_size), max(behind.end, last))
    loads += behind.extents
    return Layout(replace(headers, segments=tuple(segments)), extents, tuple(loads), behind.end, own, page_size)


def plan_moved(
    source: Source, headers: Headers, notes: Iterable[Note], dumps: Sequence[DeviceDumpNote], page_size: int
) -> Layout:
    """Do as :func:`plan`, but shift all loads of *source* by the same number of pages, and change nothing else.

    makedumpfile puts loads anywhere, and cannot read a filtered one that begins at a page: see
    docs/kernel-parity.md.
    """
    note, extents, own = _place_notes(source.fd, headers, notes, dumps, page_size)
    end = note.p_offset + note.p_filesz
    first = min(load.p_offset for load in headers.loads if load.p_filesz)
    shift = round_up(end - first, page_size)
    segments, loads = [note], []
    for segment in _kept(headers):
        if segment.p_type != PT_LOAD:
            segments.append(segment)
            continue
        # The p_offset of an empty load is 0, or where it would be; crash takes the lowest for the end of the
        # notes.
        moved = replace(segment, p_offset=segment.p_offset and max(segment.p_offset, first) + shift)
        segments.append(moved)
        if segment.p_filesz:
            loads.append(Extent(source.fd, segment.p_offset, moved.p_offset, segment.p_filesz))
    behind = _Behind(source, [*extents, *loads], max(load.offset + load.size for load in loads))
    segments = behind.segments(segments)
    _check_ends(headers, end, behind.end)
    loads += behind.extents
    return Layout(replace(headers, segments=tuple(segments)), extents, tuple(loads), behind.end, own, page_size)


def keep_sections(source: Source, headers: Headers, layout: Layout) -> Layout:
    """Return *layout* with the data of the sections of *headers*, and these last. Raises InvalidVmcore."""
    if headers.sections is None:
        return layout
    behind = _Behind(source, [*layout.notes, *layout.loads], layout.size)
    moved = []
    for fields in headers.sections.headers:
        offset = fields[SH_OFFSET]
        if fields[SH_TYPE] not in {SHT_NULL, SHT_NOBITS} and fields[SH_SIZE]:
            offset = behind.place(offset, fields[SH_SIZE])
        moved.append((*fields[:SH_OFFSET], offset, *fields[SH_OFFSET + 1 :]))
    sections = replace(headers.sections, e_shoff=round_up(behind.end, _ALIGNMENT), headers=tuple(moved))
    kept = replace(layout.headers, sections=sections)
    size = sections.e_shoff + len(kept.pack_sections())
    _check_ends(headers, 0, size)
    return replace(layout, headers=kept, loads=(*layout.loads, *behind.extents), size=size)


class _Behind:
    """What goes behind the memory: bytes of *source* that nothing else has taken along."""

    def __init__(self, source: Source, taken: Iterable[Extent], end: int) -> None:
        """*taken* says what the vmcore has already, up to *end*."""
        self.extents: list[Extent] = []
        self.end = end
        self._source = source
        own = (extent for extent in taken if extent.fd == source.fd)
        self._taken = sorted(own, key=lambda extent: extent.source_offset)
        self._starts = [extent.source_offset for extent in self._taken]

    def segments(self, segments: Iterable[Segment]) -> list[Segment]:
        """Return *segments*, with new offsets for those that are neither PT_LOAD nor PT_NOTE."""
        return [
            segment if segment.p_type in {PT_LOAD, PT_NOTE} else replace(segment, p_offset=self._start(segment))
            for segment in segments
        ]

    def _start(self, segment: Segment) -> int:
        if segment.p_filesz:
            return self.place(segment.p_offset, segment.p_filesz)
        # crash takes the lowest p_offset but 0, of whatever segment, for the end of the notes.
        return segment.p_offset and self.end

    def place(self, offset: int, size: int) -> int:
        """Return where the *size* bytes at *offset* of the source go. Raises InvalidVmcore if they are missing."""
        if offset + size > self._source.size:
            end, size = offset + size, self._source.size
            raise InvalidVmcore(
                f"a segment at {offset:#x} ends at {end:#x}, the file at {size:#x}: it cannot be kept"
            )
        number = bisect_right(self._starts, offset) - 1
        if number >= 0:
            extent = self._taken[number]
            if offset + size <= extent.source_offset + extent.size:
                return extent.offset + offset - extent.source_offset
        place = round_up(self.end, _ALIGNMENT)
        self.extents.append(Extent(self._source.fd, offset, place, size))
        self.end = place + size
        return place


def _check_ends(headers: Headers, notes_end: int, end: int) -> None:
    if notes_end >= MAX_NOTES_END:
        raise QuotaExceeded(f"the notes end at {notes_end:#x}, but crash reads them only below {MAX_NOTES_END:#x}")
    limit = headers.structs.max_offset
    if end > limit:
        raise InvalidVmcore(f"the vmcore would end at {end:#x}, but ELF{headers.elfclass} ends by {limit:#x}")


def _kept(headers: Headers) -> Iterator[Segment]:
    """Yield the segments that stay; one PT_NOTE takes the place of all."""
    return (segment for segment in headers.segments if segment.p_type != PT_NOTE)


def _place_notes(
    fd: int, headers: Headers, notes: Iterable[Note], dumps: Sequence[DeviceDumpNote], page_size: int
) -> tuple[Segment, tuple[Extent, ...], dict[int, DeviceDumpNote]]:
    """Return the program header of the notes, what to copy, and *dumps* by their offset. Raises InvalidVmcore."""
    segments = (_note_segment(headers, 0, 0), *_kept(headers))
    offset = round_up(replace(headers, segments=segments).size, page_size)
    order = order_notes(notes, sum(dump.note_size for dump in dumps))
    extents = order.extents(fd, dumps, offset)
    own = {extent.offset: dump for extent, dump in zip(extents[len(order.dumps) :], dumps, strict=False)}
    return _note_segment(headers, offset, order.size), extents, own


# The one order of notes.


@dataclass(frozen=True, slots=True)
class Run:
    """Notes of a file that follow each other; offset and size in bytes, the padding of the last one included."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class NoteOrder:
    """The notes of a vmcore with new device dumps among them: its device dumps, the new ones, its other notes."""

    dumps: tuple[Run, ...]
    new_size: int
    """Bytes of the new device dumps."""
    others: tuple[Run, ...]

    @property
    def size(self) -> int:
        """Bytes of all notes."""
        return sum(run.size for run in self.dumps + self.others) + self.new_size

    def place(self, offset: int, size: int) -> int | None:
        """Return where *size* bytes at *offset* of the file go, from the first note; None if no run has them."""
        place = 0
        for runs, behind in ((self.dumps, self.new_size), (self.others, 0)):
            for run in runs:
                if run.offset <= offset and offset + size <= run.offset + run.size:
                    return place + offset - run.offset
                place += run.size
            place += behind
        return None

    def extents(self, fd: int, new: Sequence[DeviceDumpNote], offset: int) -> tuple[Extent, ...]:
        """Return what to copy from the file *fd*, and from those of *new*, to have the notes from *offset* on."""
        sources = [
            *((fd, run.offset, run.size) for run in self.dumps),
            *((dump.fd, 0, dump.note_size) for dump in new),
            *((fd, run.offset, run.size) for run in self.others),
        ]
        extents = []
        for source, source_offset, size in sources:
            extents.append(Extent(source, source_offset, offset, size))
            offset += size
        return tuple(extents)


def order_notes(notes: Iterable[Note], new_size: int) -> NoteOrder:
    """Order *notes*, with *new_size* bytes of new device dumps among them. Raises InvalidVmcore."""
    dumps: list[Run] = []
    others: list[Run] = []
    for note in notes:
        _extend(dumps if note.n_type == NT_VMCOREDD else others, note)
    return NoteOrder(tuple(dumps), new_size, tuple(others))


def _extend(runs: list[Run], note: Note) -> None:
    if len(runs) > MAX_RUNS:
        raise InvalidVmcore(f"more than {MAX_RUNS} alternating runs of device dumps and other notes")
    # Neighbours become one run, so that a file of a million notes does not become a million extents.
    size = note.end - note.offset
    if runs and runs[-1].offset + runs[-1].size == note.offset:
        runs[-1] = Run(runs[-1].offset, runs[-1].size + size)
    else:
        runs.append(Run(note.offset, size))


def _note_segment(headers: Headers, offset: int, size: int) -> Segment:
    # drgn takes p_align 8 for 8-byte aligned notes, and if phdr[1] lies at a page, crash recognises ELF kdump only
    # by p_align 0. So the source's value is kept only if it is one that the kernel writes.
    p_align = headers.notes[0].p_align if headers.notes else 0
    return Segment(PT_NOTE, 0, offset, 0, 0, size, size, p_align if p_align in {0, 4} else 0)


def _load_align(segment: Segment, page_size: int) -> int:
    # crash does not recognise kdump if the second segment lies at a page and has a p_align. The source's p_align
    # is kept only if its segment lies at a page, too.
    return segment.p_align if segment.p_offset % page_size == 0 else 0


def _load_extent(source: Source, segment: Segment, offset: int, page_size: int) -> Extent:
    """Return what to copy of a PT_LOAD whose page-rounded range starts at *offset*.

    The kernel's own vmcore has the complete pages around a load that starts or ends inside one; if the source is
    laid out like that, they are copied, so that the file is the same as the kernel's.
    """
    remainder = segment.p_paddr % page_size
    start, size = segment.p_offset - remainder, round_up(remainder + segment.p_filesz, page_size)
    if start % page_size == 0 and start + size <= source.size:
        return Extent(source.fd, start, offset, size)
    return Extent(source.fd, segment.p_offset, offset + remainder, segment.p_filesz)
