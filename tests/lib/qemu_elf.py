# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes ELF core files as QEMU's dump-guest-memory does: section headers first, memory at no page."""

import struct
from pathlib import Path

from tests.lib.elf_writer import EM_S390, EM_X86_64, NT_PRSTATUS, note

PAGE = 4096
META, COMPLETION = b"\xab" * 256, b"\xcd" * 256
MEMORY = b"M" * PAGE + b"N" * PAGE
PT_OTHER = 0x6FFFFFFF


def _notes(order: str) -> bytes:
    byteorder = "little" if order == "<" else "big"
    info = note(0, b"OSRELEASE=6.1.0\nPAGESIZE=4096\n", b"VMCOREINFO\0", byteorder)
    return note(NT_PRSTATUS, bytes(336), byteorder=byteorder) + info


def _write(path: Path, order: str, machine: int, sections: list[tuple[int, bytes]], other: bytes = b"") -> Path:
    """*sections* are offsets of names in the last one, and data; *other* is a segment behind the memory."""
    notes, count = _notes(order), 3 if other else 2
    e_phoff = 64 + 64 * (len(sections) + 1)
    start = e_phoff + 56 * count
    memory = start + len(notes)
    end = memory + len(MEMORY)
    table, behind = struct.pack(f"{order}IIQQQQIIQQ", *[0] * 10), other
    for name, data in sections:
        table += struct.pack(f"{order}IIQQQQIIQQ", name, 3, 0, 0, end + len(behind), len(data), 0, 0, 0, 0)
        behind += data
    segments = [(4, 0, start, 0, 0, len(notes), len(notes), 0), (1, 7, memory, 0, 0, len(MEMORY), len(MEMORY), 0)]
    segments += [(PT_OTHER, 0, end, 0, 0, len(other), 0, 0)] if other else []
    ident = b"\x7fELF\2" + (b"\1" if order == "<" else b"\2") + b"\1" + bytes(9)
    where = (0, e_phoff, 64, 0, 8, 56, count, 64, len(sections) + 1, len(sections))
    header = struct.pack(f"{order}16sHHIQQQIHHHHHH", ident, 4, machine, 1, *where)
    phdrs = b"".join(struct.pack(f"{order}IIQQQQQQ", *segment) for segment in segments)
    path.write_bytes(header + table + phdrs + notes + MEMORY + behind)
    return path


def ordinary(path: Path) -> Path:
    """One of x86-64, with the names of sections and nothing else behind the memory."""
    return _write(path, "<", EM_X86_64, [(1, b"\0.shstrtab\0")])


def protected(path: Path, other: bytes = b"") -> Path:
    """One of a protected s390x guest, with two sections that decrypt its memory."""
    names = b"\0.shstrtab\0pv_mem_meta\0pv_compl\0"
    return _write(path, ">", EM_S390, [(11, META), (23, COMPLETION), (1, names)], other)
