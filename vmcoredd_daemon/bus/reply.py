# SPDX-License-Identifier: LGPL-2.1-or-later
"""Answers to method calls, without anything internal in them."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from dbus_next import DBusError, Message, MessageFlag
from dbus_next.service import ServiceInterface

from ..errors import BusUnavailable, InvalidArgs, VmcoreddError
from ..threads.fd_closer import FdCloser, close_fds
from .calls import CallsInFlight

SENDER: ContextVar[str] = ContextVar("SENDER")
"""Unique name of the connection whose method call is being handled."""

log = logging.getLogger(__name__)

IO_ERROR = "org.freedesktop.DBus.Error.IOError"
INTERNAL_ERROR = "org.freedesktop.DBus.Error.Failed"


class Reply:
    """Answers one method call; a context manager and a callable, as dbus-next's own."""

    def __init__(self, send: Callable[[Message], object], message: Message) -> None:
        """*send* puts a message on the bus."""
        self._send = send
        self._message = message

    def __enter__(self) -> "Reply":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, Exception):
            self.send_error(error)
            return True
        return False

    def __call__(self, reply: Message) -> None:
        """Send *reply*, unless the caller expects none."""
        if not self._message.flags & MessageFlag.NO_REPLY_EXPECTED:
            self._send(reply)

    def send_error(self, error: Exception) -> None:
        """Answer with the error's D-Bus name; an unexpected one is only logged in full."""
        if isinstance(error, VmcoreddError):
            name, text = error.dbus_name, str(error)
        elif isinstance(error, DBusError):
            name, text = error.type, error.text
        elif isinstance(error, OSError):
            # An error of this machine, such as no file descriptors left.
            text = error.strerror or "input/output error"
            log.error("Cannot answer %s.%s: %s", self._message.interface, self._message.member, text)
            name = IO_ERROR
        else:
            log.error("Internal error in %s.%s", self._message.interface, self._message.member, exc_info=error)
            name, text = INTERNAL_ERROR, "internal error"
        self(Message.new_error(self._message, name, text))


async def answer(
    interface: ServiceInterface,
    method: Any,
    message: Message,
    args: list[Any],
    fds: list[int],
    reply: Reply,
    in_flight: CallsInFlight | None,
    fd_closer: FdCloser,
) -> None:
    """Run one method, answer it, and close the received *fds*: a method that keeps one must duplicate it."""
    out: list[int] = []
    SENDER.set(message.sender or "")
    try:
        with reply:
            result = await method.fn(interface, *args)
            body, out = ServiceInterface._fn_result_to_body(result, method.out_signature_tree)
            reply(Message.new_method_return(message, method.out_signature, body, out))
    except asyncio.CancelledError:
        reply.send_error(BusUnavailable("the service is stopping"))
        raise
    finally:
        # Not in a done callback: it runs later, when the next calls may have arrived.
        if in_flight is not None:
            in_flight.end(message.sender or "")
        close_fds(out)
        fd_closer.close(fds)


def arguments(message: Message) -> list[Any]:
    """Return the arguments of a call; a descriptor that did not come with it is None.

    dbus-next would copy all arguments to look for descriptors inside values, where none of our methods takes one.
    """
    fds = dict(enumerate(message.unix_fds))
    types = message.signature_tree.types
    return [
        fds.get(value) if type_.token == "h" else value for type_, value in zip(types, message.body, strict=True)
    ]


def check_fds(message: Message) -> None:
    """Raise InvalidArgs if a call brings descriptors that its arguments do not use."""
    taken = message.signature.count("h")
    if len(message.unix_fds) > taken:
        raise InvalidArgs(f"the message has {len(message.unix_fds)} file descriptors, its signature {taken}")
