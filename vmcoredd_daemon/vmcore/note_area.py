# SPDX-License-Identifier: LGPL-2.1-or-later
"""The notes of a vmcore with more device dumps among them, as a stream of bytes.

In this order: the device dumps that are there, the new ones, the manifest, the other notes. Sizes are known before
the first byte is read, data is read once and in blocks; checksums go into the manifest, which follows the data.
"""

import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..errors import InvalidVmcore, NameInUse, QuotaExceeded
from ..manifest import MANIFEST_NAME, MAX_SIZE, Failure, Manifest, ManifestDump, load
from ..note import (
    NT_VMCOREDD,
    VMCOREDD_HEADER_SIZE,
    ByteOrder,
    Note,
    note_size,
    pack_vmcoredd_header,
    round_up,
)
from .image import Image
from .layout import MAX_EXTENTS, MAX_NOTES_END

MAX_DEVICE_DUMPS = 64
"""NR_DEVICE_DUMPS of crash, which drops further ones in silence."""
COLLECTOR = "vmcoredd attach"
BLOCK_SIZE = 1 << 18
"""Bytes in memory at a time."""


@dataclass(frozen=True, slots=True)
class NewDump:
    """A device dump to be added: all bytes of an open file."""

    name: str
    fd: int
    size: int
    """Bytes; more are not read, and zeros stand in for what is missing."""
    path: str
    """For messages."""
    offset: int = 0
    """Bytes of the file before the data."""
    described: ManifestDump | None = None
    """What the manifest says of it, where it was not read from a file only now."""


@dataclass(frozen=True, slots=True)
class Additions:
    """What is to be added."""

    dumps: tuple[NewDump, ...]
    failures: tuple[Failure, ...] = ()
    """Of those that could not be added, for the manifest."""
    producer: str = "vmcoredd"
    """Program and version, for the manifest."""


@dataclass(frozen=True, slots=True)
class _Copied:
    """Notes that are there, next to each other."""

    offset: int
    size: int
    padding: int


