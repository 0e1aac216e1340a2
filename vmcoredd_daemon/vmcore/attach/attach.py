# SPDX-License-Identifier: LGPL-2.1-or-later
"""Put device dumps into a vmcore that is finished, as ELF, kdump-compressed or flattened file.

Behind the device dumps that it has already (a kernel's own come first), before its other notes. Memory is neither
moved nor read. What is refused is refused before anything is written, and an error leaves the file as it was.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ...errors import Busy, InvalidVmcore, VmcoreddError, WriteFailed, of_storage
from ...note import DeviceDumpNote, Note, system_page_size
from ...progress import Progress
from .. import kdump
from ..formats import Vmcore, recognise
from ..image import file_image
from ..vmcoreinfo import page_size
from . import elf as attach_elf
from . import kdump as attach_kdump
from .merge import check_room


@dataclass(frozen=True, slots=True)
class Attached:
    """What was done."""

    in_place: bool
    """False where a new file took the place of the old one."""
    altered: tuple[str, ...]
    """Device dumps whose data is no longer what it was when they were taken."""
    warnings: tuple[str, ...]
    """Each in one line."""


@dataclass(frozen=True, slots=True)
class Target:
    """A vmcore that is open, and locked, to be attached to."""

    fd: int
    path: str
    vmcore: Vmcore
    header: kdump.KdumpHeader | None
    """Of a kdump-compressed file, not of a flattened one."""
    page_size: int
    """PAGE_SIZE of the machine that crashed, in bytes."""


def attach(path: str, dumps: Sequence[DeviceDumpNote], progress: Progress | None = None) -> Attached:
    """Put *dumps* into the vmcore at *path*, the last of them the manifest, and make that durable.

    *progress* counts what is written. Blocks: call it in a thread. Raises InvalidVmcore when it is not a vmcore to
    which that can be done, QuotaExceeded when crash would not find all device dumps, NameInUse when two of *dumps*
    have one name, Busy when somebody else attaches, NoSpace and WriteFailed. The file is then as it was.
    """
    with locked(path) as target:
        return attach_notes(target, dumps, progress=progress)


def attach_notes(
    target: Target,
    dumps: Sequence[DeviceDumpNote],
    replaced: Collection[int] = (),
    committing: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> Attached:
    """Do as :func:`attach`, but leave out the device dumps that have their note at the offsets *replaced*.

    *committing* is called when all is written, right before the one write that makes it count.
    """
    check_room(target.path, target.vmcore.notes(), replaced, [dump.dump_name for dump in dumps])

    def notes() -> Iterator[Note]:
        return (note for note in target.vmcore.notes() if note.offset not in replaced)

    progress = progress or Progress()
    try:
        if target.header is not None:
            job = attach_kdump.Attach(
                target.fd, target.vmcore, target.header, target.page_size, committing, progress
            )
            altered, warnings = job.run(notes, dumps)
            return Attached(True, altered, target.vmcore.problems + warnings)
        if target.vmcore.format == "flattened":
            # The filter is as large as the rest, and a file seldom goes through it.
            from . import flattened as attach_flattened

            new_file = attach_flattened.NewFile(target.fd, target.path, target.vmcore, progress)
            altered = new_file.attach(dumps, replaced, committing)
            return Attached(False, altered, target.vmcore.problems)
        truncated = attach_elf.missing(target.vmcore)
        in_place, altered = attach_elf.attach(
            target.fd, target.path, target.vmcore, target.page_size, notes, dumps, committing, progress
        )
        return Attached(in_place, altered, (truncated,) if truncated else ())
    except OSError as error:
        raise of_storage(error, f"{target.path}: cannot attach, the file is as it was") from error
    except VmcoreddError as error:
        if str(error).startswith(target.path):
            raise
        raise type(error)(f"{target.path}: {error}") from error


@contextmanager
def locked(path: str) -> Iterator[Target]:
    """Open the vmcore at *path*, and keep everybody else who attaches away from it.

    Raises InvalidVmcore when it is not a file to which device dumps can be attached, and Busy.
    """
    try:
        # A pipe must not keep us waiting only to be refused.
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidVmcore(f"{path}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidVmcore(f"{path}: is not a regular file")
        _lock(fd, path)
        yield _target(fd, path)
    finally:
        os.close(fd)


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Busy(f"{path}: somebody else has it locked") from error
    except OSError as error:
        raise WriteFailed(f"{path}: cannot be locked: {error.strerror}") from error
    # Whoever had the lock until now may have put a new file in the place of this one.
    try:
        same = os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        same = False
    if not same:
        raise Busy(f"{path}: was replaced meanwhile")


def _target(fd: int, path: str) -> Target:
    image = file_image(fd, path)
    vmcore = recognise(image)
    if not vmcore.image.pread(len(kdump.SIGNATURE), 0).startswith((kdump.SIGNATURE, kdump.DISKDUMP_SIGNATURE)):
        return Target(fd, path, vmcore, None, page_size(vmcore.image, vmcore.notes()) or system_page_size())
    header = kdump.read_header(vmcore.image)
    header.check_extensible(path)
    size = page_size(vmcore.image, vmcore.notes()) or header.block_size
    return Target(fd, path, vmcore, header if vmcore.format == "kdump" else None, size)
