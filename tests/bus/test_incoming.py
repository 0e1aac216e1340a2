# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages that no library would send, and what bus/incoming.py makes of them."""

import os
import random
import socket
from collections.abc import Iterator

import pytest

from tests.fuzz import dbus as fuzz
from tests.lib.dbus import Message, MessageType, SignatureTree
from tests.torture.messages import Fuzzer, Member, malformed, oversized
from tests.torture.raw import CALL_FIELDS, RawConnection, pack, packed_body
from vmcoredd_daemon.bus.incoming import MAX_SIGNATURES, Incoming
from vmcoredd_daemon.errors import InvalidArgs, LimitsExceeded

NEXT = pack(CALL_FIELDS, "s", packed_body("s", ["next"]))
LIMIT = 1000


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def received(sockets: tuple[socket.socket, socket.socket], data: bytes, limit: int | None = LIMIT) -> Incoming:
    """Receive the first message of *data* in pieces, and see that the next one is found behind it."""
    ours, theirs = sockets
    first, data, whole = Incoming(ours, limit), data + NEXT, False
    while not whole:
        sent = theirs.send(data[:50_000])
        data = data[sent:]
        whole = first.unmarshall()
        assert limit is None or len(first.buf) <= 2 * limit
    theirs.sendall(data)
    second = Incoming(ours, None)
    assert second.unmarshall()
    assert second.message is not None
    assert second.message.body == ["next"]
    return first


def test_what_a_later_version_may_bring_is_ignored(sockets: tuple[socket.socket, socket.socket]) -> None:
    incoming = received(sockets, pack([*CALL_FIELDS, (200, "s", "later")], flags=0xFF))
    assert incoming.message is not None
    assert incoming.message.member == "Z"
    assert received(sockets, pack(CALL_FIELDS, kind=5)).message is None


@pytest.mark.parametrize("size", [LIMIT - 8, LIMIT + 4, 100_000, 3_000_000])
def test_size_of_a_body(sockets: tuple[socket.socket, socket.socket], size: int) -> None:
    body = packed_body("s", ["x" * (size - 5)])
    incoming = received(sockets, pack(CALL_FIELDS, "s", body, serial=7))
    assert incoming.message is not None
    assert (incoming.message.serial, incoming.message.sender) == (7, ":1.1")
    if size <= LIMIT:
        assert incoming.message.body == ["x" * (size - 5)]
        assert incoming.problem is None
    else:
        assert incoming.message.body == []
        assert isinstance(incoming.problem, LimitsExceeded)
    incoming = received(sockets, pack(CALL_FIELDS, "s", body), limit=None)
    assert incoming.message is not None
    assert incoming.message.body == ["x" * (size - 5)]


def test_size_of_a_header(sockets: tuple[socket.socket, socket.socket]) -> None:
    long = (1, "o", "/" + "x" * 500_000)
    for body in ("", "x", "x" * 2 * LIMIT):
        fields = [long, *CALL_FIELDS[1:-1], (8, "g", "s"), CALL_FIELDS[-1]]
        incoming = received(sockets, pack(fields, body=packed_body("s", [body]), serial=7))
        assert incoming.message is not None
        assert (incoming.message.serial, incoming.message.sender) == (7, ":1.1")
        assert isinstance(incoming.problem, LimitsExceeded)
    # No bus forwards a call without a sender, and none puts it first.
    for fields in ([long], [CALL_FIELDS[-1], long], [long, CALL_FIELDS[-1], (99, "s", "later")]):
        assert received(sockets, pack(fields)).message is None


def test_body_that_cannot_be_read(sockets: tuple[socket.socket, socket.socket]) -> None:
    for signature, body in (("s", b"\xff\xff\xff\x7f"), ("{sv}", bytes(8)), ("s", b"\1\0\0\0\xff\0"), ("su", b"")):
        incoming = received(sockets, pack(CALL_FIELDS, signature, body))
        assert incoming.message is not None
        assert isinstance(incoming.problem, InvalidArgs)
        assert "\n" not in str(incoming.problem)


def test_malformed_messages_end_with_themselves(sockets: tuple[socket.socket, socket.socket]) -> None:
    tried = 0
    for seed in range(20):
        for data in malformed(random.Random(seed), 2):
            if fuzz.declared(data) == len(data):
                received(sockets, data)
                tried += 1
    assert tried > 300


def test_fuzz() -> None:
    figures = fuzz.run(2000, seed=1)
    assert min(figures.read, figures.refused, figures.left_out, figures.unfinished) > 50


def test_signatures_are_not_kept_for_ever(sockets: tuple[socket.socket, socket.socket]) -> None:
    fuzzer = Fuzzer(1, [Member("/x", "x.y", "Z", "")])
    for number in range(2 * MAX_SIGNATURES):
        signature = (f"{number:b}".replace("0", "y").replace("1", "u"))[:200]
        body = [fuzzer.value(type_) for type_ in SignatureTree(signature).types]
        received(sockets, pack(CALL_FIELDS, signature, packed_body(signature, body)))
    assert len(SignatureTree._cache) <= MAX_SIGNATURES + 1


def test_descriptors_of_what_cannot_be_read_are_kept_for_whoever_closes_them(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = sockets
    socket.send_fds(theirs, [pack(CALL_FIELDS, kind=5)], [0, 0])
    incoming = Incoming(ours, LIMIT)
    assert incoming.unmarshall()
    assert incoming.message is None
    assert len(incoming.unix_fds) == 2
    for fd in incoming.unix_fds:
        os.close(fd)


def test_end_of_the_connection(sockets: tuple[socket.socket, socket.socket]) -> None:
    sockets[1].send(NEXT[:30])
    incoming = Incoming(sockets[0], LIMIT)
    assert not incoming.unmarshall()
    sockets[1].close()
    with pytest.raises(EOFError):
        incoming.unmarshall()


def test_oversized_call_through_a_bus(bus_address: str) -> None:
    with RawConnection(bus_address) as caller:
        answer = caller.call(Message("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetId"))
        assert answer.message_type is MessageType.METHOD_RETURN
        assert len(oversized(1 << 20)) > 1 << 20
