# SPDX-License-Identifier: LGPL-2.1-or-later
"""File descriptors of every kind that no caller should pass as the data of a device dump."""

import ctypes
import errno
import fcntl
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.lib.fuse import Source, fuse_source
from tests.lib.resources import lingering_socket

LINGER = 0.2
"""Seconds."""
F_SEAL_ALL = 0x000F
F_ADD_SEALS = 1033
SYS_USERFAULTFD = 323
"""x86-64."""


def _directory(path: Path) -> list[int]:
    return [os.open(path, os.O_RDONLY)]


def _file(path: Path, flags: int, data: bytes = b"data") -> list[int]:
    (path / "file").write_bytes(data)
    return [os.open(path / "file", flags)]


def _sealed(_: Path) -> list[int]:
    fd = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    os.write(fd, b"sealed")
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_ALL)
    return [fd]


def _trickle(pause: float, count: int) -> list[int]:
    """Return a socket into which *count* bytes drip, one in *pause* seconds."""
    ours, theirs = socket.socketpair()

    def drip() -> None:
        with suppress(OSError), ours:
            for _ in range(count):
                ours.send(b".")
                time.sleep(pause)

    threading.Thread(target=drip, daemon=True).start()
    return [theirs.detach()]


def _lingering(_: Path) -> list[int]:
    ours, peer = lingering_socket(60)
    # Until then the last to have it open waits in close(2).
    threading.Timer(LINGER, peer.close).start()
    return [ours.detach()]


def _endless_pipe(_: Path) -> list[int]:
    reading, writing = os.pipe()

    def flood() -> None:
        with suppress(OSError):
            while True:
                os.write(writing, b"x" * 65536)
        os.close(writing)

    threading.Thread(target=flood, daemon=True).start()
    return [reading]


def _shrinking(path: Path) -> list[int]:
    (fd,) = _file(path, os.O_RDWR, b"x" * (1 << 20))
    kept = os.dup(fd)

    def cut() -> None:
        os.truncate(kept, 10)
        os.close(kept)

    threading.Timer(0.002, cut).start()
    return [fd]


def _epoll(_: Path) -> list[int]:
    epoll = select.epoll()
    fd = os.dup(epoll.fileno())
    epoll.close()
    return [fd]


def _userfaultfd(_: Path) -> list[int]:
    fd = ctypes.CDLL(None).syscall(SYS_USERFAULTFD, os.O_CLOEXEC)
    return [fd] if fd >= 0 else [os.eventfd(0)]


def _socket_with_descriptors(_: Path) -> list[int]:
    ours, theirs = socket.socketpair()
    with ours:
        socket.send_fds(ours, [b"x"], [0, 1, 2])
    return [theirs.detach()]


def _listening(_: Path) -> list[int]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")
    listener.listen()
    return [listener.detach()]


def _terminal(_: Path) -> list[int]:
    master, slave = os.openpty()
    os.close(slave)
    return [master]


KINDS: dict[str, Callable[[Path], list[int]]] = {
    "directory": _directory,
    "write-only": lambda path: _file(path, os.O_WRONLY),
    "O_PATH": lambda path: _file(path, os.O_PATH),
    "empty": lambda path: _file(path, os.O_RDONLY, b""),
    "shrinking": _shrinking,
    "zero": lambda _: [os.open("/dev/zero", os.O_RDONLY)],
    "null": lambda _: [os.open("/dev/null", os.O_RDONLY)],
    "random": lambda _: [os.open("/dev/urandom", os.O_RDONLY)],
    "full": lambda _: [os.open("/dev/full", os.O_RDONLY)],
    "memory": lambda _: [os.open("/proc/self/mem", os.O_RDONLY)],
    "sealed": _sealed,
    "trickle": lambda _: _trickle(0.02, 20),
    "slow-trickle": lambda _: _trickle(1, 3),
    "lingering": _lingering,
    "endless-pipe": _endless_pipe,
    "silent-pipe": lambda _: list(os.pipe()),
    "write-end": lambda _: list(reversed(os.pipe())),
    "epoll": _epoll,
    "eventfd": lambda _: [os.eventfd(0)],
    "pidfd": lambda _: [os.pidfd_open(os.getpid())],
    "userfaultfd": _userfaultfd,
    "datagram": lambda _: [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach()],
    "unconnected": lambda _: [socket.socket(socket.AF_INET).detach()],
    "listening": _listening,
    "with-descriptors": _socket_with_descriptors,
    "terminal": _terminal,
    "namespace": lambda _: [os.open("/proc/self/ns/net", os.O_RDONLY)],
    "proc-directory": lambda _: [os.open("/proc/self/fd", os.O_RDONLY)],
}
"""What each makes: the first is to be passed, all are to be closed."""


@contextmanager
def dead_server(directory: Path) -> Iterator[Source | None]:
    """Mount a file system whose server answers no poll, and fails each close; yield None where that is impossible.

    A close that is not answered would stop the bus, which closes its own descriptors.
    """
    directory.mkdir()
    (directory / "data").write_bytes(b"data")
    try:
        with fuse_source(directory / "data", directory / "mounted") as source:
            source.poll, source.flush = lambda: None, lambda: errno.EIO
            yield source
    except pytest.skip.Exception:
        yield None


@contextmanager
def odd_file(kind: str, directory: Path) -> Iterator[int]:
    """Yield a descriptor of one of :data:`KINDS` in the empty *directory*."""
    fds = KINDS[kind](directory)
    try:
        yield fds[0]
    finally:
        for fd in fds:
            os.close(fd)
