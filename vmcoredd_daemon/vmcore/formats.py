# SPDX-License-Identifier: LGPL-2.1-or-later
"""What kind of vmcore a file is, and where its notes are: the one view of all formats."""

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import InvalidVmcore
from ..note import NT_VMCOREDD, ByteOrder, Note
from .elf import machine, read_headers
from .image import Image


@dataclass(frozen=True, slots=True)
class Vmcore:
    """A vmcore of any format, as far as its notes go."""

    format: str
    elfclass: int
    """32 or 64: of the ELF file, or of the machine that crashed."""
    byteorder: ByteOrder
    machine: str
    """As uname(2) calls it."""
    image: Image
    """Of a flattened file: as it will be when it is put in order."""
    note_ranges: tuple[tuple[int, int], ...]
    """Offset and bytes of each run of notes."""

    def notes(self) -> Iterator[Note]:
        """Yield every note. Raises InvalidVmcore at a broken one."""
        for offset, size in self.note_ranges:
            yield from self.image.notes(offset, size, self.byteorder)

    def device_dumps(self) -> Iterator[Note]:
        """Yield the NT_VMCOREDD notes, in the order in which crash's ``dev -V`` counts them."""
        for note in self.notes():
            if note.n_type == NT_VMCOREDD and note.dump_name is not None:
                yield note


def recognise(image: Image) -> Vmcore:
    """Return what *image* holds. Raises InvalidVmcore when it is not a vmcore, or not a whole one."""
    try:
        empty = not image.pread(1, 0)
    except OSError as error:
        raise InvalidVmcore(f"{image.path}: cannot be read: {error.strerror}") from error
    if empty:
        raise InvalidVmcore(f"{image.path}: the file is empty")
    headers = read_headers(image)
    ranges = tuple((segment.p_offset, segment.p_filesz) for segment in headers.notes)
    return Vmcore("elf", headers.elfclass, headers.byteorder, machine(headers), image, ranges)
