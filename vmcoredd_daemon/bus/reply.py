# SPDX-License-Identifier: LGPL-2.1-or-later
"""Answers to method calls, of which nothing internal leaves."""

import logging
from typing import TYPE_CHECKING

from dbus_next import DBusError, Message, MessageFlag

from ..errors import VmcoreddError

if TYPE_CHECKING:
    from .connection import Connection

log = logging.getLogger(__name__)

IO_ERROR = "org.freedesktop.DBus.Error.IOError"
INTERNAL_ERROR = "org.freedesktop.DBus.Error.Failed"


class Reply:
    """Answers one method call once; a context manager and a callable, as dbus-next's own."""

    def __init__(self, bus: "Connection", message: Message) -> None:
        self._bus = bus
        self._message = message

    def __enter__(self) -> "Reply":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, Exception):
            self.send_error(error)
            return True
        return False

    def __call__(self, reply: Message) -> None:
        """Send *reply*, unless the caller wants none."""
        if not self._message.flags & MessageFlag.NO_REPLY_EXPECTED:
            self._bus.send(reply)

    def send_error(self, error: Exception) -> None:
        """Answer with the error's D-Bus name; of an unexpected one the caller learns nothing but that."""
        if isinstance(error, VmcoreddError):
            name, text = error.dbus_name, str(error)
        elif isinstance(error, DBusError):
            name, text = error.type, error.text
        elif isinstance(error, OSError):
            # The machine's: no descriptor is left, say.
            text = error.strerror or "input/output error"
            log.error("Cannot answer %s.%s: %s", self._message.interface, self._message.member, text)
            name = IO_ERROR
        else:
            log.error("Internal error in %s.%s", self._message.interface, self._message.member, exc_info=error)
            name, text = INTERNAL_ERROR, "internal error"
        self(Message.new_error(self._message, name, text))
