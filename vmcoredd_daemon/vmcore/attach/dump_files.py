# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that become device dumps, the names that they may have, and their notes as a stream of bytes.

While a vmcore passes, each file is read once; the manifest comes last.
"""

import hashlib
import os
import stat
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from ...errors import InvalidArgs, NameInUse, QuotaExceeded
from ...manifest import MANIFEST_NAME, Failure, IdleCollector, ManifestDump, ManifestMachine, State, now_usec
from ...note import (
    MAX_DEVICE_DUMPS,
    VMCOREDD_HEADER_SIZE,
    ByteOrder,
    check_dump_name,
    note_size,
    pack_vmcoredd_header,
    round_up,
)
from ..formats import Notes
from ..image import Image
from .merge import Merge, check_manifest_size, check_names, plan_merge
from .stream_plan import read_blocks, zeros

COLLECTOR = "vmcoredd attach"
"""The collector that the manifest names for them."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that is to become a device dump."""

    dump_name: str
    path: str
    """``-`` can stand for standard input."""
    described: ManifestDump | None = field(default=None, kw_only=True)
    """Its manifest entry, if it was collected before: the file is then a note, and the data follow its header."""
    note_size: int = field(default=0, kw_only=True)
    """Bytes that the note has then; it may have been told to keep more than its data need."""

    def padded(self, size: int, page_size: int) -> int:
        """Return the bytes of its note for *size* bytes of data. Raises TooLarge."""
        return max(note_size(size, page_size), round_up(self.note_size, page_size))


@dataclass(frozen=True, slots=True)
class OpenFile(NamedFile):
    """A file that is open, and is read once."""

    fd: int
    size: int
    """Bytes to read; zeros stand for those that are missing."""
    offset: int = 0
    """Of the data in the file, in bytes."""


def check_files(files: Sequence[NamedFile]) -> None:
    """Raise InvalidArgs for a wrong name, NameInUse for a name given twice, QuotaExceeded for too many files."""
    names = [file.dump_name for file in files]
    for index, name in enumerate(names):
        check_dump_name(name)
        if name == MANIFEST_NAME:
            raise InvalidArgs(f"dump name {name} is reserved for the manifest")
        if name in names[:index]:
            raise NameInUse(f"dump name {name} is given twice")
    if len(files) > MAX_DEVICE_DUMPS:
        raise QuotaExceeded(
            f"device dump {names[MAX_DEVICE_DUMPS]} is one too many: crash reads {MAX_DEVICE_DUMPS}"
        )


def open_file(path: str) -> int:
    """Open a file that is to become a device dump, for reads that do not wait.

    Raises OSError, and InvalidArgs if it is a directory or a FIFO: that may never get a writer.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise InvalidArgs("is a directory")
        # A pipe, as of <(COMMAND) in a shell, has no path.
        if stat.S_ISFIFO(mode) and os.readlink(f"/proc/self/fd/{fd}").startswith("/"):
            raise InvalidArgs("is a FIFO, give its data on standard input")
    except BaseException:
        os.close(fd)
        raise
    return fd


@dataclass(frozen=True, slots=True)
class FileAdditions:
    """Files to be added; see :class:`.stream_plan.Additions`."""

    files: tuple[OpenFile, ...]
    failures: tuple[Failure, ...] = ()
    """Of files that could not be added, for the manifest."""
    producer: str = "vmcoredd"
    """Program and version, for the manifest."""
    machine: ManifestMachine | None = None
    """For the manifest; None: as an earlier one has it."""
    idle_collectors: tuple[IdleCollector, ...] = ()
    """For the manifest."""

    def new_notes(self, image: Image, notes: Notes, byteorder: ByteOrder, page_size: int) -> "_NewFiles":
        """Return the new notes. Raises InvalidVmcore, NameInUse, QuotaExceeded and TooLarge."""
        names = [file.dump_name for file in self.files]
        merge = plan_merge(image, notes(), names)
        check_names(image.path, notes(), merge.replaced, [*names, MANIFEST_NAME])
        new = _NewFiles(self, merge, byteorder, page_size)
        check_manifest_size(image.path, new.longest_manifest())
        return new


@dataclass(frozen=True, slots=True)
class _NewFiles:
    additions: FileAdditions
    merge: Merge
    byteorder: ByteOrder
    page_size: int

    @property
    def replaced(self) -> Collection[int]:
        return self.merge.replaced

    @property
    def size(self) -> int:
        return sum(self._note_size(file) for file in self.additions.files) + self._manifest_size()

    def blocks(self, problems: list[str]) -> Iterator[bytes]:
        problems.extend(self.merge.warnings)
        entries = []
        for file in self.additions.files:
            entries.append((yield from self._file(file, problems)))
        data, size = self._manifest(entries), self._manifest_size()
        yield pack_vmcoredd_header(MANIFEST_NAME.encode("ascii"), size, self.byteorder) + data
        yield bytes(size - VMCOREDD_HEADER_SIZE - len(data))

    def _file(self, file: OpenFile, problems: list[str]) -> Generator[bytes, None, ManifestDump]:
        started, digest, size = now_usec(), hashlib.sha256(), self._note_size(file)
        yield pack_vmcoredd_header(file.dump_name.encode("ascii"), size, self.byteorder)
        what = f"device dump {file.dump_name}: {file.path}"
        pread = partial(os.pread, file.fd)
        true_size = yield from read_blocks(pread, file.offset, file.size, what, problems, digest.update)
        yield from zeros(size - VMCOREDD_HEADER_SIZE - file.size)
        if file.described is not None:
            if digest.hexdigest() != file.described.sha256:
                # The manifest keeps its SHA-256, so that readers of the vmcore see the change, too.
                problems.append(f"device dump {file.dump_name} was altered after it was taken")
            return file.described
        state = State.COMPLETE if true_size == file.size else State.TRUNCATED
        sha256, finished = digest.hexdigest(), now_usec()
        return ManifestDump(file.dump_name, true_size, file.size, sha256, COLLECTOR, state, started, finished)

    def _note_size(self, file: OpenFile) -> int:
        return file.padded(file.size, self.page_size)

    def _manifest_size(self) -> int:
        return note_size(len(self.longest_manifest()), self.page_size)

    def longest_manifest(self) -> bytes:
        """Return the manifest with values not yet known at their greatest length."""
        sha256, now = "0" * 64, now_usec()
        return self._manifest(
            [
                file.described
                or ManifestDump(file.dump_name, file.size, file.size, sha256, COLLECTOR, State.TRUNCATED, now, now)
                for file in self.additions.files
            ]
        )

    def _manifest(self, entries: list[ManifestDump]) -> bytes:
        new = self.additions
        return self.merge.manifest(
            new.producer, now_usec(), entries, new.failures, new.machine, new.idle_collectors
        ).dump()
