# SPDX-License-Identifier: LGPL-2.1-or-later
"""The operands of commands: VMCORE, and NAME=FILE or SPOOL.note; and file names for device dumps."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..dumps.recovery import load_note
from ..errors import InvalidArgs, InvalidVmcore, VmcoreddError
from ..terminal.exit import UsageError
from ..text import printable
from ..vmcore.attach.dump_files import NamedFile


def named_files(arguments: Iterable[str]) -> list[NamedFile]:
    """Parse *arguments*. Raises UsageError, and InvalidArgs for a *.note that is damaged or not from a spool."""
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
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            described, note = load_note(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise InvalidArgs(f"{path}: {error.strerror}") from error
    except VmcoreddError as error:
        raise InvalidArgs(f"{path}: {error}") from error
    return NamedFile(described.name, path, described=described, note_size=note.note_size)


def file_name(dump_name: str) -> str:
    """Return *dump_name* as a file name, escaped as by systemd-escape(1)."""
    name = printable(dump_name).replace("/", "\\x2f") or "device_dump"
    return f"\\x2e{name[1:]}" if name.startswith(".") else name


def unused_file_name(dump_name: str, index: int, taken: set[str]) -> str:
    """Return *dump_name* as a file name, with ``.INDEX`` if *taken* has it, and add it to *taken*."""
    # A kernel may use a name twice, and another name may be equal to what we make of this one.
    name = file_name(dump_name)
    while name in taken:
        name = f"{name}.{index}"
    taken.add(name)
    return name


@contextmanager
def open_vmcore(path: str) -> Iterator[int]:
    """Open the file or block device at *path*. Raises InvalidVmcore, also for any other kind of file."""
    try:
        # O_NONBLOCK: opening a pipe would block, only for it to be refused.
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
