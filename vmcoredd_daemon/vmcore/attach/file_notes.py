# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make device dumps of files, and put them into a vmcore that is finished, with one manifest for all."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from ...errors import InvalidArgs, TooLarge, of_storage
from ...files import BLOCK_SIZE, pwrite
from ...manifest import MANIFEST_NAME, Manifest, ManifestDump, now_usec
from ...note import MAX_NOTES_END, VMCOREDD_HEADER_SIZE, DeviceDumpNote, note_size, pack_vmcoredd_header
from ...progress import Progress
from .attach import Attached, Target, attach_notes, locked
from .merge import check_manifest, find_existing
from .named_file import COLLECTOR, NamedFile, check_files

STDIN = "-"
"""The path that stands for standard input."""


def attach_files(
    path: str,
    files: Sequence[NamedFile],
    producer: str,
    committing: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> Attached:
    """Put *files* into the vmcore at *path*, and make that durable. *producer* is what the manifest says wrote it.

    *committing* is called before the one write that makes it count. Blocks. Raises
    InvalidArgs for a name or file that cannot be, TooLarge, and what :func:`~.attach.attach` raises. The vmcore is
    then as it was.
    """
    check_files(files)
    progress = progress or Progress()
    with ExitStack() as stack:
        # All of them, before the first is read for minutes.
        sources = [stack.enter_context(_opened(file)) for file in files]
        target = stack.enter_context(locked(path))
        vmcore, names = target.vmcore, {file.dump_name for file in files}
        existing = find_existing(vmcore.image, vmcore.notes(), names)
        for file, source in zip(files, sources, strict=True):
            if os.path.samestat(os.fstat(source), os.fstat(target.fd)):
                raise InvalidArgs(f"{_name(file)}: is the vmcore itself")
        notes, entries = [], []
        for file, source in zip(files, sources, strict=True):
            note, entry = _read(target, file, source, stack, progress)
            notes.append(note)
            entries.append(entry)
        manifest = existing.merged(producer, now_usec(), entries)
        notes.append(_manifest_note(target, manifest, stack))
        attached = attach_notes(target, notes, existing.replaced, committing, progress)
        return replace(attached, warnings=attached.warnings + existing.warnings)


@contextmanager
def _opened(file: NamedFile) -> Iterator[int]:
    try:
        fd = os.dup(0) if file.path == STDIN else os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgs(f"{_name(file)}: {error.strerror}") from error
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise InvalidArgs(f"{_name(file)}: is a directory")
        yield fd
    finally:
        os.close(fd)


def _read(
    target: Target, file: NamedFile, source: int, stack: ExitStack, progress: Progress
) -> tuple[DeviceDumpNote, ManifestDump]:
    """Read a file into a note of its own, without a name, where the vmcore is and memory is not needed."""
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
    room = note_size(size, target.page_size)
    os.ftruncate(fd, room)
    pwrite(fd, pack_vmcoredd_header(name.encode("ascii"), room, target.vmcore.byteorder), 0)
    sha256, finished = digest.hexdigest(), now_usec()
    entry = described or ManifestDump(name, size, size, sha256, COLLECTOR, "complete", started, finished)
    # What was described before is judged by its SHA-256 of then.
    return DeviceDumpNote(name, fd, room, size, entry.sha256), entry


def _read_block(file: NamedFile, source: int, limit: int) -> bytes:
    try:
        return os.read(source, min(BLOCK_SIZE, limit))
    except OSError as error:
        raise InvalidArgs(f"{_name(file)}: {error.strerror}") from error


def _name(file: NamedFile) -> str:
    return "standard input" if file.path == STDIN else file.path


def _manifest_note(target: Target, manifest: Manifest, stack: ExitStack) -> DeviceDumpNote:
    text = manifest.dump()
    check_manifest(target.path, text)
    room = note_size(len(text), target.page_size)
    fd = os.memfd_create(MANIFEST_NAME, os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    pwrite(fd, pack_vmcoredd_header(MANIFEST_NAME.encode("ascii"), room, target.vmcore.byteorder) + text, 0)
    os.ftruncate(fd, room)
    return DeviceDumpNote(MANIFEST_NAME, fd, room, len(text), hashlib.sha256(text).hexdigest())
