# SPDX-License-Identifier: LGPL-2.1-or-later
"""Netlink sockets with a test at their other end."""

import socket
import threading
from collections.abc import Iterable


class Kernel:
    """Answers each request with the next of the lists of datagrams; then it says no more, or hangs up."""

    def __init__(self, answers: Iterable[Iterable[bytes]]) -> None:
        self.requests: list[bytes] = []
        self._answers = iter(answers)
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        thread = threading.Thread(target=self._serve, args=(theirs, next(self._answers, ())))
        thread.start()
        self._threads.append(thread)
        return ours

    def _serve(self, kernel: socket.socket, answers: Iterable[bytes]) -> None:
        self._sockets.append(kernel)
        self.requests.append(kernel.recv(1 << 16))
        for datagram in answers:
            try:
                kernel.send(datagram)
            except (BrokenPipeError, ConnectionResetError):
                # The client has heard enough.
                return

    def close(self) -> None:
        for thread in self._threads:
            thread.join()
        for kernel in self._sockets:
            kernel.close()
