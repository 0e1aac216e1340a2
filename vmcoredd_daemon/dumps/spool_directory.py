# SPDX-License-Identifier: LGPL-2.1-or-later
"""The spool's directory, and this boot's in it: no other user may write to them, or replace them."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import WriteFailed
from ..files import close, sync, sync_directory

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CRASH_DIRECTORY = "crash-directory"
"""Name of the symbolic link to where the vmcore of this boot is written, see writer/crash_directory.py."""

HANDED_OVER = "handed-over"
"""Name of the file that says what kdump is to write, see hand_over.py."""
INCOMPLETE = f"{HANDED_OVER}.incomplete"
"""Its name while it is written."""
VMCOREINFO = "vmcoreinfo"
"""Name of the file that says which crash the device dumps are of, see hand_over.py."""
VMCORE_WRITTEN = "vmcore-written"
"""Name of the symbolic link to the vmcore of this boot, see hand_over.py."""

NO_DUMPS = frozenset({CRASH_DIRECTORY, HANDED_OVER, INCOMPLETE, VMCOREINFO, VMCORE_WRITTEN})
"""Files of a boot that are of no use when it has ended."""

SEPARATOR = b"\0"
"""Between the buffer and the description in the file of a note: JSON has no such byte, so it is the last one."""

NOTE = ".note"
DAMAGED = ".note.damaged"
SUPERSEDED = ".note.superseded"
"""How the names of files end: of a device dump, and of those that are set aside."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_private(path: Path, *, make: bool = True) -> int:
    """Open this boot's directory in the spool directory *path*; only we may write to either. Blocks.

    What is missing is made, with *make* the directory above, too. That one may be any directory, as ``/var/tmp``:
    it stays as it is. An older version made the directory of a boot directly in it; what it has left there in this
    boot is used on.

    Raises OSError, and WriteFailed when a directory belongs to another user.
    """
    # By descriptors: a user who may write to the target could replace a directory between two uses of its path.
    boot, above = boot_id(), _open_above(path.parent, make=make)
    try:
        with suppress(FileNotFoundError, NotADirectoryError, WriteFailed):
            return _open_private(boot, above, path.parent, make=False)
        outer = _open_private(path.name, above, path.parent, make=make)
    finally:
        close(above)
    try:
        return _open_private(boot, outer, path, make=make)
    finally:
        close(outer)


def open_other_boot(directory: Path, spool: Path) -> int:
    """Open the *directory* of another boot in the *spool*, or beside it, where an older version made it. Blocks.

    Raises OSError, and WriteFailed when one of them belongs to another user.
    """
    above = os.open(spool.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if directory.parent != spool:
            return _open_private(directory.name, above, spool.parent, make=False)
        outer = _open_private(spool.name, above, spool.parent, make=False)
    finally:
        close(above)
    try:
        return _open_private(directory.name, outer, spool, make=False)
    finally:
        close(outer)


def _open_above(path: Path, *, make: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    sync_directory(path.parent)
    return os.open(path, flags)


def _open_private(name: str, within: int, path: Path, *, make: bool) -> int:
    """Open the directory *name* in the directory *within*, whose path is *path*."""
    directory = _open_or_make(name, within) if make else os.open(name, _DIRECTORY, dir_fd=within)
    try:
        state = os.fstat(directory)
        if state.st_uid != os.geteuid():
            raise WriteFailed(f"{path / name}: cannot use the spool directory: it belongs to user {state.st_uid}")
        if make and state.st_mode & 0o777 != 0o700:
            os.fchmod(directory, 0o700)
    except BaseException:
        close(directory)
        raise
    return directory


def _open_or_make(name: str, within: int) -> int:
    # Opened before it is made: on a disk that is full or read-only, what is there can still be read.
    with suppress(FileNotFoundError):
        return os.open(name, _DIRECTORY, dir_fd=within)
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=within)
    return os.open(name, _DIRECTORY, dir_fd=within)


def sync_parents(directory: int) -> None:
    """Make the names of a directory and of the one above durable. Blocks. Raises OSError."""
    for above in ("..", "../.."):
        parent = os.open(above, _DIRECTORY, dir_fd=directory)
        try:
            sync(parent)
        finally:
            close(parent)


def remove_notes(directory: int, numbers: Iterable[int]) -> None:
    """Remove the files of device dumps; one that is gone already is no error. Blocks. Raises OSError."""
    for number in numbers:
        with suppress(FileNotFoundError):
            os.unlink(note_name(number), dir_fd=directory)
    # They are gone even if this fails; one that a power cut brings back is complete.
    with suppress(OSError):
        sync(directory)


def note_name(number: int) -> str:
    """Return the name of the file of device dump *number*."""
    return f"{number:06}{NOTE}"


def note_number(name: str) -> int:
    """Return the number of a file in the spool, -1 if its name has none."""
    number, _, _ = name.partition(".")
    return int(number) if number.isascii() and number.isdecimal() else -1


def boot_id() -> str:
    """Return the kernel's random name of this boot. Raises OSError."""
    return BOOT_ID.read_text(encoding="ascii").strip()


def last_number(directory: int) -> int:
    """Return the highest number of a file in *directory*, damaged ones included, or 0. Raises OSError."""
    return max((0, *map(note_number, os.listdir(directory))))
