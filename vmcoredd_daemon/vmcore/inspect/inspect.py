# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which device dumps a vmcore holds, and whether they are what their manifest says.

Offsets, sizes and indices are those of crash's ``dev -V``; true sizes and checksums are those of the manifest, if
the file has one. A file has several if it was made from another vmcore: each describes device dumps before it.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from ...errors import InvalidVmcore
from ...manifest import MANIFEST_NAME, MAX_SIZE, Failure, Manifest, ManifestDump, load
from ...note import MOST_IN_A_FILE, NT_VMCOREDD, Note
from ..formats import Vmcore, recognise
from ..image import Image, file_image, slice_of

READ_SIZE = 1 << 20
"""Bytes of a device dump that are in memory at a time."""

MAX_FAILURES = 4096
"""Failures that all manifests of a file may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDump:
    """One NT_VMCOREDD note."""

    index: int
    name: str
    """As in the file: it may hold control characters; bytes other than ASCII are escaped."""
    offset: int
    """File offset of the data."""
    size: int
    """Bytes of the data, padding included."""
    true_size: int | None = None
    """Bytes without the padding; None if no manifest says it."""
    sha256: str | None = None
    """In hexadecimal, from the manifest."""
    verified: bool | None = None
    """Whether the data has that checksum; None if there is none, or it was not checked."""
    entry: ManifestDump | None = None
    """Its manifest entry."""

    @property
    def data_size(self) -> int:
        """Bytes of the data: without the padding, if that is known."""
        return self.size if self.true_size is None else self.true_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The device dumps of a file, and what else its manifests say."""

    format: str
    elfclass: int
    """32 or 64."""
    byteorder: str
    machine: str
    """As uname(2) calls it."""
    image: Image
    """The bytes that the offsets of the device dumps refer to."""
    device_dumps: tuple[FoundDump, ...]
    failures: tuple[Failure, ...]
    """Collectors that failed, from the manifests."""
    problems: tuple[str, ...]
    """What is wrong with the file, each in one line."""
    manifest: Manifest | None = None
    """The last one, without its device dumps and failures, which are above."""


def inspect(fd: int, path: str) -> Inspection:
    """Find the device dumps of the vmcore open at *fd*, and verify all checksums.

    *path* is for messages. Raises InvalidVmcore if the file is not a vmcore, or truncated.
    """
    return check(find(fd, path))


def check(found: Inspection, progress: Callable[[int], None] = lambda size: None) -> Inspection:
    """Verify the checksums of all device dumps that have one.

    *progress* is called with the number of bytes just read. Raises InvalidVmcore if one cannot be read.
    """
    dumps = tuple(replace(dump, verified=_verify(found.image, dump, progress)) for dump in found.device_dumps)
    altered = tuple(
        f"device dump {dump.name} does not match the SHA-256 in its manifest"
        for dump in dumps
        if dump.verified is False
    )
    return replace(found, device_dumps=dumps, problems=found.problems + altered)


def find(fd: int, path: str) -> Inspection:
    """Do as :func:`inspect`, but do not read the data."""
    return find_in(recognise(file_image(fd, path)))


def find_in(vmcore: Vmcore) -> Inspection:
    """Find the device dumps of *vmcore*, without reading their data. Raises InvalidVmcore."""
    found = search(vmcore.image, vmcore.notes())
    return Inspection(
        format=vmcore.format,
        elfclass=vmcore.elfclass,
        byteorder=vmcore.byteorder.value,
        machine=vmcore.machine,
        image=vmcore.image,
        device_dumps=tuple(found.dumps),
        failures=tuple(found.failures),
        problems=(*vmcore.problems, *found.problems),
        manifest=found.manifest,
    )


def search(image: Image, notes: Iterable[Note]) -> "Search":
    """Return the device dumps among *notes* of *image*. Raises InvalidVmcore for a broken note, or too many."""
    found = Search(image)
    for note in notes:
        if note.n_type != NT_VMCOREDD or note.dump_name is None:
            continue
        if len(found.dumps) == MOST_IN_A_FILE:
            raise InvalidVmcore(f"{image.path}: has more than {MOST_IN_A_FILE} device dumps")
        found.add(note)
    return found


def data_of(image: Image, dump: FoundDump) -> Image:
    """Return the bytes of *dump* in *image* as an image of their own: without the padding, if that is known."""
    return slice_of(image, dump.offset, dump.data_size, f"device dump {dump.name}")


