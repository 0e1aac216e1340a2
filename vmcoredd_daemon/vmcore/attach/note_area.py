# SPDX-License-Identifier: LGPL-2.1-or-later
"""The notes of a vmcore with more device dumps among them, as a stream of bytes.

In this order: the device dumps that are there, the new ones, the manifest, the other notes. Sizes are known before
the first byte is read; data is read once and in blocks.
"""

from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from ...errors import InvalidVmcore, QuotaExceeded
from ...files import BLOCK_SIZE, Pread
from ...note import MAX_NOTES_END, NT_VMCOREDD, ByteOrder, round_up
from ..formats import Notes
from ..image import Image
from ..layout import MAX_EXTENTS
from ..vmcoreinfo import page_size


class NewNotes(Protocol):
    """The notes that come in between, the manifest last."""

    @property
    def replaced(self) -> Collection[int]:
        """Offsets of the old notes that are left out."""

    @property
    def size(self) -> int:
        """Bytes."""

    def blocks(self, problems: list[str]) -> Iterator[bytes]:
        """Yield them, :attr:`size` bytes whatever happens; add to *problems* what does, each in one line."""


class Additions(Protocol):
    """What is to be added to a vmcore."""

    def among(self, image: Image, notes: Notes, byteorder: ByteOrder, page_size: int) -> NewNotes:
        """Return what goes among *notes* of *image*. Raises VmcoreddError when it cannot."""


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
    page_size: int
    """Of the machine that crashed, in bytes."""
    new: NewNotes
    theirs: list[_Copied] = field(default_factory=list)
    others: list[_Copied] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What went wrong while it was read, each in one line."""

    @property
    def size(self) -> int:
        """Bytes of all notes."""
        return sum(part.size + part.padding for part in self.theirs + self.others) + self.new.size

    def place(self, offset: int, size: int) -> int | None:
        """Return where in the area *size* bytes of the old notes at *offset* go; None if they are not in one."""
        start = 0
        for part in self.theirs:
            if part.offset <= offset and offset + size <= part.offset + part.size:
                return start + offset - part.offset
            start += part.size + part.padding
        start += self.new.size
        for part in self.others:
            if part.offset <= offset and offset + size <= part.offset + part.size:
                return start + offset - part.offset
            start += part.size + part.padding
        return None

    def blocks(self) -> Iterator[bytes]:
        """Yield all bytes, :attr:`size` of them, whatever happens: what cannot be read is zeros, and a problem."""
        for part in self.theirs:
            yield from self._copy(part)
        yield from self.new.blocks(self.problems)
        for part in self.others:
            yield from self._copy(part)

    def _copy(self, part: _Copied) -> Iterator[bytes]:
        yield from read_blocks(self.image.pread, part.offset, part.size, "a note", self.problems)
        yield bytes(part.padding)


def read_blocks(
    pread: Pread,
    offset: int,
    size: int,
    what: str,
    problems: list[str],
    update: Callable[[bytes], object] = lambda block: None,
) -> Generator[bytes, None, int]:
    """Yield *size* bytes from *offset*, zeros for those that cannot be read; return how many were there.

    What is there is given to *update*, too; why something is not goes to *problems*, with the name *what*.
    """
    start, end = offset, offset + size
    while offset < end:
        try:
            block = pread(min(BLOCK_SIZE, end - offset), offset)
            reason = "ends early"
        except (OSError, InvalidVmcore) as error:
            block, reason = b"", f"cannot be read: {error}"
        if not block:
            problems.append(f"{what} {reason}, zeros stand for {end - offset} of {size} bytes")
            break
        update(block)
        yield block
        offset += len(block)
    there = offset - start
    while offset < end:
        yield bytes(min(BLOCK_SIZE, end - offset))
        offset += min(BLOCK_SIZE, end - offset)
    return there


def note_area(
    image: Image, notes: Notes, end: int, byteorder: ByteOrder, default_page_size: int, additions: Additions
) -> NoteArea:
    """Plan the area: *notes* of *image*, which end at *end*, with *additions* among them.

    *default_page_size* is for a vmcore that does not say its own. Raises InvalidVmcore, QuotaExceeded, and what
    *additions* raise.
    """
    pages = page_size(image, notes()) or default_page_size
    new = additions.among(image, notes, byteorder, pages)
    area = NoteArea(image, pages, new)
    for note in notes():
        if note.offset not in new.replaced:
            _add(area.theirs if note.n_type == NT_VMCOREDD else area.others, note.offset, min(note.end, end))
    if area.others:
        area.others[-1] = replace(area.others[-1], padding=0)
    if area.size >= MAX_NOTES_END:
        raise QuotaExceeded(f"{image.path}: the notes would have {area.size} bytes, crash reads {MAX_NOTES_END}")
    return area


def _add(parts: list[_Copied], start: int, end: int) -> None:
    if parts and parts[-1].offset + parts[-1].size == start and not parts[-1].padding:
        parts[-1] = _Copied(parts[-1].offset, end - parts[-1].offset, 0)
    else:
        parts.append(_Copied(start, end - start, 0))
    last = parts[-1]
    parts[-1] = replace(last, padding=round_up(last.size, 4) - last.size)
    if len(parts) > MAX_EXTENTS:
        raise InvalidVmcore(f"more than {MAX_EXTENTS} runs of notes, device dumps and others in turn")
