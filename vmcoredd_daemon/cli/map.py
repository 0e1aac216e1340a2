# SPDX-License-Identifier: LGPL-2.1-or-later
"""``inspect --map``: a drawing of what lies where in a vmcore, and the table of it."""

import errno
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter

from ..vmcore.formats import Vmcore
from ..vmcore.regions import Kind, Region, regions
from . import SUCCESS
from .view import Cell, Size, View

_ROWS, _COLUMNS = 8, 64
_SIGNS = {Kind.GAP: " ", Kind.LOAD: "#", Kind.NOTE: "n", Kind.HEADER: "h", Kind.DEVICE_DUMP: "D"}
"""In the order in which they cover each other where a cell of the drawing has several: what is small is on top."""
_HOLE = "."
_MAX_HOLES = 1 << 17
"""Holes of a file that are looked for."""
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
    found, size = regions(vmcore), vmcore.image.size
    # The offsets of a flattened file are those that it has when it is put in order.
    holes = Holes() if vmcore.format == "flattened" else Holes([*_holes(fd, size)])
    entries = [(region, holes.inside(region.offset, region.end)) for region in found[:_MAX_ROWS]]
    if view.as_json:
        view.show_json([_json(*entry) for entry in entries])
        return SUCCESS
    legend = f"{'   '.join(f'{sign} {kind}' for kind, sign in _SIGNS.items() if sign.strip())}   {_HOLE} hole\n"
    rows = [_row(*entry) for entry in entries]
    table = view.table(["OFFSET", "END", "SIZE", "HOLES", "KIND", "WHAT"], rows, shrink=("WHAT",))
    left_out = len(found) - len(entries)
    more = f"{left_out} more are left out\n" if left_out else ""
    view.show(f"{_drawing(found, holes, size)}{legend if view.legend else ''}\n{table}{more}")
    return SUCCESS


def _json(region: Region, holes: int) -> dict[str, object]:
    return {
        "kind": region.kind,
        "offset": region.offset,
        "size": region.size,
        "holes": holes,
        "name": region.name,
    }


def _row(region: Region, holes: int) -> list[Cell]:
    end = f"{region.end:#x}"
    return [
        f"{region.offset:#x}",
        end,
        Size(region.size),
        Size(holes) if holes else None,
        region.kind,
        region.name,
    ]


def _drawing(found: Sequence[Region], holes: Holes, size: int) -> str:
    """Return rows of cells, each of as many bytes; a cell shows what is smallest of what lies in it."""
    cell = max(1, -(-size // (_ROWS * _COLUMNS)))
    cells = [" "] * -(-size // cell)
    for kind, sign in _SIGNS.items():
        for region in found:
            if region.kind is kind and region.size:
                last = min((region.end - 1) // cell, len(cells) - 1)
                for number in range(region.offset // cell, last + 1):
                    cells[number] = sign
    for number, sign in enumerate(cells):
        end = min((number + 1) * cell, size)
        if sign in {"#", " "} and holes.inside(number * cell, end) == end - number * cell:
            cells[number] = _HOLE
    starts = range(0, len(cells), _COLUMNS)
    width = len(f"{size:#x}")
    lines = (f"{start * cell:#0{width}x} |{''.join(cells[start : start + _COLUMNS])}|\n" for start in starts)
    return "".join(lines)


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
        # A block device, or a file system that does not tell.
        return


def _data(fd: int, offset: int, size: int) -> int:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        raise
