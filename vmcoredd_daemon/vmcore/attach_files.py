# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make device dumps of files, and put them into a vmcore that is finished, with one manifest for all.

A device dump that a manifest describes, and that has the name of a new one, is replaced; one that no manifest
describes is a kernel's own, and stays.
"""

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from ..errors import InvalidArgs, InvalidVmcore, NameInUse, NoSpace, QuotaExceeded, TooLarge, WriteFailed
from ..manifest import MANIFEST_NAME, MAX_SIZE, Manifest, ManifestDump, ManifestSource, load
from ..note import VMCOREDD_HEADER_SIZE, check_dump_name, note_size, pack_vmcoredd_header
from .attach import MAX_DEVICE_DUMPS, Attached, Target, attach_notes, locked
from .copy import NO_SPACE, pwrite
from .inspect import FoundDump, find, read_manifest
from .layout import MAX_NOTES_END, DeviceDumpNote

COLLECTOR = "attach"
BLOCK_SIZE = 256 * 1024
"""Bytes of a file that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A device dump to be."""

    dump_name: str
    path: str
    """``-`` is standard input."""


def attach_files(
    path: str, files: Sequence[NamedFile], producer: str, committing: Callable[[], None] = lambda: None
) -> Attached:
    """Put *files* into the vmcore at *path*, and make that durable. *producer* is what the manifest says wrote it.

    *committing* is called before the one write that makes it count. Blocks. Raises InvalidArgs for a name or file
    that cannot be, TooLarge, and what :func:`~.attach.attach` raises. The vmcore is then as it was.
    """
    _check_names(files)
    with ExitStack() as stack:
        # All of them, before the first is read for minutes.
        sources = [stack.enter_context(_opened(file)) for file in files]
        target = stack.enter_context(locked(path))
        existing = _Existing(target, {file.dump_name for file in files})
        for file, source in zip(files, sources, strict=True):
            if os.path.samestat(os.fstat(source), os.fstat(target.fd)):
                raise InvalidArgs(f"{file.path}: is the vmcore itself")
        notes, entries = [], []
        for file, source in zip(files, sources, strict=True):
            note, entry = _read(target, file, source, stack)
            notes.append(note)
            entries.append(entry)
        notes.append(_manifest_note(target, existing.merged(entries, producer), stack))
        attached = attach_notes(target, notes, existing.replaced, committing)
        return replace(attached, warnings=attached.warnings + tuple(existing.warnings))


def _check_names(files: Sequence[NamedFile]) -> None:
    names = [file.dump_name for file in files]
    for index, name in enumerate(names):
        check_dump_name(name)
        if name == MANIFEST_NAME:
            raise InvalidArgs(f"dump name {name} is that of the manifest")
        if name in names[:index]:
            raise NameInUse(f"two device dumps are to be called {name}")
    if len(files) >= MAX_DEVICE_DUMPS:
        name = names[MAX_DEVICE_DUMPS - 1]
        raise QuotaExceeded(f"no room for device dump {name}: crash reads {MAX_DEVICE_DUMPS}, manifest included")


@contextmanager
def _opened(file: NamedFile) -> Iterator[int]:
    try:
        fd = os.dup(0) if file.path == "-" else os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgs(f"{file.path}: {error.strerror}") from error
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise InvalidArgs(f"{file.path}: is a directory")
        yield fd
    finally:
        os.close(fd)


class _Existing:
    """The device dumps that the vmcore has already, and its manifests."""

    def __init__(self, target: Target, names: set[str]) -> None:
        self.replaced: set[int] = set()
        """Offsets of the notes that are left out."""
        self.warnings: list[str] = []
        self._names = names
        self._bytes = 0
        self._manifests: list[Manifest] = []
        found = find(target.fd, target.path)
        for dump in found.device_dumps:
            if dump.name == MANIFEST_NAME:
                self._take_manifest(target, dump)
            elif dump.name in names:
                if dump.sha256 is None:
                    raise NameInUse(
                        f"{target.path}: has a device dump {dump.name} that no manifest describes, "
                        "and which is not replaced"
                    )
                self.replaced.add(dump.offset - VMCOREDD_HEADER_SIZE)

    def _take_manifest(self, target: Target, dump: FoundDump) -> None:
        try:
            text = read_manifest(target.vmcore.image, dump)
            self._bytes += len(text)
            if self._bytes > MAX_SIZE:
                raise InvalidVmcore(f"{MANIFEST_NAME}: all of them have more than {MAX_SIZE} bytes")
            self._manifests.append(load(text))
        except InvalidVmcore as error:
            self.warnings.append(f"{error}; it is kept as it is")
            return
        self.replaced.add(dump.offset - VMCOREDD_HEADER_SIZE)

    def merged(self, entries: Sequence[ManifestDump], producer: str) -> Manifest:
        """Return the one manifest of all: of what stays, and of the new *entries*."""
        kept = [entry for old in self._manifests for entry in old.device_dumps if entry.name not in self._names]
        return Manifest(
            producer,
            time.time_ns() // 1000,
            (*kept, *entries),
            tuple(failure for old in self._manifests for failure in old.failures),
            sum(old.failures_forgotten for old in self._manifests),
            self._manifests[-1].source if self._manifests else ManifestSource(),
        )


def _read(target: Target, file: NamedFile, source: int, stack: ExitStack) -> tuple[DeviceDumpNote, ManifestDump]:
    """Read a file into a note of its own, without a name, where the vmcore is and memory is not needed."""
    started = time.time_ns() // 1000
    name, directory = file.dump_name, os.path.dirname(os.path.realpath(target.path))
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as unnamed:
            fd = os.dup(unnamed.fileno())
    except OSError as error:
        raise _storage_error(error, name, directory) from error
    stack.callback(os.close, fd)
    size, digest = 0, hashlib.sha256()
    while data := _read_block(file, source):
        if size + len(data) >= MAX_NOTES_END:
            raise TooLarge(
                f"device dump {name}: {file.path} has more than the {MAX_NOTES_END} bytes that crash reads"
            )
        digest.update(data)
        try:
            pwrite(fd, data, VMCOREDD_HEADER_SIZE + size)
        except OSError as error:
            raise _storage_error(error, name, directory) from error
        size += len(data)
    if not size:
        raise InvalidArgs(f"device dump {name}: {file.path} has no bytes")
    room = note_size(size, target.page_size)
    os.ftruncate(fd, room)
    pwrite(fd, pack_vmcoredd_header(name.encode("ascii"), room, target.vmcore.byteorder), 0)
    sha256, finished = digest.hexdigest(), time.time_ns() // 1000
    entry = ManifestDump(name, size, size, sha256, COLLECTOR, "complete", started, finished)
    return DeviceDumpNote(name, fd, room, size, sha256), entry


def _read_block(file: NamedFile, source: int) -> bytes:
    try:
        return os.read(source, BLOCK_SIZE)
    except OSError as error:
        raise InvalidArgs(f"{file.path}: {error.strerror}") from error


def _storage_error(error: OSError, name: str, directory: str) -> Exception:
    if error.errno in NO_SPACE:
        return NoSpace(f"device dump {name}: no space left for it in {directory}")
    return WriteFailed(f"device dump {name}: cannot be kept in {directory}: {error.strerror}")


def _manifest_note(target: Target, manifest: Manifest, stack: ExitStack) -> DeviceDumpNote:
    text = manifest.dump()
    if len(text) > MAX_SIZE:
        raise QuotaExceeded(
            f"{target.path}: the manifest would have {len(text)} bytes, at most {MAX_SIZE} are read"
        )
    room = note_size(len(text), target.page_size)
    fd = os.memfd_create(MANIFEST_NAME, os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    pwrite(fd, pack_vmcoredd_header(MANIFEST_NAME.encode("ascii"), room, target.vmcore.byteorder) + text, 0)
    os.ftruncate(fd, room)
    return DeviceDumpNote(MANIFEST_NAME, fd, room, len(text), hashlib.sha256(text).hexdigest())
