# SPDX-License-Identifier: LGPL-2.1-or-later
"""Flattened files with flipped, lost and hostile bytes: only InvalidVmcore may be raised."""

import random
import struct
import sys
from itertools import pairwise

from tests.lib.elf_writer import Core, device_dump, note
from tests.lib.flattened_writer import flatten, restore
from tests.lib.image import image_of
from vmcoredd_daemon.errors import InvalidVmcore
from vmcoredd_daemon.vmcore.flattened import unflatten
from vmcoredd_daemon.vmcore.formats import recognise

INTERESTING = [0, 1, 2, 15, 16, 63, 64, 0x7FFFFFFF, 1 << 31, 1 << 32, (1 << 63) - 1, -1, -2, -(1 << 63)]


def elf() -> bytes:
    """Return an ELF vmcore in one string."""
    notes = device_dump(b"nic", b"data") + note(0, b"OSRELEASE=6.1\n", b"VMCOREINFO\0")
    core = Core(notes)
    headers = core.headers()
    return headers.ljust(core.note_offsets[0], b"\0") + notes


def pieces_of(data: bytes, rng: random.Random) -> list[tuple[int, bytes]]:
    """Cut *data* anywhere, in any order, perhaps with overlaps."""
    cuts = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(rng.randrange(8)))})
    found = [(a, data[a : b + rng.choice([0, 0, 5])]) for a, b in pairwise(cuts)]
    if rng.random() < 0.5:
        rng.shuffle(found)
    return found


def spoil(data: bytes, rng: random.Random) -> bytes:
    """Return *data* with damage, most of it in the headers of the first pieces."""
    spoiled = bytearray(data)
    for _ in range(rng.randrange(4)):
        place = rng.choice([rng.randrange(len(spoiled)), rng.randrange(4096, min(len(spoiled), 4300)), 4096, 4104])
        if rng.random() < 0.5:
            spoiled[place] ^= 1 << rng.randrange(8)
        else:
            spoiled[place : place + 8] = struct.pack(">q", rng.choice(INTERESTING))
    return bytes(spoiled[: rng.choice([len(spoiled), len(spoiled), rng.randrange(len(spoiled))])])


def main(count: int, seed: int = 0) -> int:
    """Try *count* files; return how many were refused."""
    rng = random.Random(seed)
    whole, refused = elf(), 0
    for _ in range(count):
        pieces = pieces_of(whole, rng)
        data = flatten(pieces)
        spoiled = spoil(data, rng)
        image = image_of(spoiled)
        try:
            inner = unflatten(image)
            if spoiled == data:
                assert inner.pread(len(whole) + 9, 0) == restore(pieces) == whole
            inner.pread(1 << 16, rng.randrange(1 << 16))
            inner.pread(1 << 16, max(inner.size - 100, 0))
            list(recognise(image).device_dumps())
        except InvalidVmcore as error:
            refused += "\n" not in str(error)
    return refused


if __name__ == "__main__":
    print(f"{main(int(sys.argv[1]))} of {sys.argv[1]} refused")
