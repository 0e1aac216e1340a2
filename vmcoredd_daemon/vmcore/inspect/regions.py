# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the parts of a vmcore are: headers, notes, device dumps, memory, and bytes that nothing refers to."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from ...note import NT_VMCOREDD, Note
from .. import kdump
from ..elf import read_headers
from ..formats import Vmcore
from ..page_data import page_data

MAX_NOTES = 1 << 16
"""Notes that get a region of their own. A forged file must not take all memory."""


class Kind(StrEnum):
    """What a region holds."""

    HEADER = "header"
    DEVICE_DUMP = "device dump"
    NOTE = "note"
    LOAD = "memory"
    GAP = "unused"
    """Nothing refers to it."""


@dataclass(frozen=True, slots=True)
class Region:
    """Consecutive bytes of a file with one meaning; offset and size in bytes."""

    kind: Kind
    offset: int
    size: int
    name: str

    @property
    def end(self) -> int:
        """Offset behind the region."""
        return self.offset + self.size


def regions(vmcore: Vmcore) -> list[Region]:
    """Return the regions of *vmcore*, and the gaps between them, by offset. Raises InvalidVmcore.

    They may overlap if the file is broken, and reach beyond its end if it is truncated.
    """
    parts = _kdump(vmcore) if kdump.is_kdump(vmcore.image) else _elf(vmcore)
    found = [*parts, *_notes(islice(vmcore.notes(), MAX_NOTES))]
    found.sort(key=lambda region: (region.offset, region.end))
    return [*_with_gaps(found, vmcore.image.size)]


def _elf(vmcore: Vmcore) -> Iterator[Region]:
    headers = read_headers(vmcore.image)
    count = len(headers.segments)
    yield Region(Kind.HEADER, 0, headers.size, f"ELF header, {count} program headers")
    for load in headers.loads:
        if load.p_filesz:
            name = f"physical {load.p_paddr:#x} to {load.p_paddr + load.p_memsz:#x}"
            yield Region(Kind.LOAD, load.p_offset, load.p_filesz, name)


def _kdump(vmcore: Vmcore) -> Iterator[Region]:
    header = kdump.read_header(vmcore.image)
    block = header.block_size
    yield Region(Kind.HEADER, 0, block, "disk_dump_header")
    yield Region(Kind.HEADER, block, len(header.sub_header), "kdump_sub_header")
    there, stored = header.bitmaps
    yield Region(Kind.HEADER, *there, "bitmap of the pages of the machine")
    yield Region(Kind.HEADER, *stored, "bitmap of the pages in the file")
    data = page_data(vmcore.image, header)
    if data is None:
        return
    table = data.start - header.data_offset
    yield Region(Kind.HEADER, header.data_offset, table, f"descriptors of {data.pages} pages")
    if data.end > data.start:
        yield Region(Kind.LOAD, data.start, data.end - data.start, f"{data.pages} pages")


def _notes(notes: Iterable[Note]) -> Iterator[Region]:
    index = 0
    for note in notes:
        if note.n_type == NT_VMCOREDD and note.dump_name is not None:
            name = f"{index} {note.dump_name.decode('ascii', 'backslashreplace')}"
            yield Region(Kind.DEVICE_DUMP, note.offset, note.end - note.offset, name)
            index += 1
        else:
            name = f"{note.name.decode('ascii', 'backslashreplace')}, type {note.n_type:#x}"
            yield Region(Kind.NOTE, note.offset, note.end - note.offset, name)


def _with_gaps(found: list[Region], size: int) -> Iterator[Region]:
    end = 0
    for region in found:
        if region.offset > end:
            yield Region(Kind.GAP, end, region.offset - end, "")
        yield region
        end = max(end, region.end)
    if size > end:
        yield Region(Kind.GAP, end, size - end, "")
