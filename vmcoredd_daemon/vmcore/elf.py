# SPDX-License-Identifier: LGPL-2.1-or-later
"""ELF headers of a vmcore: read with pyelftools, packed as ``include/uapi/linux/elf.h`` lays them out.

Only the ELF header and the program headers are ever in memory; notes are walked, loads are not read.
Mirrors what ``parse_crash_elf64_headers()`` in Linux ``fs/proc/vmcore.c`` accepts.
"""

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidVmcore
from ..note import ByteOrder, Note, system_byteorder
from .image import Image

MAGIC = b"\x7fELF"
PT_LOAD = 1
PT_NOTE = 4
ET_CORE = 4
PN_XNUM = 0xFFFF
"""e_phnum of a file with more program headers than 16 bits can count; sh_info of section 0 has their number."""
MAX_SEGMENTS = 1 << 17
"""Program headers that a file may have: they are kept in memory, and a forged number must not exhaust it."""
MAX_FILE_SIZE = (1 << 63) - 1
"""Bytes: the largest off_t."""

FORMATS = {
    32: ("16sHHIIIIIHHHHHH", "IIIIIIII", "IIIIIIIIII"),
    64: ("16sHHIQQQIHHHHHH", "IIQQQQQQ", "IIQQQQIIQQ"),
}
"""Elf_Ehdr, Elf_Phdr and Elf_Shdr of each class, as struct formats."""
_SH_INFO = 7
# include/uapi/linux/elf-em.h; the names are those of uname(2).
_MACHINES = {
    3: "i686",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header; the fields are the ELF standard's."""

    p_type: int
    p_flags: int
    p_offset: int
    p_vaddr: int
    p_paddr: int
    p_filesz: int
    p_memsz: int
    p_align: int


@dataclass(frozen=True, slots=True)
class Headers:
    """The ELF header, as far as a vmcore uses it, and the program headers."""

    elfclass: int
    """32 or 64."""
    byteorder: ByteOrder
    e_ident: bytes
    e_machine: int
    e_flags: int
    segments: tuple[Segment, ...]

    @property
    def notes(self) -> tuple[Segment, ...]:
        """The PT_NOTE segments; a vmcore of the kernel has exactly one, at the front."""
        return tuple(segment for segment in self.segments if segment.p_type == PT_NOTE)

    @property
    def loads(self) -> tuple[Segment, ...]:
        """The PT_LOAD segments."""
        return tuple(segment for segment in self.segments if segment.p_type == PT_LOAD)

    @property
    def size(self) -> int:
        """Bytes of the ELF header and the program headers."""
        ehdr, phdr, shdr = (struct.calcsize("<" + fields) for fields in FORMATS[self.elfclass])
        return ehdr + len(self.segments) * phdr + (shdr if self._extended else 0)

    @property
    def _extended(self) -> bool:
        return len(self.segments) >= PN_XNUM

    def pack(self) -> bytes:
        """Return the ELF header and the program headers, which follow it immediately, as in the kernel's vmcore.

        If there are more than e_phnum can count, it is PN_XNUM and section 0 follows, as in makedumpfile's
        ``write_elf_header()``.
        """
        ehdr, phdr, shdr = (self.byteorder.prefix + fields for fields in FORMATS[self.elfclass])
        e_ehsize, e_phentsize = struct.calcsize(ehdr), struct.calcsize(phdr)
        count = len(self.segments)
        e_shoff, e_shentsize, e_shnum = 0, 0, 0
        section = b""
        if self._extended:
            e_shoff, e_shentsize, e_shnum = e_ehsize + count * e_phentsize, struct.calcsize(shdr), 1
            section = struct.pack(shdr, 0, 0, 0, 0, 0, e_shnum, 0, count, 0, 0)
        sizes = (e_ehsize, e_phentsize, min(count, PN_XNUM), e_shentsize, e_shnum, 0)
        where = (1, 0, e_ehsize, e_shoff, self.e_flags)
        # One buffer from the start: 100,000 packed segments as small objects would take four times the memory.
        packed = bytearray(self.size)
        struct.pack_into(ehdr, packed, 0, self.e_ident, ET_CORE, self.e_machine, *where, *sizes)
        for number, segment in enumerate(self.segments):
            struct.pack_into(phdr, packed, e_ehsize + number * e_phentsize, *self._fields(segment))
        packed[len(packed) - len(section) :] = section
        return bytes(packed)

    def _fields(self, segment: Segment) -> tuple[int, ...]:
        where = (segment.p_offset, segment.p_vaddr, segment.p_paddr, segment.p_filesz, segment.p_memsz)
        # The classes order the fields of Elf_Phdr differently.
        if self.elfclass == 64:
            return (segment.p_type, segment.p_flags, *where, segment.p_align)
        return (segment.p_type, *where, segment.p_flags, segment.p_align)


def read_headers(image: Image) -> Headers:
    """Read the headers of an ELF vmcore.

    Raises InvalidVmcore if it is not an ELF core file, is truncated before the end of its notes, or has none.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with image.stream() as stream:
            headers = _headers(ELFFile(stream), image)
    except (ELFError, ValueError, KeyError) as error:
        reason = f": {error}" if str(error) else ""
        raise InvalidVmcore(f"{image.path}: not an ELF vmcore{reason}") from error
    except OSError as error:
        reason = error.strerror or os.strerror(errno.EIO)
        raise InvalidVmcore(f"{image.path}: cannot read the headers: {reason}") from error
    _check_segments(headers, image.path, image.size)
    return headers


def walk(image: Image, headers: Headers) -> Iterator[Note]:
    """Yield every note of every PT_NOTE segment. Raises InvalidVmcore at a broken one."""
    for segment in headers.notes:
        yield from image.notes(segment.p_offset, segment.p_filesz, headers.byteorder)


def machine(headers: Headers) -> str:
    """Return the machine that crashed, as uname(2) calls it."""
    return machine_name(headers.e_machine, headers.elfclass, headers.byteorder)


def machine_name(e_machine: int, elfclass: int, byteorder: ByteOrder) -> str:
    """Return what uname(2) calls a machine."""
    name = _MACHINES.get(e_machine, f"e_machine {e_machine}")
    if name == "ppc64" and byteorder is ByteOrder.LITTLE:
        return "ppc64le"
    return "riscv32" if name == "riscv64" and elfclass == 32 else name


def empty_headers() -> Headers:
    """Return the headers of a vmcore of this machine without memory: ELF64, its own byte order, one empty PT_LOAD.

    crash takes no file with fewer than two segments (``is_netdump()``).
    """
    byteorder = system_byteorder()
    ident = MAGIC + (b"\x02\x01\x01" if byteorder is ByteOrder.LITTLE else b"\x02\x02\x01") + bytes(9)
    return Headers(64, byteorder, ident, _native_machine(), 0, (Segment(PT_LOAD, 0, 0, 0, 0, 0, 0, 0),))


def _native_machine() -> int:
    # e_machine is at offset 18 in both ELF classes, and the interpreter is an ELF file of this machine.
    with open("/proc/self/exe", "rb") as interpreter:
        header = interpreter.read(20)
    return int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")


def _headers(elf: Any, image: Image) -> Headers:
    header = elf.header
    if header["e_type"] != "ET_CORE":
        raise InvalidVmcore(f"{image.path}: e_type is {header['e_type']}, a vmcore has ET_CORE")
    byteorder = ByteOrder.LITTLE if elf.little_endian else ByteOrder.BIG
    phdr, shdr = (byteorder.prefix + fields for fields in FORMATS[elf.elfclass][1:])
    if header["e_phentsize"] != struct.calcsize(phdr):
        expected = f"an ELF{elf.elfclass} file has {struct.calcsize(phdr)}"
        raise InvalidVmcore(f"{image.path}: e_phentsize is {header['e_phentsize']}, {expected}")
    count = header["e_phnum"] if header["e_phnum"] != PN_XNUM else _extended_count(header["e_shoff"], shdr, image)
    table = image.read(count * struct.calcsize(phdr), header["e_phoff"], "the program headers")
    segments = tuple(segment(elf.elfclass, fields) for fields in struct.iter_unpack(phdr, table))
    ident = image.read(16, 0, "e_ident")
    # pyelftools replaces the number of a machine that it knows by a name.
    machine = int.from_bytes(image.read(2, 18, "e_machine"), byteorder.value)
    return Headers(elf.elfclass, byteorder, ident, machine, header["e_flags"], segments)


def _extended_count(e_shoff: int, shdr: str, image: Image) -> int:
    section = image.read(struct.calcsize(shdr), e_shoff, "section 0")
    count: int = struct.unpack(shdr, section)[_SH_INFO]
    if not PN_XNUM <= count <= MAX_SEGMENTS:
        raise InvalidVmcore(
            f"{image.path}: e_phnum is PN_XNUM and sh_info of the section at offset {e_shoff:#x} is {count}, "
            f"{PN_XNUM} to {MAX_SEGMENTS} are possible"
        )
    return count


def segment(elfclass: int, fields: tuple[int, ...]) -> Segment:
    """Return the program header with *fields*, in the order of its class."""
    p_type, *others, p_align = fields
    p_flags, *where = others if elfclass == 64 else (others[-1], *others[:-1])
    p_offset, p_vaddr, p_paddr, p_filesz, p_memsz = where
    return Segment(p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align)


def _check_segments(headers: Headers, path: str, file_size: int) -> None:
    if not headers.notes:
        raise InvalidVmcore(f"{path}: has no PT_NOTE segment")
    for segment in headers.loads:
        end = segment.p_offset + segment.p_filesz
        if end > MAX_FILE_SIZE:
            raise InvalidVmcore(f"{path}: a segment ends at {end:#x}, beyond what a file can hold")
    covered = 0
    for segment in sorted(headers.notes, key=lambda note: note.p_offset):
        end = segment.p_offset + segment.p_filesz
        if segment.p_filesz and segment.p_offset < covered:
            raise InvalidVmcore(f"{path}: PT_NOTEs overlap at {segment.p_offset:#x}")
        covered = max(covered, end)
        if end > file_size:
            raise InvalidVmcore(f"{path}: PT_NOTE ends at {end:#x}, but the file ends at {file_size:#x}")
