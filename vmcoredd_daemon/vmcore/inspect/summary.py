# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a vmcore says of itself: its kernel, its crash, its memory, and how much of that is in the file."""

from collections.abc import Iterator
from dataclasses import dataclass

from .. import kdump
from ..elf import read_headers
from ..formats import Vmcore
from ..image import MAX_FILE_SIZE, Image
from ..page_data import MAX_BITMAP
from ..utsname import read_utsname
from ..vmcoreinfo import crash_time, lines
from .crash import is_incomplete

_COMPRESSIONS = {0x1: "zlib", 0x2: "lzo", 0x4: "snappy", 0x20: "zstd"}
"""``DUMP_DH_COMPRESSED_*`` of makedumpfile's diskdump_mod.h."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Sizes are in bytes; None is what the file does not say."""

    kernel_release: str | None
    """As uname(2) calls it, and as in the file: it may hold control characters."""
    host: str | None
    """Host name of the kernel that died, as in the file."""
    crash_time: int | None
    """Seconds since the epoch."""
    memory: int | None
    """Of the machine that crashed, as far as the file describes it."""
    memory_in_file: int | None
    """How much of it is in the file, uncompressed."""
    dump_level: int | None
    """Which pages makedumpfile left out."""
    compression: str | None
    """Of the pages."""
    incomplete: bool = False
    """Whether makedumpfile ran out of space, or the file ends before its memory."""


def summarize(vmcore: Vmcore) -> Summary:
    """Return what *vmcore* says. Reads headers, VMCOREINFO and bitmaps. Raises InvalidVmcore."""
    info = lines(vmcore.image, vmcore.notes())
    utsname = read_utsname(vmcore)
    release = info.get("OSRELEASE") or (utsname and utsname.release) or None
    host = (utsname and utsname.nodename) or None
    seconds = crash_time(info)
    if not kdump.is_kdump(vmcore.image):
        return _of_elf(vmcore.image, release, host, seconds)
    header = kdump.read_header(vmcore.image)
    pages = [_count(vmcore.image, *bitmap) for bitmap in header.bitmaps]
    there, stored = (None if count is None else count * header.block_size for count in pages)
    compression = next((name for bit, name in _COMPRESSIONS.items() if header.status & bit), "none")
    return Summary(
        release,
        host,
        seconds,
        there,
        stored,
        header.dump_level if header.header_version >= 1 else None,
        compression,
        is_incomplete(vmcore.image),
    )


def _of_elf(image: Image, release: str | None, host: str | None, seconds: int | None) -> Summary:
    loads = [load for load in read_headers(image).loads if load.p_memsz <= MAX_FILE_SIZE]
    # The kernel's text is mapped twice, so that its memory is in two segments.
    memory = _union((load.p_paddr, load.p_paddr + load.p_memsz) for load in loads)
    there = ((load, min(load.p_filesz, max(0, image.size - load.p_offset))) for load in loads)
    stored = _union((load.p_paddr, load.p_paddr + size) for load, size in there)
    # A file with device dumps only has no memory, whatever the machine had.
    kept, incomplete = (stored if memory else None), is_incomplete(image)
    return Summary(release, host, seconds, memory or None, kept, None, None, incomplete)


def _union(ranges: Iterator[tuple[int, int]]) -> int:
    size = covered = 0
    for start, end in sorted(ranges):
        size += max(0, end - max(start, covered))
        covered = max(covered, end)
    return size


def _count(image: Image, offset: int, size: int) -> int | None:
    return None if size > MAX_BITMAP else kdump.count_bits(image, offset, size)
