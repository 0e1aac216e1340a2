# SPDX-License-Identifier: LGPL-2.1-or-later
"""Put device dumps into a finished vmcore: an ELF, kdump-compressed or flattened file.

They come behind the device dumps that it already has (a kernel's own come first) and before its other notes. Its
memory is not read. An attach that is refused is refused before anything is written; an error leaves the file as it
was.
"""

import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from ...errors import Busy, InvalidArgs, InvalidVmcore, TooLarge, VmcoreddError, WriteFailed, of_storage
from ...files import BLOCK_SIZE, pwrite
from ...manifest import MANIFEST_NAME, Manifest, ManifestDump, State, now_usec
from ...note import (
    MAX_DEVICE_DUMPS,
    MAX_NOTES_END,
    VMCOREDD_HEADER_SIZE,
    DeviceDumpNote,
    Note,
    note_size,
    pack_vmcoredd_header,
)
from ...progress import Progress
from .. import kdump
from ..copy.source import Reads
from ..elf import largest_page_size, read_headers
from ..formats import Vmcore, recognise
from ..image import file_image
from ..page_data import cut_off_at
from ..vmcoreinfo import page_size
from .dump_files import COLLECTOR, NamedFile, check_files, open_file
from .elf import attach_elf, truncation
from .kdump import KdumpAttachment
from .merge import Left, check_manifest_size, check_names, plan_merge

STDIN = "-"
"""The path that stands for standard input."""


@dataclass(frozen=True, slots=True)
class Attached:
    """What was done."""

    in_place: bool
    """False if a new file replaced the old one."""
    altered: tuple[str, ...]
    """Names of device dumps whose data no longer has the SHA-256 of when they were collected."""
    warnings: tuple[str, ...]
    """Each in one line."""


@dataclass(frozen=True, slots=True)
class Target:
    """A vmcore that is open and locked for an attach."""

    fd: int
    path: str
    vmcore: Vmcore
    header: kdump.KdumpHeader | None
    """None unless the file is kdump-compressed and not flattened."""
    page_size: int
    """PAGE_SIZE of the machine that crashed, in bytes."""
    cut_off: bool = False
    """Whether it is a kdump-compressed file that ends before its page data."""


def attach(
    path: str,
    dumps: Sequence[DeviceDumpNote],
    progress: Progress | None = None,
    *,
    force: bool = False,
    most: int = MAX_DEVICE_DUMPS,
    reads: Reads | None = None,
) -> Attached:
    """Put *dumps* into the vmcore at *path*, the last of them the manifest, and make that durable.

    *progress* counts what is written, *force* is as for :func:`locked`; *reads* reads the notes into a
    kdump-compressed file. Blocks: call it in a thread. Raises
    InvalidVmcore if nothing can be attached to the file, QuotaExceeded if it would have more than *most* device
    dumps, by default those that crash reads, or larger notes than crash reads, NameInUse if two of *dumps* have
    one name, Busy if another process attaches, NoSpace and WriteFailed. The file is then as it was.
    """
    with locked(path, force=force) as target:
        return attach_notes(target, dumps, progress=progress, most=most, reads=reads)


def attach_notes(
    target: Target,
    dumps: Sequence[DeviceDumpNote],
    replaced: Collection[int] = (),
    committing: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
    most: int = MAX_DEVICE_DUMPS,
    reads: Reads | None = None,
) -> Attached:
    """Do as :func:`attach`, but leave out the device dumps whose notes are at the offsets *replaced*.

    *committing* is called when everything is on disk, right before the one write that makes it count.
    """
    check_names(target.path, target.vmcore.notes(), replaced, [dump.dump_name for dump in dumps], most)

    def notes() -> Iterator[Note]:
        return (note for note in target.vmcore.notes() if note.offset not in replaced)

    progress = progress or Progress()
    try:
        if target.header is not None:
            attachment = KdumpAttachment(
                target.fd,
                target.vmcore,
                target.header,
                target.page_size,
                committing,
                progress,
                cut_off=target.cut_off,
                reads=reads,
            )
            altered, warnings = attachment.run(notes, dumps)
            return Attached(True, altered, target.vmcore.problems + warnings)
        if target.vmcore.format == "flattened":
            # For start time and memory: the filter is as large as the rest, and few files need it.
            from .flattened import attach_flattened

            altered = attach_flattened(
                target.fd, target.path, target.vmcore, dumps, replaced, committing, progress
            )
            return Attached(False, altered, target.vmcore.problems)
        truncated = truncation(target.vmcore)
        in_place, altered = attach_elf(
            target.fd, target.path, target.vmcore, target.page_size, notes, dumps, committing, progress
        )
        return Attached(in_place, altered, (truncated,) if truncated else ())
    except OSError as error:
        raise of_storage(error, f"{target.path}: cannot attach; the file is unchanged") from error
    except VmcoreddError as error:
        if str(error).startswith(target.path):
            raise
        raise type(error)(f"{target.path}: {error}") from error


