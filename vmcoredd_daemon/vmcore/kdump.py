# SPDX-License-Identifier: LGPL-2.1-or-later
"""Headers of a kdump-compressed vmcore: ``struct disk_dump_header`` and ``struct kdump_sub_header``.

Mirrors makedumpfile's ``diskdump_mod.h`` and ``write_kdump_header()``, and what crash's ``read_dump_header()``
(``diskdump.c``) accepts::

    block 0                     disk_dump_header
    block 1 to sub_hdr_size     kdump_sub_header, then the notes as makedumpfile writes them
    bitmap_blocks blocks        two bitmaps: which pages there are, which of them are in the file
    the rest                    page descriptors, page data

Both structures have the byte order and the sizes of the machine that crashed, and nothing in them says which
these are: block_size is a power of two that makes sense in one byte order only, and it lies elsewhere in 32
bits than in 64. Two layouts of the 32-bit kdump_sub_header exist, and QEMU writes the packed one for every
machine: that is the right one in which the fields agree with each other. Page data is never looked at, so every
compression will do.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InvalidVmcore
from ..note import MAX_PAGE_SIZE, MIN_PAGE_SIZE, ByteOrder, round_up
from .image import MAX_FILE_SIZE, Image
from .layout import NoteOrder

SIGNATURE = b"KDUMP   "
DISKDUMP_SIGNATURE = b"DISKDUMP"
"""Of diskdump, the facility before kdump, whose files have no notes."""

NOTES_VERSION = 4
"""The first header_version with offset_note."""
MAX_VERSION = 6
COMPRESSED_INCOMPLETE = 0x8
"""``DUMP_DH_COMPRESSED_INCOMPLETE`` in status."""

PAGE_DESC = "qIIQ"
"""``page_desc_t``, in 32 and 64 bits, as a struct format: offset, size, flags, page_flags."""
PAGE_DESC_SIZE = struct.calcsize("<" + PAGE_DESC)

_BLOCK = 1 << 18
"""Bytes of a bitmap that are in memory at a time."""

HEADER_SIZE = 452
"""Bytes of disk_dump_header: 464 in 64 bits, of which 452 are enough here. i386's makedumpfile writes no more."""
_MACHINE_OFFSET = 12 + 4 * 65
_NARROW = re.compile(r"i[3-6]86|arm|(mips|ppc|s390|sparc|parisc|riscv32|sh4?|m68k)(le|el|eb)?$")
"""What uname(2) calls machines of 32 bits."""
_PACKED = re.compile(r"i[3-6]86")
"""The machine among them that aligns 64-bit integers to 4 bytes, and so has no gaps in kdump_sub_header."""

# Offset of status in disk_dump_header; block_size, sub_hdr_size, bitmap_blocks and max_mapnr follow it. timestamp
# lies before it: two longs, or 64 bits each on 32-bit machines with a 64-bit time_t.
_STATUS_OFFSETS = {64: 424, 32: 412}


@dataclass(frozen=True, slots=True)
class _SubHeader:
    """Where the fields are in one of the three layouts of kdump_sub_header."""

    size: int
    dump_level: int
    """split follows."""
    vmcoreinfo: int
    note: int
    eraseinfo: int
    ranges: str
    """Struct format of an offset and its size."""

    @property
    def max_mapnr(self) -> int:
        """Offset of max_mapnr_64, the last field."""
        return self.size - 8


_SUB_HEADER_64 = _SubHeader(104, 8, 32, 48, 64, "QQ")
_SUB_HEADER_32 = _SubHeader(96, 4, 24, 40, 56, "QI")
_SUB_HEADER_PACKED = _SubHeader(80, 4, 20, 32, 44, "QI")


