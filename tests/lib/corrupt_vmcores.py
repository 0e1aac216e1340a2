# SPDX-License-Identifier: LGPL-2.1-or-later
"""Corrupts vmcores, ELF64 and kdump-compressed, little endian, in every way that matters to their readers."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

Breaker = Callable[[Path], object]

PHDR = 64
"""Where the program headers are, of 56 bytes each."""
P_TYPE, P_OFFSET, P_FILESZ, P_ALIGN = 0, 8, 32, 48


def read(path: Path, form: str, offset: int) -> tuple[int, ...]:
    with path.open("rb") as file:
        return struct.unpack(form, os.pread(file.fileno(), struct.calcsize(form), offset))


def write(path: Path, form: str, offset: int, *values: object) -> None:
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), struct.pack(form, *values), offset)


def setting(form: str, offset: int, *values: object) -> Breaker:
    return lambda path: write(path, form, offset, *values)


def phdr(number: int, field: int) -> int:
    return PHDR + 56 * number + field


def notes_at(path: Path) -> int:
    return read(path, "<Q", phdr(0, P_OFFSET))[0]


def in_first_note(form: str, offset: int, *values: object) -> Breaker:
    """The notes of an ELF file start with a device dump: 12 bytes, its name of 8, dump_name of 44."""
    return lambda path: write(path, form, notes_at(path) + offset, *values)


def cut(size: int) -> Breaker:
    """Leave the first *size* bytes; negative: all but the last."""
    return lambda path: os.truncate(path, size if size >= 0 else path.stat().st_size + size)


def cut_in_notes(path: Path) -> None:
    os.truncate(path, notes_at(path) + 5000)


def swap_headers(path: Path) -> None:
    """Put the first load before the notes."""
    with path.open("r+b") as file:
        note, load = os.pread(file.fileno(), 56, PHDR), os.pread(file.fileno(), 56, PHDR + 56)
        os.pwrite(file.fileno(), load + note, PHDR)


def notes_behind_the_loads(path: Path) -> None:
    start, size = notes_at(path), read(path, "<Q", phdr(0, P_FILESZ))[0]
    with path.open("r+b") as file:
        data, end = os.pread(file.fileno(), size, start), os.fstat(file.fileno()).st_size
        os.pwrite(file.fileno(), data, end)
    write(path, "<Q", phdr(0, P_OFFSET), end)


def rename_vmcoreinfo(path: Path) -> None:
    with path.open("r+b") as file:
        data = os.pread(file.fileno(), 1 << 20, 0)
        os.pwrite(file.fileno(), b"VMCOREINFX", data.index(b"VMCOREINFO\0"))


def first_load_like_netdump(path: Path) -> None:
    """What crash takes for a netdump: the second segment at a page, with p_align."""
    offset = read(path, "<Q", phdr(1, P_OFFSET))[0]
    write(path, "<Q", phdr(1, P_OFFSET), offset & ~4095)
    write(path, "<Q", phdr(1, P_ALIGN), 4096)


def alter_data(path: Path) -> None:
    in_first_note("<Q", 64, 0x0123456789)(path)


ELF: dict[str, Breaker] = {
    "whole": lambda path: None,
    "data altered": alter_data,
    "cut in the memory": cut(-(1 << 20)),
    "cut in the notes": cut_in_notes,
    "cut in the program headers": cut(600),
    "cut in the ELF header": cut(40),
    "empty": cut(0),
    "magic": setting("<I", 0, 0),
    "EI_VERSION": setting("<B", 6, 0),
    "EI_CLASS": setting("<B", 4, 9),
    "e_type": setting("<H", 16, 2),
    "e_machine": setting("<H", 18, 22),
    "e_version": setting("<I", 20, 0),
    "e_phoff": setting("<Q", 32, 344),
    "one program header": setting("<H", 56, 1),
    "no PT_NOTE": setting("<I", phdr(0, P_TYPE), 6),
    "second PT_NOTE": setting("<I", phdr(3, P_TYPE), 4),
    "PT_NOTE is not the first": swap_headers,
    "second segment at a page with p_align": first_load_like_netdump,
    "second segment at offset 0": setting("<Q", phdr(1, P_OFFSET), 0),
    "notes behind the loads": notes_behind_the_loads,
    "n_descsz beyond the notes": in_first_note("<I", 4, 0x7FFFFFF0),
    "n_namesz of 2000": in_first_note("<I", 0, 2000),
    "dump_name without NUL": in_first_note("44s", 20, b"x" * 44),
    "no VMCOREINFO": rename_vmcoreinfo,
}


def size_note_beyond_the_file(path: Path) -> None:
    write(path, "<Q", 4096 + 56, path.stat().st_size)


def kdump_note(form: str, offset: int, *values: object) -> Breaker:
    def change(path: Path) -> None:
        write(path, form, read(path, "<Q", 4096 + 48)[0] + offset, *values)

    return change


def half_the_bitmaps(path: Path) -> None:
    write(path, "<I", 436, read(path, "<I", 436)[0] // 2)


KDUMP: dict[str, Breaker] = {
    "whole": lambda path: None,
    "data altered": kdump_note("<Q", 64, 0x0123456789),
    "cut in the pages": cut(-(1 << 20)),
    "cut in the page descriptors": lambda path: os.truncate(path, data_offset(path) + 5000),
    "cut in the bitmaps": lambda path: os.truncate(path, data_offset(path) - 5000),
    "cut in the sub header": cut(4096 + 50),
    "cut in the header": cut(400),
    "signature": setting("8s", 0, b"KDUMX   "),
    "header_version 0": setting("<I", 8, 0),
    "header_version 3": setting("<I", 8, 3),
    "header_version 9": setting("<I", 8, 9),
    "no notes": setting("<QQ", 4096 + 48, 0, 0),
    "size_note beyond the file": size_note_beyond_the_file,
    "half the bitmaps": half_the_bitmaps,
    "max_mapnr beyond the bitmaps": setting("<Q", 4096 + 96, 1 << 30),
    "block_size": setting("<I", 428, 12345),
    "split": setting("<I", 4096 + 12, 1),
    "n_descsz beyond the notes": kdump_note("<I", 4, 0x7FFFFFF0),
    "n_namesz of 2000": kdump_note("<I", 0, 2000),
    "offset_vmcoreinfo beyond the file": setting("<Q", 4096 + 32, 1 << 40),
    "incomplete": setting("<I", 424, 0x8 | 0x2),
}


def data_offset(path: Path) -> int:
    block, sub_header, bitmaps = read(path, "<III", 428)
    return (1 + sub_header + bitmaps) * block
