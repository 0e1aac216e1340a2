# SPDX-License-Identifier: LGPL-2.1-or-later
"""The receiving half of a D-Bus connection: messages of bounded size, none of which can end the connection.

dbus-next's own unmarshaller ends the connection for anything unknown, such as a header field of a later version,
and unpacks messages of any size. Here a message that cannot be read is dropped or, if the caller is known,
refused. See "Message Protocol" in the D-Bus specification.
"""

import array
import io
import socket
import struct
from typing import Any

from dbus_next import Message, MessageFlag, MessageType
from dbus_next._private.constants import HeaderField
from dbus_next._private.unmarshaller import MAX_UNIX_FDS, Unmarshaller
from dbus_next.signature import SignatureTree

from ..errors import InvalidArgs, LimitsExceeded, VmcoreddError

FIXED_HEADER = 16
"""Bytes up to and including the length of the array of header fields."""
SKIP_SIZE = 64 << 10
"""Bytes of a message that is too large that are received, and dropped, at a time."""
SENDER_SIZE = 512
"""Bytes at the end of a header that hold its last field: the sender, which the bus appends, of 255 at most."""
MAX_SIGNATURES = 256
"""Signatures in the cache of dbus-next, which never drops one; a long one takes 100 KB."""

_ANCILLARY = socket.CMSG_LEN(MAX_UNIX_FDS * array.array("i").itemsize)
_TEXT = (b"\1s\0", b"\1o\0")
"""The signatures of most fields."""
_SENDER = bytes([HeaderField.SENDER.value]) + _TEXT[0]
"""How the field with the sender begins."""
_FIELDS = {field.value: field.name.lower() for field in HeaderField}


class Incoming(Unmarshaller):
    """Receives one message; if *limit* is given, header and body have at most as many bytes each."""

    def __init__(self, sock: socket.socket, limit: int | None) -> None:
        # No stream: the parser must not read on into the next message.
        super().__init__(io.BytesIO())
        self._sock = sock
        self.problem: VmcoreddError | None = None
        """Why the message has no body; to be sent as the answer."""
        self._limit = limit
        self._kept = 0
        self._dropped: dict[int, int] = {}
        """Bytes that are still to be received and dropped, by those of the message that are kept before them."""
        self._only_sender = False
        """Whether only the end of the header is kept."""

    def unmarshall(self) -> bool:
        """Receive what is available; return whether the message is complete.

        ``message`` is then set, or None if it cannot be parsed. Raises OSError and EOFError when the connection is
        lost.
        """
        try:
            self._receive()
        except BlockingIOError:
            return False
        try:
            self.message = self._message()
        except Exception:
            # Any error: no bus would forward it, or dbus-next does not know its type.
            self.message = None
        if len(SignatureTree._cache) > MAX_SIGNATURES:
            SignatureTree._cache.clear()
        return True

    def _receive(self) -> None:
        if not self._kept:
            self._fill(FIXED_HEADER)
            order = "<" if self.buf[:1] == b"l" else ">"
            body, _, fields = struct.unpack_from(f"{order}III", self.buf, 4)
            header = FIXED_HEADER + fields + self._padding(fields, 8)
            self._kept = header + body
            if self._limit is not None and max(header, body) > self._limit:
                self._only_sender = header > self._limit
                self._kept = FIXED_HEADER + SENDER_SIZE if self._only_sender else header
                self._dropped = {FIXED_HEADER: header - self._kept, self._kept: body}
                what, size = ("header", header) if self._only_sender else ("message", body)
                self.problem = LimitsExceeded(f"the {what} has {size} bytes, the limit is {self._limit}")
        for kept in (FIXED_HEADER, self._kept):
            self._drop(kept)

    def _drop(self, kept: int) -> None:
        """Receive until ``buf`` has *kept* bytes, and drop what is to be dropped behind them."""
        self._fill(kept)
        while missing := self._dropped.get(kept, 0):
            try:
                self._fill(kept + min(missing, SKIP_SIZE))
            finally:
                self._dropped[kept] = missing - (len(self.buf) - kept)
                del self.buf[kept:]

    def _fill(self, size: int) -> None:
        """Receive until ``buf`` has *size* bytes. Raises BlockingIOError if they are not available yet."""
        missing = size - len(self.buf)
        if missing <= 0:
            return
        data, ancillary, *_ = self._sock.recvmsg(missing, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        for level, kind, descriptors in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self.unix_fds += array.array("i", descriptors)
        if not data:
            raise EOFError
        self.buf += data
        if len(data) < missing:
            raise BlockingIOError

    def _message(self) -> Message | None:
        self.endian = self.buf[0]
        kind, flags = MessageType(self.buf[1]), MessageFlag(self.buf[2])
        (serial,) = struct.unpack_from("<I" if self.endian == ord("l") else ">I", self.buf, 8)
        fields = self._sender() if self._only_sender else self._fields()
        fields.pop("unix_fds", None)
        signature = fields.pop("signature", "")
        if self.problem is None:
            try:
                tree = SignatureTree._get(signature)
                body = [self.read_argument(type_) for type_ in tree.types]
            except Exception as error:
                self.problem = InvalidArgs(f"signature {signature[:64]!a} cannot be read: {type(error).__name__}")
        if self.problem is not None:
            tree, body = SignatureTree._get(""), []
        return Message(
            message_type=kind,
            flags=flags,
            serial=serial,
            unix_fds=self.unix_fds,
            signature=tree,
            body=body,
            **fields,
        )

    def _sender(self) -> dict[str, Any]:
        """Return the fields of an answer to the sender, the last field; another one of a message is not known."""
        _, found, field = bytes(self.buf[FIXED_HEADER:]).rpartition(_SENDER)
        (size,) = struct.unpack_from("<I" if self.endian == ord("l") else ">I", field) if found else (0,)
        # A length, the name, a zero, and up to 7 bytes of padding.
        if not found or not 0 <= len(field) - (4 + size + 1) < 8:
            raise InvalidArgs("the sender is not the last header field")
        return {"path": "/", "member": "Unknown", "sender": field[4 : 4 + size].decode()}

    def _fields(self) -> dict[str, Any]:
        """Return the header fields. The types that a bus uses are parsed here: dbus-next is slowest there."""
        self.offset = FIXED_HEADER - 4
        length = struct.Struct("<I" if self.endian == ord("l") else ">I")
        (size,) = length.unpack_from(self.buf, self.offset)
        self.offset += 4
        end, fields = self.offset + size, {}
        while self.offset < end:
            self.align(8)
            code, signature = self.buf[self.offset], self.buf[self.offset + 1 : self.offset + 4]
            if signature in _TEXT:
                start = self.offset + 8
                self.offset = start + length.unpack_from(self.buf, self.offset + 4)[0] + 1
                value = self.buf[start : self.offset - 1].decode()
            elif signature == b"\1g\0":
                start = self.offset + 5
                self.offset = start + self.buf[start - 1] + 1
                value = self.buf[start : self.offset - 1].decode()
            elif signature == b"\1u\0":
                (value,) = length.unpack_from(self.buf, self.offset + 4)
                self.offset += 8
            else:
                self.offset += 1
                value = self.read_variant().value
            if code in _FIELDS:
                fields[_FIELDS[code]] = value
        if self.offset != end:
            raise InvalidArgs("the header fields do not end at their length")
        self.align(8)
        return fields
