# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hostile messages: a fuzzer that knows the signatures of the service, by introspection, and those of D-Bus."""

import random
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.lib.dbus import Message, MessageFlag, MessageType, SignatureTree, SignatureType, Variant
from tests.torture.raw import RawConnection, pack, packed_body

SERVICE = "org.vmcoredd1"
ROOT = "/org/vmcoredd1"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

NAMES = [
    *("", " ", "a", "x" * 43, "x" * 44, "x" * 5000, "vmcoredd_manifest", "../../etc/passwd", "%s%n", "nic0"),
    *(
        "line\nbreak",
        "\x1b[31mred\x1b[0m",
        "\x1b]0;title\x07",
        "\r\x08\x7f",
        "caf\u00e9",
        "\u202egro.evil",
        "\ufffe",
    ),
    *("hostile-1", "hostile-2", "hostile-3", "hostile-4", "\U0001f4a5", "a\tb", "'; rm -rf", "-", "--help"),
]
PATHS = [
    # None of a device dump that there is: others' must stay.
    *(
        "/",
        ROOT,
        f"{ROOT}/dump",
        f"{ROOT}/dump/0",
        f"{ROOT}/dump/01",
        f"{ROOT}/dump/99999",
        "/x",
        "/" + "a" * 1000,
    ),
    *(f"{ROOT}/dump/{'9' * 300}", "/collector/1", "/org/freedesktop/DBus"),
]
INTEGERS = [0, 1, 2, 63, 64, 100, 4095, 4096, 65536, 1 << 20, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 64) - 1]
WIDTHS = {"y": 8, "n": 15, "q": 16, "i": 31, "u": 32, "x": 63, "t": 64}
BASIC = "ybnqiuxtdsog"


@dataclass(frozen=True, slots=True)
class Member:
    """A method that the service has."""

    path: str
    interface: str
    name: str
    signature: str


def introspect(connection: RawConnection) -> list[Member]:
    """Return all methods of the service's objects."""
    found = []
    for path in (ROOT, f"{ROOT}/dump/1"):
        question = Message(SERVICE, path, INTROSPECTABLE, "Introspect")
        # The queue of the bus may be full.
        while (answer := connection.call(question)).message_type is not MessageType.METHOD_RETURN:
            time.sleep(0.01)
        for interface in ET.fromstring(answer.body[0]).findall("interface"):
            for method in interface.findall("method"):
                types = [arg.get("type", "") for arg in method.findall("arg") if arg.get("direction") == "in"]
                found.append(Member(path, interface.attrib["name"], method.attrib["name"], "".join(types)))
    found.append(Member(ROOT, OBJECT_MANAGER, "GetManagedObjects", ""))
    return sorted(found, key=lambda member: (member.path, member.interface, member.name))


class Fuzzer:
    """Makes messages, the same for the same seed."""

    def __init__(self, seed: int, members: Sequence[Member]) -> None:
        self.chance = random.Random(seed)
        # A vmcore takes a while to write, and other calls are refused meanwhile.
        self._members = [member for member in members if member.name != "WriteVmcore"]

    def message(self, fds: int = 0) -> Message:
        """Return a well-formed message that makes little sense; *fds* is how many descriptors will go with it."""
        chance = self.chance
        member = chance.choice(self._members)
        path, interface, name, signature = member.path, member.interface, member.name, member.signature
        if chance.random() < 0.1:
            path = chance.choice(PATHS)
        if chance.random() < 0.05:
            interface = chance.choice(
                [PROPERTIES, OBJECT_MANAGER, "x.y", "org.vmcoredd1.Collector", "a." + "b" * 250]
            )
        if chance.random() < 0.05:
            name = chance.choice(["Get", "Set", "GetAll", "Nothing", "x" * 255, "_"])
        if chance.random() < 0.4:
            signature = self.signature()
        flags = MessageFlag.NO_REPLY_EXPECTED if chance.random() < 0.2 else MessageFlag.NONE
        body = [self.value(type_, fds) for type_ in SignatureTree._get(signature).types]
        if chance.random() < 0.05:
            return Message(
                SERVICE,
                path,
                interface,
                name,
                MessageType.SIGNAL,
                signature=signature,
                body=body,
                unix_fds=[0] * fds,
            )
        return Message(SERVICE, path, interface, name, flags=flags, signature=signature, body=body)

    def signature(self) -> str:
        """Return a signature, most often of few types."""
        return "".join(self._type(4) for _ in range(self.chance.choice([0, 1, 1, 2, 3, 4, 8])))

    def _type(self, depth: int) -> str:
        kind = self.chance.choice("bbbbbba(ev") if depth else "b"
        if kind == "a":
            return "a" + self._type(depth - 1)
        if kind == "(":
            return f"({''.join(self._type(depth - 1) for _ in range(self.chance.randint(1, 3)))})"
        if kind == "e":
            return f"a{{{self.chance.choice('ysut')}{self._type(depth - 1)}}}"
        return self.chance.choice("vh") if kind == "v" else self.chance.choice(BASIC)

    def value(self, type_: SignatureType, fds: int = 0) -> Any:
        """Return a value of a type, as dbus-next takes it."""
        chance, token = self.chance, type_.token
        if token in WIDTHS:
            value = chance.choice([chance.choice(INTEGERS), chance.getrandbits(64)])
            return value % (1 << WIDTHS[token])
        if token == "a":
            return self._array(type_.children[0], fds)
        if token == "(":
            return [self.value(child, fds) for child in type_.children]
        if token == "v":
            signature = "v" * (chance.random() < 0.3) or self._type(2)
            return Variant(signature, self.value(SignatureTree._get(signature).types[0], fds))
        return {
            "b": lambda: chance.random() < 0.5,
            "d": lambda: chance.choice([0.0, float("nan"), float("inf"), -1e308]),
            "s": lambda: chance.choice(NAMES),
            "o": lambda: chance.choice(PATHS),
            "g": lambda: chance.choice(["", "s", "a{sv}", "(" * 20 + "y" + ")" * 20]),
            # dbus-daemon does not care whether there is such a descriptor.
            "h": lambda: chance.choice([0, 0, max(fds - 1, 0), fds, 0xFFFFFFFF]),
        }[token]()

    def _array(self, child: SignatureType, fds: int) -> Any:
        count = self.chance.choice([0, 1, 1, 2, 3, 30])
        if child.token != "{":
            values = [self.value(child, fds) for _ in range(count)]
            return bytes(values) if child.token == "y" else values
        key, value = child.children
        if key.token == "s" and self.chance.random() < 0.7:
            options = {
                "timeout": Variant("t", self.chance.choice([0, 1, 20_000])),
                "wait": Variant("b", True),
                "keep_size": Variant("b", True),
            }
            return (
                dict(self.chance.sample(sorted(options.items()), self.chance.randint(0, 2)))
                if value.token == "v"
                else {}
            )
        return {self.value(key, fds): self.value(value, fds) for _ in range(count)}