@dataclass(frozen=True, slots=True)
class KdumpHeader:
    """What readers of a vmcore need of both headers; sizes are in bytes unless stated otherwise."""

    header_version: int
    elfclass: int
    """32 or 64: of the machine that crashed."""
    byteorder: ByteOrder
    machine: str
    """utsname.machine."""
    block_size: int
    sub_hdr_size: int
    """Blocks."""
    bitmap_blocks: int
    """Blocks."""
    status: int
    split: bool
    """One of the parts that makedumpfile --split writes."""
    incomplete: bool
    """makedumpfile ran out of space."""
    dump_level: int
    offset_note: int
    """0 if there are no notes, as in versions before 4."""
    size_note: int
    offset_vmcoreinfo: int
    size_vmcoreinfo: int
    offset_eraseinfo: int
    size_eraseinfo: int
    sub_header: bytes = field(repr=False)
    """kdump_sub_header as it is in the file."""
    fields: _SubHeader = field(repr=False)
    """Where its fields are."""

    @property
    def keeps_vmcoreinfo(self) -> bool:
        """Whether VMCOREINFO has to stay where it is: before the bitmaps, in a file with a packed sub header.

        libkdumpfile takes a 32-bit sub header for packed only if its offset_vmcoreinfo is there, or 0
        (``read_sub_hdr_32()``), and drgn then finds the notes.
        """
        end = self.offset_vmcoreinfo + self.size_vmcoreinfo
        return self.fields is _SUB_HEADER_PACKED and self.offset_vmcoreinfo > 0 and end <= self.bitmap_offset

    @property
    def vmcoreinfo_is_apart(self) -> bool:
        """Whether there is a VMCOREINFO, and it is not inside the notes."""
        end, notes_end = self.offset_vmcoreinfo + self.size_vmcoreinfo, self.offset_note + self.size_note
        inside = self.offset_note <= self.offset_vmcoreinfo and end <= notes_end
        return self.offset_vmcoreinfo > 0 and self.size_vmcoreinfo > 0 and self.size_note > 0 and not inside

    @property
    def bitmap_offset(self) -> int:
        """File offset of the bitmaps."""
        return (1 + self.sub_hdr_size) * self.block_size

    @property
    def bitmaps(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Offset and bytes of the bitmaps: of the pages of the machine, and of those in the file."""
        half = self.bitmap_blocks * self.block_size // 2
        return (self.bitmap_offset, half), (self.bitmap_offset + half, half)

    @property
    def data_offset(self) -> int:
        """File offset of the page descriptors, which the page data follows."""
        return self.bitmap_offset + self.bitmap_blocks * self.block_size

    def check_extensible(self, path: str) -> None:
        """Raise InvalidVmcore unless notes can be added to the file, which *path* names in the message."""
        if self.header_version < NOTES_VERSION:
            raise InvalidVmcore(f"{path}: header_version is {self.header_version}, but notes need {NOTES_VERSION}")
        if self.split:
            # makedumpfile --reassemble copies the notes to the offsets that they have in the first part.
            raise InvalidVmcore(
                f"{path}: split is set: it is one part of several; attach to what makedumpfile --reassemble makes "
                "of them"
            )

    def note_fields(self, offset_note: int, size_note: int, offset_vmcoreinfo: int) -> tuple[int, bytes]:
        """Return the file offset and the bytes of the write that moves the notes of a file to *offset_note*.

        The write is contiguous and lies within one sector: the fields of VMCOREINFO and of the notes, and the
        bytes between them, unchanged. Raises InvalidVmcore if a value does not fit its field.
        """
        fields = self.fields
        data = bytearray(self.sub_header)
        prefix = self.byteorder.prefix
        try:
            struct.pack_into(prefix + "Q", data, fields.vmcoreinfo, offset_vmcoreinfo)
            struct.pack_into(prefix + fields.ranges, data, fields.note, offset_note, size_note)
        except struct.error as error:
            raise InvalidVmcore(f"size_note {size_note} at offset_note {offset_note:#x}: {error}") from error
        end = fields.note + struct.calcsize("<" + fields.ranges)
        return self.block_size + fields.vmcoreinfo, bytes(data[fields.vmcoreinfo : end])


def is_kdump(image: Image) -> bool:
    """Tell whether *image* begins as a kdump-compressed file does."""
    return image.pread(len(SIGNATURE), 0) == SIGNATURE


def read_header(image: Image, *, strict: bool = True) -> KdumpHeader:
    """Read the headers of a kdump-compressed file, of version 0 to 6.

    Raises InvalidVmcore, with file, field, value and offset, if it is none; if *strict*, also if notes or bitmaps
    that the headers refer to are not in the file. An incomplete file may lack bitmaps.
    """
    data = image.read(HEADER_SIZE, 0, "the header")
    if data.startswith(DISKDUMP_SIGNATURE):
        raise InvalidVmcore(f"{image.path}: has signature DISKDUMP: diskdump files are not supported")
    if not data.startswith(SIGNATURE):
        raise InvalidVmcore(f"{image.path}: has signature {data[:8]!r}, not {SIGNATURE!r}")
    machine = data[_MACHINE_OFFSET : _MACHINE_OFFSET + 65].split(b"\0", 1)[0].decode("ascii", "backslashreplace")
    layout = _choose(image, data, machine)
    elfclass = 32 if layout.width == 32 or _NARROW.match(machine) else 64
    fields = _SUB_HEADER_64 if elfclass == 64 else _choose_sub_header(image, layout, machine)
    sub_header = image.read(fields.size, layout.block_size, "the sub header")
    header = _header(layout, elfclass, machine, fields, sub_header)
    if strict:
        _check(image, header, layout)
    return header


def count_bits(image: Image, offset: int, size: int) -> int:
    """Return how many bits are set in the *size* bytes at *offset*, or up to the end. Raises InvalidVmcore."""
    count, end = 0, offset + size
    while offset < end:
        try:
            data = image.pread(min(_BLOCK, end - offset), offset)
        except OSError as error:
            where = f"the bitmaps at offset {offset:#x}"
            raise InvalidVmcore(f"{image.path}: cannot read {where}: {error.strerror}") from error
        if not data:
            break
        count += int.from_bytes(data, "little").bit_count()
        offset += len(data)
    return count


@dataclass(frozen=True, slots=True)
class NotePlaces:
    """Where the notes of a file can go in their new *order*, and what the sub header then says."""

    header: KdumpHeader
    order: NoteOrder
    alignment: int
    """Bytes; the notes begin at a multiple of it."""
    page_data: int
    """Offset behind the page descriptors: notes go behind it, even in an incomplete file that ends before it."""

    def appended(self, end: int) -> int:
        """Return the offset of the notes if they are appended to a file that ends at *end*."""
        return round_up(max(end, self.page_data), self.alignment)

    def old_place(self, file_size: int) -> int | None:
        """Return the offset of the old notes if the new ones can replace them there, else None.

        That is so if an attach put them there, as makedumpfile writes notes before the bitmaps; if they are the
        last of *file_size* bytes; and if nothing else refers to their place.
        """
        header = self.header
        start, end = header.offset_note, header.offset_note + header.size_note
        if not header.size_note or start < self.page_data or start % self.alignment or end != file_size:
            return None
        erased = header.offset_eraseinfo + header.size_eraseinfo if header.size_eraseinfo else 0
        # VMCOREINFO is inside the notes, or all before them.
        before = header.offset_vmcoreinfo < start < header.offset_vmcoreinfo + header.size_vmcoreinfo
        return None if erased > start or before else start

    def fields(self, start: int) -> tuple[int, bytes]:
        """Return the one write that moves the notes to *start*; see :meth:`KdumpHeader.note_fields`.

        VMCOREINFO moves with the note that it is in; outside the notes it stays where it is, and see
        :attr:`KdumpHeader.keeps_vmcoreinfo`. Raises InvalidVmcore if it is partly inside them.
        """
        header, size = self.header, self.order.size
        vmcoreinfo, end = header.offset_vmcoreinfo, header.offset_vmcoreinfo + header.size_vmcoreinfo
        if vmcoreinfo and header.size_vmcoreinfo and not header.keeps_vmcoreinfo:
            place = self.order.place(vmcoreinfo, header.size_vmcoreinfo)
            if place is not None:
                vmcoreinfo = start + place
            elif vmcoreinfo < header.offset_note + header.size_note and end > header.offset_note:
                raise InvalidVmcore(f"offset_vmcoreinfo is {vmcoreinfo:#x}, outside of all notes")
        return header.note_fields(start, size, vmcoreinfo)


@dataclass(frozen=True, slots=True)
class _DiskDumpHeader:
    """disk_dump_header, read with one of the possible word sizes and byte orders."""

    width: int
    byteorder: ByteOrder
    version: int
    status: int
    block_size: int
    sub_hdr_size: int
    bitmap_blocks: int
    max_mapnr: int

    @property
    def possible(self) -> bool:
        """Whether block_size is valid."""
        size = self.block_size
        return MIN_PAGE_SIZE <= size <= MAX_PAGE_SIZE and not size & (size - 1)

    def leads_into(self, size: int) -> bool:
        """Return whether all header blocks fit in a file of *size* bytes."""
        blocks = 1 + self.sub_hdr_size + self.bitmap_blocks
        return self.sub_hdr_size > 0 and self.bitmap_blocks > 0 and blocks * self.block_size <= size

    @property
    def block_size_offset(self) -> int:
        """Offset of block_size in the file; sub_hdr_size and bitmap_blocks follow."""
        return _STATUS_OFFSETS[self.width] + 4


def _choose(image: Image, data: bytes, machine: str) -> _DiskDumpHeader:
    widths = (32, 64) if _NARROW.match(machine) else (64, 32)
    layouts = [_disk_dump_header(data, width, order) for width in widths for order in ByteOrder]
    possible = [layout for layout in layouts if layout.possible]
    if not possible:
        first = layouts[0]
        raise InvalidVmcore(
            f"{image.path}: block_size at offset {first.block_size_offset} is {first.block_size}, "
            f"not a power of two from {MIN_PAGE_SIZE} to {MAX_PAGE_SIZE}"
        )
    # max_mapnr of a 32-bit machine lies where block_size is in 64 bits, and tv_usec the other way round.
    return next((layout for layout in possible if layout.leads_into(image.size)), possible[0])


def _disk_dump_header(data: bytes, width: int, byteorder: ByteOrder) -> _DiskDumpHeader:
    (version,) = struct.unpack_from(f"{byteorder.prefix}i", data, 8)
    return _DiskDumpHeader(
        width, byteorder, version, *struct.unpack_from(f"{byteorder.prefix}IiiII", data, _STATUS_OFFSETS[width])
    )


def _choose_sub_header(image: Image, layout: _DiskDumpHeader, machine: str) -> _SubHeader:
    """Return the 32-bit layout in which more fields are right; that of *machine* if both are equally good."""
    known = (
        (_SUB_HEADER_PACKED, _SUB_HEADER_32) if _PACKED.match(machine) else (_SUB_HEADER_32, _SUB_HEADER_PACKED)
    )
    try:
        data = image.pread(_SUB_HEADER_32.size, layout.block_size)
    except OSError:
        # The caller reads it again, and says so.
        data = b""
    return max(known, key=lambda fields: _right_fields(image, layout, fields, data.ljust(fields.size, b"\0")))


def _right_fields(image: Image, layout: _DiskDumpHeader, fields: _SubHeader, data: bytes) -> int:
    prefix, start = layout.byteorder.prefix, layout.block_size + fields.size
    count = 0
    if layout.version >= MAX_VERSION:
        (max_mapnr,) = struct.unpack_from(f"{prefix}Q", data, fields.max_mapnr)
        count += min(max_mapnr, 0xFFFFFFFF) == layout.max_mapnr
    for since, place in ((3, fields.vmcoreinfo), (NOTES_VERSION, fields.note)):
        offset, size = struct.unpack_from(prefix + fields.ranges, data, place)
        nothing, something = offset == size == 0, size > 0 and start <= offset <= image.size - size
        count += layout.version >= since and (nothing or something)
    return count


def _header(layout: _DiskDumpHeader, elfclass: int, machine: str, fields: _SubHeader, data: bytes) -> KdumpHeader:
    prefix, version = layout.byteorder.prefix, layout.version

    def values(since: int, form: str, offset: int) -> Sequence[int]:
        return struct.unpack_from(prefix + form, data, offset) if version >= since else (0, 0)

    dump_level, split = values(1, "ii", fields.dump_level)
    offset_note, size_note = values(NOTES_VERSION, fields.ranges, fields.note)
    offset_vmcoreinfo, size_vmcoreinfo = values(3, fields.ranges, fields.vmcoreinfo)
    offset_eraseinfo, size_eraseinfo = values(5, fields.ranges, fields.eraseinfo)
    return KdumpHeader(
        header_version=version,
        elfclass=elfclass,
        byteorder=layout.byteorder,
        machine=machine,
        block_size=layout.block_size,
        sub_hdr_size=layout.sub_hdr_size,
        bitmap_blocks=layout.bitmap_blocks,
        status=layout.status,
        split=version >= 2 and split != 0,
        incomplete=bool(layout.status & COMPRESSED_INCOMPLETE),
        dump_level=dump_level,
        offset_note=offset_note,
        size_note=size_note,
        offset_vmcoreinfo=offset_vmcoreinfo,
        size_vmcoreinfo=size_vmcoreinfo,
        offset_eraseinfo=offset_eraseinfo,
        size_eraseinfo=size_eraseinfo,
        sub_header=data,
        fields=fields,
    )


def _check(image: Image, header: KdumpHeader, layout: _DiskDumpHeader) -> None:
    path, block_size, fields = image.path, header.block_size, header.fields
    if not 0 <= header.header_version <= MAX_VERSION:
        known = f"versions 0 to {MAX_VERSION} are known"
        raise InvalidVmcore(f"{path}: header_version at offset 8 is {header.header_version}, {known}")
    where = layout.block_size_offset + 4
    if header.sub_hdr_size < 1:
        raise InvalidVmcore(f"{path}: sub_hdr_size at offset {where} is {header.sub_hdr_size} blocks, not above 0")
    end = header.data_offset
    if (end > image.size and not header.incomplete) or end > MAX_FILE_SIZE:
        raise InvalidVmcore(
            f"{path}: bitmap_blocks at offset {where + 4} is {header.bitmap_blocks}: the bitmaps end at {end:#x}, "
            f"the file ends at {image.size:#x}"
        )
    ranges = (
        ("note", header.offset_note, header.size_note, fields.note),
        ("vmcoreinfo", header.offset_vmcoreinfo, header.size_vmcoreinfo, fields.vmcoreinfo),
        ("eraseinfo", header.offset_eraseinfo, header.size_eraseinfo, fields.eraseinfo),
    )
    for name, offset, size, position in ranges:
        # crash and makedumpfile ignore a range of no bytes, or at 0.
        if not offset or not size:
            continue
        start = block_size + fields.size
        place = f"{path}: offset_{name} at offset {block_size + position:#x} is {offset:#x}"
        if offset < start:
            raise InvalidVmcore(f"{place}, inside the headers, which end at {start:#x}")
        if offset + size > image.size:
            end = offset + size
            raise InvalidVmcore(f"{place}, size_{name} is {size}: ends at {end:#x}, the file at {image.size:#x}")
