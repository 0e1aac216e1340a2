# SPDX-License-Identifier: LGPL-2.1-or-later
"""ELF headers of a vmcore: read with pyelftools, packed as ``include/uapi/linux/elf.h`` lays them out.

Only the ELF header and the program headers are ever in memory; notes are walked, loads are not read.
Mirrors what ``parse_crash_elf64_headers()`` in Linux ``fs/proc/vmcore.c`` accepts.
"""

import errno
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

from ..errors import InvalidVmcore
from ..note import ByteOrder, Note, system_byteorder
from .image import MAX_FILE_SIZE, Image

MAGIC = b"\x7fELF"
PT_LOAD = 1
PT_NOTE = 4
ET_CORE = 4
PN_XNUM = 0xFFFF
"""e_phnum of a file with more program headers than 16 bits can count; sh_info of section 0 has their number."""
MAX_SEGMENTS = 1 << 17
"""Program headers that a file may have: they are kept in memory, and a forged number must not exhaust it."""

_FORMATS = {
    32: ("16sHHIIIIIHHHHHH", "IIIIIIII", "IIIIIIIIII"),
    64: ("16sHHIQQQIHHHHHH", "IIQQQQQQ", "IIQQQQIIQQ"),
}
"""Elf_Ehdr, Elf_Phdr and Elf_Shdr of each class, as struct formats."""
SH_TYPE, SH_OFFSET, SH_SIZE, SH_INFO = 1, 4, 5, 7
"""The places of fields in Elf_Shdr."""
SHT_NULL, SHT_NOBITS = 0, 8
"""Types of sections that have no data in the file."""
MAX_SECTIONS = 1 << 10
"""Sections that a file may have to be written again; QEMU's have at most four."""
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
_PAGES_OF_4K = {3, 22, 40, 62, 243}
"""Those that have no other pages: i386, s390x, arm, x86-64 and riscv."""


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


EMPTY_LOAD = Segment(PT_LOAD, 0, 0, 0, 0, 0, 0, 0)
"""Of a vmcore without memory: crash takes no file with fewer than two segments (``is_netdump()``)."""


class Ehdr(NamedTuple):
    """Elf_Ehdr, field by field."""

    e_ident: bytes
    e_type: int
    e_machine: int
    e_version: int
    e_entry: int
    e_phoff: int
    e_shoff: int
    e_flags: int
    e_ehsize: int
    e_phentsize: int
    e_phnum: int
    e_shentsize: int
    e_shnum: int
    e_shstrndx: int


class Structs:
    """The structures of one class, 32 or 64, and byte order."""

    def __init__(self, elfclass: int, byteorder: ByteOrder) -> None:
        ehdr, phdr, shdr = _FORMATS[elfclass]
        self.elfclass = elfclass
        self.byteorder = byteorder
        self.ehdr = struct.Struct(byteorder.prefix + ehdr)
        self.phdr = struct.Struct(byteorder.prefix + phdr)
        self.shdr = struct.Struct(byteorder.prefix + shdr)

    @property
    def max_offset(self) -> int:
        """The largest offset in a program header that a file can have."""
        return MAX_FILE_SIZE if self.elfclass == 64 else 0xFFFFFFFF

    def unpack_ehdr(self, data: bytes) -> Ehdr:
        """Return the fields of the ELF header *data*."""
        return Ehdr._make(self.ehdr.unpack(data))

    def segments(self, data: bytes) -> Iterator[Segment]:
        """Yield the program headers in *data*, which holds nothing else."""
        for fields in self.phdr.iter_unpack(data):
            # Elf32_Phdr has p_flags behind p_memsz, Segment has the order of Elf64_Phdr.
            yield Segment(*(fields if self.elfclass == 64 else (fields[0], fields[6], *fields[1:6], fields[7])))

    def fields(self, segment: Segment) -> tuple[int, ...]:
        """Return the fields of *segment* in the order of :attr:`phdr`."""
        where = (segment.p_offset, segment.p_vaddr, segment.p_paddr, segment.p_filesz, segment.p_memsz)
        if self.elfclass == 64:
            return (segment.p_type, segment.p_flags, *where, segment.p_align)
        return (segment.p_type, *where, segment.p_flags, segment.p_align)


