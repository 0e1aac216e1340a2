# SPDX-License-Identifier: LGPL-2.1-or-later
"""Put device dumps into a flattened vmcore that is a file: through the filter, into a new file of that name."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from ..errors import InvalidVmcore, NoSpace, WriteFailed
from .copy import NO_SPACE
from .image import file_image
from .note_area import Additions
from .stream import attach_stream


def attach_flattened(path: str, additions: Additions) -> list[str]:
    """Put *additions* into the flattened vmcore at *path*, and make that durable.

    The new file has the old one's mode and owner, and takes its name when it is whole and on disk. Return what
    went wrong with device dumps, each in one line. Raises InvalidVmcore, NameInUse, QuotaExceeded, NoSpace and
    WriteFailed; then the file is as it was.
    """
    try:
        source = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise InvalidVmcore(f"{path}: {error.strerror}") from error
    with source:
        # A rename must not replace a symbolic link, but what it leads to.
        target = os.path.realpath(path)
        try:
            with _replacement(target, os.fstat(source.fileno())) as new:
                known = file_image(source.fileno(), path)
                return attach_stream(source, new, additions, path, known)
        except OSError as error:
            kind = NoSpace if error.errno in NO_SPACE else WriteFailed
            raise kind(f"{path}: cannot attach: {error.strerror}; the file is as it was") from error


@contextmanager
def _replacement(target: str, like: os.stat_result) -> Iterator[BinaryIO]:
    directory = os.path.dirname(target)
    fd, temporary = tempfile.mkstemp(prefix=".vmcoredd-", dir=directory)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fchmod(fd, like.st_mode & 0o7777)
            if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(fd, like.st_uid, like.st_gid)
            os.fsync(fd)
            os.rename(temporary, target)
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
