# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel itself, and sockets whose other end answers what no kernel should."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.collectors.builtin.kernel_headers import values
from tests.collectors.builtin.kernel_socket import Kernel
from vmcoredd_daemon.collectors.builtin import netlink
from vmcoredd_daemon.collectors.builtin.netlink import GenericNetlink, attribute, attributes, string

FAMILY = 0x1234
NUMBERS = ("NLM_F_REQUEST", "NLM_F_ACK", "NLM_F_DUMP", "NLMSG_ERROR", "NLMSG_DONE", "GENL_ID_CTRL")
NUMBERS += ("CTRL_CMD_GETFAMILY", "CTRL_ATTR_FAMILY_ID", "CTRL_ATTR_FAMILY_NAME", "NETLINK_GENERIC")
STRUCTURES = {"nlmsghdr": "NLMSGHDR", "genlmsghdr": "GENLMSGHDR", "nlattr": "NLATTR"}


def message(kind: int, body: bytes, length: int | None = None) -> bytes:
    size = 16 + len(body) if length is None else length
    return struct.pack("=IHHII", size, kind, 0, 1, 0) + body + bytes(-len(body) % 4)


def answer(content: bytes) -> bytes:
    return message(FAMILY, b"\1\1\0\0" + content)


DONE = message(3, struct.pack("=i", 0))
FOUND = message(16, b"\1\1\0\0" + attribute(1, struct.pack("=H", FAMILY))) + message(2, struct.pack("=i", 0))


def ask(*answers: bytes, dump: bool = True) -> list[bytes]:
    kernel = Kernel([[FOUND], answers])
    try:
        return list(GenericNetlink("test", kernel.connect).ask(7, string(1, "x"), dump=dump))
    finally:
        kernel.close()


def test_structures_are_those_of_the_kernel(tmp_path: Path) -> None:
    expressions = [*NUMBERS, *(f"sizeof(struct {name})" for name in STRUCTURES), "NLA_TYPE_MASK & 0xffff"]
    found = values(tmp_path, ["linux/netlink.h", "linux/genetlink.h"], expressions)
    ours = [getattr(netlink, name) for name in NUMBERS]
    assert found == [*ours, *(getattr(netlink, name).size for name in STRUCTURES.values()), netlink.TYPE_MASK]


def test_family_of_the_kernel_itself() -> None:
    # The family of families is number 16; CTRL_CMD_GETFAMILY lists them all.
    families = [dict(attributes(one)) for one in GenericNetlink("nlctrl").ask(3, dump=True)]
    assert b"nlctrl\0" in [family[2] for family in families]


def test_family_that_there_is_not() -> None:
    with pytest.raises(FileNotFoundError):
        list(GenericNetlink("no_such_family").ask(1))


def test_request_and_many_answers() -> None:
    kernel = Kernel([[FOUND], [answer(b"1234") + answer(b"5678"), answer(b"9"), DONE]])
    assert list(GenericNetlink("test", kernel.connect).ask(7, string(1, "x"), dump=True)) == [
        b"1234",
        b"5678",
        b"9",
    ]
    kernel.close()
    assert kernel.requests == [
        struct.pack("=IHHII", 32, 16, 5, 1, 0) + b"\3\1\0\0" + b"\x09\0\2\0test\0\0\0\0",
        struct.pack("=IHHII", 28, FAMILY, 0x301, 1, 0) + b"\7\1\0\0" + b"\6\0\1\0x\0\0\0",
    ]


@pytest.mark.parametrize("kind", [2, 3])
def test_failure_of_the_kernel(kind: int) -> None:
    with pytest.raises(PermissionError):
        ask(answer(b"1234"), message(kind, struct.pack("=i", -errno.EPERM)))


@pytest.mark.parametrize(
    ("datagram", "problem"),
    [
        (b"\1\2\3", "3 bytes of a message at offset 0"),
        (answer(b"1234") + b"\0" * 15, "15 bytes of a message at offset 24"),
        (message(FAMILY, b"\1\1\0\0", 0), "message at offset 0 has length 0, 20 bytes are left"),
        (message(FAMILY, b"\1\1\0\0", 15), "message at offset 0 has length 15, 20 bytes are left"),
        (message(FAMILY, b"\1\1\0\0", 21), "message at offset 0 has length 21, 20 bytes are left"),
        (message(FAMILY, b"\1\1\0\0", 0xFFFFFFFF), "has length 4294967295, 20 bytes are left"),
        (message(3, b"\0\0"), "the last message has only 2 bytes"),
        (bytes(netlink.MAX_DATAGRAM + 1), "the answer is empty or longer than 65536 bytes"),
        (b"", "the answer is empty or longer than 65536 bytes"),
    ],
)
def test_answers_that_make_no_sense(datagram: bytes, problem: str) -> None:
    with pytest.raises(OSError, match=problem) as raised:
        ask(datagram)
    assert raised.value.errno == errno.EBADMSG


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\1", "1 bytes of a attribute at offset 0"),
        (b"\3\0\1\0", "attribute at offset 0 has length 3, 4 bytes are left"),
        (
            attribute(1, b"12") + b"\x0c\0\1\0" + b"1234567",
            "attribute at offset 8 has length 12, 11 bytes are left",
        ),
    ],
)
def test_attributes_that_make_no_sense(data: bytes, problem: str) -> None:
    with pytest.raises(OSError, match=problem):
        list(attributes(data))


def test_attributes() -> None:
    # The last may lack its padding; flags of the type are none of ours.
    data = attribute(1, b"abc") + attribute(0x8002, b"") + b"\5\0\3\0x"
    assert list(attributes(data)) == [(1, b"abc"), (2, b""), (3, b"x")]


def test_kernel_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "ANSWER_TIMEOUT", 0.05)
    with pytest.raises(TimeoutError, match="the kernel did not answer in time"):
        ask(answer(b"1234"))


def test_kernel_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "TOTAL_TIMEOUT", 0.2)

    def endless() -> Iterator[bytes]:
        while True:
            yield answer(b"1234")

    kernel = Kernel([[FOUND], endless()])
    with pytest.raises(TimeoutError, match="the kernel did not answer in time"):
        for _ in GenericNetlink("test", kernel.connect).ask(7, dump=True):
            pass
    kernel.close()


def test_another_process_that_answers() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as victim:
        victim.bind((0, 0))
        port = victim.getsockname()[0]

        class Attacked(socket.socket):
            def send(self, data: bytes) -> int:  # type: ignore[override]
                attacker.sendto(DONE, (port, 0))
                return len(data)

        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as attacker:
            attacker.bind((0, 0))
            copied = Attacked(fileno=os.dup(victim.fileno()))
            with pytest.raises(OSError, match=f"process {attacker.getsockname()[0]} answered, not the kernel"):
                list(GenericNetlink("nlctrl", lambda: copied).ask(3, dump=True))
