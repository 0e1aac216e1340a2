# SPDX-License-Identifier: LGPL-2.1-or-later
"""ELF notes, and the one that carries a device dump: ``struct vmcoredd_header``.

Mirrors ``include/uapi/linux/vmcore.h`` and ``vmcoredd_write_header()`` in Linux ``fs/proc/vmcore.c``.
"""

import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from .errors import InvalidArgs, InvalidVmcore, TooLarge
from .files import Pread

NT_VMCOREDD = 0x700
VMCOREDD_NOTE_NAME = b"LINUX\0\0\0"
"""``VMCOREDD_NOTE_NAME``, padded to the 8 bytes that n_namesz says."""

VMCOREDD_MAX_NAME_BYTES = 44
"""Size of ``dump_name``; 43 bytes of it can be used, because crash needs a NUL inside."""

VMCOREDD_HEADER_SIZE = 64
NHDR_SIZE = 12

MAX_DEVICE_DUMPS = 64
"""crash's NR_DEVICE_DUMPS; it silently drops further ones."""

MOST_DEVICE_DUMPS = 1024
"""Device dumps that MaxDumps= can allow: their manifest is one that every reader takes (``manifest.MAX_SIZE``)."""

MOST_IN_A_FILE = 4 * MOST_DEVICE_DUMPS
"""Device dumps that a reader takes: the kernel's own, and those of a vmcore that this one is made of, come on top.
A forged file must not take all memory."""

MAX_NOTES_END = 0x7FFFF000
"""crash reads everything before the first PT_LOAD with one read(), which returns at most this many bytes."""

MIN_PAGE_SIZE, MAX_PAGE_SIZE = 1 << 12, 1 << 18
"""Bytes of a page: of all machines that Linux has. The bounds are libkdumpfile's."""
PAGE_SIZES = [1 << bits for bits in range(MIN_PAGE_SIZE.bit_length() - 1, MAX_PAGE_SIZE.bit_length())]

_UINT_MAX = 0xFFFFFFFF


class ByteOrder(StrEnum):
    """Byte order of a vmcore, which is that of the machine that crashed."""

    LITTLE = "little"
    BIG = "big"

    @property
    def prefix(self) -> str:
        """The first character of a :mod:`struct` format."""
        return "<" if self is ByteOrder.LITTLE else ">"


def round_up(value: int, alignment: int) -> int:
    """Return *value* rounded up to a multiple of *alignment*, a power of two (kernel ``roundup()``)."""
    return (value + alignment - 1) & ~(alignment - 1)


def system_page_size() -> int:
    """Return ``PAGE_SIZE`` of the running kernel, in bytes."""
    return os.sysconf("SC_PAGE_SIZE")


def system_byteorder() -> ByteOrder:
    """Return the byte order of this machine."""
    return ByteOrder(sys.byteorder)


def note_size(size: int, page_size: int) -> int:
    """Return the bytes that a device dump of *size* bytes takes in the vmcore, header and padding included.

    The kernel rounds up to a page, so that the buffer can be mapped into userspace. Raises TooLarge when
    ``n_descsz``, 32 bits, cannot hold the result.
    """
    data_size = round_up(VMCOREDD_HEADER_SIZE + size, page_size)
    if data_size - VMCOREDD_HEADER_SIZE + VMCOREDD_MAX_NAME_BYTES > _UINT_MAX:
        raise TooLarge(f"a device dump of {size} bytes does not fit n_descsz, which has 32 bits")
    return data_size


def note_byteorder(header: bytes) -> ByteOrder | None:
    """Return the byte order of the NT_VMCOREDD note that begins with *header*; None if it is no such note."""
    n_type = header[8:NHDR_SIZE]
    return next((order for order in ByteOrder if n_type == NT_VMCOREDD.to_bytes(4, order.value)), None)


def check_dump_name(dump_name: str) -> None:
    """Raise InvalidArgs unless *dump_name* is 1 to 43 bytes of printable ASCII."""
    if not dump_name:
        raise InvalidArgs("the dump name is empty")
    if not (dump_name.isascii() and dump_name.isprintable()):
        raise InvalidArgs(f"dump name {dump_name[:64]!a} has characters other than printable ASCII")
    if len(dump_name) >= VMCOREDD_MAX_NAME_BYTES:
        raise InvalidArgs(
            f"dump name {dump_name[:64]!r} has {len(dump_name)} bytes, at most "
            f"{VMCOREDD_MAX_NAME_BYTES - 1} are allowed"
        )


