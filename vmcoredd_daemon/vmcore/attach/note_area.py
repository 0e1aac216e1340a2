# SPDX-License-Identifier: LGPL-2.1-or-later
"""The notes of a vmcore with more device dumps among them, as a stream of bytes.

Sizes are known before the first byte is read; data is read once and in blocks.
"""

from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ...errors import InvalidVmcore, QuotaExceeded
from ...files import BLOCK_SIZE, Pread
from ...note import MAX_NOTES_END, ByteOrder
from ..formats import Notes
from ..image import Image
from ..layout import NoteOrder, Run, order_notes
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
class NoteArea:
    """All notes in their new order."""

    image: Image
    """Where the old ones are."""
    end: int
    """Offset behind them: the last one need not be padded."""
    page_size: int
    """Of the machine that crashed, in bytes."""
    order: NoteOrder
    new: NewNotes
    problems: list[str] = field(default_factory=list)
    """What went wrong while it was read, each in one line."""

    @property
    def size(self) -> int:
        """Bytes of all notes."""
        return self.order.size

    def blocks(self) -> Iterator[bytes]:
        """Yield all bytes, :attr:`size` of them, whatever happens: what cannot be read is zeros, and a problem."""
        for run in self.order.dumps:
            yield from self._copy(run)
        yield from self.new.blocks(self.problems)
        for run in self.order.others:
            yield from self._copy(run)

    def _copy(self, run: Run) -> Iterator[bytes]:
        size = min(run.size, self.end - run.offset)
        yield from read_blocks(self.image.pread, run.offset, size, "a note", self.problems)
        yield bytes(run.size - size)


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
    order = order_notes((note for note in notes() if note.offset not in new.replaced), new.size)
    if order.size >= MAX_NOTES_END:
        raise QuotaExceeded(f"{image.path}: the notes would have {order.size} bytes, crash reads {MAX_NOTES_END}")
    return NoteArea(image, end, pages, order, new)
