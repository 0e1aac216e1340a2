# SPDX-License-Identifier: LGPL-2.1-or-later
"""The spool's directory, and this boot's in it: no other user may write to them, or replace them."""

import os
from contextlib import suppress
from pathlib import Path

from ..errors import WriteFailed
from ..files import close, sync

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_private(path: Path) -> int:
    """Open, or make, a directory and the one above it; only we may write to either. Blocks.

    Raises OSError, and WriteFailed when one of them belongs to another user.
    """
    # By descriptors: a user who may write to the target could replace a directory between two uses of its path.
    outer = _open_or_make(path.parent)
    try:
        _make_private(outer, path.parent)
        directory = _open_or_make(path.name, outer)
    finally:
        close(outer)
    try:
        _make_private(directory, path)
    except BaseException:
        close(directory)
        raise
    return directory


def _open_or_make(name: Path | str, within: int | None = None) -> int:
    # Opened before it is made: on a disk that is full or read-only, what is there can still be read.
    with suppress(FileNotFoundError):
        return os.open(name, DIRECTORY, dir_fd=within)
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=within)
    return os.open(name, DIRECTORY, dir_fd=within)


def _make_private(directory: int, path: Path) -> None:
    state = os.fstat(directory)
    if state.st_uid != os.geteuid():
        raise WriteFailed(f"{path}: cannot use the spool directory: it belongs to user {state.st_uid}")
    if state.st_mode & 0o777 != 0o700:
        os.fchmod(directory, 0o700)


def sync_parents(directory: int) -> None:
    """Make the names of a directory and of the one above durable. Blocks. Raises OSError."""
    for above in ("..", "../.."):
        parent = os.open(above, DIRECTORY, dir_fd=directory)
        try:
            sync(parent)
        finally:
            close(parent)


CRASH_DIRECTORY = "crash-directory"
"""Name of the symbolic link to where the vmcore of this boot is written, see writer/crash_directory.py."""

HANDED_OVER = "handed-over"
"""Name of the file that says what kdump is to write, see hand_over.py."""

_NOTE = ".note"
_DAMAGED = ".note.damaged"
_SUPERSEDED = ".note.superseded"


def note_name(number: int) -> str:
    """Return the name of the file of device dump *number*."""
    return f"{number:06}{_NOTE}"


def _number(name: str) -> int:
    """Return the number of a file in the spool, -1 if its name has none."""
    number, _, _ = name.partition(".")
    return int(number) if number.isascii() and number.isdecimal() else -1


def boot_id() -> str:
    """Return the kernel's random name of this boot. Raises OSError."""
    return BOOT_ID.read_text(encoding="ascii").strip()


def last_number(directory: int) -> int:
    """Return the highest number of a file in *directory*, damaged ones included, or 0. Raises OSError."""
    return max((0, *map(_number, os.listdir(directory))))
