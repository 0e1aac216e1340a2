# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a filter has to do to a flattened vmcore, once it knows enough of its start; see ``stream``."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from ...errors import InvalidVmcore
from .note_area import NoteArea


class NotYet(InvalidVmcore):
    """What has come of the vmcore is not enough to tell."""


class Fate(Enum):
    """What becomes of bytes of the vmcore."""

    PASS = auto()
    """Passed on, perhaps elsewhere in the vmcore."""
    HOLD = auto()
    """Kept back until the end."""
    REPLACED = auto()
    """Left out: the plan has them in another form."""


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes with one fate, up to where the next region begins."""

    start: int
    fate: Fate
    shift: int = 0
    """Bytes by which they go further behind."""


Emit = Callable[[int, int, Iterable[bytes]], None]
"""Writes a piece: offset, size, and blocks that have that size together."""


class Plan(Protocol):
    """How to put device dumps into one vmcore that passes."""

    regions: tuple[Region, ...]
    """From offset 0 on."""
    area: NoteArea

    def begin(self, emit: Emit) -> None:
        """Write what goes before anything else."""

    def hold(self, offset: int, data: bytes) -> None:
        """Keep bytes of a region with that fate."""

    def finish(self, emit: Emit, end: int) -> list[str]:
        """Write what has been kept, and the rest; *end* is that of the vmcore so far. Return what went wrong."""


@dataclass(slots=True)
class Held:
    """Bytes of the vmcore from *start* on, that may come in any order; of two that overlap the later ones hold."""

    start: int
    data: bytearray
    any: bool = field(default=False)
    """Whether some have come."""

    def put(self, offset: int, data: bytes) -> None:
        """Keep *data*, which lies inside."""
        place = offset - self.start
        self.data[place : place + len(data)] = data
        self.any = True
