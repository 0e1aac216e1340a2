# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mutate kdump-compressed files: nothing but InvalidVmcore may come of it.

``python -m tests.fuzz.kdump ROUNDS [SEED]``
"""

import random
import sys

from tests.lib.elf_writer import device_dump
from tests.lib.kdump_writer import MACHINES, Kdump, notes
from vmcoredd_daemon.errors import InvalidVmcore
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import Image
from vmcoredd_daemon.vmcore.kdump import read_header

INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 4096, 0x100000]
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


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change some bytes of the headers and of the notes, or the length."""
    mutated = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        where = chance.choice([chance.randrange(0, 16), chance.randrange(400, 472), chance.randrange(4096, 4700)])
        size = chance.choice([1, 2, 4, 8])
        value = chance.choice([chance.getrandbits(size * 8), chance.choice(INTERESTING)])
        order = chance.choice(["little", "big"])
        mutated[where : where + size] = (value % (1 << size * 8)).to_bytes(size, order)  # type: ignore[arg-type]
    if chance.random() < 0.1:
        del mutated[chance.randrange(len(mutated)) :]
    return bytes(mutated)


def run(rounds: int, seed: int) -> int:
    """Try *rounds* mutations; return how many were refused. Whatever is raised but InvalidVmcore is a fault."""
    chance, valid, refused = random.Random(seed), originals(), 0
    for _ in range(rounds):
        data = mutate(chance.choice(valid), chance)
        try:
            _read(data)
        except InvalidVmcore as error:
            message = str(error)
            if not message.startswith("FILE: ") or "\n" in message or len(message) > 500:
                raise AssertionError(f"bad message {message!r}") from error
            refused += 1
    return refused


def _read(data: bytes) -> None:
    image = Image(lambda size, offset: data[offset : offset + size], len(data), "FILE")
    for count, _ in enumerate(recognise(image).notes()):
        assert count < MAX_NOTES
    if data.startswith(b"KDUMP   "):
        header = read_header(image)
        offset, fields = header.note_fields(8192, 100, 8292)
        assert header.block_size <= offset <= offset + len(fields) <= header.block_size + 104


def main() -> None:
    """Run, and say what came of it."""
    rounds = int(sys.argv[1])
    refused = run(rounds, int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32))
    print(f"{rounds} rounds: {refused} files refused, {rounds - refused} read")


if __name__ == "__main__":
    main()