# Files.


def attach_files(
    path: str,
    files: Sequence[NamedFile],
    producer: str,
    committing: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
    *,
    force: bool = False,
    left: Left | None = None,
) -> Attached:
    """Put *files* into the vmcore at *path*, and make that durable; the manifest names *producer* as its writer.

    A vmcore without a manifest gets one that has what is *left*, too. *committing* and *progress* are as for
    :func:`attach_notes`, *force* as for :func:`locked`. Blocks. Raises InvalidArgs for a name or file that is not
    possible, TooLarge, and what :func:`attach` raises. The vmcore is then as it was.
    """
    check_files(files)
    progress = progress or Progress()
    with ExitStack() as stack:
        # Open all before reading the first, which may take minutes.
        sources = [stack.enter_context(_open(file)) for file in files]
        target = stack.enter_context(locked(path, force=force))
        vmcore, names = target.vmcore, {file.dump_name for file in files}
        merge = plan_merge(vmcore.image, vmcore.notes(), names)
        for file, source in zip(files, sources, strict=True):
            if os.path.samestat(os.fstat(source), os.fstat(target.fd)):
                raise InvalidArgs(f"{_name(file)}: is the vmcore itself")
        notes, entries = [], []
        for file, source in zip(files, sources, strict=True):
            note, entry = _read(target, file, source, stack, progress)
            notes.append(note)
            entries.append(entry)
        left = left if left is not None and not merge.manifests else Left()
        manifest = merge.manifest(producer, now_usec(), entries, left.failures, left.machine, left.idle_collectors)
        notes.append(_manifest_note(target, manifest, stack))
        attached = attach_notes(target, notes, merge.replaced, committing, progress)
        return replace(attached, warnings=attached.warnings + merge.warnings)


@contextmanager
def _open(file: NamedFile) -> Iterator[int]:
    try:
        fd = os.dup(0) if file.path == STDIN else open_file(file.path)
    except InvalidArgs as error:
        raise InvalidArgs(f"{_name(file)}: {error}") from error
    except OSError as error:
        raise InvalidArgs(f"{_name(file)}: {error.strerror}") from error
    try:
        if file.path != STDIN:
            os.set_blocking(fd, True)
        elif stat.S_ISDIR(os.fstat(fd).st_mode):
            raise InvalidArgs(f"{_name(file)}: is a directory")
        yield fd
    finally:
        os.close(fd)


