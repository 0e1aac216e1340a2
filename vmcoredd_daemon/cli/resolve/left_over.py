# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the capture kernel of one crash has left in the spool, locked and verified."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...dumps.hand_over import HandedOver, handed_over, remembered_crash
from ...dumps.recovery import recover
from ...dumps.spool_directory import note_name, open_other_boot, remove_notes
from ...errors import Busy, VmcoreddError, WriteFailed, of_storage
from ...files import close
from ...manifest import ManifestDump
from ...vmcore.attach.dump_files import NamedFile


@dataclass(frozen=True, slots=True)
class LeftOver:
    """The device dumps of one boot."""

    directory: Path
    fd: int
    """Of the directory."""
    files: Mapping[ManifestDump, NamedFile]
    """The device dumps that are complete, in their order."""
    numbers: Mapping[ManifestDump, int]
    """Of the same, in the spool."""
    problems: tuple[str, ...]
    """Of other files, one line each."""
    vmcoreinfo: bytes | None
    """Of the kernel that died; None if it was not recorded."""
    handed_over: HandedOver
    """What the manifest says besides the device dumps."""
    taken: tuple[float, float]
    """When the first and the last of the files were written, in seconds since the epoch."""

    @property
    def boot_id(self) -> str:
        """Of the capture kernel."""
        return self.directory.name

    def remove(self, records: list[ManifestDump]) -> None:
        """Remove device dumps. Raises WriteFailed."""
        try:
            remove_notes(self.fd, [self.numbers[record] for record in records])
        except OSError as error:
            raise WriteFailed(f"{self.directory}: cannot remove device dumps: {error.strerror}") from error


@contextmanager
def locked(directory: Path, spool: Path) -> Iterator[LeftOver]:
    """Provide what is left in the *directory* of another boot, which the *spool* has. Blocks.

    A file that is damaged is set aside, as the service does it. Raises Busy when a daemon has the directory,
    NoSpace or WriteFailed when it cannot be read.
    """
    try:
        fd = open_other_boot(directory, spool)
    except OSError as error:
        raise of_storage(error, f"{directory}: cannot be opened") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"{directory}: a daemon uses it") from error
        except OSError as error:
            raise of_storage(error, f"{directory}: cannot be locked") from error
        yield _read(directory, fd)
    finally:
        close(fd)


def _read(directory: Path, fd: int) -> LeftOver:
    problems: list[str] = []

    def report(name: str, error: VmcoreddError) -> None:
        problems.append(f"{name}: {error}")

    files, numbers, times = {}, {}, []
    for spooled in recover(fd, report):
        record, note = spooled.record, spooled.note
        times.append(os.fstat(note.fd).st_mtime)
        close(note.fd)
        path = str(directory / note_name(spooled.number))
        files[record] = NamedFile(record.name, path, described=record, note_size=note.size)
        numbers[record] = spooled.number
    taken = (min(times, default=0.0), max(times, default=0.0))
    left = handed_over(fd) or HandedOver()
    return LeftOver(directory, fd, files, numbers, tuple(problems), remembered_crash(fd), left, taken)
