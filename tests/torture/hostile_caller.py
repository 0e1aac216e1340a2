# SPDX-License-Identifier: LGPL-2.1-or-later
"""One hostile caller, in a process of its own: ``python -m tests.torture.hostile_caller KIND COUNT SEED ADDRESS``.

It ends with exit status 0 when it has sent COUNT messages, and prints how many.
"""

import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from tests.lib.dbus import Message, MessageFlag, MessageType, Variant
from tests.lib.fuse import Source
from tests.torture.messages import (
    INTROSPECTABLE,
    NAMES,
    OBJECT_MANAGER,
    PROPERTIES,
    ROOT,
    SERVICE,
    Fuzzer,
    deep,
    introspect,
    malformed,
    oversized,
)
from tests.torture.odd_files import KINDS, dead_server, odd_file
from tests.torture.raw import Disconnected, RawConnection, close_all

MANAGER = "org.vmcoredd1.Manager"
SYNC_EVERY = 100
"""Calls without an answer; a bus allows 128."""
NOBODY = 65534
DENIED = "org.freedesktop.DBus.Error.AccessDenied"
SHORT = 20_000
"""A timeout in microseconds."""


def fuzz(address: str, count: int, chance: random.Random) -> int:
    """Well-formed messages that make no sense."""
    with RawConnection(address) as connection, open("/dev/null", "rb") as null:
        fuzzer = Fuzzer(chance.getrandbits(32), introspect(connection))
        for number in range(count):
            fds = [null.fileno()] * chance.choice([0, 0, 0, 1, 2, 16])
            connection.send(fuzzer.message(len(fds)), fds)
            if number % SYNC_EVERY == SYNC_EVERY - 1:
                synchronise(connection)
        synchronise(connection)
    return count


def wrong(address: str, count: int, chance: random.Random) -> int:
    """Messages of wrong shapes, for most of which the bus ends the connection: one after the other."""
    sent = 0
    while sent < count:
        for data in malformed(chance, 2):
            with RawConnection(address) as connection, suppress(Disconnected):
                connection.send_bytes(data, chance.choice([(), (), (0,), (0,) * 16]))
                sent += 1
                # To the bus, the next message may be the rest of this one.
                if chance.random() < 0.5:
                    connection.receive(0.005)
    return sent


def storm(address: str, count: int, chance: random.Random) -> int:
    """Properties, introspection and signals, as many as the bus takes."""
    with RawConnection(address) as connection:
        for number in range(count):
            path = chance.choice([ROOT, f"{ROOT}/dump/{chance.randint(1, 300)}", "/"])
            get = Message(SERVICE, path, PROPERTIES, "Get", signature="ss", body=[MANAGER, chance.choice(NAMES)])
            value = [MANAGER, "Version", Variant("s", "0")]
            get_all = Message(SERVICE, path, PROPERTIES, "GetAll", signature="s", body=[MANAGER])
            message = [
                *(get, get_all, get_all),
                Message(SERVICE, path, PROPERTIES, "Set", signature="ssv", body=value),
                Message(SERVICE, path, INTROSPECTABLE, "Introspect"),
                Message(SERVICE, path, OBJECT_MANAGER, "GetManagedObjects"),
                Message(SERVICE, ROOT, MANAGER, "ListDeviceDumps", flags=MessageFlag.NO_REPLY_EXPECTED),
                *[Message(SERVICE, "/x", "x.y", "Z", MessageType.SIGNAL, signature="s", body=["x" * 100])] * 9,
            ][chance.randrange(16)]
            connection.send(message)
            if number % SYNC_EVERY == SYNC_EVERY - 1:
                synchronise(connection)
        synchronise(connection)
    return count


