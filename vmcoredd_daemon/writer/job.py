# SPDX-License-Identifier: LGPL-2.1-or-later
"""What it takes to write one vmcore; common to all formats."""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..config.vmcore_format import Output
from ..dumps.device_dump import Snapshot
from ..files import close
from ..journal import Event, record
from ..note import system_page_size
from ..progress import Progress
from ..vmcore.copy.source import TimedCalls
from ..vmcore.copy.write import VMCORE_INCOMPLETE


@dataclass(frozen=True, slots=True)
class Job:
    """One vmcore to be written."""

    source: Path
    directory: Path
    """Of this crash."""
    snapshot: Snapshot
    output: Output
    progress: Progress
    reads: TimedCalls
    """Makes the calls for the source."""
    spool_reads: TimedCalls
    """Makes those for what is in the spool, which may be elsewhere than the target."""
    page_size: int = system_page_size()

    @property
    def source_size(self) -> int:
        """Bytes of the source, 0 where nobody knows."""
        return self.reads.size(self.source)

    @property
    def free(self) -> int:
        """Bytes that the target has left; a great many where nobody knows, because then it is tried.

        What an earlier write has not finished counts as free: it goes first.
        """
        try:
            state = os.statvfs(self.directory)
        except OSError:
            return sys.maxsize
        unfinished = 0
        with suppress(OSError):
            unfinished = (self.directory / VMCORE_INCOMPLETE).lstat().st_blocks * 512
        return state.f_bavail * state.f_frsize + unfinished


@contextmanager
def reserve_space(directory: Path, size: int, *, missing_ok: bool = False) -> Iterator[None]:
    """Keep *size* bytes of the file system free while the context lasts. Raises OSError when they are not there.

    With *missing_ok*, no error does any harm; nor does ever a file system without O_TMPFILE or fallocate(2).
    """
    tolerated = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}
    with ExitStack() as stack:
        try:
            fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            stack.callback(close, fd)
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if not missing_ok and error.errno not in tolerated:
                raise
        yield


def report_altered(altered: tuple[str, ...], unread: tuple[str, ...] = ()) -> str:
    """Log device dumps that are not as they were acknowledged; return what a vmcore lacks then, or nothing.

    Of those that are *unread*, the spool does not give all. Such a vmcore is not whole: the spool may have the
    data still.
    """
    for dump in altered:
        why = "is not all to be had from the spool" if dump in unread else "was altered after it was taken"
        record(Event.DUMP_DAMAGED, logging.WARNING, f"Device dump {dump} {why}", dump_name=dump)
    return f"not as they were acknowledged: {', '.join(altered)}" if altered else ""
