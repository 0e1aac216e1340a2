# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that become device dumps while a vmcore passes: each is read once, and the manifest comes behind them."""

import hashlib
import os
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from functools import partial

from ...manifest import MANIFEST_NAME, Failure, ManifestDump, now_usec
from ...note import VMCOREDD_HEADER_SIZE, ByteOrder, note_size, pack_vmcoredd_header
from ..formats import Notes
from ..image import Image
from .merge import Existing, check_manifest, check_room, find_existing
from .named_file import COLLECTOR, OpenFile
from .note_area import read_blocks


@dataclass(frozen=True, slots=True)
class FileAdditions:
    """What is to be added; see :class:`.note_area.Additions`."""

    files: tuple[OpenFile, ...]
    failures: tuple[Failure, ...] = ()
    """Of those that could not be added, for the manifest."""
    producer: str = "vmcoredd"
    """Program and version, for the manifest."""

    def among(self, image: Image, notes: Notes, byteorder: ByteOrder, page_size: int) -> "_NewFiles":
        """Return the new notes. Raises InvalidVmcore, NameInUse, QuotaExceeded and TooLarge."""
        names = [file.dump_name for file in self.files]
        existing = find_existing(image, notes(), names)
        check_room(image.path, notes(), existing.replaced, [*names, MANIFEST_NAME])
        new = _NewFiles(self, existing, byteorder, page_size)
        check_manifest(image.path, new.longest_manifest())
        return new


@dataclass(frozen=True, slots=True)
class _NewFiles:
    additions: FileAdditions
    existing: Existing
    byteorder: ByteOrder
    page_size: int

    @property
    def replaced(self) -> Collection[int]:
        return self.existing.replaced

    @property
    def size(self) -> int:
        return sum(self._note_size(file) for file in self.additions.files) + self._manifest_size()

    def blocks(self, problems: list[str]) -> Iterator[bytes]:
        problems.extend(self.existing.warnings)
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
        yield bytes(size - VMCOREDD_HEADER_SIZE - file.size)
        if file.described is not None:
            if digest.hexdigest() != file.described.sha256:
                # Its SHA-256 stays, so that a reader sees that, too.
                problems.append(f"device dump {file.dump_name} was altered after it was taken")
            return file.described
        state = "complete" if true_size == file.size else "truncated"
        sha256, finished = digest.hexdigest(), now_usec()
        return ManifestDump(file.dump_name, true_size, file.size, sha256, COLLECTOR, state, started, finished)

    def _note_size(self, file: OpenFile) -> int:
        return note_size(file.size, self.page_size)

    def _manifest_size(self) -> int:
        return note_size(len(self.longest_manifest()), self.page_size)

    def longest_manifest(self) -> bytes:
        """Return a manifest in which the values to come are as long as they can be."""
        sha256, now = "0" * 64, now_usec()
        return self._manifest(
            [
                file.described
                or ManifestDump(file.dump_name, file.size, file.size, sha256, COLLECTOR, "truncated", now, now)
                for file in self.additions.files
            ]
        )

    def _manifest(self, entries: list[ManifestDump]) -> bytes:
        return self.existing.merged(self.additions.producer, now_usec(), entries, self.additions.failures).dump()
