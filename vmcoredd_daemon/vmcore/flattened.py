# SPDX-License-Identifier: LGPL-2.1-or-later
"""Flattened vmcores: what ``makedumpfile -F`` writes into a pipe, in which it cannot seek.

::

    signature, type, version    padded to 4096 bytes
    {offset, size, data} ...    pieces: where in the vmcore the data belongs, then the data itself
    {-1, -1}                    the end mark

All integers are 64 bits, big endian. ``makedumpfile -R`` rearranges the vmcore: it writes one piece after the
other at its offset, so the later of two overlapping pieces wins, and bytes that no piece covers are zeros. Mirrors
``write_buffer()`` and ``rearrange_dumpdata()`` in makedumpfile's ``makedumpfile.c``.

makedumpfile has two sequential writers at the same time, one for page descriptors or program headers and one for
pages, in pieces of some 64 KiB. So the index has an entry for each *run*: pieces of the file that continue each
other, perhaps with others in between. Within a run, the headers of the pieces are followed.
"""

import heapq
import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator

from ..errors import InvalidVmcore
from .image import MAX_FILE_SIZE, Image

SIGNATURE = b"makedumpfile\0\0\0\0"
HEADER_SIZE = 4096
"""``MAX_SIZE_MDF_HEADER``: bytes before the first piece."""
TYPE, VERSION = 1, 1
"""``TYPE_FLAT_HEADER``, ``VERSION_FLAT_HEADER``."""
PIECE = struct.Struct(">qq")
"""Offset and size of a piece, before its data: ``struct makedumpfile_data_header``."""
END = PIECE.pack(-1, -1)
MAX_PIECE_SIZE = (1 << 31) - 1
"""Bytes; makedumpfile -R counts the bytes of a piece in an int."""

MAX_RUNS = 1 << 18
"""Entries of the index, which then takes some 40 MiB; makedumpfile needs one for at least 2 MiB of its output."""
_SPAN = 128
"""Pieces of the file that a run may span: finding an offset in it takes at most as many reads."""
_WRITERS = 8
"""Runs that can be continued at the same time."""
_GAP = -1

_Intersects = Callable[[int, int], bool]


def check_header(data: bytes, path: str) -> None:
    """Raise InvalidVmcore unless *data*, from the start of the file, is the header of the flattened format."""
    if not data.startswith(SIGNATURE):
        raise InvalidVmcore(f"{path}: is not flattened: signature is {data[:16]!r}")
    kind = struct.unpack_from(">q", data.ljust(24, b"\0"), 16)[0]
    # makedumpfile and crash look at the type only, not at the version.
    if kind != TYPE:
        raise InvalidVmcore(f"{path}: type at offset 0x10 is {kind}, the flattened format has {TYPE}")
    if len(data) < HEADER_SIZE:
        raise InvalidVmcore(f"{path}: is truncated: it ends at offset {len(data):#x}, inside its header")


def check_piece(path: str, position: int, offset: int, size: int) -> None:
    """Raise InvalidVmcore unless the piece whose header is at *position* is possible."""
    where = f"{path}: the piece at offset {position:#x}"
    if offset < 0:
        raise InvalidVmcore(f"{where} has offset {offset}")
    if not 0 < size <= MAX_PIECE_SIZE:
        raise InvalidVmcore(f"{where} has size {size}, not 1 to {MAX_PIECE_SIZE}")
    if offset + size > MAX_FILE_SIZE:
        raise InvalidVmcore(f"{where} has offset {offset:#x}, beyond what a file can hold")


def unflatten(image: Image) -> Image:
    """Return the vmcore in the flattened file *image*, as ``makedumpfile -R`` would write it.

    Reads the headers of all pieces, and keeps an index of them. Raises InvalidVmcore, naming the offset in the
    file, when the format is broken, when the end mark is missing, and when the index would have more than
    :data:`MAX_RUNS` entries.
    """
    check_header(image.read(min(HEADER_SIZE, image.size), 0, "the header"), image.path)
    index = Index(image)
    return Image(index.pread, index.size, image.path)


def pieces(image: Image, *, complete: bool = True) -> Iterator[tuple[int, int, int]]:
    """Yield position of the header, offset and size of each piece.

    Without *complete* the file may end behind any piece; else raises InvalidVmcore when the end mark is missing.
    """
    position = HEADER_SIZE
    while complete or position < image.size:
        header = _read_header(image, position)
        if len(header) < PIECE.size:
            end = position + len(header)
            raise InvalidVmcore(f"{image.path}: is truncated: it ends at offset {end:#x}, without an end mark")
        if header == END:
            return
        offset, size = PIECE.unpack(header)
        check_piece(image.path, position, offset, size)
        end = position + PIECE.size + size
        if end > image.size:
            raise InvalidVmcore(
                f"{image.path}: is truncated: it ends at offset {image.size:#x}, inside the piece at offset "
                f"{position:#x}, which ends at {end:#x}"
            )
        yield position, offset, size
        position = end


def _read_header(image: Image, position: int) -> bytes:
    try:
        return image.pread(PIECE.size, position)
    except OSError as error:
        raise InvalidVmcore(f"{image.path}: cannot read at offset {position:#x}: {error.strerror}") from error


