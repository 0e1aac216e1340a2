# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mutate kdump-compressed files: nothing but InvalidVmcore may come of it.

``python -m tests.fuzz.kdump ROUNDS [SEED]``
"""

import random

from tests.fuzz.headers import main, mutate, refused
from tests.lib.elf_writer import device_dump
from tests.lib.image import image_of
from tests.lib.kdump_writer import MACHINES, Kdump, notes
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.kdump import read_header

INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 4096, 0x100000]
RANGES = [(0, 16), (400, 472), (4096, 4700)]
"""The signature and version; the other fields of the header; the sub header and the notes."""
MAX_NOTES = 10_000


def originals() -> list[bytes]:
    """Return one valid file of each machine and version that has notes."""
    return [
        Kdump(
            notes(byteorder, device_dump(b"nic", b"registers", byteorder)),
            machine,
            elfclass,
            byteorder,
            sub_header,
            version,
            pages=b"",
        ).pack()
        for machine, elfclass, byteorder, sub_header in MACHINES
        for version in (4, 5, 6)
    ]


def run(rounds: int, seed: int) -> int:
    """Try *rounds* mutations; return how many were refused. Whatever is raised but InvalidVmcore is a fault."""
    chance, valid = random.Random(seed), originals()
    return sum(refused(_read, mutate(chance.choice(valid), chance, RANGES, INTERESTING)) for _ in range(rounds))


def _read(data: bytes) -> None:
    image = image_of(data)
    for count, _ in enumerate(recognise(image).notes()):
        assert count < MAX_NOTES
    if data.startswith(b"KDUMP   "):
        header = read_header(image)
        offset, fields = header.note_fields(8192, 100, 8292)
        assert header.block_size <= offset <= offset + len(fields) <= header.block_size + 104


if __name__ == "__main__":
    main(run)
