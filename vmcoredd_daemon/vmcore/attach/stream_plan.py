# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the filter of ``stream`` does to a flattened vmcore, once it knows enough of its start.

A plan says for each byte of the vmcore whether it passes, and brings the notes in their new order, with the device
dumps among them. Sizes are known before the first byte is read; data is read once and in blocks.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from ...errors import InvalidVmcore, QuotaExceeded
from ...files import BLOCK_SIZE, Pread
from ...note import MAX_NOTES_END, ByteOrder
from ..formats import Notes
from ..image import Image
from ..layout import NoteOrder, Run, order_notes
from ..vmcoreinfo import page_size

# The notes.


class NewNotes(Protocol):
    """The notes of the new device dumps, the manifest last."""

    @property
    def replaced(self) -> Collection[int]:
        """Offsets of the old notes that are left out."""

    @property
    def size(self) -> int:
        """Bytes."""

    def blocks(self, problems: list[str]) -> Iterator[bytes]:
        """Yield their bytes, :attr:`size` of them whatever fails; what fails goes to *problems*, in one line."""


class Additions(Protocol):
    """Device dumps that are to be added to a vmcore."""

    def new_notes(self, image: Image, notes: Notes, byteorder: ByteOrder, page_size: int) -> NewNotes:
        """Return their notes, for a vmcore *image* with *notes*. Raises VmcoreddError if they cannot be added."""


@dataclass(frozen=True, slots=True)
class NoteArea:
    """All notes in their new order."""

    image: Image
    """The vmcore with the old notes."""
    end: int
    """Offset behind the old notes; the last one need not be padded."""
    page_size: int
    """Of the machine that crashed, in bytes."""
    order: NoteOrder
    new: NewNotes
    problems: list[str] = field(default_factory=list)
    """What went wrong while the notes were read, each in one line."""

    @property
    def size(self) -> int:
        """Bytes of all notes."""
        return self.order.size

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes, :attr:`size` of them whatever fails: what cannot be read is zeros, and a problem."""
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
    """Yield *size* bytes from *offset*, zeros for those that cannot be read; return how many could be read.

    Those also go to *update*. Why the others could not be read goes to *problems*, with the name *what*.
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
    yield from zeros(end - offset)
    return offset - start


def zeros(size: int) -> Iterator[bytes]:
    """Yield *size* zeros, in blocks."""
    for offset in range(0, size, BLOCK_SIZE):
        yield bytes(min(BLOCK_SIZE, size - offset))


def plan_notes(
    image: Image, notes: Notes, end: int, byteorder: ByteOrder, default_page_size: int, additions: Additions
) -> NoteArea:
    """Return the area of *notes* of *image*, which end at *end*, with *additions* among them.

    *default_page_size*, in bytes, is for a vmcore that does not say its own. Raises InvalidVmcore, QuotaExceeded,
    and what *additions* raise.
    """
    pages = page_size(image, notes()) or default_page_size
    new = additions.new_notes(image, notes, byteorder, pages)
    order = order_notes((note for note in notes() if note.offset not in new.replaced), new.size)
    if order.size >= MAX_NOTES_END:
        raise QuotaExceeded(f"{image.path}: the notes would have {order.size} bytes, the limit is {MAX_NOTES_END}")
    return NoteArea(image, end, pages, order, new)


# The plan.


class NotYet(InvalidVmcore):
    """What has come of the vmcore is not enough for a plan."""


class Action(Enum):
    """What the filter does with bytes of the vmcore."""

    PASS = auto()
    """Pass them on, perhaps to another offset of the vmcore."""
    HOLD = auto()
    """Keep them until the end."""
    DROP = auto()
    """Leave them out: the plan writes something in their place."""


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of the vmcore with one action, up to where the next range begins."""

    start: int
    action: Action
    shift: int = 0
    """Bytes by which their offset grows."""


Emit = Callable[[int, int, Iterable[bytes]], None]
"""Writes a piece: offset, size, and blocks that have that size together."""


class Plan(Protocol):
    """How to put device dumps into one vmcore that passes."""

    ranges: tuple[Range, ...]
    """From offset 0 on."""
    area: NoteArea

    def begin(self, emit: Emit) -> None:
        """Write what comes before anything else."""

    def hold(self, offset: int, data: bytes) -> None:
        """Keep bytes of a range with :attr:`Action.HOLD`."""

    def finish(self, emit: Emit, end: int) -> list[str]:
        """Write what was kept, and the rest; the vmcore so far ends at *end*. Return what went wrong."""


@dataclass(slots=True)
class Patch:
    """Bytes of the vmcore from *start* on, to be changed: they may come in any order, and more than once."""

    start: int
    data: bytearray
    received: bool = field(default=False)
    """Whether some have come."""

    def put(self, offset: int, data: bytes) -> None:
        """Keep *data*, which lies inside."""
        place = offset - self.start
        self.data[place : place + len(data)] = data
        self.received = True
