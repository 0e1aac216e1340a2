# SPDX-License-Identifier: LGPL-2.1-or-later
"""The directory of this crash in the target, named as kdump-utils does: host and UTC time.

A daemon that is killed while it writes leaves there as much as it has written, and the next one needs that room.
So the spool's directory of this boot has its name: as the text of a symbolic link, which is there as a whole or
not at all. Without a spool on a disk, each daemon makes a directory of its own.
"""

import errno
import itertools
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from ..dumps.spool_directory import CRASH_DIRECTORY
from ..errors import of_storage
from ..files import close, sync_directory
from .result import VMCORE


class CrashDirectory:
    """A directory in *target*; *spool* is the open directory that has its name, if there is one."""

    def __init__(self, target: Path, spool: int | None = None) -> None:
        self.path: Path | None = None
        self._target = target
        self._spool: int | None = None
        if spool is not None:
            # Opened again: the lock of the spool is not ours to keep. And without it, it works as well.
            with suppress(OSError):
                self._spool = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=spool)

    def make(self) -> Path:
        """Return it, made where it is not there. Blocks. Raises NoSpace or WriteFailed."""
        # Not what another user has put into its place.
        if self.path is not None and _is_ours(self.path):
            return self.path
        self.path = self._left_unfinished() or self._make()
        return self.path

    def forget(self) -> None:
        """Let the next daemon make a directory of its own: what is in this one is whole. Blocks."""
        if self._spool is not None:
            with suppress(OSError):
                os.unlink(CRASH_DIRECTORY, dir_fd=self._spool)

    def close(self) -> None:
        """Close the directory of the spool."""
        if self._spool is not None:
            close(self._spool)
            self._spool = None

    def _left_unfinished(self) -> Path | None:
        """Return the directory in which an earlier daemon of this boot has begun a vmcore, and finished none."""
        if self._spool is None:
            return None
        try:
            name = os.readlink(CRASH_DIRECTORY, dir_fd=self._spool)
        except OSError:
            return None
        path = self._target / name
        plain = path.parent == self._target and path.name == name and name != ".."
        # A whole vmcore is not replaced by a daemon that knows nothing of it.
        return path if plain and _is_ours(path) and not os.path.lexists(path / VMCORE) else None

    def _make(self) -> Path:
        name = f"{os.uname().nodename or 'localhost'}-{time.strftime('%Y-%m-%d-%H:%M:%S', time.gmtime())}"
        try:
            try:
                path = self._make_new(name)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # FAT, as of an EFI system partition, has no colons.
                path = self._make_new(name.replace(":", "-"))
            sync_directory(self._target)
        except OSError as error:
            raise of_storage(error, f"{self._target}: cannot make a directory in the target") from error
        self._remember_directory(path.name)
        return path

    def _make_new(self, name: str) -> Path:
        # The clock of a capture kernel may be wrong; what an earlier crash has left stays.
        names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1)))
        for path in (self._target / name for name in names):
            # Made, and not looked for: a name may be taken by what leads nowhere, or be taken right now.
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
                return path
        raise AssertionError("names end")

    def _remember_directory(self, name: str) -> None:
        # Without it, the next daemon has less room: no reason to write nothing.
        self.forget()
        if self._spool is not None:
            with suppress(OSError):
                os.symlink(name, CRASH_DIRECTORY, dir_fd=self._spool)


def _is_ours(path: Path) -> bool:
    try:
        state = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
