# SPDX-License-Identifier: LGPL-2.1-or-later
"""The directory of this crash in the target, named as kdump-utils does: host and UTC time.

A daemon that is killed while it writes leaves a partial vmcore there, and the next one needs its space. So the
spool's directory of this boot remembers the name, as the text of a symbolic link, which is created atomically.
Without a spool on a disk, each daemon makes a directory of its own.
"""

import errno
import itertools
import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from ..dumps.spool_directory import CRASH_DIRECTORY
from ..errors import of_storage
from ..files import close, sync_directory
from ..vmcore.copy.source import TimedCalls
from .old_crashes import remove_old_crashes, unfinished_crashes
from .result import VMCORE

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")


class CrashDirectory:
    """A directory in *target*; *spool*, if there is one, is the open directory that remembers its name.

    *calls* makes what concerns that one: a program that hangs in a write there can hold its lock.
    """

    def __init__(self, target: Path, calls: TimedCalls, spool: int | None = None) -> None:
        self.path: Path | None = None
        self._target = target
        self._calls = calls
        self._spool: int | None = None
        if spool is not None:
            # Opened again, because dup(2) would share the spool's lock. Nothing depends on it.
            with suppress(OSError):
                self._spool = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=spool)

    def make(self) -> Path:
        """Return the directory, and make it if it is missing. Blocks. Raises NoSpace or WriteFailed."""
        # Another user may have replaced it.
        if self.path is not None and _is_ours(self.path):
            return self.path
        self.path = self._left_unfinished() or self._make()
        return self.path

    def forget(self) -> None:
        """Let the next daemon make a directory of its own: the vmcore in this one is complete. Blocks."""
        if self._spool is not None:
            with suppress(OSError):
                self._in_spool(os.unlink, CRASH_DIRECTORY, dir_fd=self._spool)

    def remove_old(self, keep: int) -> None:
        """Remove the oldest crashes in the target, so that with this one *keep* are left; 0: all. Blocks."""
        if not keep or self.path is None:
            return
        try:
            if self._spool is None:
                raise OSError(errno.ENOENT, "there is none on a disk")
            unfinished = self._in_spool(unfinished_crashes, self._spool)
        except OSError as error:
            log.warning("All crashes are kept, because the spool cannot be read: %s", error.strerror)
        else:
            remove_old_crashes(self._target, self.path.name, keep, unfinished)

    def close(self) -> None:
        """Close the directory of the spool."""
        if self._spool is not None:
            close(self._spool)
            self._spool = None

    def _left_unfinished(self) -> Path | None:
        """Return the directory in which an earlier daemon of this boot began a vmcore, but finished none."""
        if self._spool is None:
            return None
        try:
            name = self._in_spool(os.readlink, CRASH_DIRECTORY, dir_fd=self._spool)
        except OSError:
            return None
        path = self._target / name
        plain = path.parent == self._target and path.name == name and name != ".."
        # A complete vmcore is not replaced: it may have device dumps that this daemon does not know.
        return path if plain and _is_ours(path) and not os.path.lexists(path / VMCORE) else None

    def _make(self) -> Path:
        name = f"{_host_name()}-{time.strftime('%Y-%m-%d-%H:%M:%S', time.gmtime())}"
        try:
            # As at the start of the service; it may have been mounted over since.
            self._target.mkdir(parents=True, exist_ok=True)
            try:
                path = self._make_new(name)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # FAT, as on an EFI system partition, allows no colons.
                path = self._make_new(name.replace(":", "-"))
            sync_directory(self._target)
        except OSError as error:
            raise of_storage(error, f"{self._target}: cannot make a directory in the target") from error
        self._remember_directory(path.name)
        return path

    def _make_new(self, name: str) -> Path:
        # The clock of a capture kernel may be wrong, and the name taken by an earlier crash.
        names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1)))
        for path in (self._target / name for name in names):
            # mkdir() decides, not a look before it: a dangling link takes a name, too, and another process may be
            # faster.
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
                return path
        raise AssertionError("names are endless")

    def _remember_directory(self, name: str) -> None:
        # If that fails, the next daemon only has less space.
        self.forget()
        if self._spool is not None:
            with suppress(OSError):
                self._in_spool(os.symlink, name, CRASH_DIRECTORY, dir_fd=self._spool)

    def _in_spool(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make a call. Raises OSError, also when it does not return in time."""
        return self._calls.call(self._calls.retry_timeout, function, *args, **kwargs)


def _host_name() -> str:
    """Return the host name as the beginning of one file name, which is neither hidden nor an option."""
    # Any process with CAP_SYS_ADMIN can set it to anything: sethostname(2).
    name = os.uname().nodename or "localhost"
    safe = "".join("_" if character == "/" or not character.isprintable() else character for character in name)
    return f"_{safe[1:]}" if safe[0] in "-." else safe


def _is_ours(path: Path) -> bool:
    try:
        state = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
