# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes kdump-compressed files of any machine, with headers as makedumpfile's diskdump_mod.h has them."""

import struct
from dataclasses import dataclass, replace
from pathlib import Path

from tests.lib.elf_writer import NT_PRSTATUS, note

VMCOREINFO = b"OSRELEASE=6.1.0\nPAGESIZE=4096\n"

# Without alignment, so that every gap is written down. The header up to nr_cpus, and the sub header.
HEADERS = {64: "8si65s65s65s65s65s65s6xqqIiiIIIIIIi", 32: "8si65s65s65s65s65s65s2xiiIiiIIIIIIi"}
SUB_HEADERS = {
    "64": "QiiQQqQqQqQQQQ",
    "32": "IiiII4xqI4xqI4xqI4xQQQ",
    "packed": "IiiIIqIqIqIQQQ",
}


def notes(byteorder: str = "little", *dumps: bytes) -> bytes:
    """Return device dumps, registers, and VMCOREINFO as the last note."""
    registers = note(NT_PRSTATUS, b"registers", byteorder=byteorder)
    return b"".join(dumps) + registers + note(0, VMCOREINFO, b"VMCOREINFO\0", byteorder)


@dataclass(frozen=True)
class Kdump:
    """One file: both headers, the notes, bitmaps of one block each, page descriptors and data."""

    notes: bytes = b""
    machine: bytes = b"x86_64"
    elfclass: int = 64
    byteorder: str = "little"
    sub_header: str = "64"
    header_version: int = 6
    block_size: int = 4096
    status: int = 1
    split: int = 0
    pages: bytes = b"page data" * 500
    max_mapnr: int = 1000
    signature: bytes = b"KDUMP   "
    changes: tuple[tuple[str, int], ...] = ()
    """Other values for fields."""

    @property
    def prefix(self) -> str:
        return "<" if self.byteorder == "little" else ">"

    @property
    def sub_header_size(self) -> int:
        return struct.calcsize(self.prefix + SUB_HEADERS[self.sub_header])

    @property
    def fields(self) -> dict[str, int]:
        start = self.block_size + self.sub_header_size
        vmcoreinfo = self.notes.find(VMCOREINFO)
        values = {
            "sub_hdr_size": -(-(self.sub_header_size + len(self.notes)) // self.block_size),
            "bitmap_blocks": 2,
            "offset_note": start if self.notes else 0,
            "size_note": len(self.notes),
            "offset_vmcoreinfo": start + vmcoreinfo if vmcoreinfo >= 0 else 0,
            "size_vmcoreinfo": len(VMCOREINFO) if vmcoreinfo >= 0 else 0,
            "offset_eraseinfo": 0,
            "size_eraseinfo": 0,
        }
        return values | dict(self.changes)

    def but(self, **changes: int) -> "Kdump":
        return replace(self, changes=tuple(changes.items()))

    def pack(self) -> bytes:
        f = self.fields
        header = struct.pack(
            self.prefix + HEADERS[self.elfclass],
            *(self.signature, self.header_version, b"Linux", b"host", b"6.1.0", b"#1", self.machine, b"", 5, 0),
            *(self.status, self.block_size, f["sub_hdr_size"], f["bitmap_blocks"], self.max_mapnr, 0, 0, 0, 0, 1),
        )
        sub_header = struct.pack(
            self.prefix + SUB_HEADERS[self.sub_header],
            *(0, 31, self.split, 0, 0),
            *(f[f"{what}_{name}"] for name in ("vmcoreinfo", "note", "eraseinfo") for what in ("offset", "size")),
            *(0, 0, self.max_mapnr),
        )
        blocks = -(-(self.sub_header_size + len(self.notes)) // self.block_size)
        return b"".join(
            [
                header.ljust(self.block_size, b"\0"),
                (sub_header + self.notes).ljust(blocks * self.block_size, b"\0"),
                b"\x0f".ljust(self.block_size, b"\0") * 2,
                self.descriptors((blocks + 3) * self.block_size),
                self.pages,
            ]
        )

    def descriptors(self, offset: int) -> bytes:
        """Return those of the four pages that the bitmaps have, from *offset* on; they share the page data."""
        if not self.pages:
            return b""
        start, size = offset + 4 * 24, len(self.pages) // 4
        places = [(start + number * size, size) for number in range(3)] + [
            (start + 3 * size, len(self.pages) - 3 * size)
        ]
        return b"".join(struct.pack(f"{self.prefix}qIIQ", *place, 0, 0) for place in places)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.pack())
        return path


MACHINES = [
    (b"x86_64", 64, "little", "64"),
    (b"aarch64", 64, "little", "64"),
    (b"ppc64", 64, "big", "64"),
    (b"s390x", 64, "big", "64"),
    (b"", 64, "little", "64"),
    (b"i686", 32, "little", "packed"),
    (b"armv7l", 32, "little", "32"),
    (b"ppc", 32, "big", "32"),
    (b"mips", 32, "big", "32"),
    (b"Unknown", 32, "little", "packed"),
    (b"armv7l", 32, "big", "packed"),
]
"""Machine, class, byte order and layout of the sub header."""
