# SPDX-License-Identifier: LGPL-2.1-or-later
"""Put device dumps into a vmcore that is finished, as kdump-compressed or ELF file.

Behind the device dumps that it has already (a kernel's own come first), before its other notes. Memory is neither
moved nor read. What is refused is refused before anything is written, and an error leaves the file as it was.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import Busy, InvalidVmcore, NameInUse, NoSpace, QuotaExceeded, VmcoreddError, WriteFailed
from ..manifest import MANIFEST_NAME
from ..note import NT_VMCOREDD, Note, system_page_size
from . import attach_elf, attach_kdump, kdump
from .copy import NO_SPACE
from .formats import Vmcore, recognise
from .image import file_image
from .layout import DeviceDumpNote

MAX_DEVICE_DUMPS = 64
"""crash's NR_DEVICE_DUMPS; it drops further ones in silence."""

_VMCOREINFO = b"VMCOREINFO"
_VMCOREINFO_MAX = 1 << 16
"""Bytes of it that are looked at; the kernel's has a page."""


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
    """Of a kdump-compressed file."""
    page_size: int
    """PAGE_SIZE of the machine that crashed, in bytes."""


def attach(path: str, dumps: Sequence[DeviceDumpNote]) -> Attached:
    """Put *dumps* into the vmcore at *path*, the last of them the manifest, and make that durable.

    Blocks: call it in a thread. Raises InvalidVmcore when it is not a vmcore to which that can be done,
    QuotaExceeded when crash would not find all device dumps, NameInUse when two of *dumps* have one name, Busy
    when somebody else attaches, NoSpace and WriteFailed. The file is then as it was.
    """
    with locked(path) as target:
        return attach_notes(target, dumps)


def attach_notes(
    target: Target,
    dumps: Sequence[DeviceDumpNote],
    replaced: Collection[int] = (),
    committing: Callable[[], None] = lambda: None,
) -> Attached:
    """Do as :func:`attach`, but leave out the device dumps that have their note at the offsets *replaced*.

    *committing* is called when all is written, right before the one write that makes it count.
    """
    _check_names(target, dumps, replaced)

    def notes() -> Iterator[Note]:
        return (note for note in target.vmcore.notes() if note.offset not in replaced)

    try:
        if target.header is not None:
            job = attach_kdump.Attach(target.fd, target.vmcore, target.header, target.page_size, committing)
            altered, warnings = job.run(notes, dumps)
            return Attached(True, altered, target.vmcore.problems + warnings)
        truncated = attach_elf.missing(target.vmcore)
        in_place, altered = attach_elf.attach(
            target.fd, target.path, target.vmcore, target.page_size, notes, dumps, committing
        )
        return Attached(in_place, altered, (truncated,) if truncated else ())
    except OSError as error:
        kind = NoSpace if error.errno in NO_SPACE else WriteFailed
        reason = os.strerror(error.errno or errno.EIO)
        raise kind(f"{target.path}: cannot attach: {reason}; the file is as it was") from error
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
    if vmcore.format == "elf":
        return Target(fd, path, vmcore, None, _page_size(vmcore) or system_page_size())
    if vmcore.format != "kdump":
        raise InvalidVmcore(f"{path}: cannot attach to a file of format {vmcore.format}")
    header = kdump.read_header(image)
    if header.header_version < kdump.NOTES_VERSION:
        raise InvalidVmcore(f"{path}: header_version is {header.header_version}, notes need {kdump.NOTES_VERSION}")
    if header.split:
        # --reassemble copies the notes to the offsets that they have in the first part.
        raise InvalidVmcore(
            f"{path}: split is set: it is one part of several; attach to what makedumpfile --reassemble makes "
            "of them"
        )
    return Target(fd, path, vmcore, header, _page_size(vmcore) or header.block_size)


def _page_size(vmcore: Vmcore) -> int | None:
    """Return PAGESIZE of VMCOREINFO, where it is one."""
    for note in vmcore.notes():
        if note.name == _VMCOREINFO:
            text = vmcore.image.read(min(note.n_descsz, _VMCOREINFO_MAX), note.desc_offset, "VMCOREINFO")
            match = re.search(rb"^PAGESIZE=(\d{1,9})$", text, re.MULTILINE)
            size = int(match[1]) if match else 0
            if kdump.MIN_BLOCK_SIZE <= size <= kdump.MAX_BLOCK_SIZE and not size & (size - 1):
                return size
    return None


def _check_names(target: Target, dumps: Sequence[DeviceDumpNote], replaced: Collection[int]) -> None:
    names = [dump.dump_name for dump in dumps]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise NameInUse(f"{target.path}: two device dumps are to be called {name}")
    # The manifest comes last: crash not finding it is no harm.
    count = len([name for name in names if name != MANIFEST_NAME])
    for note in target.vmcore.notes():
        if note.n_type == NT_VMCOREDD and note.offset not in replaced:
            count += 1
        if count > MAX_DEVICE_DUMPS:
            last = names[-1] if names else "another"
            raise QuotaExceeded(
                f"{target.path}: no room for device dump {last}: it would have more than "
                f"{MAX_DEVICE_DUMPS}, and crash reads no more"
            )
