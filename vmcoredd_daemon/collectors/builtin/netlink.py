# SPDX-License-Identifier: LGPL-2.1-or-later
"""Generic netlink, as far as requests to the kernel need it.

Linux ``Documentation/userspace-api/netlink/intro.rst``, ``include/uapi/linux/netlink.h`` and ``genetlink.h``.
"""

import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

NLMSGHDR = struct.Struct("=IHHII")
GENLMSGHDR = struct.Struct("=BBH")
NLATTR = struct.Struct("=HH")
ERROR = struct.Struct("=i")
TYPE_MASK = 0x3FFF

NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3

GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2

NETLINK_GENERIC = 16
SEQUENCE = 1
"""Of the only request on a socket."""

MAX_DATAGRAM = 1 << 16
"""Bytes; the kernel sends at most 32 KiB unless the reader's buffer is larger."""

ANSWER_TIMEOUT = 10.0
"""Seconds for one answer: the driver may have to wait for its device."""

TOTAL_TIMEOUT = 60.0
"""Seconds for all answers to a request."""

Connect = Callable[[], socket.socket]
"""Returns a datagram socket whose other end is the kernel. Raises OSError."""


def connect() -> socket.socket:
    """Return a socket for generic netlink. Raises OSError."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_GENERIC)


def attribute(kind: int, value: bytes) -> bytes:
    """Return the bytes of an attribute."""
    size = NLATTR.size + len(value)
    return NLATTR.pack(size, kind) + value + bytes(-size % 4)


def string(kind: int, value: str) -> bytes:
    """Return the bytes of an attribute with a string."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of each attribute in *data*. Raises OSError (EBADMSG)."""
    for offset, kind, value in _split(data, NLATTR, "attribute"):
        yield kind & TYPE_MASK, data[offset : offset + value]


class GenericNetlink:
    """A family of generic netlink, by its *name*."""

    def __init__(self, name: str, connect: Connect = connect) -> None:
        self._name = name
        self._connect = connect
        self._family = 0

    def ask(self, command: int, request: bytes = b"", *, dump: bool = False) -> Iterator[bytes]:
        """Send a request with attributes; yield the attributes of each answer. Blocks.

        *dump* asks for all objects. Raises OSError: the kernel's error, ETIMEDOUT if it does not answer, EBADMSG
        for an invalid answer, ENOENT if it does not have the family.
        """
        if not self._family:
            self._family = self._find()
        yield from self._exchange(self._family, command, request, dump=dump)

    def _find(self) -> int:
        found = 0
        for answer in self._exchange(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, string(CTRL_ATTR_FAMILY_NAME, self._name)):
            value = dict(attributes(answer)).get(CTRL_ATTR_FAMILY_ID, b"")
            found = int.from_bytes(value[:2], sys.byteorder)
        if found <= NLMSG_DONE:
            raise OSError(errno.EBADMSG, f"netlink: family {self._name} has invalid number {found}")
        return found

    def _exchange(self, family: int, command: int, request: bytes, *, dump: bool = False) -> Iterator[bytes]:
        flags = NLM_F_REQUEST | (NLM_F_DUMP if dump else NLM_F_ACK)
        body = GENLMSGHDR.pack(command, 1, 0) + request
        # A socket for each: late answers to one request cannot be taken for answers to the next.
        with self._connect() as kernel:
            kernel.send(NLMSGHDR.pack(NLMSGHDR.size + len(body), family, flags, SEQUENCE, 0) + body)
            deadline = time.monotonic() + TOTAL_TIMEOUT
            while True:
                datagram = _receive(kernel, min(ANSWER_TIMEOUT, deadline - time.monotonic()))
                for offset, kind, size in _split(datagram, NLMSGHDR, "message"):
                    answer = datagram[offset : offset + size]
                    if kind in (NLMSG_ERROR, NLMSG_DONE):
                        _check(answer)
                        return
                    if kind == family:
                        yield answer[GENLMSGHDR.size :]


def _receive(kernel: socket.socket, timeout: float) -> bytes:
    try:
        if timeout <= 0:
            raise TimeoutError
        kernel.settimeout(timeout)
        datagram, _, flags, sender = kernel.recvmsg(MAX_DATAGRAM)
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, "netlink: the kernel did not answer in time") from None
    if sender and sender[0] != 0:
        # Any process may send to a socket whose port ID it guesses.
        raise OSError(errno.EBADMSG, f"netlink: process {sender[0]} answered, not the kernel")
    if flags & socket.MSG_TRUNC or not datagram:
        raise OSError(errno.EBADMSG, f"netlink: the answer is empty or longer than {MAX_DATAGRAM} bytes")
    return datagram


def _split(data: bytes, header: struct.Struct, what: str) -> Iterator[tuple[int, int, int]]:
    """Yield offset, type and size of what follows each header, which begins with its length and a type."""
    start = 0
    while start < len(data):
        if len(data) - start < header.size:
            raise OSError(errno.EBADMSG, f"netlink: only {len(data) - start} bytes of a {what} at offset {start}")
        length, kind = header.unpack_from(data, start)[:2]
        if not header.size <= length <= len(data) - start:
            raise OSError(
                errno.EBADMSG,
                f"netlink: {what} at offset {start} has length {length}, {len(data) - start} bytes are left",
            )
        yield start + header.size, kind, length - header.size
        start += length + -length % 4


def _check(answer: bytes) -> None:
    """Raise OSError if the last message of an answer is an error."""
    if len(answer) < ERROR.size:
        raise OSError(errno.EBADMSG, f"netlink: the last message has only {len(answer)} bytes")
    code = -ERROR.unpack_from(answer)[0]
    if code:
        raise OSError(code, os.strerror(code))
