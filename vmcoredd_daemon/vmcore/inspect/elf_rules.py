# SPDX-License-Identifier: LGPL-2.1-or-later
"""What crash and makedumpfile do with an ELF vmcore.

Mirrors ``is_netdump()``, ``resize_elf_header()`` and ``dump_Elf64_Nhdr()`` of crash's netdump.c, and
``check_elf_format()``, ``get_elf_info()`` and ``get_pt_note_info()`` of makedumpfile's elf_info.c.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ...note import MAX_NOTES_END, NHDR_SIZE, NT_VMCOREDD, ByteOrder
from ..elf import (
    ET_CORE,
    MAGIC,
    MAX_SEGMENTS,
    PN_XNUM,
    PT_LOAD,
    PT_NOTE,
    SH_INFO,
    Ehdr,
    Segment,
    Structs,
    machine_name,
)
from ..image import Image
from .compat import RawNote, Verdict, count_for_crash, is_vmcoreinfo, raw_notes
from .machines import judge_crash

_MIN_SIZE = 176
"""``MIN_NETDUMP_ELF_HEADER_SIZE`` of crash."""
_READ_FIRST = 432
"""``SAFE_NETDUMP_ELF_HEADER_SIZE``: where crash looks for the first two program headers."""
_MAX_NAME = 1500
"""``BUFSIZE``: bytes of crash's buffer for a note's name."""
_MIN_PAGE = 4096
_EM_X86_64 = 62
_START_KERNEL_MAP = 0xFFFFFFFF80000000
"""Where x86-64 maps the kernel's text once more."""
_DISK_DUMP_HEADER = 464
"""Bytes that makedumpfile reads of any file, to see whether it is kdump-compressed."""
_NO_ELF = "is neither ELF nor kdump-compressed"
_TRUNCATED = "the file ends inside the ELF header"
_NAME_BYTES = 15
"""``VMCOREINFO_XEN_NOTE_NAME_BYTES``: bytes that makedumpfile reads of a name."""


