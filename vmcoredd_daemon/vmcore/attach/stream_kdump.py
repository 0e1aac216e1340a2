# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device dumps into a kdump-compressed vmcore that passes.

makedumpfile writes the header, the notes and the sub header, then bitmaps, page descriptors and pages in turn,
and, if it erased something, the sub header once more (``write_kdump_header()``,
``update_eraseinfo_of_sub_header()``). Only the sub header is held; last come the new notes, at a page behind
everything else, and the sub header, which points to them. If the complete file is known, and an earlier attach
left such notes at its end, the new ones replace them.
"""

from collections.abc import Iterator

from ...errors import InvalidVmcore
from ...note import Note
from .. import kdump
from ..flattened import Index
from ..image import MAX_FILE_SIZE, Image
from .stream_plan import Action, Additions, Emit, NoteArea, NotYet, Patch, Range, plan_notes


def plan(image: Image, index: Index, additions: Additions) -> "KdumpPlan":
    """Return the plan for the vmcore of which *image* and *index* know the start.

    Raises NotYet, and other VmcoreddErrors if the vmcore cannot be extended.
    """
    try:
        header = kdump.read_header(image)
    except InvalidVmcore as error:
        if index.known(0) < kdump.HEADER_SIZE:
            raise NotYet(str(error)) from error
        # makedumpfile writes it early; this filter puts it last.
        reason = "its sub header comes last: device dumps were attached to this stream before"
        raise NotYet(f"{image.path}: {reason}; save it, and use vmcoredd attach") from error
    header.check_extensible(image.path)
    start = header.offset_note if header.size_note else 0
    end = start + header.size_note if start else 0
    if index.known(start) < end:
        raise NotYet(f"{image.path}: its notes, at offset {start:#x}, come too late")

    def notes() -> Iterator[Note]:
        return image.notes(start, end - start, header.byteorder)

    area = plan_notes(image, notes, end, header.byteorder, header.block_size, additions)
    places = kdump.NotePlaces(header, area.order, area.page_size, header.data_offset)
    old_place = places.old_place(image.size)
    # Refuse what can be refused before anything is written.
    places.fields(header.data_offset)
    return KdumpPlan(header, area, places, old_place)


class KdumpPlan:
    """See :class:`.stream_plan.Plan`."""

    def __init__(
        self, header: kdump.KdumpHeader, area: NoteArea, places: kdump.NotePlaces, old_place: int | None
    ) -> None:
        self.area = area
        self._places = places
        self._sub_header = Patch(header.block_size, bytearray(header.sub_header))
        self.ranges: tuple[Range, ...] = (
            Range(0, Action.PASS),
            Range(header.block_size, Action.HOLD),
            Range(header.block_size + len(header.sub_header), Action.PASS),
            *([] if old_place is None else [Range(old_place, Action.DROP)]),
        )

    def begin(self, emit: Emit) -> None:
        """Nothing comes before."""

    def hold(self, offset: int, data: bytes) -> None:
        """Keep bytes of the sub header."""
        self._sub_header.put(offset, data)

    def finish(self, emit: Emit, end: int) -> list[str]:
        """Write the new notes behind *end*, then the sub header."""
        start, size = self._places.appended(end), self.area.size
        problems = []
        if start + size > MAX_FILE_SIZE:
            problems.append(f"no space for the notes behind offset {end:#x}")
        else:
            emit(start, size, self.area.blocks())
            self._sub_header.put(*self._places.fields(start))
        emit(self._sub_header.start, len(self._sub_header.data), [bytes(self._sub_header.data)])
        return problems
