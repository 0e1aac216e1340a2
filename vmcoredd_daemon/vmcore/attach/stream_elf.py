# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device dumps into an ELF vmcore that passes.

makedumpfile writes the ELF header, the notes in one piece, then the loads in the order of the file, and last the
program headers, which say where all that is (``write_elf_header()``, ``write_elf_pages_cyclic()``); some versions
first write zeros in their place. A note of what it erased is written last, and lies directly behind the other
notes (``write_elf_eraseinfo()``).

So the end of the notes has to be found by walking them. The new notes end where the old ones did, moved by whole
pages, and everything behind moves by as much. That is right whatever lies behind: a note, loads, or nothing::

    [ELF header, program headers][notes           ][note of what was erased][loads
    [ELF header, program headers]   [... new notes][note of what was erased][loads
"""

from dataclasses import dataclass, replace

from ...errors import InvalidVmcore, QuotaExceeded
from ...note import MAX_NOTES_END, ByteOrder, round_up
from ..elf import ET_CORE, PN_XNUM, PT_NOTE, Segment, Structs, largest_page_size
from ..flattened import Index
from ..image import Image
from .stream_plan import Action, Additions, Emit, NoteArea, NotYet, Patch, Range, plan_notes

_MAX_GAP = 1 << 16
"""Bytes between the program headers and the notes: a page at most."""


@dataclass(frozen=True, slots=True)
class _Header:
    """The ELF header."""

    data: bytes
    structs: Structs
    e_machine: int
    e_phnum: int

    @property
    def end(self) -> int:
        """Offset behind the program headers."""
        return len(self.data) + self.e_phnum * self.structs.phdr.size


def plan(image: Image, index: Index, additions: Additions) -> "ElfPlan":
    """Return the plan for the vmcore of which *image* and *index* know the start.

    Raises NotYet, and other VmcoreddErrors if the vmcore cannot be extended.
    """
    header = _read_header(image)
    start, limit = _find_notes(image, index, header)
    try:
        notes = list(image.notes(start, limit - start, header.structs.byteorder))
    except InvalidVmcore as error:
        raise NotYet(str(error)) from error
    if not notes:
        raise NotYet(f"{image.path}: there are no notes at offset {start:#x}, behind the program headers")
    end = min(notes[-1].end, limit)
    pages = largest_page_size(header.e_machine)
    area = plan_notes(image, lambda: iter(notes), end, header.structs.byteorder, pages, additions)
    found = ElfPlan(image.path, header, start, end, area)
    for segment in _known_headers(image, index, header):
        # A segment that is already known can be refused before anything is written.
        problems: list[str] = []
        found.move(segment, problems)
        if problems:
            raise InvalidVmcore(f"{image.path}: {problems[0]}")
    return found


def _read_header(image: Image) -> _Header:
    try:
        ident = image.read(16, 0, "the ELF header")
        elfclass = {1: 32, 2: 64}.get(ident[4])
        if elfclass is None or ident[5] not in {1, 2}:
            raise InvalidVmcore(f"{image.path}: e_ident is {ident[:8]!r}, of no known class or byte order")
        structs = Structs(elfclass, ByteOrder.LITTLE if ident[5] == 1 else ByteOrder.BIG)
        data = image.read(structs.ehdr.size, 0, "the ELF header")
    except InvalidVmcore as error:
        raise NotYet(str(error)) from error
    ehdr = structs.unpack_ehdr(data)
    found = (ehdr.e_type, ehdr.e_phoff, ehdr.e_phentsize, ehdr.e_shnum)
    expected = (ET_CORE, structs.ehdr.size, structs.phdr.size, 0)
    if found != expected:
        raise InvalidVmcore(
            f"{image.path}: e_type, e_phoff, e_phentsize and e_shnum are {', '.join(map(str, found[:3]))} and "
            f"{found[3]}, makedumpfile writes {', '.join(map(str, expected[:3]))} and {expected[3]}"
        )
    if not 0 < ehdr.e_phnum < PN_XNUM:
        raise InvalidVmcore(f"{image.path}: e_phnum is {ehdr.e_phnum}, not 1 to {PN_XNUM - 1}")
    return _Header(data, structs, ehdr.e_machine, ehdr.e_phnum)


def _find_notes(image: Image, index: Index, header: _Header) -> tuple[int, int]:
    """Return the offset of the notes, and that before which they end. Raises NotYet, InvalidVmcore."""
    known = _known_notes(image, index, header)
    if len(known) > 1:
        raise InvalidVmcore(f"{image.path}: has {len(known)} PT_NOTEs, but crash reads only one")
    if known:
        start, size = known[0]
        if not header.end <= start <= header.end + _MAX_GAP:
            raise InvalidVmcore(f"{image.path}: PT_NOTE is at {start:#x}, not behind the program headers")
        # The note of what was erased comes after the loads.
        return start, min(index.known(start), start + size)
    if header.structs.elfclass != 64:
        # ELF32 offsets may overflow when segments move, so they must be known before anything is written.
        raise NotYet(f"{image.path}: the 32-bit program headers come too late")
    start = header.end
    if index.known(start) == start:
        start = index.next_known(start)
    if start > header.end + _MAX_GAP:
        raise NotYet(f"{image.path}: there is nothing at offset {header.end:#x}, behind the program headers")
    return start, index.known(start)


def _known_notes(image: Image, index: Index, header: _Header) -> list[tuple[int, int]]:
    """Return p_offset and p_filesz of each PT_NOTE, as far as the program headers have come."""
    found = (segment for segment in _known_headers(image, index, header) if segment.p_type == PT_NOTE)
    return [(segment.p_offset, segment.p_filesz) for segment in found if segment.p_filesz]


def _known_headers(image: Image, index: Index, header: _Header) -> list[Segment]:
    if index.known(0) < header.end:
        return []
    start = len(header.data)
    return list(header.structs.segments(image.read(header.end - start, start, "the program headers")))


class ElfPlan:
    """See :class:`.stream_plan.Plan`."""

    def __init__(self, path: str, header: _Header, start: int, end: int, area: NoteArea) -> None:
        self._header, self._start, self._end, self.area = header, start, end, area
        self._growth = area.size - (end - start)
        # Negative if smaller device dumps replace larger ones.
        self._shift = round_up(self._growth, area.page_size)
        if end + self._shift >= MAX_NOTES_END:
            raise QuotaExceeded(
                f"{path}: the notes would end at {end + self._shift:#x}, crash reads only below {MAX_NOTES_END:#x}"
            )
        ehsize = len(header.data)
        self._headers = Patch(ehsize, bytearray(header.end - ehsize))
        self.ranges: tuple[Range, ...] = (
            Range(0, Action.DROP),
            Range(ehsize, Action.HOLD),
            Range(header.end, Action.DROP),
            Range(end, Action.PASS, self._shift),
        )

    @property
    def _new_start(self) -> int:
        return self._end + self._shift - self.area.size

    def begin(self, emit: Emit) -> None:
        """Write the ELF header and the notes."""
        emit(0, len(self._header.data), [self._header.data])
        emit(self._new_start, self.area.size, self.area.blocks())

    def hold(self, offset: int, data: bytes) -> None:
        """Keep bytes of the program headers."""
        self._headers.put(offset, data)

    def finish(self, emit: Emit, end: int) -> list[str]:
        """Write the program headers, as far as they were received."""
        if not self._headers.received:
            return ["the program headers are missing"]
        problems: list[str] = []
        structs = self._header.structs
        segments = list(structs.segments(bytes(self._headers.data)))
        moved = b"".join(structs.phdr.pack(*structs.fields(self.move(segment, problems))) for segment in segments)
        emit(self._headers.start, len(moved), [moved])
        if not any(segment.p_type == PT_NOTE for segment in segments):
            problems.append("there is no PT_NOTE among the program headers")
        return problems

    def move(self, segment: Segment, problems: list[str]) -> Segment:
        """Return the program header that *segment* becomes; add what is wrong with it to *problems*."""
        moved, p_offset = segment, segment.p_offset
        if segment.p_type == PT_NOTE and p_offset == self._start:
            # p_memsz is 0 in a file that gdb has written.
            p_memsz = segment.p_memsz + self._growth if segment.p_memsz else 0
            p_filesz = segment.p_filesz + self._growth
            moved = replace(segment, p_offset=self._new_start, p_filesz=p_filesz, p_memsz=p_memsz)
        elif p_offset >= self._end:
            moved = replace(segment, p_offset=p_offset + self._shift)
        elif p_offset and segment.p_filesz:
            problems.append(f"a segment is at offset {p_offset:#x}, among the notes, which end at {self._end:#x}")
        limit = self._header.structs.max_offset
        if not all(0 <= field <= limit for field in (moved.p_offset, moved.p_filesz, moved.p_memsz)):
            problems.append(f"a segment at offset {p_offset:#x} cannot be moved by {self._shift} bytes")
            return segment
        return moved
