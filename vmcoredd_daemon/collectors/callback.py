# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls back the caller of AddDeviceDump, as the kernel calls a driver: ``org.vmcoredd1.Collector.Collect``."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from ..bus import Connection, take_fds
from ..bus.dbus_names import COLLECTOR
from ..dumps.buffer import Buffer
from ..dumps.collector import Collected
from ..errors import CallFailed, CollectorFailed
from ..text import shortened

STANDARD_ERRORS: Mapping[str, str] = MappingProxyType(
    {
        "org.freedesktop.DBus.Error.AccessDenied": "EACCES",
        "org.freedesktop.DBus.Error.AddressInUse": "EADDRINUSE",
        "org.freedesktop.DBus.Error.BadAddress": "EADDRNOTAVAIL",
        "org.freedesktop.DBus.Error.Disconnected": "ECONNRESET",
        "org.freedesktop.DBus.Error.FileExists": "EEXIST",
        "org.freedesktop.DBus.Error.FileNotFound": "ENOENT",
        "org.freedesktop.DBus.Error.InconsistentMessage": "EBADMSG",
        "org.freedesktop.DBus.Error.InvalidArgs": "EINVAL",
        "org.freedesktop.DBus.Error.LimitsExceeded": "ENOBUFS",
        "org.freedesktop.DBus.Error.NoMemory": "ENOMEM",
        "org.freedesktop.DBus.Error.NotSupported": "EOPNOTSUPP",
        "org.freedesktop.DBus.Error.Timeout": "ETIMEDOUT",
        "org.freedesktop.DBus.Error.UnixProcessIdUnknown": "ESRCH",
    }
)
"""Names that ``sd_bus_error_set_errno(3)`` gives to errnos; others get the like of ``System.Error.EBUSY``.
systemd, ``src/libsystemd/sd-bus/bus-error.c``."""


class CallbackCollector:
    """The object *path* on the connection *sender*."""

    def __init__(self, bus: Connection, sender: str, path: str) -> None:
        # A path may be as long as a message.
        self.description = shortened(f"{sender}{path}")
        self._bus = bus
        self._sender = sender
        self._path = path

    async def collect(self, dump_name: str, buffer: Buffer) -> Collected:
        """Send the buffer's descriptor, and wait for the true size. Raises CollectorFailed."""
        try:
            with _own_description(buffer) as fd:
                body = (dump_name, 0, buffer.offset, buffer.size)
                answer = self._bus.method_call(self._sender, self._path, COLLECTOR, "Collect", "shtu", body, [fd])
                reply = await answer
        except CallFailed as error:
            raise CollectorFailed(
                f"device dump {dump_name}: collector {self.description} failed: {error.name}: "
                f"{shortened(error.text)}",
                errno_of(error.name),
            ) from error
        except OSError as error:
            what = f"device dump {dump_name}: collector {self.description}"
            reason = f"{what}: cannot send it the buffer: {error.strerror}"
            raise CollectorFailed(reason, error.errno or errno.EIO) from error
        self._bus.fd_closer.close(take_fds(reply))
        if reply.signature != "u" or not reply.body:
            raise CollectorFailed(
                f"device dump {dump_name}: collector {self.description} answered with signature "
                f"{reply.signature!a}, not 'u'"
            )
        return Collected(reply.body[0])

    def close(self) -> None:
        """Nothing is held."""


@contextmanager
def _own_description(buffer: Buffer) -> Iterator[int]:
    """Yield a descriptor of the buffer with a file description of its own.

    In ours a collector could set O_APPEND, with which Linux's pwrite(2) ignores the offset and writes at the end,
    or take a lease, for which each later open(2) waits.
    """
    fd = os.open(f"/proc/self/fd/{buffer.fd}", os.O_RDWR | os.O_CLOEXEC)
    buffer.shared = True
    try:
        yield fd
    finally:
        os.close(fd)


def errno_of(error_name: str) -> int:
    """Return the errno that a helper's error stands for, EIO if it stands for none."""
    name = STANDARD_ERRORS.get(error_name, error_name.removeprefix("System.Error."))
    code = getattr(errno, name, errno.EIO)
    return code if isinstance(code, int) else errno.EIO
