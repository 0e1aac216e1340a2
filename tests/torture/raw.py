# SPDX-License-Identifier: LGPL-2.1-or-later
"""A connection to a message bus that sends whatever it is told to, also what no library would send."""

import array
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from tests.lib.dbus import Marshaller, Message, MessageType, Variant
from vmcoredd_daemon.bus.incoming import Incoming

CALL_FIELDS = [(1, "o", "/x"), (2, "s", "x.y"), (3, "s", "Z"), (7, "s", ":1.1")]
"""Header fields of a call as a bus forwards it."""
BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class Disconnected(Exception):
    """The bus has had enough of us."""


class RawConnection:
    """One connection; a context manager. Blocks."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(address.partition("path=")[2].partition(",")[0])
        self._serial = 0
        try:
            uid = str(os.geteuid()).encode().hex()
            self._say(f"\0AUTH EXTERNAL {uid}\r\n", b"OK")
            self._say("NEGOTIATE_UNIX_FD\r\n", b"AGREE_UNIX_FD")
            self._socket.sendall(b"BEGIN\r\n")
            self._incoming = Incoming(self._socket, None)
            self.name = self.call(Message(*BUS, "Hello")).body[0]
        except BaseException:
            self._socket.close()
            raise

    def _say(self, line: str, answer: bytes) -> None:
        self._socket.sendall(line.encode())
        received = b""
        while not received.endswith(b"\r\n"):
            data = self._socket.recv(100)
            if not data:
                raise Disconnected
            received += data
        assert received.startswith(answer), received

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def send(self, message: Message, fds: Sequence[int] = ()) -> int:
        """Send a message; return its serial."""
        message.serial = self.next_serial()
        message.unix_fds = list(fds)
        self.send_bytes(message._marshall(negotiate_unix_fd=True), fds)
        return message.serial

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send anything. Raises Disconnected."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self._socket.sendmsg([data], ancillary)
            self._socket.sendall(memoryview(data)[sent:])
        except OSError as error:
            raise Disconnected from error

    def receive(self, timeout: float = 30) -> Message | None:
        """Return the next message, None when none has come in time. Raises Disconnected."""
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                if self._incoming.unmarshall():
                    message, self._incoming = self._incoming.message, Incoming(self._socket, None)
                    return message
            except TimeoutError:
                return None
            except (OSError, EOFError) as error:
                raise Disconnected from error
            finally:
                self._socket.settimeout(30)
        return None

    def call(self, message: Message, fds: Sequence[int] = ()) -> Message:
        """Call a method and return its answer, of whatever kind; what else comes is dropped."""
        return self.answer(self.send(message, fds))

    def answer(self, serial: int) -> Message:
        """Return the answer to a call; what else comes is dropped."""
        while True:
            answer = self.receive()
            if answer is None:
                raise TimeoutError(f"no answer to call {serial}")
            close_all(answer.unix_fds if answer.reply_serial != serial else [])
            if answer.reply_serial == serial:
                return answer

    def close(self) -> None:
        close_all(self._incoming.unix_fds)
        self._socket.close()

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def pack(
    fields: Sequence[tuple[int, str, Any]],
    signature: str = "",
    body: bytes = b"",
    *,
    kind: int = MessageType.METHOD_CALL.value,
    flags: int = 0,
    version: int = 1,
    serial: int = 1,
    length: int | None = None,
) -> bytes:
    """Return the bytes of a message with these header fields, wrong ones included."""
    listed: list[Any] = [[code, Variant(type_, value)] for code, type_, value in fields]
    if signature:
        listed.append([8, Variant("g", signature)])
    size = len(body) if length is None else length
    header = Marshaller("yyyyuua(yv)", [ord("l"), kind, flags, version, size, serial, listed]).marshall()
    return bytes(header) + bytes(-len(header) % 8) + body


def packed_body(signature: str, body: Sequence[Any]) -> bytes:
    """Return the bytes of a body."""
    return bytes(Marshaller(signature, list(body)).marshall())
