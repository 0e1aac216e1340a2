# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes flattened files, valid or corrupt, and restores their order, without the code under test."""

import struct
import subprocess
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from tests.lib.tools import require

Piece = tuple[int, bytes]
HEADER = b"makedumpfile\0\0\0\0" + struct.pack(">qq", 1, 1) + bytes(4096 - 32)
END = struct.pack(">qq", -1, -1)


def flatten(pieces: Iterable[Piece], end: bytes = END) -> bytes:
    return HEADER + b"".join(struct.pack(">qq", offset, len(data)) + data for offset, data in pieces) + end


def split(data: bytes) -> list[Piece]:
    """Return the pieces of a flattened file, which has to be whole."""
    assert data.startswith(HEADER)
    place, pieces = 4096, []
    while (header := data[place : place + 16]) != END:
        offset, size = struct.unpack(">qq", header)
        assert offset >= 0
        assert 0 < size < 1 << 31
        pieces.append((offset, data[place + 16 : place + 16 + size]))
        place += 16 + size
        assert place < len(data)
    assert place + 16 == len(data)
    return pieces


def restore(pieces: Sequence[Piece]) -> bytes:
    """Do as makedumpfile -R."""
    restored = bytearray(max((offset + len(data) for offset, data in pieces), default=0))
    for offset, data in pieces:
        restored[offset : offset + len(data)] = data
    return bytes(restored)


def overlaps(pieces: Sequence[Piece]) -> bool:
    ranges = sorted((offset, offset + len(data)) for offset, data in pieces)
    return any(a[1] > b[0] for a, b in pairwise(ranges))


def makedumpfile_flat(vmcore: Path, destination: Path, *options: str) -> Path:
    """Flatten with makedumpfile -F."""
    require("makedumpfile")
    with destination.open("wb") as file:
        command = ["makedumpfile", "--message-level", "0", *options, "-F", str(vmcore)]
        subprocess.run(command, check=True, stdout=file, stderr=subprocess.PIPE)
    return destination


def makedumpfile_restore(flat: Path, destination: Path) -> Path:
    """Put in order with makedumpfile -R."""
    require("makedumpfile")
    with flat.open("rb") as file:
        command = ["makedumpfile", "--message-level", "0", "-R", str(destination)]
        subprocess.run(command, check=True, stdin=file, capture_output=True)
    return destination
