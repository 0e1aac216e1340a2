# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device dumps that are cut off, or have wrong bits: a decoder says so, or says less, and nothing else happens."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

from vmcoredd_daemon.decoders.decoded import Decode, Decoded, Field, Table, Text, pack, to_json, unpack
from vmcoredd_daemon.errors import InvalidDump


def endures(decode: Decode, samples: list[tuple[str, bytes]], cuts: int = 400, flips: int = 300) -> None:
    """Decode each sample cut off at every length, or at some *cuts* of them, and with *flips* times wrong bits."""
    decoded = 0
    for name, data in samples:
        for damaged in (*cut_off(data, cuts), *flipped(data, flips)):
            decoded += is_decoded(decode, name, damaged)
    assert decoded > 0, "every damaged sample was refused"


def cut_off(data: bytes, cuts: int) -> Iterator[bytes]:
    # An odd step, which meets fields of any alignment.
    for size in range(0, len(data), max(1, len(data) // cuts | 1)):
        yield data[:size]


def flipped(data: bytes, flips: int) -> Iterator[bytes]:
    chance = random.Random(len(data))
    for _ in range(flips):
        damaged = bytearray(data)
        for _ in range(chance.randrange(1, 9)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        yield bytes(damaged)


def is_decoded(decode: Decode, name: str, data: bytes) -> bool:
    """Return whether *data* are decoded, and not refused; check what either has to be."""
    try:
        decoded = decode(name, io.BytesIO(data))
    except InvalidDump as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert refused.isprintable()
        return False
    assert unpack(pack(decoded)) == decoded
    to_json(decoded)
    for line in shown(decoded):
        assert line.isprintable(), line
    return True


def shown(decoded: Decoded) -> Iterator[str]:
    """Yield all that a terminal would get, line by line."""
    yield from (decoded.title, *decoded.findings, *decoded.facts, *decoded.problems)
    for section in decoded.sections:
        yield section.name
        for part in section.parts:
            yield part.name
            match part:
                case Field():
                    yield from (str(part.value), part.text)
                case Table():
                    yield from (str(value) for row in part.rows for value in row)
                case Text():
                    yield from part.text.split("\n")
