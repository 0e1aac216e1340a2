# SPDX-License-Identifier: LGPL-2.1-or-later
"""The connection: connecting, calling methods, and answering calls."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from typing import Any

from dbus_next import BusType, Message, MessageType, NameFlag, RequestNameReply
from dbus_next.service import ServiceInterface

from ..config.limits import CallLimits
from ..errors import BusUnavailable, CallFailed
from ..threads.fd_closer import FdCloser
from .calls import CallsInFlight
from .connect import connect_socket, read_auth_line, unavailable
from .dbus_names import DBUS
from .incoming import Incoming
from .objects import ExportingBus
from .outgoing import Writer
from .reply import Reply, answer, arguments, check_fds

log = logging.getLogger(__name__)

CONNECTION_LOST = "the connection to the message bus was lost"
MAX_MESSAGES = 64
"""Messages that are handled before other tasks run, unless READ_TIME is over."""
READ_TIME = 0.01
"""Seconds that messages are handled before other tasks run."""
FULL_POLL = 0.1
"""Seconds between two checks whether descriptors can be taken again."""
SEND_BUFFER = 1 << 20
"""SO_SNDBUF in bytes, so that a burst of signals rarely has to wait."""


def take_fds(message: Message) -> list[int]:
    """Return the received file descriptors of *message*; from now on the caller of this function owns them."""
    fds = list(message.unix_fds)
    message.unix_fds.clear()
    return fds


class Connection(ExportingBus):
    """A connection to a message bus; the package's docstring says how it differs from dbus-next's.

    *object_manager* is the path whose ObjectManager announces the exported objects; *limits* are for callers.
    """

    def __init__(
        self, address: str | None = None, object_manager: str = "/", limits: CallLimits | None = None
    ) -> None:
        self.fd_closer = FdCloser()
        """Closes descriptors that came over the bus."""
        self._limits = limits
        self._in_flight = CallsInFlight(limits) if limits else None
        super().__init__(bus_address=address, bus_type=BusType.SYSTEM, negotiate_unix_fd=True)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._writer: Any = Writer(self)
        self._object_manager = object_manager
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls, address: str | None, timeout: float, object_manager: str = "/", limits: CallLimits | None = None
    ) -> "Connection":
        """Connect to the bus at *address*, by default the system bus, within *timeout* seconds.

        Raises BusUnavailable.
        """
        try:
            connection = cls(address, object_manager, limits)
        except Exception as error:
            raise unavailable(address, error) from error
        try:
            async with asyncio.timeout(timeout):
                await connection.connect()
            if not str(connection.unique_name).startswith(":"):
                # dbus-next takes an error message of Hello for the unique name.
                raise BusUnavailable(f"the bus refused the connection: {connection.unique_name}")
        except BaseException as error:
            connection._finalize(None)
            if not isinstance(error, Exception):
                raise
            raise unavailable(address, error) from error
        return connection

    def _setup_socket(self) -> None:
        self._sock = connect_socket(self._bus_address)
        self._stream, self._fd = self._sock.makefile("rwb"), self._sock.fileno()

    async def _auth_readline(self) -> str:
        return await read_auth_line(self._sock)

    def _create_unmarshaller(self) -> Incoming:
        return Incoming(self._sock, self._limits.max_message_size if self._limits else None)

    async def own(self, name: str, timeout: float) -> None:
        """Own a well-known name. Raises BusUnavailable if it is refused or another process owns it."""
        # The bus handles what is sent from here on after this request.
        self.announces = True
        try:
            async with asyncio.timeout(timeout):
                reply = await self.method_call(*DBUS, "RequestName", "su", (name, NameFlag.DO_NOT_QUEUE.value))
        except CallFailed as error:
            raise BusUnavailable(f"cannot own {name}: {error.text}") from error
        except TimeoutError as error:
            raise BusUnavailable(f"cannot own {name}: the bus did not answer within {timeout:g} s") from error
        if reply.body != [RequestNameReply.PRIMARY_OWNER.value]:
            raise BusUnavailable(f"cannot own {name}: another process owns it")

    async def call(self, message: Message) -> Message:
        """Call a method and return its reply, of type METHOD_RETURN or ERROR; the caller must take its fds.

        Raises BusUnavailable when the connection is lost. The caller sets the deadline.
        """
        if self._disconnected:
            raise BusUnavailable(CONNECTION_LOST)
        message.serial = self.next_serial()
        future: asyncio.Future[Message] = self._loop.create_future()

        def answered(reply: Message | None, error: Exception | None) -> None:
            if future.done():
                return
            if reply is None:
                future.set_exception(BusUnavailable(CONNECTION_LOST))
            else:
                kept = copy(reply)
                kept.unix_fds = take_fds(reply)
                future.set_result(kept)

        self._method_return_handlers[message.serial] = answered
        try:
            self.send(message)
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.fd_closer.close(take_fds(future.result()))
            raise
        finally:
            self._method_return_handlers.pop(message.serial, None)

    async def method_call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[object] = (),
        fds: Sequence[int] = (),
    ) -> Message:
        """Call a method and return its reply. Raises CallFailed for an error reply; the rest as :meth:`call`."""
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
            unix_fds=list(fds),
        )
        reply = await self.call(message)
        if reply.message_type is MessageType.ERROR:
            self.fd_closer.close(take_fds(reply))
            raise CallFailed(str(reply.error_name), str(reply.body[0]) if reply.body else "")
        return reply

    async def wait_closed(self) -> None:
        """Return when the connection is lost."""
        await asyncio.wait([self._disconnect_future])

    async def close(self, timeout: float = 5.0) -> None:
        """Send what is queued, at most for *timeout* seconds, then disconnect."""
        if not self._disconnected:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    if self._tasks:
                        await asyncio.wait(self._tasks)
                    await self._writer.idle.wait()
        self._user_disconnect = True
        self._finalize(None)

    def _finalize(self, err: Exception | None = None) -> None:
        if self._disconnected:
            return
        self.fd_closer.close(self._unmarshaller.unix_fds)
        self._writer.close()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        super()._finalize(err)
        if self._disconnect_future.done():
            # Or asyncio logs an exception that nothing has retrieved.
            self._disconnect_future.exception()
        self._stream.close()
        self._sock.close()

    def _listen(self) -> None:
        if not self._disconnected:
            self._loop.add_reader(self._fd, self._message_reader)

    def _message_reader(self) -> None:
        if self.fd_closer.full:
            # The bus queues messages meanwhile, and refuses more at its own limit.
            self._loop.remove_reader(self._fd)
            self._loop.call_later(FULL_POLL, self._listen)
            return
        # dbus-next reads until the socket is empty: a fast sender would starve everything else.
        until = self._loop.time() + READ_TIME
        try:
            for _ in range(MAX_MESSAGES):
                if not self._unmarshaller.unmarshall():
                    return
                incoming, self._unmarshaller = self._unmarshaller, self._create_unmarshaller()
                self._received(incoming)
                if self._loop.time() > until:
                    return
        except Exception as error:
            self._finalize(error)

    def _received(self, incoming: Incoming) -> None:
        message = incoming.message
        if message is None:
            self.fd_closer.close(incoming.unix_fds)
        elif incoming.problem is not None and message.message_type is MessageType.METHOD_CALL:
            self.fd_closer.close(take_fds(message))
            Reply(self.send, message).send_error(incoming.problem)
        else:
            self._on_message(message)

    def _default_get_machine_id_handler(self, msg: Message, send_reply: Callable[[Message], None]) -> None:
        # dbus-next asks the bus, which may not answer; then the caller would never get an answer.
        send_reply(Message.new_error(msg, "org.freedesktop.DBus.Error.NotSupported", "not supported"))

    def _on_message(self, msg: Message) -> None:
        try:
            super()._on_message(msg)
        finally:
            self.fd_closer.close(take_fds(msg))

    def _send_reply(self, msg: Message) -> Reply:
        return Reply(self.send, msg)

    def _make_method_handler(self, interface: ServiceInterface, method: Any) -> Callable[[Message, Reply], None]:
        def handler(message: Message, reply: Reply) -> None:
            # An error that is raised here is sent as the answer.
            check_fds(message)
            args, in_flight = arguments(message), self._in_flight
            if in_flight is not None:
                in_flight.begin(message.sender or "")
            answering = answer(
                interface, method, message, args, take_fds(message), reply, in_flight, self.fd_closer
            )
            task = self._loop.create_task(answering)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return handler
