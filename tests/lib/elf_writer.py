# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes small ELF core files of either class and byte order, valid or corrupt, without the code under test."""

import struct
from dataclasses import dataclass
from pathlib import Path

PT_LOAD = 1
PT_NOTE = 4
PN_XNUM = 0xFFFF
ET_EXEC = 2
ET_CORE = 4
EM_386 = 3
EM_S390 = 22
EM_X86_64 = 62
NT_PRSTATUS = 1
NT_VMCOREDD = 0x700
PAGE = 4096


@dataclass(frozen=True)
class Load:
    """A PT_LOAD; without an offset it is placed as the kernel does, its range rounded out to pages."""

    paddr: int
    data: bytes = b""
    filesz: int | None = None
    offset: int | None = None
    memsz: int | None = None
    vaddr: int = 0
    flags: int = 7
    align: int = 0

    @property
    def size(self) -> int:
        return len(self.data) if self.filesz is None else self.filesz


@dataclass(frozen=True)
class Core:
    """An ELF core file: the headers, one page for them, the notes, then the loads."""

    notes: bytes | tuple[bytes, ...] = b""
    loads: tuple[Load, ...] = ()
    elfclass: int = 64
    byteorder: str = "little"
    e_type: int = ET_CORE
    e_machine: int = EM_X86_64
    e_flags: int = 0
    e_phnum: int | None = None
    e_phentsize: int | None = None
    note_align: int = 0
    notes_at: int = 0
    """Which of the program headers the PT_NOTEs are."""
    page: int = PAGE
    """Bytes of a page of the machine."""
    extra: tuple[tuple[int, bytes], ...] = ()
    """More bytes in the file, by offset."""

    @property
    def note_segments(self) -> tuple[bytes, ...]:
        return (self.notes,) if isinstance(self.notes, bytes) else self.notes

    @property
    def header_size(self) -> int:
        section = (64 if self.elfclass == 64 else 40) if self.count >= PN_XNUM else 0
        return self.phdrs_end + section

    @property
    def count(self) -> int:
        return len(self.note_segments) + len(self.loads)

    @property
    def phdrs_end(self) -> int:
        return 64 + 56 * self.count if self.elfclass == 64 else 52 + 32 * self.count

    @property
    def note_offsets(self) -> tuple[int, ...]:
        offsets, offset = [], round_out(self.header_size, self.page)
        for notes in self.note_segments:
            offsets.append(offset)
            offset = (offset + len(notes) + 3) & ~3
        return tuple(offsets)

    @property
    def load_offsets(self) -> tuple[int, ...]:
        end = self.note_offsets[-1] + len(self.note_segments[-1]) if self.note_segments else self.header_size
        offsets, offset = [], round_out(end, self.page)
        for load in self.loads:
            offsets.append(offset + load.paddr % self.page if load.offset is None else load.offset)
            offset = round_out(offset + load.paddr % self.page + load.size, self.page)
        return tuple(offsets)

    def headers(self) -> bytes:
        order = "<" if self.byteorder == "little" else ">"
        ident = bytes([0x7F, *b"ELF", self.elfclass // 32, 1 if order == "<" else 2, 1]) + bytes(9)
        address, ehsize, phentsize, shentsize = ("Q", 64, 56, 64) if self.elfclass == 64 else ("I", 52, 32, 40)
        loads = self._load_headers()
        segments = [*loads[: self.notes_at], *self._note_headers(), *loads[self.notes_at :]]
        extended = self.count >= PN_XNUM
        section = struct.pack(f"{order}II{address * 4}II{address * 2}", 0, 0, 0, 0, 0, 1, 0, self.count, 0, 0)
        header = struct.pack(
            f"{order}16sHHI{address * 3}IHHHHHH",
            *(ident, self.e_type, self.e_machine, 1, 0, ehsize, self.phdrs_end if extended else 0),
            *(self.e_flags, ehsize, phentsize if self.e_phentsize is None else self.e_phentsize),
            min(self.count, PN_XNUM) if self.e_phnum is None else self.e_phnum,
            *((shentsize, 1, 0) if extended else (0, 0, 0)),
        )
        table = b"".join(self._segment(order, *fields) for fields in segments)
        return header + table + (section if extended else b"")

    def _note_headers(self) -> list[tuple[int, ...]]:
        pairs = zip(self.note_offsets, self.note_segments, strict=True)
        return [(PT_NOTE, 0, offset, 0, 0, len(notes), len(notes), self.note_align) for offset, notes in pairs]

    def _load_headers(self) -> list[tuple[int, ...]]:
        pairs = zip(self.load_offsets, self.loads, strict=True)
        return [
            (
                *(PT_LOAD, load.flags, offset, load.vaddr, load.paddr, load.size),
                *(load.size if load.memsz is None else load.memsz, load.align),
            )
            for offset, load in pairs
        ]

    def _segment(self, order: str, p_type: int, p_flags: int, *rest: int) -> bytes:
        if self.elfclass == 64:
            return struct.pack(f"{order}IIQQQQQQ", p_type, p_flags, *rest)
        *where, p_align = rest
        return struct.pack(f"{order}IIIIIIII", p_type, *where, p_flags, p_align)

    def write(self, path: Path) -> Path:
        """Write the file, with holes where there is no data, its end rounded out to a page behind placed loads."""
        ends = [
            (offset + load.size if load.offset is not None else round_out(offset + load.size, self.page))
            for offset, load in zip(self.load_offsets, self.loads, strict=True)
        ]
        with path.open("wb") as file:
            file.write(self.headers())
            parts = [
                *zip(self.note_offsets, self.note_segments, strict=True),
                *zip(self.load_offsets, (load.data for load in self.loads), strict=True),
                *self.extra,
            ]
            for offset, data in parts:
                file.seek(offset)
                file.write(data)
            file.truncate(max([file.seek(0, 2), *ends]))
        return path


def note(n_type: int, desc: bytes, name: bytes = b"CORE\0", byteorder: str = "little") -> bytes:
    """Return one note, its name and its descriptor padded to 4 bytes."""
    order = "<" if byteorder == "little" else ">"
    header = struct.pack(f"{order}III", len(name), len(desc), n_type)
    return header + name + bytes(-len(name) % 4) + desc + bytes(-len(desc) % 4)


def device_dump(dump_name: bytes, data: bytes, byteorder: str = "little", page: int = PAGE) -> bytes:
    """Return a device dump's note as the kernel makes it, up to the end of its last page."""
    room = round_out(64 + len(data), page) - 64
    return note(NT_VMCOREDD, dump_name.ljust(44, b"\0") + data.ljust(room, b"\0"), b"LINUX\0\0\0", byteorder)


def round_out(value: int, page: int = PAGE) -> int:
    return (value + page - 1) // page * page
