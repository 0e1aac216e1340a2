# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the fuzzers of ELF and kdump-compressed vmcores do alike."""

import random
import sys
from collections.abc import Callable, Sequence

from vmcoredd_daemon.errors import InvalidVmcore


def mutate(
    data: bytes, chance: random.Random, ranges: Sequence[tuple[int, int]], interesting: Sequence[int]
) -> bytes:
    """Change some fields in these *ranges* of bytes, half of them to *interesting* values, or the length."""
    mutated = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        start, end = chance.choice(ranges)
        size = chance.choice([1, 2, 4, 8])
        # Where fields begin.
        where = chance.randrange(start, end) // size * size
        value = chance.choice([chance.getrandbits(size * 8), chance.choice(interesting)])
        order = chance.choice(["little", "big"])
        mutated[where : where + size] = (value % (1 << size * 8)).to_bytes(size, order)  # type: ignore[arg-type]
    if chance.random() < 0.1:
        del mutated[chance.randrange(len(mutated)) :]
    return bytes(mutated)


def refused(read: Callable[[bytes], None], data: bytes) -> bool:
    """Return whether *read* refuses *data* with InvalidVmcore and a message of one line; let other errors pass."""
    try:
        read(data)
    except InvalidVmcore as error:
        message = str(error)
        if not message.startswith("FILE: ") or "\n" in message or len(message) > 500:
            raise AssertionError(f"bad message {message!r}") from error
        return True
    return False


def main(run: Callable[[int, int], int]) -> None:
    """Run as the command line says, and print what came of it."""
    rounds = int(sys.argv[1])
    count = run(rounds, int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32))
    print(f"{rounds} rounds: {count} files refused, {rounds - count} read")
