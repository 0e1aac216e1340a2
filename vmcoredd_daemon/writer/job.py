# SPDX-License-Identifier: LGPL-2.1-or-later
"""What it takes to write one vmcore in any format."""

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
from ..files import close, free_space
from ..journal import Event, record
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
    """Makes those for the spool, which may be on another disk than the target."""

    @property
    def source_size(self) -> int:
        """Bytes of the source, 0 if not known."""
        return self.reads.size(self.source)

    @property
    def free(self) -> int:
        """Bytes that the target has free; ``sys.maxsize`` if not known, so that the write is tried.

        An unfinished vmcore of an earlier write counts as free, because it is removed first.
        """
        try:
            free = free_space(self.directory)
        except OSError:
            free = None
        if free is None:
            return sys.maxsize
        unfinished = 0
        with suppress(OSError):
            unfinished = (self.directory / VMCORE_INCOMPLETE).lstat().st_blocks * 512
        return free + unfinished


@contextmanager
def reserve_space(directory: Path, size: int, *, missing_ok: bool = False) -> Iterator[None]:
    """Keep *size* bytes from other writers while the context lasts. Raises OSError if they are not available.

    With *missing_ok*, an error is ignored; always, if the file system has no O_TMPFILE or no fallocate(2).
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
    """Log device dumps that differ from what was acknowledged; return that as an error, or an empty string.

    Those that are *unread* could not be read completely from the spool. Such a vmcore is incomplete, so that the
    spool, which may still have the data, is kept.
    """
    for dump in altered:
        why = "could not be read completely from the spool" if dump in unread else "was altered after it was taken"
        record(Event.DUMP_DAMAGED, logging.WARNING, f"Device dump {dump} {why}", dump_name=dump)
    return f"device dumps differ from what was acknowledged: {', '.join(altered)}" if altered else ""
