# SPDX-License-Identifier: LGPL-2.1-or-later
"""``inspect --map``: a drawing of the parts of a vmcore, and their table."""

import errno
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from textwrap import wrap

from ..terminal.exit import SUCCESS
from ..terminal.view import Cell, Size, View
from ..vmcore.formats import Vmcore
from ..vmcore.inspect.regions import Kind, Region, regions

COLUMNS = ("OFFSET", "SIZE", "HOLES", "KIND", "WHAT")
"""A region ends at the offset of the next."""
SIGNS = {Kind.LOAD: "#", Kind.NOTE: "n", Kind.HEADER: "h", Kind.DEVICE_DUMP: "D"}
HOLE, BLANK = ".", " "
_ROWS, _CELLS = 8, 64
"""Rows of the drawing, and cells of a row if the terminal is wide enough."""
_MAX_HOLES = 1 << 17
"""Holes of a file that are counted."""
_MAX_ROWS = 4096
"""Regions that are shown; a forged file may have millions of notes."""


@dataclass(frozen=True, slots=True)
class Holes:
    """Where a file has no blocks on disk: starts and ends, in order."""

    ranges: Sequence[tuple[int, int]] = ()

    def inside(self, start: int, end: int) -> int:
        """Return the bytes of holes from *start* to *end*."""
        size, first = 0, bisect_right(self.ranges, start, key=itemgetter(1))
        for begin, stop in islice(self.ranges, first, None):
            if begin >= end:
                break
            size += min(stop, end) - max(begin, start)
        return size


def show_map(view: View, fd: int, vmcore: Vmcore) -> int:
    """Show the map of *vmcore*, which is open at *fd*; return the exit status."""
    found, size, holes = _regions(fd, vmcore)
    entries = [(region, holes.inside(region.offset, region.end)) for region in found[:_MAX_ROWS]]
    # Without a hole the column would be empty.
    columns = [name for name in COLUMNS if name != "HOLES" or any(inside for _, inside in entries)]
    rows = [[_row(*entry)[name] for name in columns] for entry in entries]
    table = view.table(columns, rows, shrink=("WHAT",), drop=("HOLES", "SIZE"))
    left_out = len(found) - len(entries)
    more = f"{left_out} more are not shown\n" if left_out else ""
    view.show(f"{_drawing(view, found, holes, size)}\n{table}{more}")
    return SUCCESS


def map_objects(fd: int, vmcore: Vmcore) -> list[dict[str, object]]:
    """Return the regions of *vmcore*, which is open at *fd*, for JSON."""
    found, _, holes = _regions(fd, vmcore)
    return [_object(region, holes.inside(region.offset, region.end)) for region in found[:_MAX_ROWS]]


def _regions(fd: int, vmcore: Vmcore) -> tuple[list[Region], int, Holes]:
    """Return the regions of a vmcore, the size of the file, and where that has holes."""
    found, size = regions(vmcore), vmcore.image.size
    # Offsets of a flattened file are those of the rearranged one.
    return found, size, Holes() if vmcore.format == "flattened" else Holes([*_holes(fd, size)])


def _object(region: Region, holes: int) -> dict[str, object]:
    return {
        "kind": region.kind,
        "offset": region.offset,
        "size": region.size,
        "holes": holes,
        "name": region.name,
    }


def _row(region: Region, holes: int) -> dict[str, Cell]:
    return {
        "OFFSET": f"{region.offset:#x}",
        "SIZE": Size(region.size),
        "HOLES": Size(holes) if holes else None,
        "KIND": region.kind,
        "WHAT": region.name,
    }


def _drawing(view: View, found: Sequence[Region], holes: Holes, size: int) -> str:
    """Return rows of cells, each for the same number of bytes, and a legend."""
    digits = len(f"{size:#x}")
    columns = _CELLS if view.width is None else max(1, min(_CELLS, view.width - digits - len(" ||")))
    cell = max(1, -(-size // (_ROWS * columns)))
    cells = _cells(found, holes, size, cell)
    lines = (
        f"{start * cell:#0{digits}x} |{''.join(cells[start : start + columns])}|\n"
        for start in range(0, len(cells), columns)
    )
    return "".join(lines) + (_legend(view, cells, cell) if view.legend else "")


def _cells(found: Sequence[Region], holes: Holes, size: int, cell: int) -> list[str]:
    """Return the signs of the cells; one with several kinds of region has the sign of the rarest.

    The first device dump is always shown.
    """
    cells = [BLANK] * -(-size // cell)
    total = {kind: sum(region.size for region in found if region.kind is kind) for kind in SIGNS}
    for kind in sorted(SIGNS, key=total.__getitem__, reverse=True):
        for region in found:
            if region.kind is kind and region.size:
                first, last = region.offset // cell, min((region.end - 1) // cell, len(cells) - 1)
                cells[first : last + 1] = SIGNS[kind] * (last - first + 1)
    first_dump = next((region.offset for region in found if region.kind is Kind.DEVICE_DUMP), size)
    if first_dump < size and SIGNS[Kind.DEVICE_DUMP] not in cells:
        cells[first_dump // cell] = SIGNS[Kind.DEVICE_DUMP]
    for number in range(len(cells)):
        start, end = number * cell, min((number + 1) * cell, size)
        if holes.inside(start, end) == end - start:
            cells[number] = HOLE
    return cells


def _legend(view: View, cells: Sequence[str], cell: int) -> str:
    signs = {**{sign: kind for kind, sign in SIGNS.items()}, HOLE: "hole", BLANK: Kind.GAP}
    # Only signs that are in the drawing: a rarer one may hide others.
    meanings = [f"{sign.strip() or 'blank'} {meaning}" for sign, meaning in signs.items() if sign in cells]
    # Lines break only between two meanings.
    words = "  ".join(text.replace(" ", "\xa0") for text in (*meanings, f"{view.size(cell)} a cell"))
    lines = [words] if view.width is None else wrap(words, view.width)
    return "".join(f"{line}\n" for line in lines).replace("\xa0", " ")


def _holes(fd: int, size: int) -> Iterator[tuple[int, int]]:
    offset = 0
    try:
        for _ in range(_MAX_HOLES):
            start = os.lseek(fd, offset, os.SEEK_HOLE)
            if start >= size:
                return
            offset = _data(fd, start, size)
            yield start, offset
    except OSError:
        # A block device, or a file system without SEEK_HOLE.
        return


def _data(fd: int, offset: int, size: int) -> int:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        raise
