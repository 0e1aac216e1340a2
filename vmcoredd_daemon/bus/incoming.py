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
MAX_SIGNATURES = 256
"""Signatures in the cache of dbus-next, which never drops one; a long one takes 100 KB."""

_ANCILLARY = socket.CMSG_LEN(MAX_UNIX_FDS * array.array("i").itemsize)
_TEXT = (b"\1s\0", b"\1o\0")
"""The signatures of most fields."""
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
        self._rest = -1

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
        if self._rest < 0:
            self._fill(FIXED_HEADER)
            order = "<" if self.buf[:1] == b"l" else ">"
            body, _, fields = struct.unpack_from(f"{order}III", self.buf, 4)
            header = FIXED_HEADER + fields + self._padding(fields, 8)
            self._kept, self._rest = header + body, 0
            if self._limit is not None and max(header, body) > self._limit:
                # The sender is the last field, appended by the bus: with too long a header it stays unknown, and
                # gets no answer.
                self._kept = header if header <= self._limit else FIXED_HEADER
                self._rest = header + body - self._kept
                self.problem = LimitsExceeded(f"the message has {body} bytes, the limit is {self._limit}")
        self._fill(self._kept)
        while self._rest:
            try:
                self._fill(self._kept + min(self._rest, SKIP_SIZE))
            finally:
                self._rest -= len(self.buf) - self._kept
                del self.buf[self._kept :]

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
        self.offset = FIXED_HEADER - 4
        fields = self._fields()
        self.align(8)
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

    def _fields(self) -> dict[str, Any]:
        """Return the header fields. The types that a bus uses are parsed here: dbus-next is slowest there."""
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
        return fields