def files(address: str, count: int, chance: random.Random) -> int:
    """Descriptors of every kind but the one that makes sense."""
    with (
        RawConnection(address) as connection,
        tempfile.TemporaryDirectory() as directory,
        dead_server(Path(directory, "dead")) as dead,
    ):
        odd = Path(directory, "odd")
        odd.mkdir()
        kinds = [*sorted(KINDS), *([dead] if dead else [])]
        for number in range(count):
            options = {"timeout": Variant("t", SHORT), "wait": Variant("b", chance.random() < 0.7)}
            body = [f"hostile-{number}", chance.choice([1, 4096, 100_000, 1 << 20]), 0, options]
            call = Message(SERVICE, ROOT, MANAGER, "AddDeviceDumpFd", signature="suha{sv}", body=body)
            kind = kinds[number % len(kinds)]
            if isinstance(kind, Source):
                answer = _dead(connection, call, kind)
            else:
                answer = _odd(connection, call, odd_file(kind, odd), early=chance.random() < 0.5)
            close_all(answer.unix_fds)
            _remove(connection, answer)
    return count


def _odd(connection: RawConnection, call: Message, file: AbstractContextManager[int], *, early: bool) -> Message:
    """Pass a descriptor, and close it *early*: then the service has the last one; return the answer."""
    with file as fd:
        serial = connection.send(call, [fd])
        if not early:
            return connection.answer(serial)
    return connection.answer(serial)


def _dead(connection: RawConnection, call: Message, source: Source) -> Message:
    fd = os.open(source.path, os.O_RDONLY)
    serial = connection.send(call, [fd])
    with suppress(OSError):
        os.close(fd)
    answer = connection.answer(serial)
    # Each that hangs costs the service a thread: those of earlier calls, too, that were answered before the poll.
    source.answer_late(b"")
    return answer


def brief(address: str, count: int, chance: random.Random) -> int:
    """Connections one after the other, each for one call; half of them do not wait for its answer."""
    for _ in range(count):
        with RawConnection(address) as connection:
            call = Message(SERVICE, ROOT, MANAGER, "ListDeviceDumps")
            serial = connection.send(call)
            if chance.random() < 0.5:
                connection.answer(serial)
    return count


def callbacks(address: str, count: int, chance: random.Random) -> int:
    """Collectors that answer late, twice, never, or nonsense."""
    with RawConnection(address) as connection:
        for number in range(count):
            options = {"timeout": Variant("t", SHORT)}
            body = [f"hostile-{number}", 5000, chance.choice(["/c", "/" + "c" * 9000]), options]
            call = Message(SERVICE, ROOT, MANAGER, "AddDeviceDump", signature="suoa{sv}", body=body)
            serial = connection.send(call)
            while True:
                message = connection.receive()
                if message is None:
                    raise TimeoutError("no answer to AddDeviceDump")
                if message.message_type is MessageType.METHOD_CALL:
                    _collect(connection, message, chance)
                close_all(message.unix_fds)
                if message.reply_serial == serial:
                    _remove(connection, message)
                    break
    return count


def _collect(connection: RawConnection, call: Message, chance: random.Random) -> None:
    """Answer a call of Collect in a wrong way."""
    way = chance.randrange(12)
    if way == 0:
        return
    if way == 1:
        time.sleep(SHORT / 1e6 + 0.01)
    fds = call.unix_fds
    if way == 2:
        os.ftruncate(fds[0], chance.choice([0, 100, 1 << 30]))
    signature, value = chance.choice([("s", "5000"), ("t", 1 << 63), ("v", Variant("u", 1)), ("", None), ("h", 0)])
    answers = {
        3: Message.new_method_return(call, signature, [] if value is None else [value]),
        4: Message.new_method_return(call, "u", [0xFFFFFFFF]),
        5: Message.new_error(call, "a." + "b" * 200, "\x1b[31m\nred\x07" * 1000),
        6: Message.new_error(call, "System.Error.ENODEV", "\x00".replace("\0", "\u202e")),
        7: Message.new_method_return(call, "uuuu", [1, 2, 3, 4]),
    }
    answer = answers.get(way, Message.new_method_return(call, "u", [100]))
    for _ in range(2 if way in {8, 9} else 1):
        connection.send(answer, [0] * 3 if way in {3, 10} else [])


