# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mutate device dumps: a decoder says what it can, or raises InvalidDump; it stays quick, small and printable.

``python -m tests.fuzz.decoders ROUNDS [SEED [MODULE]]``: rounds for each decoder, or for that of one module.
"""

import importlib
import random
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tests.decoders.damage import is_decoded
from vmcoredd_daemon.decoders.decoded import Decode

MODULES = (
    *("acpi_apei", "cper", "devcoredump", "devlink", "dmi", "edac", "ethtool", "fdt", "ipmi", "nvme", "pci"),
    *("pmt", "pstore", "unknown"),
)
CPU_SECONDS = 5.0
"""For one input, of processor time."""
MEMORY = 256 << 20
"""Bytes by which the resident memory may grow in all."""
INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 64) - 1]


def run(module: str, rounds: int, seed: int) -> int:
    """Try *rounds* mutations of one decoder's samples; return how many were decoded."""
    chance, samples = random.Random(f"{seed} {module}"), samples_of(module)
    decode: Decode = importlib.import_module(f"vmcoredd_daemon.decoders.builtin.{module}").decode
    decoded, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(rounds):
        name, data = chance.choice(samples)
        with limited(f"{module}: round {number} of seed {seed}"):
            decoded += is_decoded(decode, name, mutate(data, chance))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown << 10 < MEMORY, f"{module}: {grown} KiB more"
    return decoded


def samples_of(module: str) -> list[tuple[str, bytes]]:
    """Return device dumps that the decoder reads."""
    found: list[tuple[str, bytes]] = importlib.import_module(f"tests.decoders.builtin.test_{module}").samples()
    return found


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change bits and fields, move or repeat a part, or cut the end off."""
    mutated = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        where = chance.randrange(len(mutated) + 1)
        match chance.randrange(6):
            case 0 | 1 if where < len(mutated):
                mutated[where] ^= 1 << chance.randrange(8)
            case 2:
                size = chance.choice([1, 2, 4, 8])
                value = chance.choice([chance.getrandbits(64), chance.choice(INTERESTING)]) % (1 << size * 8)
                mutated[where : where + size] = value.to_bytes(size, chance.choice(["little", "big"]))  # type: ignore[arg-type]
            case 3:
                size = chance.randrange(1, 65)
                mutated[where:where] = mutated[chance.randrange(len(mutated) + 1) :][:size]
            case 4:
                del mutated[where : where + chance.randrange(1, 65)]
            case 5 if chance.random() < 0.2:
                del mutated[where:]
    return bytes(mutated)


@contextmanager
def limited(what: str) -> Iterator[None]:
    """Raise AssertionError, which names *what*, when the context takes too much processor time."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{what} takes more than {CPU_SECONDS:g} s")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    except BaseException:
        print(what, file=sys.stderr)
        raise
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def main() -> None:
    """Run as the command line says."""
    rounds = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    for module in sys.argv[3:] or MODULES:
        decoded = run(module, rounds, seed)
        print(f"{module}: {rounds} rounds, seed {seed}: {decoded} decoded, {rounds - decoded} refused", flush=True)


if __name__ == "__main__":
    main()