@dataclass(frozen=True, slots=True)
class Sections:
    """The section headers; QEMU describes what decrypts the memory of a protected guest there."""

    e_shoff: int
    e_shstrndx: int
    headers: tuple[tuple[int, ...], ...]
    """Elf_Shdr, field by field."""


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
    sections: Sections | None = None
    """Only of a file that is written again."""

    @property
    def notes(self) -> tuple[Segment, ...]:
        """The PT_NOTE segments; a vmcore of the kernel has exactly one, at the front."""
        return tuple(segment for segment in self.segments if segment.p_type == PT_NOTE)

    @property
    def loads(self) -> tuple[Segment, ...]:
        """The PT_LOAD segments."""
        return tuple(segment for segment in self.segments if segment.p_type == PT_LOAD)

    @property
    def structs(self) -> Structs:
        """The structures that the headers are made of."""
        return Structs(self.elfclass, self.byteorder)

    @property
    def size(self) -> int:
        """Bytes of the ELF header and the program headers."""
        structs = self.structs
        section = structs.shdr.size if self._extended and self.sections is None else 0
        return structs.ehdr.size + len(self.segments) * structs.phdr.size + section

    @property
    def _extended(self) -> bool:
        return len(self.segments) >= PN_XNUM

    def pack(self) -> bytes:
        """Return the ELF header and the program headers, which follow it immediately, as in the kernel's vmcore.

        If there are more than e_phnum can count, it is PN_XNUM and section 0 follows, as in makedumpfile's
        ``write_elf_header()``.
        """
        structs, count = self.structs, len(self.segments)
        e_ehsize, e_phentsize = structs.ehdr.size, structs.phdr.size
        e_shoff, e_shentsize, e_shnum = 0, 0, 0
        e_shstrndx, section = 0, b""
        if self.sections is not None:
            e_shoff, e_shentsize = self.sections.e_shoff, structs.shdr.size
            e_shnum, e_shstrndx = len(self.sections.headers), self.sections.e_shstrndx
        elif self._extended:
            e_shoff, e_shentsize, e_shnum = e_ehsize + count * e_phentsize, structs.shdr.size, 1
            section = structs.shdr.pack(0, 0, 0, 0, 0, e_shnum, 0, count, 0, 0)
        sizes = (e_ehsize, e_phentsize, min(count, PN_XNUM), e_shentsize, e_shnum, e_shstrndx)
        where = (1, 0, e_ehsize, e_shoff, self.e_flags)
        # One buffer from the start: 100,000 packed segments as small objects would take four times the memory.
        packed = bytearray(self.size)
        structs.ehdr.pack_into(packed, 0, self.e_ident, ET_CORE, self.e_machine, *where, *sizes)
        for number, segment in enumerate(self.segments):
            structs.phdr.pack_into(packed, e_ehsize + number * e_phentsize, *structs.fields(segment))
        packed[len(packed) - len(section) :] = section
        return bytes(packed)

    def pack_sections(self) -> bytes:
        """Return the section headers, which go to e_shoff."""
        if self.sections is None:
            return b""
        first, *others = self.sections.headers
        if self._extended:
            first = (*first[:SH_INFO], len(self.segments), *first[SH_INFO + 1 :])
        return b"".join(self.structs.shdr.pack(*fields) for fields in (first, *others))


def read_headers(image: Image) -> Headers:
    """Read the headers of an ELF vmcore.

    Raises InvalidVmcore if it is not an ELF core file, is truncated before the end of its notes, or has none.
    """
    ELFError, ELFFile = _elftools()  # noqa: N806
    try:
        with _without_sections(image).stream() as stream:
            headers = _headers(ELFFile(stream), image)
    except (ELFError, ValueError, KeyError) as error:
        reason = f": {error}" if str(error) else ""
        raise InvalidVmcore(f"{image.path}: not an ELF vmcore{reason}") from error
    except OSError as error:
        reason = error.strerror or os.strerror(errno.EIO)
        raise InvalidVmcore(f"{image.path}: cannot read the headers: {reason}") from error
    _check_segments(headers, image.path, image.size)
    return headers