@dataclass(slots=True)
class NoteArea:
    """All notes in their new order."""

    image: Image
    """Where the old ones are."""
    byteorder: ByteOrder
    page_size: int
    dumps: tuple[NewDump, ...]
    manifest: Manifest
    theirs: list[_Copied] = field(default_factory=list)
    others: list[_Copied] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What went wrong while it was read, each in one line."""

    @property
    def size(self) -> int:
        """Bytes of all notes."""
        copied = sum(part.size + part.padding for part in self.theirs + self.others)
        return copied + sum(self._note_size(dump) for dump in self.dumps) + self._manifest_size()

    def place(self, offset: int, size: int) -> int | None:
        """Return where in the area *size* bytes of the old notes at *offset* go; None if they are not in one."""
        start = 0
        for part in self.theirs:
            if part.offset <= offset and offset + size <= part.offset + part.size:
                return start + offset - part.offset
            start += part.size + part.padding
        start += sum(self._note_size(dump) for dump in self.dumps) + self._manifest_size()
        for part in self.others:
            if part.offset <= offset and offset + size <= part.offset + part.size:
                return start + offset - part.offset
            start += part.size + part.padding
        return None

    def blocks(self) -> Iterator[bytes]:
        """Yield all bytes, :attr:`size` of them, whatever happens: what cannot be read is zeros, and a problem."""
        for part in self.theirs:
            yield from self._copy(part)
        described = list(self.manifest.device_dumps)
        for dump in self.dumps:
            described.append((yield from self._dump(dump)))
        yield from self._manifest(tuple(described))
        for part in self.others:
            yield from self._copy(part)

    def _copy(self, part: _Copied) -> Iterator[bytes]:
        yield from self._data(self.image.pread, part.offset, part.size, "a note", lambda block: None)
        yield bytes(part.padding)

    def _dump(self, dump: NewDump) -> Generator[bytes, None, ManifestDump]:
        started, digest, size = _now(), hashlib.sha256(), self._note_size(dump)
        yield pack_vmcoredd_header(dump.name.encode("ascii"), size, self.byteorder)
        true_size = yield from self._data(
            lambda count, offset: os.pread(dump.fd, count, dump.offset + offset),
            0,
            dump.size,
            f"device dump {dump.name}: {dump.path}",
            digest.update,
        )
        yield bytes(size - VMCOREDD_HEADER_SIZE - dump.size)
        if dump.described is None:
            state = "complete" if true_size == dump.size else "truncated"
            sha256 = digest.hexdigest()
            return ManifestDump(dump.name, true_size, dump.size, sha256, COLLECTOR, state, started, _now())
        if digest.hexdigest() != dump.described.sha256:
            # Its SHA-256 stays, so that a reader sees that, too.
            self.problems.append(f"device dump {dump.name} was altered after it was taken")
        return dump.described

    def _data(
        self,
        pread: Callable[[int, int], bytes],
        offset: int,
        size: int,
        what: str,
        update: Callable[[bytes], object],
    ) -> Generator[bytes, None, int]:
        """Yield *size* bytes; return how many were there."""
        start, end = offset, offset + size
        while offset < end:
            try:
                block = pread(min(BLOCK_SIZE, end - offset), offset)
                reason = "ends early"
            except (OSError, InvalidVmcore) as error:
                block, reason = b"", f"cannot be read: {error}"
            if not block:
                self.problems.append(f"{what} {reason}, zeros stand for {end - offset} of {size} bytes")
                break
            update(block)
            yield block
            offset += len(block)
        there = offset - start
        while offset < end:
            yield bytes(min(BLOCK_SIZE, end - offset))
            offset += min(BLOCK_SIZE, end - offset)
        return there

    def _note_size(self, dump: NewDump) -> int:
        return note_size(dump.size, self.page_size)

    def _manifest_size(self) -> int:
        # The longest that the values to come can be.
        late = (
            dump.described
            or ManifestDump(dump.name, dump.size, dump.size, "0" * 64, COLLECTOR, "truncated", _now(), _now())
            for dump in self.dumps
        )
        manifest = replace(self.manifest, device_dumps=(*self.manifest.device_dumps, *late))
        return note_size(len(manifest.dump()), self.page_size)

    def _manifest(self, described: tuple[ManifestDump, ...]) -> Iterator[bytes]:
        data, size = replace(self.manifest, device_dumps=described).dump(), self._manifest_size()
        yield pack_vmcoredd_header(MANIFEST_NAME.encode("ascii"), size, self.byteorder) + data
        yield bytes(size - VMCOREDD_HEADER_SIZE - len(data))


def note_area(
    image: Image, notes: Iterator[Note], end: int, byteorder: ByteOrder, page_size: int, additions: Additions
) -> NoteArea:
    """Plan the area: *notes* of *image*, which end at *end*, with *additions* among them.

    Raises InvalidVmcore, NameInUse, QuotaExceeded and TooLarge.
    """
    manifest = Manifest(additions.producer, _now(), (), additions.failures)
    area = NoteArea(image, byteorder, page_size, additions.dumps, manifest)
    names: list[str] = []
    last = None
    for note in notes:
        last = note
        is_dump = note.n_type == NT_VMCOREDD
        if is_dump and note.dump_name == MANIFEST_NAME.encode() and _merge(area, note):
            continue
        if is_dump:
            names.append((note.dump_name or b"").decode("ascii", "backslashreplace"))
        _add(area.theirs if is_dump else area.others, note.offset, min(note.end, end))
    if last is not None and last.end < end:
        _add(area.others, last.end, end)
    if area.others:
        area.others[-1] = replace(area.others[-1], padding=0)
    _check(image.path, names, additions, area)
    return area


def _check(path: str, names: Sequence[str], additions: Additions, area: NoteArea) -> None:
    for dump in additions.dumps:
        if dump.name in names:
            raise NameInUse(f"{path}: has a device dump {dump.name} already")
    count = len(names) + len(additions.dumps) + 1
    if count > MAX_DEVICE_DUMPS:
        last = additions.dumps[-1].name if additions.dumps else MANIFEST_NAME
        raise QuotaExceeded(
            f"{path}: no room for device dump {last}: {count} with the manifest, crash reads {MAX_DEVICE_DUMPS}"
        )
    if area.size >= MAX_NOTES_END:
        raise QuotaExceeded(f"{path}: the notes would have {area.size} bytes, crash reads {MAX_NOTES_END}")


def _merge(area: NoteArea, note: Note) -> bool:
    """Take over what the manifest in *note* says; return False where it has to stay as it is."""
    if note.data_size > MAX_SIZE:
        return False
    try:
        old = load(area.image.read(note.data_size, note.data_offset, MANIFEST_NAME))
    except InvalidVmcore:
        return False
    new = area.manifest
    merged = replace(
        new,
        device_dumps=new.device_dumps + old.device_dumps,
        failures=old.failures + new.failures,
        failures_forgotten=old.failures_forgotten + new.failures_forgotten,
        source=old.source,
    )
    # A reader takes no manifest that is much longer than the two.
    if len(merged.dump()) > MAX_SIZE - (1 << 16):
        return False
    area.manifest = merged
    return True


def _add(parts: list[_Copied], start: int, end: int) -> None:
    if parts and parts[-1].offset + parts[-1].size == start and not parts[-1].padding:
        parts[-1] = _Copied(parts[-1].offset, end - parts[-1].offset, 0)
    else:
        parts.append(_Copied(start, end - start, 0))
    last = parts[-1]
    parts[-1] = replace(last, padding=round_up(last.size, 4) - last.size)
    if len(parts) > MAX_EXTENTS:
        raise InvalidVmcore(f"more than {MAX_EXTENTS} runs of notes, device dumps and others in turn")


def _now() -> int:
    return time.time_ns() // 1000
