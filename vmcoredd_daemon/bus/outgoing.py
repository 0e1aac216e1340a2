# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sending half of a D-Bus connection: a queue that waits until the socket is writable."""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..closing import close_fds


@dataclass(slots=True)
class _Outgoing:
    data: memoryview
    fds: list[int]
    sent: "asyncio.Future[None] | None" = field(default=None)


class Writer:
    """Sends queued messages whenever the socket is writable. Has the methods that dbus-next's own writer has."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self._queue: deque[_Outgoing] = deque()
        self._closed = False
        self.idle = asyncio.Event()
        self.idle.set()

    def schedule_write(self, message: Any | None = None, future: "asyncio.Future[None] | None" = None) -> None:
        """Queue a message; nothing is sent before the bus has said what our unique name is.

        After the connection is lost it is dropped: who announces something need not care whether anybody hears.
        """
        if self._closed:
            if future is not None:
                future.cancel()
            return
        if message is not None:
            data = memoryview(message._marshall(negotiate_unix_fd=True))
            self._queue.append(_Outgoing(data, _duplicates(message.unix_fds or []), future))
            self.idle.clear()
        if self._bus.unique_name and self._queue:
            self._bus._loop.add_writer(self._bus._fd, self._write)

    def _write(self) -> None:
        try:
            while self._queue:
                self._send_some(self._queue[0])
        except BlockingIOError:
            return
        except OSError as error:
            self._bus._finalize(error)
            return
        self._bus._loop.remove_writer(self._bus._fd)
        self.idle.set()

    def _send_some(self, message: _Outgoing) -> None:
        ancillary = []
        if message.fds:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", message.fds))]
        size = self._bus._sock.sendmsg([message.data], ancillary)
        close_fds(message.fds)
        message.data = message.data[size:]
        if not message.data:
            self._queue.popleft()
            if message.sent is not None and not message.sent.done():
                message.sent.set_result(None)

    def close(self) -> None:
        """Drop what was not sent."""
        self._closed = True
        for message in self._queue:
            close_fds(message.fds)
            if message.sent is not None:
                message.sent.cancel()
        self._queue.clear()
        self.idle.set()


def _duplicates(fds: Iterable[int]) -> list[int]:
    """Return a duplicate of each. Raises OSError; then there are none."""
    duplicates: list[int] = []
    try:
        for fd in fds:
            duplicates.append(os.dup(fd))
    except OSError:
        close_fds(duplicates)
        raise
    return duplicates