def _read(
    target: Target, file: NamedFile, source: int, stack: ExitStack, progress: Progress
) -> tuple[DeviceDumpNote, ManifestDump]:
    """Read *file* into a note: an unnamed file beside the vmcore, so that it takes disk space and not memory."""
    started = now_usec()
    name, directory = file.dump_name, os.path.dirname(os.path.realpath(target.path))
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as unnamed:
            fd = os.dup(unnamed.fileno())
    except OSError as error:
        raise of_storage(error, f"device dump {name}: cannot be kept in {directory}") from error
    stack.callback(os.close, fd)
    size, digest, described = 0, hashlib.sha256(), file.described
    expected = os.fstat(source).st_size if described is None else described.size
    if described is not None:
        os.lseek(source, VMCOREDD_HEADER_SIZE, os.SEEK_SET)
    progress.start(f"reading {name}", expected)
    while data := _read_block(file, source, BLOCK_SIZE if described is None else expected - size):
        if size + len(data) >= MAX_NOTES_END:
            raise TooLarge(
                f"device dump {name}: {_name(file)} has more than the {MAX_NOTES_END} bytes that crash reads"
            )
        digest.update(data)
        try:
            pwrite(fd, data, VMCOREDD_HEADER_SIZE + size)
        except OSError as error:
            raise of_storage(error, f"device dump {name}: cannot be kept in {directory}") from error
        size += len(data)
        progress.advance(len(data))
    if not size:
        raise InvalidArgs(f"device dump {name}: {_name(file)} has no bytes")
    padded = file.padded(size, target.page_size)
    os.ftruncate(fd, padded)
    pwrite(fd, pack_vmcoredd_header(name.encode("ascii"), padded, target.vmcore.byteorder), 0)
    sha256, finished = digest.hexdigest(), now_usec()
    entry = described or ManifestDump(name, size, size, sha256, COLLECTOR, State.COMPLETE, started, finished)
    # A device dump that was described before keeps its SHA-256, so that a change since then is found.
    return DeviceDumpNote(name, fd, padded, size, entry.sha256), entry


def _read_block(file: NamedFile, source: int, limit: int) -> bytes:
    try:
        return os.read(source, min(BLOCK_SIZE, limit))
    except OSError as error:
        raise InvalidArgs(f"{_name(file)}: {error.strerror}") from error


def _name(file: NamedFile) -> str:
    return "standard input" if file.path == STDIN else file.path


def _manifest_note(target: Target, manifest: Manifest, stack: ExitStack) -> DeviceDumpNote:
    text = manifest.dump()
    check_manifest_size(target.path, text)
    padded = note_size(len(text), target.page_size)
    fd = os.memfd_create(MANIFEST_NAME, os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    pwrite(fd, pack_vmcoredd_header(MANIFEST_NAME.encode("ascii"), padded, target.vmcore.byteorder) + text, 0)
    os.ftruncate(fd, padded)
    return DeviceDumpNote(MANIFEST_NAME, fd, padded, len(text), hashlib.sha256(text).hexdigest())


# The vmcore, open and locked.


@contextmanager
def locked(path: str, *, force: bool = False) -> Iterator[Target]:
    """Open the vmcore at *path*, and lock it against other processes that attach.

    Raises Busy, and InvalidVmcore if no device dumps can be attached to it. That is so, unless *force*, if it is a
    kdump-compressed file that was cut off: the places of its missing pages would then be inside the notes.
    """
    try:
        # O_NONBLOCK: the open of a FIFO would wait for a writer, only for the FIFO to be refused.
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidVmcore(f"{path}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidVmcore(f"{path}: is not a regular file")
        _lock(fd, path)
        yield _target(fd, path, force=force)
    finally:
        os.close(fd)


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Busy(f"{path}: another process has locked it") from error
    except OSError as error:
        raise WriteFailed(f"{path}: cannot be locked: {error.strerror}") from error
    # The process that had the lock until now may have replaced the file.
    try:
        same = os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        same = False
    if not same:
        raise Busy(f"{path}: another process has replaced it")


def _target(fd: int, path: str, *, force: bool) -> Target:
    image = file_image(fd, path)
    vmcore = recognise(image)
    if not vmcore.image.pread(len(kdump.SIGNATURE), 0).startswith((kdump.SIGNATURE, kdump.DISKDUMP_SIGNATURE)):
        pages = page_size(vmcore.image, vmcore.notes())
        return Target(fd, path, vmcore, None, pages or largest_page_size(read_headers(vmcore.image).e_machine))
    header = kdump.read_header(vmcore.image)
    header.check_extensible(path)
    if (cut_off := cut_off_at(vmcore.image, header)) and not force:
        raise InvalidVmcore(f"{path}: {cut_off}; attach --force attaches anyway")
    if cut_off:
        vmcore = replace(vmcore, problems=(*vmcore.problems, cut_off))
    size = page_size(vmcore.image, vmcore.notes()) or header.block_size
    return Target(fd, path, vmcore, header if vmcore.format == "kdump" else None, size, bool(cut_off))