class Index:
    """Finds the bytes of the vmcore in a flattened file."""

    def __init__(self, image: Image, *, complete: bool = True) -> None:
        """Read it, up to the end mark if *complete*. Raises InvalidVmcore as :func:`unflatten`."""
        self._image = image
        self._runs = _Runs(image, complete=complete)
        starts, ends = self._runs.overlaps()
        if starts:
            # Only piece by piece is it known which of them wins.
            self._runs = _Runs(image, complete=complete, alone=_intersects(starts, ends))
        self._starts, self._owners = self._runs.arrange()
        self.size = max(self._runs.ends, default=0)
        """Bytes of the vmcore."""
        self._cursor = (_GAP, 0, 0)

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to *size* bytes of the vmcore at *offset*, fewer at its end only."""
        blocks, end = [], min(offset + size, self.size)
        while offset < end:
            owner, stop = self._owner(offset)
            wanted = min(end, stop) - offset
            block = bytes(wanted) if owner == _GAP else self._read(owner, offset, wanted)
            blocks.append(block)
            offset += len(block)
        return b"".join(blocks)

    def known(self, offset: int) -> int:
        """Return the end of the bytes that pieces cover without a gap from *offset* on; *offset* if none does."""
        while offset < self.size:
            owner, stop = self._owner(offset)
            if owner == _GAP:
                break
            offset = stop
        return offset

    def next_known(self, offset: int) -> int:
        """Return the first offset behind *offset* that a piece covers; the end of the vmcore if none does."""
        while offset < self.size:
            owner, stop = self._owner(offset)
            if owner != _GAP:
                break
            offset = stop
        return offset

    def _owner(self, offset: int) -> tuple[int, int]:
        place = bisect_right(self._starts, offset) - 1
        stop = self._starts[place + 1] if place + 1 < len(self._starts) else self.size
        return self._owners[place], stop

    def _read(self, run: int, offset: int, size: int) -> bytes:
        position, start, length = self._find(run, offset)
        inside = offset - start
        block = self._image.pread(min(size, length - inside), position + PIECE.size + inside)
        if not block:
            raise InvalidVmcore(f"{self._image.path}: the piece at offset {position:#x} is no longer there")
        return block

    def _find(self, run: int, offset: int) -> tuple[int, int, int]:
        """Return position, offset and size of the piece of *run* that has *offset*."""
        last, position, start = self._cursor
        if last != run or start > offset:
            position, start = self._runs.positions[run], self._runs.starts[run]
        for _ in range(_SPAN):
            found, size = self._header(position)
            if found == start and offset < start + size:
                self._cursor = (run, position, start)
                return position, start, size
            if found == start:
                start += size
            position += PIECE.size + size
        raise InvalidVmcore(f"{self._image.path}: the pieces before offset {position:#x} have changed")

    def _header(self, position: int) -> tuple[int, int]:
        offset, size = PIECE.unpack(self._image.read(PIECE.size, position, "the header of a piece"))
        check_piece(self._image.path, position, offset, size)
        return offset, size


class _Runs:
    """Start and end in the vmcore, and position in the file, of each run, in the order of the file."""

    def __init__(self, image: Image, *, complete: bool, alone: _Intersects | None = None) -> None:
        """Each piece for which *alone* is true is a run of its own."""
        self.starts, self.ends, self.positions = array("Q"), array("Q"), array("Q")
        self._open: dict[int, tuple[int, int]] = {}
        for number, (position, offset, size) in enumerate(pieces(image, complete=complete)):
            if alone is not None and alone(offset, offset + size):
                self._new(position, offset, size)
            else:
                self._continue(number, position, offset, size)
            if len(self.starts) > MAX_RUNS:
                raise InvalidVmcore(f"{image.path}: has more than {MAX_RUNS} runs of pieces, at {position:#x}")

    def overlaps(self) -> tuple["array[int]", "array[int]"]:
        """Return starts and ends of the ranges that more than one run covers, in order, disjoint."""
        starts, ends = array("Q"), array("Q")
        covered = 0
        for run in self._order():
            start, end = self.starts[run], self.ends[run]
            if start < covered:
                stop = min(end, covered)
                if ends and start <= ends[-1]:
                    ends[-1] = max(stop, ends[-1])
                else:
                    starts.append(start)
                    ends.append(stop)
            covered = max(covered, end)
        return starts, ends

    def arrange(self) -> tuple["array[int]", "array[int]"]:
        """Return at which offsets of the vmcore another run wins, and which: the latest that covers them."""
        starts, owners = array("Q"), array("q")
        waiting: list[int] = []
        position = 0

        def advance(until: int) -> None:
            nonlocal position
            while position < until:
                while waiting and self.ends[-waiting[0]] <= position:
                    heapq.heappop(waiting)
                owner = -waiting[0] if waiting else _GAP
                if not owners or owners[-1] != owner:
                    starts.append(position)
                    owners.append(owner)
                position = min(until, self.ends[owner]) if waiting else until

        for run in self._order():
            advance(self.starts[run])
            heapq.heappush(waiting, -run)
        advance(max(self.ends, default=0))
        return starts, owners

    def _order(self) -> list[int]:
        return sorted(range(len(self.starts)), key=self.starts.__getitem__)

    def _continue(self, number: int, position: int, offset: int, size: int) -> None:
        run, first = self._open.pop(offset, (_GAP, number))
        if run == _GAP or number - first >= _SPAN:
            run, first = self._new(position, offset, size), number
        else:
            self.ends[run] += size
        self._open[offset + size] = (run, first)
        if len(self._open) > _WRITERS:
            del self._open[next(iter(self._open))]

    def _new(self, position: int, offset: int, size: int) -> int:
        self.starts.append(offset)
        self.ends.append(offset + size)
        self.positions.append(position)
        return len(self.starts) - 1


def _intersects(starts: "array[int]", ends: "array[int]") -> _Intersects:
    def intersects(start: int, end: int) -> bool:
        place = bisect_right(ends, start)
        return place < len(starts) and starts[place] < end

    return intersects
