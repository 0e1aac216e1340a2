# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a vmcore says of a crash, as far as it can be read in a moment: headers, VMCOREINFO and manifest.

No bitmap is counted and no device dump is read: of a thousand vmcores this takes seconds.
"""

from contextlib import suppress
from dataclasses import dataclass, replace

from ...errors import InvalidVmcore
from .. import flattened, kdump
from ..elf import read_headers
from ..formats import Vmcore, recognise
from ..image import MAX_FILE_SIZE, Image
from ..utsname import Utsname, read_utsname
from ..vmcoreinfo import crash_time, lines
from .inspect import Inspection, find_in


@dataclass(frozen=True, slots=True)
class Crash:
    """None is what the file does not say; texts are as in the file and may hold control characters."""

    host: str | None = None
    """Host name of the kernel that died."""
    kernel_release: str | None = None
    crash_time: int | None = None
    """Seconds since the epoch."""
    incomplete: bool = False
    """Whether makedumpfile ran out of space, or the file ends before its memory."""
    inspection: Inspection | None = None
    """Its device dumps; None if they cannot be found."""


def read_crash(image: Image) -> Crash:
    """Return what *image* says. Raises InvalidVmcore if it is no vmcore, or is damaged."""
    return _crash(recognise(image))


def read_beginning(data: bytes, path: str) -> Crash:
    """Return what a vmcore says that begins with *data*. Never fails; *path* is for messages."""
    try:
        vmcore = recognise(_beginning(data, path))
    except InvalidVmcore:
        return Crash()
    if data.startswith(flattened.SIGNATURE):
        vmcore = replace(vmcore, format="flattened")
    with suppress(InvalidVmcore):
        return _crash(vmcore)
    return _named(read_utsname(vmcore), None)


def _beginning(data: bytes, path: str) -> Image:
    """Return an image that ends nowhere: where the file ends is not known. What is missing cannot be read."""

    def pread(size: int, offset: int) -> bytes:
        return data[offset : offset + size]

    if not data.startswith(flattened.SIGNATURE):
        return Image(pread, MAX_FILE_SIZE, path)
    end = flattened.HEADER_SIZE
    with suppress(InvalidVmcore):
        for position, _, size in flattened.pieces(Image(pread, len(data), path), complete=False):
            end = position + flattened.PIECE.size + size
    index = flattened.Index(Image(pread, end, path), complete=False)

    def pread_known(size: int, offset: int) -> bytes:
        # A gap may be filled by a later piece.
        return index.pread(max(0, min(size, index.known(offset) - offset)), offset)

    return Image(pread_known, MAX_FILE_SIZE, path)


def _crash(vmcore: Vmcore) -> Crash:
    inspection = find_in(vmcore)
    info = lines(vmcore.image, vmcore.notes())
    named = _named(read_utsname(vmcore), inspection)
    return Crash(
        named.host,
        info.get("OSRELEASE") or named.kernel_release,
        crash_time(info),
        is_incomplete(vmcore.image),
        inspection,
    )


def _named(utsname: Utsname | None, inspection: Inspection | None) -> Crash:
    """Return the names: those of the manifest, else those in the memory or the header."""
    machine = None if inspection is None or inspection.manifest is None else inspection.manifest.machine
    host = (machine and machine.host) or (utsname and utsname.nodename) or None
    release = (machine and machine.kernel_release) or (utsname and utsname.release) or None
    return Crash(host, release)


def is_incomplete(image: Image) -> bool:
    """Return whether makedumpfile ran out of space, or the file ends before its memory. Raises InvalidVmcore."""
    if kdump.is_kdump(image):
        return kdump.read_header(image).incomplete
    return any(load.p_offset + load.p_filesz > image.size for load in read_headers(image).loads)
