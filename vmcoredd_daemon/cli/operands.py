# SPDX-License-Identifier: LGPL-2.1-or-later
"""The operands of commands: VMCORE, and NAME=FILE or SPOOL.note; and the names of files for device dumps."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..errors import InvalidArgs, InvalidVmcore, VmcoreddError
from ..note import system_byteorder, system_page_size
from ..terminal.exit import UsageError
from ..terminal.stdio import printable
from ..vmcore.attach.dump_files import NamedFile


def named_files(arguments: Iterable[str]) -> list[NamedFile]:
    """Parse *arguments*. Raises UsageError, and InvalidArgs for a file of a spool that is none, or is damaged."""
    files = []
    for argument in arguments:
        if "=" not in argument and argument.endswith(".note"):
            files.append(_spooled(argument))
            continue
        name, equals, path = argument.partition("=")
        if not equals or not path:
            raise UsageError(f"{argument[:80]!a} is not NAME=FILE")
        files.append(NamedFile(name, path))
    return files


def _spooled(path: str) -> NamedFile:
    from ..dumps.recovery import load_note

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            described, _ = load_note(fd, system_page_size(), system_byteorder())
        finally:
            os.close(fd)
    except OSError as error:
        raise InvalidArgs(f"{path}: {error.strerror}") from error
    except VmcoreddError as error:
        raise InvalidArgs(f"{path}: {error}") from error
    return NamedFile(described.name, path, described=described)


def file_name(dump_name: str) -> str:
    """Return *dump_name* as the name of a file, escaped as systemd-escape(1) does it where it must be."""
    name = printable(dump_name).replace("/", "\\x2f") or "device_dump"
    return f"\\x2e{name[1:]}" if name.startswith(".") else name


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Open the file or block device at *path*. Raises InvalidVmcore, also for what can be no vmcore."""
    try:
        # A pipe must not keep us waiting only to be refused.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidVmcore(f"{path}: {error.strerror}") from error
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise InvalidVmcore(f"{path}: is a directory, not a vmcore")
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise InvalidVmcore(f"{path}: is neither a regular file nor a block device")
        yield fd
    finally:
        os.close(fd)
