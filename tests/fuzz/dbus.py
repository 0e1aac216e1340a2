# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mutate D-Bus messages: a message, an error of ours or none may come of it, and the next one is found behind it.

``python -m tests.fuzz.dbus ROUNDS [SEED]``

The messages are calls of every method in ``dbus/org.vmcoredd1.xml``, with values of its signature and of others;
then bytes of header or body are changed. What is in ``corpus/dbus`` is tried first, and mutated. A bus refuses
most of what is malformed before the service sees it: tests.torture.hostile sends the rest through one.
"""

import random
import socket
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lib import paths
from tests.lib.dbus import MessageFlag, MessageType
from tests.torture.messages import ROOT, SERVICE, Fuzzer, Member, malformed
from tests.torture.raw import CALL_FIELDS, pack, packed_body
from vmcoredd_daemon.bus.incoming import Incoming
from vmcoredd_daemon.errors import InvalidArgs, LimitsExceeded

CORPUS = Path(__file__).with_name("corpus") / "dbus"
INTERFACES = paths.ROOT / "dbus" / "org.vmcoredd1.xml"
LIMIT = 4096
"""Bytes of a header and of a body that are read."""
PATIENCE = 2.0
"""Seconds of processor time for one message; the slowest takes a hundredth of that."""
MAX_TEXT = 64 * 10 + 100
"""Characters: 64 of a signature, of which escaping makes ten each, and the reason."""
PIECE = 50_000
"""Bytes that a socket has room for."""
HEADER = 16
NEXT = pack(CALL_FIELDS, "s", packed_body("s", ["next"]))


@dataclass(slots=True)
class Figures:
    """How many messages were read, refused with an error, and left out because the caller is not known."""

    read: int = 0
    refused: int = 0
    left_out: int = 0
    unfinished: int = 0
    """Messages that say that they are longer than they are."""


def members() -> list[Member]:
    """Return the methods that the project's interfaces have."""
    found = []
    for interface in ET.parse(INTERFACES).getroot().iter("interface"):
        for method in interface.findall("method"):
            types = (arg.get("type", "") for arg in method.findall("arg") if arg.get("direction", "in") == "in")
            found.append(Member(ROOT, interface.attrib["name"], method.attrib["name"], "".join(types)))
    return found


def original(fuzzer: Fuzzer) -> bytes:
    """Return a message that a bus would forward."""
    message = fuzzer.message()
    message.sender, message.serial = ":1.1", fuzzer.chance.getrandbits(31) + 1
    return bytes(message._marshall())


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change some bytes."""
    mutated = bytearray(data)
    for _ in range(chance.choice([0, 1, 1, 2, 4])):
        where = chance.randrange(len(mutated))
        match chance.randrange(4):
            case 0:
                mutated[where] = chance.randrange(256)
            case 1:
                size = chance.choice([2, 4, 8])
                value = chance.choice([0, 1, 64, 0x7FFF, 0x7FFFFFFF, 0xFFFFFFFF, chance.getrandbits(64)])
                field = (value % (1 << size * 8)).to_bytes(size, "little")
                mutated[where : where + size] = field[: len(mutated) - where]
            case 2:
                mutated[where] ^= 1 << chance.randrange(8)
            case _:
                # A type code for another.
                mutated[where] = chance.choice(b"ybnqiuxtdsogvha(){}")
    return bytes(mutated)


def declared(data: bytes) -> int:
    """Return how long a message says that it is."""
    order = "little" if data[:1] == b"l" else "big"
    body, fields = (int.from_bytes(data[at : at + 4], order) for at in (4, 12))
    return HEADER + fields + -fields % 8 + body


def attempt(data: bytes, figures: Figures) -> None:
    """Receive *data* and a message behind it. Raises AssertionError for whatever is not as it should be."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        first, rest, started = Incoming(ours, LIMIT), memoryview(data + NEXT), time.process_time()
        try:
            rest = _receive(first, theirs, rest)
        except EOFError:
            assert declared(data) > len(data), "the end of the connection was seen where there was none"
            figures.unfinished += 1
            return
        assert time.process_time() - started < PATIENCE
        _judge(first, figures)
        if declared(data) == len(data):
            second = Incoming(ours, None)
            _receive(second, theirs, rest)
            assert second.message is not None
            assert second.message.body == ["next"]


def _receive(incoming: Incoming, sender: socket.socket, rest: memoryview) -> memoryview:
    """Receive a message while the *rest* is sent, as much as fits; return what is left of it. Raises EOFError."""
    while True:
        if rest:
            rest = rest[sender.send(rest[:PIECE]) :]
            if not rest:
                sender.shutdown(socket.SHUT_WR)
        if incoming.unmarshall():
            return rest


def _judge(incoming: Incoming, figures: Figures) -> None:
    assert len(incoming.buf) <= 2 * LIMIT + HEADER
    if incoming.message is None:
        figures.left_out += 1
        return
    assert isinstance(incoming.message.message_type, MessageType)
    assert isinstance(incoming.message.flags, MessageFlag)
    if incoming.problem is None:
        figures.read += 1
        return
    figures.refused += 1
    text = str(incoming.problem)
    assert isinstance(incoming.problem, InvalidArgs | LimitsExceeded)
    assert text.isprintable(), text
    assert len(text) < MAX_TEXT
    assert incoming.message.body == []


def corpus() -> list[bytes]:
    """Return the messages that are kept."""
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))]


def run(rounds: int, seed: int) -> Figures:
    """Try the corpus, then *rounds* mutations."""
    chance, kept, figures = random.Random(seed), corpus(), Figures()
    fuzzer = Fuzzer(seed, members())
    for data in kept:
        _named(data, figures)
    wrong: Sequence[bytes] = ()
    for number in range(rounds):
        if number % 100 == 0:
            wrong = [*malformed(chance, 2), *kept]
        valid = original(fuzzer) if chance.random() < 0.7 else chance.choice(wrong)
        _named(mutate(valid, chance), figures)
    return figures


def _named(data: bytes, figures: Figures) -> None:
    try:
        attempt(data, figures)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}: {data!r}") from error


def main() -> None:
    """Run, and say what came of it."""
    rounds = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    print(f"{rounds} rounds to {SERVICE}: {run(rounds, seed)}")


if __name__ == "__main__":
    main()