@dataclass(frozen=True, slots=True)
class Reachable:
    """The headers of a vmcore without the memory that no program can read."""

    headers: Headers
    missing: int = 0
    """Bytes of memory that there are by the headers, but not in what can be read of the file."""
    problem: str = ""
    """What cannot be read, in words; empty if all can."""


def reachable(headers: Headers) -> Reachable:
    """Return what of *headers* lies where a file can be read.

    On arm64, if /proc/kallsyms has no ``_text``, kexec-tools takes its address for 0 and makes a PT_LOAD of almost
    2^64 bytes (``iomem_range_callback()`` in kexec/arch/arm64/crashdump-arm64.c), and the kernel puts all others
    behind it (``process_ptload_program_headers_elf64()``). A PT_LOAD of such a size is left out, because its
    addresses are no memory either. Those behind it keep their addresses and become empty.
    """
    lost = [load for load in headers.loads if load.p_offset + load.p_filesz > MAX_FILE_SIZE]
    if not lost:
        return Reachable(headers)
    kept: list[Segment] = []
    missing = 0
    for segment in headers.segments:
        if segment.p_type != PT_LOAD or segment.p_offset + segment.p_filesz <= MAX_FILE_SIZE:
            kept.append(segment)
        elif segment.p_filesz <= MAX_FILE_SIZE:
            kept.append(replace(segment, p_offset=0, p_filesz=0))
            missing += segment.p_filesz
    if not any(segment.p_type == PT_LOAD for segment in kept):
        kept.append(EMPTY_LOAD)
    end = max(load.p_offset + load.p_filesz for load in lost)
    problem = (
        f"its memory ends at {end:#x}, beyond what a file can hold: {len(lost)} of {len(headers.loads)} PT_LOADs "
        "cannot be read"
    )
    return Reachable(replace(headers, segments=tuple(kept)), missing, problem)


def read_sections(image: Image, structs: Structs) -> Sections | None:
    """Return the section headers of *image*, None if it has no section but the one that counts segments.

    Raises InvalidVmcore, also if they have data that are not in the file.
    """
    ehdr = structs.unpack_ehdr(image.read(structs.ehdr.size, 0, "the ELF header"))
    if not ehdr.e_shoff or ehdr.e_shnum < 2:
        return None
    if ehdr.e_shnum > MAX_SECTIONS or ehdr.e_shentsize != structs.shdr.size:
        raise InvalidVmcore(
            f"{image.path}: e_shnum is {ehdr.e_shnum}, e_shentsize {ehdr.e_shentsize}: sections are kept up to "
            f"{MAX_SECTIONS}, of {structs.shdr.size} bytes"
        )
    table = image.read(ehdr.e_shnum * structs.shdr.size, ehdr.e_shoff, "the section headers")
    headers = tuple(structs.shdr.iter_unpack(table))
    for number, fields in enumerate(headers):
        end = fields[SH_OFFSET] + fields[SH_SIZE]
        if fields[SH_TYPE] not in {SHT_NULL, SHT_NOBITS} and end > image.size:
            raise InvalidVmcore(
                f"{image.path}: section {number} ends at {end:#x}, the file at {image.size:#x}: it cannot be kept"
            )
    return Sections(ehdr.e_shoff, ehdr.e_shstrndx, headers)


def walk(image: Image, headers: Headers) -> Iterator[Note]:
    """Yield every note of every PT_NOTE segment. Raises InvalidVmcore at a broken one."""
    for segment in headers.notes:
        yield from image.notes(segment.p_offset, segment.p_filesz, headers.byteorder)


def machine_name(e_machine: int, elfclass: int, byteorder: ByteOrder) -> str:
    """Return what uname(2) calls a machine."""
    name = _MACHINES.get(e_machine, f"e_machine {e_machine}")
    if name == "ppc64" and byteorder is ByteOrder.LITTLE:
        return "ppc64le"
    if name == "mips" and elfclass == 64:
        return "mips64"
    return "riscv32" if name == "riscv64" and elfclass == 32 else name


def largest_page_size(e_machine: int) -> int:
    """Return the bytes of a page of a machine of which nothing else is known: the most that it may have."""
    return 1 << 12 if e_machine in _PAGES_OF_4K else 1 << 16


