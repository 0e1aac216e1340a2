# SPDX-License-Identifier: LGPL-2.1-or-later
"""ELF headers of a vmcore: read with pyelftools, packed as ``include/uapi/linux/elf.h`` lays them out.

Only the ELF header and the program headers are ever in memory; notes are walked, loads are never looked at.
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

PT_LOAD = 1
PT_NOTE = 4
ET_CORE = 4
PN_XNUM = 0xFFFF
"""e_phnum of a file with more program headers than 16 bits can count."""
MAX_FILE_SIZE = (1 << 63) - 1
"""off_t ends there."""

# Elf_Ehdr and Elf_Phdr of each class, as struct formats; the classes order the fields of Elf_Phdr differently.
_FORMATS = {32: ("16sHHIIIIIHHHHHH", "IIIIIIII"), 64: ("16sHHIQQQIHHHHHH", "IIQQQQQQ")}
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
_SEGMENT_TYPES = {"PT_LOAD": PT_LOAD, "PT_NOTE": PT_NOTE}


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
        ehdr, phdr = _FORMATS[self.elfclass]
        return struct.calcsize("<" + ehdr) + len(self.segments) * struct.calcsize("<" + phdr)

    def pack(self) -> bytes:
        """Return the ELF header and the program headers, which follow it at once, as in the kernel's vmcore."""
        ehdr, phdr = (self.byteorder.prefix + fields for fields in _FORMATS[self.elfclass])
        e_ehsize, e_phentsize = struct.calcsize(ehdr), struct.calcsize(phdr)
        sizes = (self.e_flags, e_ehsize, e_phentsize, len(self.segments), 0, 0, 0)
        header = struct.pack(ehdr, self.e_ident, ET_CORE, self.e_machine, 1, 0, e_ehsize, 0, *sizes)
        return header + b"".join(struct.pack(phdr, *self._fields(segment)) for segment in self.segments)

    def _fields(self, segment: Segment) -> tuple[int, ...]:
        where = (segment.p_offset, segment.p_vaddr, segment.p_paddr, segment.p_filesz, segment.p_memsz)
        if self.elfclass == 64:
            return (segment.p_type, segment.p_flags, *where, segment.p_align)
        return (segment.p_type, *where, segment.p_flags, segment.p_align)


def read_headers(image: Image) -> Headers:
    """Read the headers of an ELF vmcore.

    Raises InvalidVmcore when it is not an ELF core file, or is truncated before the end of its notes, or has
    none.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with image.stream() as stream:
            headers = _headers(ELFFile(stream), image.path)
    except (ELFError, ValueError, KeyError) as error:
        reason = f": {error}" if str(error) else ""
        raise InvalidVmcore(f"{image.path}: not an ELF vmcore{reason}") from error
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise InvalidVmcore(f"{image.path}: cannot read the headers: {reason}") from error
    _check_segments(headers, image.path, image.size)
    return headers


def walk(image: Image, headers: Headers) -> Iterator[Note]:
    """Yield every note of every PT_NOTE segment. Raises InvalidVmcore at a broken one."""
    for segment in headers.notes:
        yield from image.notes(segment.p_offset, segment.p_filesz, headers.byteorder)


def machine(headers: Headers) -> str:
    """Return the machine that crashed, as uname(2) calls it."""
    name = _MACHINES.get(headers.e_machine, f"e_machine {headers.e_machine}")
    if name == "ppc64" and headers.byteorder is ByteOrder.LITTLE:
        return "ppc64le"
    return "riscv32" if name == "riscv64" and headers.elfclass == 32 else name


def empty_headers() -> Headers:
    """Return the headers of a vmcore of this machine without memory: ELF64, its own byte order, one empty PT_LOAD.

    crash takes no file with fewer than two segments (``is_netdump()``).
    """
    byteorder = system_byteorder()
    ident = b"\x7fELF\x02" + (b"\x01" if byteorder is ByteOrder.LITTLE else b"\x02") + b"\x01" + bytes(9)
    return Headers(64, byteorder, ident, _native_machine(), 0, (Segment(PT_LOAD, 0, 0, 0, 0, 0, 0, 0),))


def _native_machine() -> int:
    # e_machine stands at offset 18 in both ELF classes; the interpreter is an ELF file of this very machine.
    with open("/proc/self/exe", "rb") as interpreter:
        header = interpreter.read(20)
    return int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")


def _headers(elf: Any, path: str) -> Headers:
    from elftools.common.utils import struct_parse

    header = elf.header
    if header["e_type"] != "ET_CORE":
        raise InvalidVmcore(f"{path}: e_type is {header['e_type']}, a vmcore has ET_CORE")
    if header["e_phnum"] == PN_XNUM:
        raise InvalidVmcore(f"{path}: e_phnum is PN_XNUM: more than 65,534 segments are not supported yet")
    structs, stream = elf.structs, elf.stream
    stride = header["e_phentsize"]
    expected = 56 if elf.elfclass == 64 else 32
    if stride != expected:
        raise InvalidVmcore(f"{path}: e_phentsize is {stride}, an ELF{elf.elfclass} file has {expected}")
    table = range(header["e_phoff"], header["e_phoff"] + header["e_phnum"] * stride, stride)
    segments = tuple(_segment(struct_parse(structs.Elf_Phdr, stream, offset)) for offset in table)
    stream.seek(0)
    ident = stream.read(16)
    stream.seek(18)
    byteorder = ByteOrder.LITTLE if elf.little_endian else ByteOrder.BIG
    machine = int.from_bytes(stream.read(2), byteorder.value)
    return Headers(elf.elfclass, byteorder, ident, machine, header["e_flags"], segments)


def _segment(header: Any) -> Segment:
    p_type = header["p_type"]
    number = p_type if isinstance(p_type, int) else _SEGMENT_TYPES.get(p_type, 0)
    return Segment(
        number,
        header["p_flags"],
        header["p_offset"],
        header["p_vaddr"],
        header["p_paddr"],
        header["p_filesz"],
        header["p_memsz"],
        header["p_align"],
    )


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
