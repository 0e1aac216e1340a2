# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors that are no data: to read one takes signals from the reader, or gives it other descriptors."""

import ctypes
import os
import pty
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib.caller import call
from tests.lib.resources import settled
from tests.lib.service import Service
from vmcoredd_daemon.bus import Connection
from vmcoredd_daemon.errors import CallFailed, InvalidArgs

LIBC = ctypes.CDLL(None, use_errno=True)
SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}.get(os.uname().machine, 282)
SYS_PIDFD_OPEN = 434
FAN_CLASS_NOTIF, FAN_OPEN, FAN_MARK_ADD = 0, 0x20, 1


def signalfd(path: Path) -> int:
    mask = (ctypes.c_uint64 * 16)(1 << (signal.SIGTERM - 1))
    return LIBC.signalfd(-1, mask, 0)


def fanotify(path: Path) -> int:
    fd = LIBC.fanotify_init(FAN_CLASS_NOTIF, os.O_RDONLY)
    if fd >= 0:
        LIBC.fanotify_mark(fd, FAN_MARK_ADD, ctypes.c_uint64(FAN_OPEN), -100, str(path).encode())
        (path / "opened").write_text("by somebody")
        for _ in range(100):
            (path / "opened").read_text()
    return fd


def terminal(path: Path) -> int:
    _, ours = pty.openpty()
    return ours


def control(path: Path) -> int:
    ours, _ = pty.openpty()
    return ours


KINDS: dict[str, Callable[[Path], int]] = {
    "signalfd": signalfd,
    "fanotify": fanotify,
    "userfaultfd": lambda path: LIBC.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | 1),
    "eventfd": lambda path: os.eventfd(7),
    "timerfd": lambda path: LIBC.timerfd_create(1, 0),
    "epoll": lambda path: LIBC.epoll_create1(0),
    "inotify": lambda path: LIBC.inotify_init1(0),
    "pidfd": lambda path: LIBC.syscall(SYS_PIDFD_OPEN, os.getpid(), 0),
    "terminal": terminal,
    "the other end of a terminal": control,
    "the console": lambda path: os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY),
    "datagrams": lambda path: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
    "a directory": lambda path: os.open(path, os.O_RDONLY),
    "a path": lambda path: os.open(path, os.O_PATH),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_no_data_is_refused(daemon: Service, bus: Connection, tmp_path: Path, kind: str) -> None:
    fd = KINDS[kind](tmp_path)
    if fd < 0:
        pytest.skip(f"this kernel gives no {kind}")
    before = daemon.fd_count()
    try:
        with pytest.raises(CallFailed) as caught:
            await call(bus, "AddDeviceDumpFd", "suha{sv}", ["nic0", 65536, 0, {}], [fd])
    finally:
        os.close(fd)
    assert caught.value.name == InvalidArgs.dbus_name
    assert await settled(daemon.fd_count, before) == before
    assert daemon.stop() == 0
    assert daemon.vmcore().exists()