def empty_headers() -> Headers:
    """Return headers of a vmcore of this machine without memory: ELF64, its own byte order, one empty PT_LOAD."""
    byteorder = system_byteorder()
    ident = MAGIC + (b"\x02\x01\x01" if byteorder is ByteOrder.LITTLE else b"\x02\x02\x01") + bytes(9)
    return Headers(64, byteorder, ident, _native_machine(), 0, (EMPTY_LOAD,))


def _native_machine() -> int:
    # e_machine is at offset 18 in both ELF classes, and the interpreter is an ELF file of this machine.
    with open("/proc/self/exe", "rb") as interpreter:
        header = interpreter.read(20)
    return int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")


def _elftools() -> tuple[Any, Any]:
    """Return ELFError and ELFFile of pyelftools."""
    # pyelftools imports the debugger and does not use it; since Python 3.14 that imports asyncio, some 3 MB.
    stands_in = {"pdb", "elftools"}.isdisjoint(sys.modules)
    if stands_in:
        sys.modules["pdb"] = ModuleType("pdb")
    try:
        # Imported late: a program that reads no ELF file saves the memory.
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    finally:
        if stands_in:
            del sys.modules["pdb"]
    return ELFError, ELFFile


def _without_sections(image: Image) -> Image:
    """Return *image* with an e_shoff of 0.

    pyelftools looks for the names of sections first, and version 0.32 refuses a file whose e_shentsize is 0.
    """
    start = bytearray(image.pread(64, 0))
    e_shoff = {1: slice(0x20, 0x24), 2: slice(0x28, 0x30)}.get(start[4]) if len(start) == 64 else None
    if e_shoff is not None:
        start[e_shoff] = bytes(len(start[e_shoff]))

    def read(size: int, offset: int) -> bytes:
        return bytes(start[offset : offset + size]) or image.pread(size, offset)

    return Image(read, image.size, image.path)


def _headers(elf: Any, image: Image) -> Headers:
    header = elf.header
    if header["e_type"] != "ET_CORE":
        raise InvalidVmcore(f"{image.path}: e_type is {header['e_type']}, not ET_CORE")
    byteorder = ByteOrder.LITTLE if elf.little_endian else ByteOrder.BIG
    structs = Structs(elf.elfclass, byteorder)
    if header["e_phentsize"] != structs.phdr.size:
        expected = f"not {structs.phdr.size} as in ELF{elf.elfclass}"
        raise InvalidVmcore(f"{image.path}: e_phentsize is {header['e_phentsize']}, {expected}")
    count = header["e_phnum"]
    if count == PN_XNUM:
        ehdr = structs.unpack_ehdr(image.read(structs.ehdr.size, 0, "the ELF header"))
        count = _extended_count(ehdr.e_shoff, structs.shdr, image)
    table = image.read(count * structs.phdr.size, header["e_phoff"], "the program headers")
    segments = tuple(structs.segments(table))
    ident = image.read(16, 0, "e_ident")
    # pyelftools replaces the number of a machine that it knows by a name.
    machine = int.from_bytes(image.read(2, 18, "e_machine"), byteorder.value)
    return Headers(elf.elfclass, byteorder, ident, machine, header["e_flags"], segments)


def _extended_count(e_shoff: int, shdr: struct.Struct, image: Image) -> int:
    count: int = shdr.unpack(image.read(shdr.size, e_shoff, "section 0"))[SH_INFO]
    if not PN_XNUM <= count <= MAX_SEGMENTS:
        raise InvalidVmcore(
            f"{image.path}: e_phnum is PN_XNUM and sh_info of the section at offset {e_shoff:#x} is {count}, "
            f"not {PN_XNUM} to {MAX_SEGMENTS}"
        )
    return count


def _check_segments(headers: Headers, path: str, file_size: int) -> None:
    if not headers.notes:
        raise InvalidVmcore(f"{path}: has no PT_NOTE segment")
    covered = 0
    for segment in sorted(headers.notes, key=lambda note: note.p_offset):
        end = segment.p_offset + segment.p_filesz
        if segment.p_filesz and segment.p_offset < covered:
            raise InvalidVmcore(f"{path}: PT_NOTEs overlap at {segment.p_offset:#x}")
        covered = max(covered, end)
        if end > file_size:
            raise InvalidVmcore(f"{path}: PT_NOTE ends at {end:#x}, but the file ends at {file_size:#x}")
