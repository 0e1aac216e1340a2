# SPDX-License-Identifier: LGPL-2.1-or-later
"""Old crashes make space for new ones: ``KeepCrashes=``, as kdump-tools has ``KDUMP_NUM_DUMPS=``.

A directory is removed only if the service has made it, finished it, and is the only one that has put something
there: it belongs to us, is named as ours are, and has a vmcore, the service's journal, and nothing else but the
kernel log.
"""

import logging
import os
import re
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ..dumps.spool_directory import CRASH_DIRECTORY
from ..files import close
from ..journal import SAVED_JOURNAL, Event, record
from .kernel_log import KERNEL_LOG
from .result import VMCORE

log = logging.getLogger(__name__)

_NAME = re.compile(r".+-(\d{4}-\d\d-\d\d-\d\d[:-]\d\d[:-]\d\d(?:\.\d+)?)", re.DOTALL)
"""HOST-TIME; what is captured has the order of the crashes."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_old_crashes(target: Path, newest: str, keep: int, unfinished: Collection[str]) -> None:
    """Remove the oldest crashes in *target* until *keep*, above 0, are left, and log each. Blocks.

    The directory *newest* is one of those that are left, whatever its time: the clock may be wrong. Those that are
    *unfinished* stay, too. An error keeps what is there, and is logged.
    """
    try:
        parent = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = {name for name in os.listdir(parent) if _NAME.fullmatch(name)} - {newest, *unfinished}
            crashes = sorted((name for name in names if _is_finished(name, parent)), key=_order)
            for name in crashes[: max(0, len(crashes) + 1 - keep)]:
                _remove(name, parent, target)
        finally:
            close(parent)
    except OSError as error:
        log.warning("%s: cannot look for old crashes: %s", target, error.strerror)


def _order(name: str) -> tuple[str, str]:
    match = _NAME.fullmatch(name)
    # FAT has no colons.
    return (match[1].replace(":", "-") if match else "", name)


def unfinished_crashes(spool: int) -> Collection[str]:
    """Return the names of directories whose crash has device dumps in the spool. Blocks. Raises OSError.

    *spool* is the open directory of a boot there.
    """
    found = set()
    above = os.open("..", _DIRECTORY, dir_fd=spool)
    try:
        for boot in os.listdir(above):
            with suppress(FileNotFoundError, NotADirectoryError):
                found.add(os.readlink(f"{boot}/{CRASH_DIRECTORY}", dir_fd=above))
    finally:
        close(above)
    return found


def _is_finished(name: str, parent: int) -> bool:
    try:
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError:
        return False
    try:
        names = set(os.listdir(directory))
        return (
            os.fstat(directory).st_uid == os.geteuid()
            and {VMCORE, SAVED_JOURNAL} <= names <= {VMCORE, SAVED_JOURNAL, KERNEL_LOG}
            and all(stat.S_ISREG(os.stat(each, dir_fd=directory, follow_symlinks=False).st_mode) for each in names)
        )
    except OSError:
        return False
    finally:
        close(directory)


def _remove(name: str, parent: int, target: Path) -> None:
    try:
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            # The vmcore first: if the machine stops here, the rest is small.
            for each in (VMCORE, KERNEL_LOG, SAVED_JOURNAL):
                with suppress(FileNotFoundError):
                    os.unlink(each, dir_fd=directory)
        finally:
            close(directory)
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        log.warning("%s: cannot remove an old crash: %s", target / name, error.strerror)
    else:
        path = target / name
        record(Event.CRASH_REMOVED, logging.INFO, f"{path} removed: KeepCrashes= is reached", path=path)
