# SPDX-License-Identifier: LGPL-2.1-or-later
"""Vmcores of any size that makedumpfile takes: the sample's memory, and more behind it."""

import os
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.kept_pages import Kernel, Mapped
from tests.lib.elf_writer import PAGE, PT_LOAD, PT_NOTE, round_out

_EHDR_PHNUM = 56
_PHDR = struct.Struct("<IIQQQQQQ")
MORE_AT = 4 << 30
"""Physical address of the memory that is added."""
TEMPLATE = 16 << 20
LONGEST_RUN = 8
"""Logarithm of the most pages of one kind in a row: 1 MiB."""
SPARSE_PERIOD = 8 * TEMPLATE


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header."""

    p_type: int
    p_flags: int
    p_offset: int
    p_vaddr: int
    p_paddr: int
    p_filesz: int
    p_memsz: int
    p_align: int


def write_source(
    path: Path, sample: Path, size: int, *, holes: bool = False, kept: bool = False, user: bool = False
) -> Path:
    """Write a vmcore with some *size* bytes of memory, half of them zeros that are written; return its path.

    With *holes*, seven eighths of what is behind the sample's memory are holes. What is behind the sample's memory
    is nothing that the kernel knows, and makedumpfile leaves it out, unless it is to be *kept*. With *user* it is
    pages of a user, a hole, behind the kernel's description of them.
    """
    with sample.open("rb") as old, path.open("w+b") as new:
        header, segments = _read(old.fileno())
        note, *loads = segments
        notes = os.pread(old.fileno(), note.p_filesz, note.p_offset)
        more = max(round_out(size - sum(load.p_filesz for load in loads)), PAGE * 256)
        offset = round_out(PAGE + len(notes))
        placed = [Segment(PT_NOTE, 0, PAGE, 0, 0, len(notes), len(notes), 0)]
        new.seek(PAGE)
        new.write(notes)
        for load in loads:
            at = offset if load.p_filesz else 0
            placed.append(_moved(load, at))
            _copy(old.fileno(), new.fileno(), load.p_offset, at, load.p_filesz)
            offset += round_out(load.p_filesz)
        vaddr = next(load.p_vaddr - load.p_paddr for load in loads if load.p_paddr == PAGE) + MORE_AT
        placed.append(Segment(PT_LOAD, 7, offset, vaddr, MORE_AT, more, more, 0))
        new.seek(0)
        new.write(_headers(header, placed))
        new.flush()
        described = _keep(new.fileno(), notes, placed, user=user) if kept or user else 0
        if user:
            new.truncate(offset + more)
        else:
            _fill(new.fileno(), offset + described, more - described, SPARSE_PERIOD if holes else TEMPLATE)
        os.fsync(new.fileno())
    return path


def _keep(fd: int, notes: bytes, segments: Sequence[Segment], *, user: bool) -> int:
    loads = [Mapped(s.p_paddr, s.p_vaddr, s.p_offset, s.p_filesz) for s in segments if s.p_type == PT_LOAD]
    return Kernel(fd, notes, loads).keep(loads[-1], user=user)


def template() -> bytes:
    """Return 16 MiB, half of it zero pages, in runs of 1 to 256 pages; what else is in it can be compressed."""
    chance = random.Random(8)
    parts: list[bytes] = []
    left, data = {True: TEMPLATE // 2, False: TEMPLATE // 2}, True
    text = b"".join(chance.randbytes(1024) + bytes([1 + number % 7]) * 3072 for number in range(256))
    while any(left.values()):
        run = min(PAGE << chance.randrange(LONGEST_RUN + 1), left[data])
        parts.append(text[:run] if data else bytes(run))
        left[data] -= run
        data = not data
    return b"".join(parts)


def _fill(fd: int, offset: int, size: int, period: int) -> None:
    pattern = template()
    for done in range(0, size, period):
        _write(fd, pattern[: size - done], offset + done)
    os.ftruncate(fd, offset + size)


def _copy(source: int, target: int, source_offset: int, offset: int, size: int) -> None:
    while size:
        data = os.pread(source, min(size, 1 << 20), source_offset)
        _write(target, data, offset)
        source_offset, offset, size = source_offset + len(data), offset + len(data), size - len(data)


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        size = os.pwrite(fd, view, offset)
        view, offset = view[size:], offset + size


def _read(fd: int) -> tuple[bytes, list[Segment]]:
    header = os.pread(fd, 64, 0)
    (count,) = struct.unpack_from("<H", header, _EHDR_PHNUM)
    table = os.pread(fd, count * _PHDR.size, 64)
    return header, [Segment(*fields) for fields in _PHDR.iter_unpack(table)]


def _moved(load: Segment, offset: int) -> Segment:
    return Segment(
        load.p_type, load.p_flags, offset, load.p_vaddr, load.p_paddr, load.p_filesz, load.p_memsz, load.p_align
    )


def _headers(header: bytes, segments: Sequence[Segment]) -> bytes:
    new = bytearray(header)
    struct.pack_into("<H", new, _EHDR_PHNUM, len(segments))
    return bytes(new) + b"".join(
        _PHDR.pack(s.p_type, s.p_flags, s.p_offset, s.p_vaddr, s.p_paddr, s.p_filesz, s.p_memsz, s.p_align)
        for s in segments
    )
