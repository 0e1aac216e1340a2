# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service leaves in the spool when its part in the crash of this boot is done.

If kdump writes the vmcore, these are, besides the device dumps, those that failed and the collectors that made
none: core-collector then does not run the collectors again. If the service has written the vmcore, it is the
vmcore's path. A helper that comes later, and starts the service again, has no vmcore any more for its device dump.

With device dumps that are in no vmcore yet, it is VMCOREINFO, too, which says of which crash they are: the next
boots of the machine can tell which vmcore they belong to (``vmcoredd resolve``).
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import WriteFailed
from ..files import close, open_new, pread, sync, write_all
from ..lookup import exists
from ..manifest import Failure, IdleCollector
from .spool_directory import HANDED_OVER, INCOMPLETE, VMCORE_WRITTEN, VMCOREINFO

_MAX_SIZE = 1 << 20
"""Bytes."""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What the manifest says besides the device dumps."""

    failures: tuple[Failure, ...] = ()
    idle_collectors: tuple[IdleCollector, ...] = ()


def hand_over(directory: int, left: HandedOver) -> None:
    """Write what is *left* into the directory of this boot. Blocks. Raises WriteFailed."""
    _write(directory, HANDED_OVER, json.dumps(asdict(left)).encode("ascii"))


def handed_over(directory: int) -> HandedOver | None:
    """Return what :func:`hand_over` has written; None if it was not called. Blocks."""
    try:
        data = _read(directory, HANDED_OVER)
        if data is None:
            return None
        left = json.loads(data)
        failures = tuple(Failure(**failure) for failure in left["failures"])
        return HandedOver(failures, tuple(IdleCollector(**idle) for idle in left["idle_collectors"]))
    except (OSError, ValueError, TypeError, KeyError):
        # The disk has changed it; the collectors have run anyway.
        return HandedOver()


def remember_crash(directory: int, vmcoreinfo: bytes) -> None:
    """Remember of which crash the device dumps of this boot are. Blocks. Raises WriteFailed."""
    _write(directory, VMCOREINFO, vmcoreinfo)


def remembered_crash(directory: int) -> bytes | None:
    """Return the VMCOREINFO of the crash whose device dumps *directory* has; None if it is not known. Blocks."""
    try:
        return _read(directory, VMCOREINFO)
    except OSError:
        return None


def remember_vmcore(directory: int, path: Path) -> None:
    """Remember where the vmcore of this boot is. Blocks. Raises WriteFailed."""
    try:
        with suppress(FileNotFoundError):
            os.unlink(VMCORE_WRITTEN, dir_fd=directory)
        # Nothing has to be synced: after a power cut there is another boot.
        os.symlink(path, VMCORE_WRITTEN, dir_fd=directory)
    except OSError as error:
        raise WriteFailed(f"cannot write {VMCORE_WRITTEN} into the spool: {error.strerror}") from error


def remembered_vmcore(directory: int) -> Path | None:
    """Return the vmcore of this boot; None if none was remembered, or it is no longer there. Blocks."""
    try:
        path = Path(os.readlink(VMCORE_WRITTEN, dir_fd=directory))
    except OSError:
        return None
    try:
        return path if exists(path) else None
    except OSError:
        # It was written, and a second one would be no help on that disk.
        return path


def _write(directory: int, name: str, data: bytes) -> None:
    try:
        fd = open_new(directory, INCOMPLETE)
        try:
            write_all(fd, data)
            sync(fd)
        finally:
            close(fd)
        os.rename(INCOMPLETE, name, src_dir_fd=directory, dst_dir_fd=directory)
        sync(directory)
    except OSError as error:
        raise WriteFailed(f"cannot write {name} into the spool: {error.strerror}") from error


def _read(directory: int, name: str) -> bytes | None:
    """Return what the file has, None if it cannot be opened. Raises OSError."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        return pread(fd, _MAX_SIZE, 0)
    finally:
        close(fd)