def copy_data(image: Image, dump: FoundDump, write: Callable[[bytes], object]) -> bool | None:
    """Pass the data of *dump* to *write* in blocks: without the padding, if its true size is known.

    Return whether they have the manifest's SHA-256, None if there is none. Raises InvalidVmcore if they cannot be
    read, and what *write* raises.
    """
    digest = hashlib.sha256()
    for block in _blocks(image, dump):
        digest.update(block)
        write(block)
    return None if dump.sha256 is None else digest.hexdigest() == dump.sha256


def held(found: Inspection, wanted: Collection[ManifestDump]) -> frozenset[ManifestDump]:
    """Return those of *wanted* that the file has: its manifest says the same of them, times included, and the data
    have the SHA-256 of that.

    Raises InvalidVmcore if data cannot be read.
    """
    return frozenset(
        dump.entry
        for dump in found.device_dumps
        if dump.entry is not None
        and dump.entry in wanted
        and dump.true_size == dump.entry.size
        and _verify(found.image, dump, lambda size: None)
    )


def _verify(image: Image, dump: FoundDump, progress: Callable[[int], None]) -> bool | None:
    return None if dump.sha256 is None else copy_data(image, dump, lambda block: progress(len(block)))


def _blocks(image: Image, dump: FoundDump) -> Iterator[bytes]:
    offset = dump.offset
    end = offset + dump.data_size
    while offset < end:
        try:
            block = image.pread(min(READ_SIZE, end - offset), offset)
        except OSError as error:
            reason = f"cannot be read at offset {offset:#x}: {error.strerror}"
            raise InvalidVmcore(f"{image.path}: device dump {dump.name} {reason}") from error
        if not block:
            raise InvalidVmcore(
                f"{image.path}: the file ends at offset {offset:#x}, inside device dump {dump.name}"
            )
        yield block
        offset += len(block)


class Search:
    """The device dumps found so far."""

    def __init__(self, image: Image) -> None:
        self.dumps: list[FoundDump] = []
        self.failures: list[Failure] = []
        self.problems: list[str] = []
        self.manifest: Manifest | None = None
        self._image = image
        self._undescribed: dict[str, list[int]] = {}

    def add(self, note: Note) -> None:
        """Add the next device dump."""
        name = (note.dump_name or b"").decode("ascii", "backslashreplace")
        dump = FoundDump(index=len(self.dumps), name=name, offset=note.data_offset, size=note.data_size)
        if name == MANIFEST_NAME:
            dump = self._take_manifest(dump)
        else:
            self._undescribed.setdefault(name, []).append(dump.index)
        self.dumps.append(dump)

    def _take_manifest(self, dump: FoundDump) -> FoundDump:
        try:
            data = read_manifest(self._image, dump)
            manifest = load(data)
        except InvalidVmcore as error:
            self.problems.append(str(error))
            return dump
        if len(self.failures) + len(manifest.failures) > MAX_FAILURES:
            self.problems.append(f"{MANIFEST_NAME}: names more than {MAX_FAILURES} failures, others are left out")
        self.manifest = replace(manifest, device_dumps=(), failures=())
        self.failures = [*self.failures, *manifest.failures][:MAX_FAILURES]
        # From last to first: a device dump of the kernel can have the name of one of ours, and precedes it.
        missing = []
        for entry in reversed(manifest.device_dumps):
            if indices := self._undescribed.get(entry.name):
                index = indices.pop()
                self.dumps[index] = _described(self.dumps[index], entry)
            else:
                missing.append(entry.name)
        if missing:
            others = f" and {len(missing) - 1} more" if missing[1:] else ""
            self.problems.append(f"{MANIFEST_NAME}: names device dump {missing[-1][:64]}{others}, not in the file")
        return replace(dump, true_size=len(data))


def read_manifest(image: Image, dump: FoundDump) -> bytes:
    """Return the JSON text of the manifest *dump*. Raises InvalidVmcore if it cannot be read or is too long."""
    if dump.size > MAX_SIZE:
        raise InvalidVmcore(f"{MANIFEST_NAME}: has {dump.size} bytes, but readers accept {MAX_SIZE}")
    try:
        return image.pread(dump.size, dump.offset).rstrip(b"\0")
    except OSError as error:
        raise InvalidVmcore(f"{MANIFEST_NAME}: cannot be read: {error.strerror}") from error


def _described(dump: FoundDump, entry: ManifestDump) -> FoundDump:
    # A size that the note cannot hold is no true size; the checksum then shows that something is wrong.
    true_size = entry.size if 0 <= entry.size <= dump.size else None
    return replace(dump, true_size=true_size, sha256=entry.sha256.lower(), entry=entry)