def malformed(chance: random.Random, serial: int) -> Iterator[bytes]:
    """Yield messages that a bus must not forward, or that a service must survive."""
    call = [(1, "o", ROOT), (2, "s", "org.vmcoredd1.Manager"), (3, "s", "ListDeviceDumps"), (6, "s", SERVICE)]
    yield pack([*call, (chance.randint(10, 255), "s", "later")], serial=serial)
    yield pack(call, kind=chance.choice([0, 5, 255]), serial=serial)
    yield pack(call, flags=255, serial=serial)
    yield pack(call, version=2, serial=serial)
    yield pack(call, serial=0)
    yield pack(call[1:], serial=serial)
    yield pack([call[0], *call[2:]], serial=serial)
    yield pack([*call, (9, "u", 3)], serial=serial)
    yield pack([*call, (5, "u", 7)], serial=serial)
    yield pack([*call, (1, "u", 7)], serial=serial)
    yield pack(call, "s", packed_body("s", ["x"]) + b"x", serial=serial)
    yield pack(call, "suoa{sv}", packed_body("s", ["x"]), serial=serial)
    yield pack(call, "s", b"\x02\0\0\0\xff\xfe\0", serial=serial)
    yield pack(call, "s", b"\xff\xff\xff\x7fabc\0", serial=serial)
    yield pack(call, "a" * 40 + "y", bytes(8), serial=serial)
    yield pack(call, "{sv}", bytes(8), serial=serial)
    yield pack(call, "v", b"\1v\0" * 80 + b"\1y\0\7", serial=serial)
    yield pack(call, length=0x7FFFFFFF, serial=serial)
    yield pack([(kind, type_, f"{value}\n") for kind, type_, value in call], serial=serial)
    for kind in (2, 3):
        # Answers to nothing.
        fields = [(5, "u", chance.randint(1, 50)), (6, "s", SERVICE), (4, "s", "a.b")]
        yield pack(fields, "s", packed_body("s", ["\x1b[31m"]), kind=kind, serial=serial)
    valid = bytearray(pack(call, serial=serial))
    for _ in range(chance.randint(1, 4)):
        valid[chance.randrange(len(valid))] = chance.randrange(256)
    yield bytes(valid)


def deep(depth: int) -> Message:
    """Return a call with variants in variants; a bus allows 64 levels."""
    value = Variant("y", 1)
    for _ in range(depth):
        value = Variant("v", value)
    return Message(SERVICE, ROOT, "org.vmcoredd1.Manager", "WriteVmcore", signature="a{sv}", body=[{"x": value}])


def oversized(size: int) -> bytes:
    """Return a call whose body is the least variants: four bytes each, and a hundred times that when unpacked."""
    elements = b"\1y\0\7" * (size // 4)
    fields = [(1, "o", ROOT), (2, "s", "org.vmcoredd1.Manager"), (3, "s", "ListDeviceDumps"), (6, "s", SERVICE)]
    return pack(fields, "av", len(elements).to_bytes(4, "little") + elements, serial=1)
