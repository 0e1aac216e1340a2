# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device dumps and files: the arguments NAME=FILE, and the names of files for device dumps."""

from collections.abc import Iterable

from ..vmcore.named_file import NamedFile
from . import UsageError
from .console import printable


def named_files(arguments: Iterable[str]) -> list[NamedFile]:
    """Parse *arguments*. Raises UsageError."""
    files = []
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or not path:
            raise UsageError(f"{argument[:80]!a} is not NAME=FILE")
        files.append(NamedFile(name, path))
    return files


def file_name(dump_name: str) -> str:
    """Return *dump_name* as the name of a file, escaped as systemd-escape(1) does it where it must be."""
    name = printable(dump_name).replace("/", "\\x2f") or "device_dump"
    return f"\\x2e{name[1:]}" if name.startswith(".") else name