def vanish(address: str, count: int, chance: random.Random) -> int:
    """Callers that go away at each step of a call."""
    for number in range(count):
        with RawConnection(address) as connection:
            options = {"timeout": Variant("t", SHORT), "wait": Variant("b", chance.random() < 0.5)}
            if number % 2:
                body = [f"hostile-{number}", 5000, "/c", options]
                call = Message(SERVICE, ROOT, MANAGER, "AddDeviceDump", signature="suoa{sv}", body=body)
                connection.send(call)
            else:
                body = [f"hostile-{number}", 5000, 0, options]
                call = Message(SERVICE, ROOT, MANAGER, "AddDeviceDumpFd", signature="suha{sv}", body=body)
                reading, writing = os.pipe()
                connection.send(call, [reading])
                os.write(writing, b"half")
                close_all([reading, writing])
            step = chance.randrange(4)
            message = connection.receive(0.01) if step else None
            if message is not None and message.message_type is MessageType.METHOD_CALL and step > 1:
                connection.send(Message.new_method_return(message, "u", [step]))
            if message is not None:
                close_all(message.unix_fds)
    return count


def large(address: str, count: int, chance: random.Random) -> int:
    """Messages that are larger, or deeper, than any that the service would need."""
    with RawConnection(address) as connection:
        for number in range(count):
            match number % 4:
                case 0:
                    connection.send_bytes(oversized(chance.choice([1 << 16, 1 << 20, 8 << 20])))
                case 1:
                    name = "x" * (4 << 20)
                    body = [name, 10, "/c", {}]
                    connection.send(
                        Message(SERVICE, ROOT, MANAGER, "AddDeviceDump", signature="suoa{sv}", body=body)
                    )
                case 2:
                    connection.send(deep(chance.randint(1, 30)))
                case _:
                    path = "/" + "x" * (1 << 20)
                    connection.send(
                        Message(SERVICE, path, MANAGER, "ListDeviceDumps", flags=MessageFlag.NO_REPLY_EXPECTED)
                    )
            # A bus keeps 127 MiB for one receiver, and refuses all messages to it beyond that.
            if number % 4 == 3:
                synchronise(connection)
        synchronise(connection)
    return count


def nobody(address: str, count: int, chance: random.Random) -> int:
    """Another user, of whose calls the bus lets none pass."""
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    with RawConnection(address) as connection:
        for number in range(count):
            answer = connection.call(Message(SERVICE, ROOT, MANAGER, ["ListDeviceDumps", "Get"][number % 2]))
            assert answer.error_name == DENIED, answer.error_name
    return count


def synchronise(connection: RawConnection) -> None:
    """Wait until the service has taken everything before, and answers."""
    call = Message(SERVICE, ROOT, "org.freedesktop.DBus.Peer", "Ping")
    serial = connection.send(call)
    while True:
        message = connection.receive()
        if message is None:
            raise TimeoutError("no answer to Ping")
        close_all(message.unix_fds)
        if message.reply_serial == serial:
            return


def _remove(connection: RawConnection, answer: Message) -> None:
    """Make room: whatever was taken goes again."""
    if answer.message_type is MessageType.METHOD_RETURN and answer.signature == "o":
        call = Message(SERVICE, ROOT, MANAGER, "RemoveDeviceDump", signature="o", body=answer.body)
        close_all(connection.call(call).unix_fds)


KINDS_OF_CALLERS: dict[str, tuple[Callable[[str, int, random.Random], int], float]] = {
    "fuzz": (fuzz, 0.5),
    "storm": (storm, 0.265),
    "brief": (brief, 0.05),
    "wrong": (wrong, 0.08),
    "files": (files, 0.03),
    "callbacks": (callbacks, 0.03),
    "vanish": (vanish, 0.03),
    "nobody": (nobody, 0.01),
    "large": (large, 0.005),
}
"""Each with its share of all messages."""


def main() -> None:
    """Send, and say how many."""
    kind, count, seed, address = sys.argv[1:]
    socket.setdefaulttimeout(60)
    print(KINDS_OF_CALLERS[kind][0](address, int(count), random.Random(int(seed))))


if __name__ == "__main__":
    main()
