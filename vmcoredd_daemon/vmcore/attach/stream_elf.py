# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device dumps into an ELF vmcore that passes by.

makedumpfile writes the ELF header, the notes in one piece, then the loads as they are in the file, and last
of all the program headers, which say where all that is (``write_elf_header()``,
``write_elf_pages_cyclic()``); some versions write zeros in their place at first. What it has erased becomes
one more note, which comes last and goes right behind the other notes (``write_elf_eraseinfo()``).

So the end of the notes has to be found from the notes. The new notes are made to end at that place, moved by whole
pages; everything behind moves as far. That holds whatever comes behind: a note, loads, or nothing::

    [ELF header, program headers][notes           ][note of what was erased][loads
    [ELF header, program headers]   [... new notes][note of what was erased][loads
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import InvalidVmcore, QuotaExceeded
from ...note import MAX_NOTES_END, ByteOrder, round_up, system_page_size
from ..elf import ET_CORE, MAX_FILE_SIZE, PN_XNUM, PT_NOTE
from ..flattened import Index
from ..image import Image
from .note_area import Additions, NoteArea, note_area
from .stream_plan import Emit, Fate, Held, NotYet, Region

_MAX_GAP = 1 << 16
"""Bytes between the program headers and the notes: a page at most."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """What differs between the classes: sizes of the headers; struct formats; places of the fields."""

    ehsize: int
    phentsize: int
    ehdr: str
    phdr: str
    fields: tuple[int, int, int]
    """Of p_offset, p_filesz and p_memsz in a program header."""


_LAYOUTS = {
    1: _Layout(52, 32, "HHIIIIIHHHHHH", "IIIIIIII", (1, 4, 5)),
    2: _Layout(64, 56, "HHIQQQIHHHHHH", "IIQQQQQQ", (2, 5, 6)),
}


@dataclass(frozen=True, slots=True)
class _Header:
    """The ELF header."""

    data: bytes
    byteorder: ByteOrder
    layout: _Layout
    e_phnum: int

    @property
    def end(self) -> int:
        """Of the program headers."""
        return self.layout.ehsize + self.e_phnum * self.layout.phentsize

    def program_headers(self, data: bytes) -> Iterator[tuple[int, ...]]:
        """Yield the fields of each of the program headers *data*."""
        form = self.byteorder.prefix + self.layout.phdr
        return struct.iter_unpack(form, data[: self.end - self.layout.ehsize])


def plan(image: Image, index: Index, additions: Additions) -> "ElfPlan":
    """Return the plan for the vmcore of which *image* and *index* know the start.

    Raises NotYet, and whatever keeps the vmcore from being extended.
    """
    header = _read_header(image)
    start, limit = _find_notes(image, index, header)
    try:
        notes = list(image.notes(start, limit - start, header.byteorder))
    except InvalidVmcore as error:
        raise NotYet(str(error)) from error
    if not notes:
        raise NotYet(f"{image.path}: there are no notes at offset {start:#x}, behind the program headers")
    end = min(notes[-1].end, limit)
    area = note_area(image, lambda: iter(notes), end, header.byteorder, system_page_size(), additions)
    found = ElfPlan(image.path, header, start, end, area)
    for fields in _known_headers(image, index, header):
        # What is known already can be refused before anything is written.
        problems: list[str] = []
        found.move(fields, problems)
        if problems:
            raise InvalidVmcore(f"{image.path}: {problems[0]}")
    return found


def _read_header(image: Image) -> _Header:
    try:
        ident = image.read(16, 0, "the ELF header")
        layout = _LAYOUTS.get(ident[4])
        if layout is None or ident[5] not in {1, 2}:
            raise InvalidVmcore(f"{image.path}: e_ident is {ident[:8]!r}, of no known class or byte order")
        data = image.read(layout.ehsize, 0, "the ELF header")
    except InvalidVmcore as error:
        raise NotYet(str(error)) from error
    byteorder = ByteOrder.LITTLE if ident[5] == 1 else ByteOrder.BIG
    values = struct.unpack_from(byteorder.prefix + layout.ehdr, data, 16)
    e_phoff, (e_phentsize, e_phnum, _, e_shnum, _) = values[4], values[8:]
    expected = (ET_CORE, layout.ehsize, layout.phentsize, 0)
    if (values[0], e_phoff, e_phentsize, e_shnum) != expected:
        raise InvalidVmcore(
            f"{image.path}: e_type, e_phoff, e_phentsize and e_shnum are {values[0]}, {e_phoff}, {e_phentsize} "
            f"and {e_shnum}, makedumpfile writes {', '.join(map(str, expected[:3]))} and {expected[3]}"
        )
    if not 0 < e_phnum < PN_XNUM:
        raise InvalidVmcore(f"{image.path}: e_phnum is {e_phnum}, possible are 1 to {PN_XNUM - 1}")
    return _Header(data, byteorder, layout, e_phnum)


def _find_notes(image: Image, index: Index, header: _Header) -> tuple[int, int]:
    """Return where notes start, and where they end at the latest. Raises NotYet, InvalidVmcore."""
    known = _known_notes(image, index, header)
    if len(known) > 1:
        raise InvalidVmcore(f"{image.path}: has {len(known)} PT_NOTEs, crash reads one")
    if known:
        start, size = known[0]
        if not header.end <= start <= header.end + _MAX_GAP:
            raise InvalidVmcore(f"{image.path}: PT_NOTE is at {start:#x}, not behind the program headers")
        # What makedumpfile has erased comes after the loads.
        return start, min(index.known(start), start + size)
    if header.layout.ehsize != 64:
        # Only 64 bits have room for any offset.
        raise NotYet(f"{image.path}: the program headers, of 32 bits, come too late")
    start = header.end
    if index.known(start) == start:
        start = index.next_known(start)
    if start > header.end + _MAX_GAP:
        raise NotYet(f"{image.path}: nothing is at offset {header.end:#x}, behind the program headers")
    return start, index.known(start)


def _known_notes(image: Image, index: Index, header: _Header) -> list[tuple[int, int]]:
    """Return p_offset and p_filesz of each PT_NOTE, as far as the program headers have come."""
    offset, filesz, _ = header.layout.fields
    found = (fields for fields in _known_headers(image, index, header) if fields[0] == PT_NOTE)
    return [(fields[offset], fields[filesz]) for fields in found if fields[filesz]]


def _known_headers(image: Image, index: Index, header: _Header) -> list[tuple[int, ...]]:
    if index.known(0) < header.end:
        return []
    data = image.read(header.end - header.layout.ehsize, header.layout.ehsize, "the program headers")
    return list(header.program_headers(data))


class ElfPlan:
    """See :class:`.stream_plan.Plan`."""

    def __init__(self, path: str, header: _Header, start: int, end: int, area: NoteArea) -> None:
        self._header, self._start, self._end, self.area = header, start, end, area
        self._growth = area.size - (end - start)
        # Of fewer bytes where smaller device dumps replace others.
        self._shift = round_up(self._growth, area.page_size)
        if end + self._shift >= MAX_NOTES_END:
            raise QuotaExceeded(
                f"{path}: the notes would end at {end + self._shift:#x}, crash reads them below {MAX_NOTES_END:#x}"
            )
        ehsize = header.layout.ehsize
        self._headers = Held(ehsize, bytearray(header.end - ehsize))
        self.regions: tuple[Region, ...] = (
            Region(0, Fate.REPLACED),
            Region(ehsize, Fate.HOLD),
            Region(header.end, Fate.REPLACED),
            Region(end, Fate.PASS, self._shift),
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
        """Write the program headers, as far as they have come."""
        if not self._headers.any:
            return ["the program headers have not come"]
        problems: list[str] = []
        form = self._header.byteorder.prefix + self._header.layout.phdr
        data = bytes(self._headers.data)
        moved = b"".join(
            struct.pack(form, *self.move(fields, problems)) for fields in self._header.program_headers(data)
        )
        emit(self._headers.start, len(moved), [moved])
        if not any(fields[0] == PT_NOTE for fields in self._header.program_headers(data)):
            problems.append("there is no PT_NOTE among the program headers")
        return problems

    def move(self, fields: tuple[int, ...], problems: list[str]) -> tuple[int, ...]:
        """Return the fields that a program header will have; what is wrong with it goes to *problems*."""
        moved = list(fields)
        offset, filesz, memsz = self._header.layout.fields
        limit = MAX_FILE_SIZE if self._header.layout.ehsize == 64 else 0xFFFFFFFF
        place = fields[offset]
        if fields[0] == PT_NOTE and place == self._start:
            moved[offset] = self._new_start
            moved[filesz] += self._growth
            # 0 in a file that gdb has written.
            moved[memsz] += self._growth if fields[memsz] else 0
        elif place >= self._end:
            moved[offset] += self._shift
        elif place and fields[filesz]:
            problems.append(f"a segment is at offset {place:#x}, among the notes, which end at {self._end:#x}")
        if not all(0 <= moved[field] <= limit for field in (offset, filesz, memsz)):
            problems.append(f"a segment at offset {place:#x} cannot be moved by {self._shift} bytes")
            return fields
        return tuple(moved)