@dataclass(frozen=True, slots=True)
class _Header:
    """The ELF header as it stands in the file."""

    structs: Structs
    ehdr: Ehdr
    e_phnum: int
    """That of section 0, if PN_XNUM says so."""

    def segments(self, image: Image, offset: int) -> tuple[Segment, ...]:
        """Return the program headers from *offset* on, as far as they are in the file."""
        size = self.structs.phdr.size
        data = image.pread(min(self.e_phnum, MAX_SEGMENTS) * size, min(offset, image.size))
        return tuple(self.structs.segments(data[: len(data) // size * size]))


def predict_crash(image: Image) -> Verdict:
    """Predict what crash does with the ELF file *image*. Raises InvalidVmcore, and OSError of a read."""
    verdict = Verdict()
    header = _header(image)
    if isinstance(header, str):
        return verdict.refuse(header)
    if reason := _why_crash_refuses(header, image.size):
        return verdict.refuse(reason)
    segments = header.segments(image, header.ehdr.e_phoff)
    if len(segments) < header.e_phnum:
        return verdict.refuse("ends inside the program headers")
    notes, first, *_ = segments
    if first.p_offset % _MIN_PAGE == 0 and first.p_align:
        return verdict.refuse(
            f"takes it for a netdump: the second segment, at {first.p_offset:#x}, is page-aligned and has p_align"
        )
    if not first.p_offset:
        return verdict.refuse("fails: p_offset of the second segment is 0")
    memory = min(load.p_offset for load in segments[1:] if load.p_offset)
    if memory > image.size or memory >= MAX_NOTES_END:
        limit = min(image.size, MAX_NOTES_END)
        return verdict.refuse(f"cannot read all before the first PT_LOAD, {memory:#x} bytes: it gets {limit:#x}")
    found = [*_notes_before(image, notes, memory, header.structs.byteorder)]
    if any(note.n_namesz > _MAX_NAME for note in found):
        return verdict.refuse(f"fails on a note whose name has more than {_MAX_NAME} bytes")
    count_for_crash(verdict, found)
    _remark(verdict, header, segments, image, found)
    return verdict


def _why_crash_refuses(header: _Header, size: int) -> str:
    ehdr = header.ehdr
    if not ehdr.e_ident.startswith(MAGIC):
        return _NO_ELF
    if (ei_version := ehdr.e_ident[6]) != 1:
        return f"EI_VERSION is {ei_version}: an ELF file has 1"
    if size < _MIN_SIZE:
        return f"is too small: it has {size} bytes, an ELF header and two program headers have {_MIN_SIZE}"
    if ehdr.e_type != ET_CORE or ehdr.e_version != 1:
        return f"e_type is {ehdr.e_type}, e_version {ehdr.e_version}: a vmcore has {ET_CORE} and 1"
    if header.e_phnum < 2:
        return f"e_phnum is {header.e_phnum}, at least 2 are needed"
    if ehdr.e_phoff > (limit := _READ_FIRST - 2 * header.structs.phdr.size):
        return f"e_phoff is {ehdr.e_phoff}, at most {limit} is possible"
    return ""


def _remark(
    verdict: Verdict, header: _Header, segments: tuple[Segment, ...], image: Image, found: list[RawNote]
) -> None:
    if not verdict.vmcoreinfo:
        verdict.problems.append("finds no VMCOREINFO in the notes of the first segment")
    for number, other in enumerate(segments[1:], 1):
        if other.p_type != PT_LOAD:
            verdict.problems.append(f"takes segment {number} for memory: its p_type is {other.p_type}")
            break
    notes = segments[0]
    if notes.p_type == PT_NOTE and found and found[-1].end < notes.p_offset + notes.p_filesz - 3:
        verdict.problems.append(f"reads no notes after {found[-1].end:#x}")
    end = max(load.p_offset + load.p_filesz for load in segments[1:])
    if end > image.size:
        verdict.problems.append(f"memory is missing: it ends at {end:#x}, the file at {image.size:#x}")
    machine = machine_name(header.ehdr.e_machine, header.structs.elfclass, header.structs.byteorder)
    judge_crash(verdict, machine, kdump=False)


def _notes_before(image: Image, notes: Segment, memory: int, byteorder: ByteOrder) -> Iterator[RawNote]:
    """Yield the notes that crash walks: those that end before the memory starts."""
    for note in raw_notes(image, notes.p_offset, notes.p_filesz, byteorder):
        start, size = note.offset + NHDR_SIZE, note.n_namesz + note.n_descsz
        if start >= memory or size > memory - start or (note.n_namesz == 0 and note.n_descsz):
            return
        yield note


def predict_makedumpfile(image: Image) -> Verdict:
    """Predict what makedumpfile does with the ELF file *image*. Raises as :func:`predict_crash`."""
    verdict = Verdict()
    header = _header(image)
    if isinstance(header, str):
        return verdict.refuse(header)
    if image.size < _DISK_DUMP_HEADER:
        return verdict.refuse(f"is too small: it has {image.size} bytes, at least {_DISK_DUMP_HEADER} are needed")
    # It does not look at e_phoff.
    segments = header.segments(image, header.structs.ehdr.size)
    loads = [load for load in segments if load.p_type == PT_LOAD]
    if not loads and 0 < (e_phoff := header.ehdr.e_phoff) != header.structs.ehdr.size:
        return verdict.refuse(
            f"looks for the program headers at {header.structs.ehdr.size}, but e_phoff is {e_phoff}, as in QEMU's "
            "files: attach puts them there"
        )
    if len(segments) < header.e_phnum:
        return verdict.refuse("ends inside the program headers")
    if not loads:
        return verdict.refuse("has no PT_LOAD")
    notes = next((note for note in reversed(segments) if note.p_type == PT_NOTE), None)
    if notes is None or not notes.p_filesz:
        return verdict.refuse("has no PT_NOTE")
    end, count = notes.p_offset, 0
    for note in raw_notes(image, notes.p_offset, notes.p_filesz, header.structs.byteorder):
        if 0 < note.n_namesz <= _NAME_BYTES:
            if note.offset + NHDR_SIZE + _NAME_BYTES > image.size:
                break
            verdict.vmcoreinfo |= is_vmcoreinfo(note) and note.n_type == 0
        count += note.n_type == NT_VMCOREDD
        end = note.end
    verdict.device_dumps = count
    if end < notes.p_offset + notes.p_filesz - 3 and end + NHDR_SIZE > image.size:
        return verdict.refuse(f"the file ends inside the notes, at {image.size:#x}")
    if not verdict.vmcoreinfo:
        verdict.problems.append("finds no VMCOREINFO in the last PT_NOTE, and so filters only zero pages")
    memory_end = max(load.p_offset + load.p_filesz for load in loads)
    if memory_end > image.size:
        return verdict.refuse(f"memory is missing: it ends at {memory_end:#x}, the file at {image.size:#x}")
    if any(0 < load.p_filesz < load.p_memsz and load.p_offset % _MIN_PAGE == 0 for load in loads):
        verdict.remarks.append("filtered ELF at page offsets: makedumpfile needs --non-mmap")
    if _has_paging(header, loads):
        verdict.unknown("a file whose segments map memory in several ways, as QEMU's dump with paging")
    return verdict


def _has_paging(header: _Header, loads: list[Segment]) -> bool:
    """Return whether x86-64's memory has several mappings: makedumpfile takes the first for the linear one."""
    direct = (load for load in loads if 0 < load.p_vaddr < _START_KERNEL_MAP)
    return header.ehdr.e_machine == _EM_X86_64 and len({load.p_vaddr - load.p_paddr for load in direct}) > 1


def _header(image: Image) -> _Header | str:
    """Return the ELF header, or why the programs find none."""
    ident = image.pread(16, 0)
    elfclass = {1: 32, 2: 64}.get(ident[4]) if len(ident) == 16 else None
    if elfclass is None:
        if not ident.startswith(MAGIC):
            return _NO_ELF
        return f"EI_CLASS is {ident[4]}: an ELF file has 1 or 2" if len(ident) == 16 else _TRUNCATED
    # Both programs take any value but 2 for the byte order of the machine that they run on; assume little endian.
    structs = Structs(elfclass, ByteOrder.BIG if ident[5] == 2 else ByteOrder.LITTLE)
    data = image.pread(structs.ehdr.size, 0)
    if len(data) < structs.ehdr.size:
        return _TRUNCATED
    ehdr = structs.unpack_ehdr(data)
    e_phnum = ehdr.e_phnum
    if e_phnum == PN_XNUM:
        section = image.pread(structs.shdr.size, min(ehdr.e_shoff, image.size))
        e_phnum = structs.shdr.unpack(section)[SH_INFO] if len(section) == structs.shdr.size else 0
    return _Header(structs, ehdr, e_phnum)