def pack_vmcoredd_header(dump_name: bytes, data_size: int, byteorder: ByteOrder) -> bytes:
    """Return the 64 bytes of ``struct vmcoredd_header`` before a note of *data_size* bytes in all.

    *dump_name* may fill all 44 bytes, as the kernel allows; :func:`check_dump_name` is the stricter rule.
    """
    descsz = data_size - VMCOREDD_HEADER_SIZE + VMCOREDD_MAX_NAME_BYTES
    return struct.pack(
        f"{byteorder.prefix}III8s{VMCOREDD_MAX_NAME_BYTES}s",
        len(VMCOREDD_NOTE_NAME),
        descsz,
        NT_VMCOREDD,
        VMCOREDD_NOTE_NAME,
        dump_name,
    )


@dataclass(frozen=True, slots=True)
class Note:
    """One ELF note; offsets are absolute in the file, and the descriptor stays there."""

    offset: int
    n_namesz: int
    n_descsz: int
    n_type: int
    name: bytes
    dump_name: bytes | None
    """Of an ``NT_VMCOREDD`` note: the name up to its NUL."""

    @property
    def desc_offset(self) -> int:
        """File offset of the descriptor."""
        return self.offset + NHDR_SIZE + round_up(self.n_namesz, 4)

    @property
    def end(self) -> int:
        """File offset after the descriptor and its padding."""
        return self.desc_offset + round_up(self.n_descsz, 4)

    @property
    def data_offset(self) -> int:
        """Of a device dump: file offset of its data, which crash's ``dev -V`` calls OFFSET."""
        return self.desc_offset + VMCOREDD_MAX_NAME_BYTES

    @property
    def data_size(self) -> int:
        """Of a device dump: bytes of its data, padding included, which crash's ``dev -V`` calls SIZE."""
        return self.n_descsz - VMCOREDD_MAX_NAME_BYTES


def walk_notes(pread: Pread, offset: int, size: int, byteorder: ByteOrder) -> Iterator[Note]:
    """Yield the notes of a PT_NOTE segment, reading their headers only.

    Like the kernel's ``update_note_header_size_elf64()``, stops at the zeros after the last note. Raises
    InvalidVmcore at a note that reaches beyond the segment.
    """
    end = offset + size
    while end - offset >= NHDR_SIZE:
        namesz, descsz, n_type = struct.unpack(f"{byteorder.prefix}III", _read(pread, NHDR_SIZE, offset))
        if namesz == 0:
            return
        note_end = offset + NHDR_SIZE + round_up(namesz, 4) + descsz
        if note_end > end:
            raise InvalidVmcore(
                f"the note at offset {offset:#x} ends at {note_end:#x}, beyond its segment, which ends at {end:#x}"
            )
        name = _read(pread, min(namesz, 64), offset + NHDR_SIZE)
        note = Note(offset, namesz, descsz, n_type, name.rstrip(b"\0"), None)
        if n_type == NT_VMCOREDD and descsz >= VMCOREDD_MAX_NAME_BYTES:
            field = _read(pread, VMCOREDD_MAX_NAME_BYTES, note.desc_offset)
            note = Note(offset, namesz, descsz, n_type, note.name, field.split(b"\0", 1)[0])
        yield note
        offset = note.end


def _read(pread: Pread, size: int, offset: int) -> bytes:
    data = pread(size, offset)
    if len(data) != size:
        raise InvalidVmcore(f"the file ends at offset {offset + len(data):#x}, inside a note")
    return data


@dataclass(frozen=True, slots=True)
class DeviceDumpNote:
    """A complete NT_VMCOREDD note in a file of its own, from offset 0."""

    dump_name: str
    fd: int
    note_size: int
    """Bytes of the note: a multiple of the page size. The file may have more."""
    size: int
    """True size of the data in bytes; zeros follow."""
    sha256: str
    """Of those bytes, in hexadecimal."""
