# SPDX-License-Identifier: LGPL-2.1-or-later
"""Read back the notes that were written, before the vmcore gets its name."""

from collections.abc import Iterable, Mapping, Sequence

from ...digest import sha256
from ...errors import WriteFailed
from ...note import DeviceDumpNote, Note
from ..image import Image
from ..layout import Extent


def verify_notes(
    image: Image, notes: Iterable[Note], start: int, end: int, dumps: Mapping[int, DeviceDumpNote]
) -> tuple[str, ...]:
    """Check that *notes*, read back from *image*, fill it from *start* to *end*, with *dumps* at these offsets.

    Return the names of the device dumps whose SHA-256 is not what it was when they were taken. Raises WriteFailed
    if a note is missing, and InvalidVmcore at a broken one.
    """
    found: dict[tuple[bytes | None, int], Note] = {}
    for note in notes:
        if note.offset in dumps:
            found[note.dump_name, note.offset] = note
        start = note.end
    # The last note need not be padded.
    if not end <= start < end + 4:
        raise WriteFailed(f"the notes read back only up to {start:#x}, not {end:#x}")
    altered = []
    for offset, dump in dumps.items():
        read_back = found.get((dump.dump_name.encode("ascii"), offset))
        if read_back is None or read_back.end - read_back.offset != dump.note_size:
            raise WriteFailed(f"device dump {dump.dump_name} does not read back as written")
        if dump.sha256 and sha256(image.pread, read_back.data_offset, dump.size) != dump.sha256:
            altered.append(dump.dump_name)
    return tuple(altered)


def own_offsets(extents: Iterable[Extent], dumps: Sequence[DeviceDumpNote]) -> dict[int, DeviceDumpNote]:
    """Return *dumps* by the offset at which *extents* put them."""
    by_fd = {extent.fd: extent for extent in extents}
    return {by_fd[dump.fd].offset: dump for dump in dumps}
