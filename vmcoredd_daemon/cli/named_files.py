# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device dumps and files: the arguments NAME=FILE or SPOOL.note, and the names of files for device dumps."""

import os
from collections.abc import Iterable

from ..errors import InvalidArgs, VmcoreddError
from ..note import system_byteorder, system_page_size
from ..vmcore.named_file import NamedFile
from . import UsageError
from .console import printable


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
    from ..recovery import load_note

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
