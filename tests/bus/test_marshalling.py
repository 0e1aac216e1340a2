# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bytes of messages that are sent, against those that dbus-next makes."""

import random

import pytest

from tests.lib.dbus import Message, MessageFlag, MessageType, SignatureTree, Variant
from tests.torture.messages import Fuzzer
from vmcoredd_daemon.bus.marshalling import marshalled

WORDS = {"path": "/a/b", "interface": "a.b", "member": "C"}


def signal(signature: str, body: list[object]) -> Message:
    return Message(**WORDS, message_type=MessageType.SIGNAL, signature=signature, body=body, serial=7)


def test_any_signature() -> None:
    fuzzer, chance = Fuzzer(1, []), random.Random(1)
    for _ in range(2000):
        signature = fuzzer.signature()
        types = SignatureTree(signature).types
        message = signal(signature, [fuzzer.value(type_) for type_ in types])
        message.serial = chance.getrandbits(32)
        assert marshalled(message) == bytes(message._marshall(negotiate_unix_fd=True)), signature


@pytest.mark.parametrize(
    "message",
    [
        Message(
            "a.b", "/", "c.d", "E", flags=MessageFlag.NO_REPLY_EXPECTED, signature="h", body=[0], unix_fds=[1]
        ),
        Message(message_type=MessageType.METHOD_RETURN, destination=":1.1", reply_serial=5),
        Message(message_type=MessageType.ERROR, error_name="a.b", reply_serial=5, signature="s", body=["\u00e4"]),
        Message("a.b", "/", member="E", signature="a{sv}(ay)", body=[{"x": Variant("as", ["y"])}, [b"z"]]),
        Message("a.b", "/", member="E", signature="atax", body=[[], [1]]),
    ],
)
def test_kinds_and_fields(message: Message) -> None:
    assert marshalled(message) == bytes(message._marshall(negotiate_unix_fd=True))


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("u", "1"),
        ("u", -1),
        ("y", 256),
        ("q", 1 << 16),
        ("s", 1),
        ("o", "not a path"),
        ("ay", "text"),
        ("(su)", ["too short"]),
        ("a{sv}", [1]),
        ("v", "no variant"),
    ],
)
def test_what_the_signature_does_not_say_is_not_sent(signature: str, value: object) -> None:
    with pytest.raises(Exception, match=r"."):
        marshalled(signal(signature, [value]))


def test_bytes_that_are_not_utf8_are_escaped() -> None:
    assert marshalled(signal("s", ["/ü\udcff\ud800\x1b"])).endswith(b"/\xc3\xbc\\xff\\ud800\x1b\0")


def test_number_of_values() -> None:
    for body in ([], ["x", "y"]):
        with pytest.raises(ValueError, match="zip"):
            marshalled(signal("s", body))
