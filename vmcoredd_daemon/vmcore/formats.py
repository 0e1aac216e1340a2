# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which format a vmcore has, and where its notes are: one view of all formats."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..errors import InvalidVmcore
from ..note import NT_VMCOREDD, ByteOrder, Note
from . import flattened, kdump
from .elf import MAGIC, machine_name, read_headers
from .image import Image

Notes = Callable[[], Iterator[Note]]
"""Yields the same notes each time."""


@dataclass(frozen=True, slots=True)
class Vmcore:
    """A vmcore of any format: its machine and its notes."""

    format: str
    elfclass: int
    """32 or 64: of the ELF file, or of the machine that crashed."""
    byteorder: ByteOrder
    machine: str
    """As uname(2) calls it."""
    image: Image
    """Its bytes; of a flattened file as it is when rearranged."""
    note_ranges: tuple[tuple[int, int], ...]
    """Offset and bytes of each run of notes."""
    problems: tuple[str, ...] = ()
    """What is wrong with it, although it can be read, each in one line."""

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
    """Return what *image* holds. Raises InvalidVmcore if it is not a vmcore, or truncated."""
    try:
        start = image.pread(len(flattened.SIGNATURE), 0)
    except OSError as error:
        raise InvalidVmcore(f"{image.path}: cannot be read: {error.strerror}") from error
    if not start:
        raise InvalidVmcore(f"{image.path}: the file is empty")
    if start == flattened.SIGNATURE:
        return _recognise_flattened(image)
    return _recognise(image, start, "is neither ELF, kdump-compressed nor flattened")


def _recognise_flattened(image: Image) -> Vmcore:
    inner = flattened.unflatten(image)
    start = inner.pread(len(flattened.SIGNATURE), 0)
    # One level only: a forged file could nest them without end.
    if start == flattened.SIGNATURE:
        raise InvalidVmcore(f"{image.path}: a flattened file inside a flattened file is not supported")
    found = _recognise(inner, start, "what the flattened file holds is neither ELF nor kdump-compressed")
    return replace(found, format="flattened")


def _recognise(image: Image, start: bytes, otherwise: str) -> Vmcore:
    if start.startswith((kdump.SIGNATURE, kdump.DISKDUMP_SIGNATURE)):
        return _recognise_kdump(image)
    if not start.startswith(MAGIC):
        raise InvalidVmcore(f"{image.path}: {otherwise}")
    headers = read_headers(image)
    ranges = tuple((segment.p_offset, segment.p_filesz) for segment in headers.notes)
    machine = machine_name(headers.e_machine, headers.elfclass, headers.byteorder)
    return Vmcore("elf", headers.elfclass, headers.byteorder, machine, image, ranges)


def _recognise_kdump(image: Image) -> Vmcore:
    header = kdump.read_header(image)
    ranges = ((header.offset_note, header.size_note),) if header.offset_note and header.size_note else ()
    problems = []
    if header.header_version < kdump.NOTES_VERSION:
        problems.append(
            f"header_version is {header.header_version}: notes need {kdump.NOTES_VERSION}, it has none"
        )
    if header.incomplete:
        problems.append("is incomplete: makedumpfile had no space for all of the memory")
    return Vmcore("kdump", header.elfclass, header.byteorder, header.machine, image, ranges, tuple(problems))
