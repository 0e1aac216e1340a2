# SPDX-License-Identifier: LGPL-2.1-or-later
"""The arguments NAME=FILE."""

from collections.abc import Iterable

from ..vmcore.named_file import NamedFile
from . import UsageError


def named_files(arguments: Iterable[str]) -> list[NamedFile]:
    """Parse *arguments*. Raises UsageError."""
    files = []
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or not path:
            raise UsageError(f"{argument[:80]!a} is not NAME=FILE")
        files.append(NamedFile(name, path))
    return files
