# SPDX-License-Identifier: LGPL-2.1-or-later
"""The one family of errors: each has the errno that the kernel's facility returns, and a D-Bus name.

The errnos follow ``vmcore_add_device_dump()`` in Linux ``fs/proc/vmcore.c``. A message is one line that
names the file, field and value at fault, and may be shown to any caller.
"""

import errno
import os
from typing import ClassVar


class VmcoreddError(Exception):
    """Any error of vmcoredd that a caller or user must know."""

    errno: int = errno.EIO
    dbus_name: ClassVar[str] = "org.freedesktop.DBus.Error.Failed"


class InvalidArgs(VmcoreddError):
    """An argument is wrong; the kernel's facility refuses an empty name, size 0 and no collector, too."""

    errno = errno.EINVAL
    dbus_name = "org.freedesktop.DBus.Error.InvalidArgs"


class NameInUse(VmcoreddError):
    """Another device dump has the dump name; the kernel does not check this."""

    errno = errno.EEXIST
    dbus_name = "org.vmcoredd1.Error.NameInUse"


class TooLarge(VmcoreddError):
    """One device dump exceeds the limit of a single dump, or what ``n_descsz`` can hold."""

    errno = errno.ENOMEM
    dbus_name = "org.vmcoredd1.Error.TooLarge"


class QuotaExceeded(VmcoreddError):
    """All device dumps together exceed their limit, in number or in bytes."""

    errno = errno.ENOMEM
    dbus_name = "org.vmcoredd1.Error.QuotaExceeded"


class LimitsExceeded(VmcoreddError):
    """Too many unanswered calls, or a message that is too large; the kernel has no such limit."""

    errno = errno.ENOBUFS
    dbus_name = "org.freedesktop.DBus.Error.LimitsExceeded"


class NoSpace(VmcoreddError):
    """The file system of the spool or of the target has no space left, or the machine has no memory."""

    errno = errno.ENOMEM
    dbus_name = "org.vmcoredd1.Error.NoSpace"


class CollectorFailed(VmcoreddError):
    """A collector failed; as in the kernel, its own code is passed on if it gave one."""

    dbus_name = "org.vmcoredd1.Error.CollectorFailed"

    def __init__(self, message: str, code: int = errno.EIO) -> None:
        super().__init__(message)
        self.errno = code


class TimedOut(VmcoreddError):
    """A deadline passed."""

    errno = errno.ETIMEDOUT
    dbus_name = "org.vmcoredd1.Error.TimedOut"


class Busy(VmcoreddError):
    """Not now: the dump list is sealed, another process has the lock, or too many threads hang."""

    errno = errno.EBUSY
    dbus_name = "org.vmcoredd1.Error.Busy"


class Disabled(VmcoreddError):
    """No device dump is taken: by configuration, or because the vmcore of this crash is done."""

    errno = errno.EOPNOTSUPP
    dbus_name = "org.vmcoredd1.Error.Disabled"


class UnknownDump(VmcoreddError):
    """There is no device dump of that name, index, number or object path."""

    errno = errno.ENOENT
    dbus_name = "org.freedesktop.DBus.Error.UnknownObject"


class InvalidVmcore(VmcoreddError):
    """A file is not a vmcore, or an incomplete one."""

    errno = errno.EINVAL
    dbus_name = "org.vmcoredd1.Error.InvalidVmcore"


class InvalidDump(VmcoreddError):
    """A device dump, or a part of it, is not what its decoder reads."""

    errno = errno.EINVAL
    dbus_name = "org.vmcoredd1.Error.InvalidDump"


class WriteFailed(VmcoreddError):
    """The vmcore, or a device dump in the spool, could not be written."""

    dbus_name = "org.vmcoredd1.Error.WriteFailed"


class InvalidConfiguration(VmcoreddError):
    """A configuration file has an unknown key or a bad value."""

    errno = errno.EINVAL
    dbus_name = "org.vmcoredd1.Error.InvalidConfiguration"


class BusUnavailable(VmcoreddError):
    """The message bus, or the service on it, cannot be reached."""

    errno = errno.ENOTCONN
    dbus_name = "org.freedesktop.DBus.Error.Disconnected"


class CallFailed(Exception):
    """A method call of ours was answered with an error; :func:`from_dbus` makes one of the family of it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


def from_dbus(name: str, text: str) -> VmcoreddError:
    """Return the error of this family with the D-Bus name *name*; the base class if there is none."""
    for kind in _family(VmcoreddError):
        if kind.dbus_name == name:
            return kind(text)
    return VmcoreddError(f"{text} ({name})")


def _family(kind: type[VmcoreddError]) -> list[type[VmcoreddError]]:
    return [member for child in kind.__subclasses__() for member in [child, *_family(child)]]


NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a file system without space for what is written; EFBIG: its largest file is reached."""


def of_storage(error: OSError, what: str) -> "NoSpace | WriteFailed":
    """Return the error of this family for *error* of a file system; *what* failed begins the message."""
    kind = NoSpace if error.errno in NO_SPACE else WriteFailed
    return kind(f"{what}: {error.strerror or os.strerror(error.errno or errno.EIO)}")
