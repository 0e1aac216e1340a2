# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service leaves in the spool when its part in the crash of this boot is done.

If kdump writes the vmcore, these are, besides the device dumps, those that failed: core-collector then does not
run the collectors again. If the service has written the vmcore, it is the vmcore's path. A helper that comes
later, and starts the service again, has no vmcore any more for its device dump.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ..errors import WriteFailed
from ..files import close, link, open_unnamed, pread, sync, write_all
from ..manifest import Failure
from .spool_directory import HANDED_OVER, VMCORE_WRITTEN

_MAX_SIZE = 1 << 20
"""Bytes."""


def hand_over(directory: int, failures: Sequence[Failure]) -> None:
    """Write *failures* into the directory of this boot. Blocks. Raises WriteFailed."""
    _leave(directory, HANDED_OVER, json.dumps([asdict(failure) for failure in failures]).encode("ascii"))


def vmcore_written(directory: int, path: Path) -> None:
    """Write *path*, that of the vmcore, into the directory of this boot. Blocks. Raises WriteFailed."""
    _leave(directory, VMCORE_WRITTEN, os.fsencode(path))


def _leave(directory: int, name: str, data: bytes) -> None:
    try:
        fd = open_unnamed(directory)
        try:
            write_all(fd, data)
            sync(fd)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            link(fd, directory, name)
        finally:
            close(fd)
        sync(directory)
    except OSError as error:
        raise WriteFailed(f"cannot write {name} into the spool: {error.strerror}") from error


def handed_over(directory: int) -> list[Failure] | None:
    """Return what :func:`hand_over` has written; None if it was not called. Blocks."""
    data = _left(directory, HANDED_OVER)
    if data is None:
        return None
    try:
        return [Failure(**failure) for failure in json.loads(data)]
    except (ValueError, TypeError):
        # The disk has changed it; the collectors have run anyway.
        return []


def path_written(directory: int) -> Path | None:
    """Return what :func:`vmcore_written` has written; None if it was not called. Blocks."""
    data = _left(directory, VMCORE_WRITTEN)
    return None if data is None else Path(os.fsdecode(data))


def _left(directory: int, name: str) -> bytes | None:
    """Return what a file in the spool has, nothing if it cannot be read, None if there is none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        return pread(fd, _MAX_SIZE, 0)
    except OSError:
        return b""
    finally:
        close(fd)
