# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sending half of a D-Bus connection: a queue that waits until the socket is writable."""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

from dbus_next import Message

from ..threads.fd_closer import close_fds
from .marshalling import marshalled

MAX_SENT_TOGETHER = 64
"""Messages that are sent in one system call."""


@dataclass(slots=True)
class _Outgoing:
    data: memoryview
    fds: list[int]
    sent: "asyncio.Future[None] | None" = field(default=None)


class Writer:
    """Sends queued messages whenever the socket is writable. Has the methods of dbus-next's own writer."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self._queue: deque[_Outgoing] = deque()
        self._closed = False
        self._writing = False
        self.idle = asyncio.Event()
        self.idle.set()

    def schedule_write(self, message: Message | None = None, future: "asyncio.Future[None] | None" = None) -> None:
        """Queue a message; nothing is sent before the bus has told us our unique name.

        After the connection is lost it is dropped, so that callers need not check for that.
        """
        if self._closed:
            if future is not None:
                future.cancel()
            return
        if message is not None:
            data = memoryview(marshalled(message))
            self._queue.append(_Outgoing(data, _duplicates(message.unix_fds or []), future))
            self.idle.clear()
        if self._bus.unique_name and self._queue and not self._writing:
            self._writing = True
            # Messages that are queued in this iteration of the loop are sent with it.
            self._bus._loop.call_soon(self._write)

    def _write(self) -> None:
        try:
            while self._queue:
                self._send_some()
        except BlockingIOError:
            self._bus._loop.add_writer(self._bus._fd, self._write)
            return
        except OSError as error:
            self._bus._finalize(error)
            return
        if not self._closed:
            self._bus._loop.remove_writer(self._bus._fd)
        self._writing = False
        self.idle.set()

    def _send_some(self) -> None:
        first, *others = islice(self._queue, MAX_SENT_TOGETHER)
        pieces, ancillary = [first.data], []
        if first.fds:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", first.fds))]
        else:
            pieces += (message.data for message in takewhile(lambda other: not other.fds, others))
        size = self._bus._sock.sendmsg(pieces, ancillary)
        close_fds(first.fds)
        for data in pieces:
            if size < len(data):
                self._queue[0].data = data[size:]
                return
            size -= len(data)
            sent = self._queue.popleft().sent
            if sent is not None and not sent.done():
                sent.set_result(None)

    def close(self) -> None:
        """Drop the messages that were not sent."""
        self._closed = True
        for message in self._queue:
            close_fds(message.fds)
            if message.sent is not None:
                message.sent.cancel()
        self._queue.clear()
        self.idle.set()


def _duplicates(fds: Iterable[int]) -> list[int]:
    """Return a duplicate of each. Raises OSError; then none is left open."""
    duplicates: list[int] = []
    try:
        for fd in fds:
            duplicates.append(os.dup(fd))
    except OSError:
        close_fds(duplicates)
        raise
    return duplicates
