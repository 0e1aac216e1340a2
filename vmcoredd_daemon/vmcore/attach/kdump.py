# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attach to a kdump-compressed vmcore in place: the cost depends on the size of the notes, not of the file.

The notes are a contiguous area to which the sub header points, anywhere in the file. So a new area, with copies of
the notes that stay, is appended, and then the sub header is pointed at it.

What the file is after a power cut, at any moment, with writes since the last fsync lost or in any order:

1. The new area is written behind everything that the file has, then fsync. The sub header points at the old
   area, of which nothing has changed; what is behind it does not matter to any reader.
2. One write of at most 32 bytes changes the sub header: offset_vmcoreinfo, offset_note and size_note. It lies
   within one sector, which disks write completely or not at all. The sub header points at the old area or at the
   new one, and both are complete on disk. Then fsync: this is the commit.

VMCOREINFO is inside the notes, and offset_vmcoreinfo moves with them, as makedumpfile wants it. In a file with a
packed 32-bit sub header, i386's, it stays where it was: see :attr:`..kdump.KdumpHeader.keeps_vmcoreinfo`.

Attaching again would let the file grow by all notes each time. So if the old area is the last thing in the file,
and lies where only an attach can have put it, behind the page descriptors at a page boundary, its place is used
again. Not for the new area directly, as the old one counts until the commit. Step 1 puts the new area behind
the *end that it will have at the old place*, so that the two do not overlap. After the commit:

3. The new area is copied to the old place, then fsync. The sub header points at the copy behind, which is not
   touched.
4. The sub header is pointed at the old place, as in 2, then fsync. Both copies are complete on disk.
5. The file is truncated behind the copy at the old place. That the sub header points there is on disk already.

An error after 2 only means that the file is longer than necessary. So does a power cut between 2 and 5: the place
of the old area is then not used again, because nothing records any more what was there.

:class:`..kdump.NotePlaces` computes the offsets and the write of step 2, here and in ``stream_kdump``.
"""

import os
from collections.abc import Callable, Mapping, Sequence

from ...errors import QuotaExceeded, WriteFailed
from ...files import pwrite
from ...note import MAX_NOTES_END, DeviceDumpNote
from ...progress import Progress
from ..copy.clone import copy_range
from ..copy.extents import ExtentCopy
from ..copy.read_back import own_offsets, verify_notes
from ..copy.source import Reads
from ..copy.write import write_headers
from ..formats import Notes, Vmcore
from ..image import file_image
from ..kdump import KdumpHeader, NotePlaces
from ..layout import Extent, order_notes
from ..page_data import page_data


class KdumpAttachment:
    """Attaches to one locked file."""

    def __init__(
        self,
        fd: int,
        vmcore: Vmcore,
        header: KdumpHeader,
        page_size: int,
        committing: Callable[[], None],
        progress: Progress,
        *,
        cut_off: bool,
        reads: Reads | None = None,
    ) -> None:
        """*cut_off* says that pages are missing: nothing is between what there is of them and the notes.

        *reads* reads the notes.
        """
        self._fd = fd
        self._vmcore = vmcore
        self._header = header
        self._page_size = page_size
        self._committing = committing
        self._progress = progress
        self._reads = reads
        self._size = vmcore.image.size
        self._alignment = 1 if cut_off else page_size

    def run(self, notes: Notes, dumps: Sequence[DeviceDumpNote]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Attach *dumps* to *notes*; return the names of altered device dumps, and warnings.

        Raises OSError, InvalidVmcore, QuotaExceeded and WriteFailed; the file is then as it was.
        """
        order = order_notes(notes(), sum(dump.note_size for dump in dumps))
        size = order.size
        if size >= MAX_NOTES_END:
            raise QuotaExceeded(f"the notes would have {size} bytes, but crash reads below {MAX_NOTES_END:#x}")
        places = NotePlaces(self._header, order, self._alignment, self._end_of_descriptors())
        old_place = places.old_place(self._size)
        start = places.appended(self._size if old_place is None else max(self._size, old_place + size))
        # Refuse what can be refused before anything is written.
        fields = places.fields(start)
        moved = None if old_place is None else places.fields(old_place)
        try:
            altered = self._write(order.extents(self._fd, dumps, start), start, size, dumps)
            self._committing()
        except BaseException:
            os.ftruncate(self._fd, self._size)
            raise
        self._commit(fields)
        return altered, self._move(moved, start, size, old_place)

    def _write(
        self, extents: Sequence[Extent], start: int, size: int, dumps: Sequence[DeviceDumpNote]
    ) -> tuple[str, ...]:
        """Write the new area from *start* on, and read it back."""
        own = own_offsets(extents, dumps)
        self._progress.start("writing the notes", size)
        copy = ExtentCopy(self._fd, self._page_size, self._progress, reads=self._reads)
        for extent in extents:
            copy.extent(extent)
        # The last note of the old area need not be padded if it ends the file.
        if copy.report.unreadable_pages or copy.report.missing_bytes > 3:
            raise WriteFailed("a note or a device dump cannot be read")
        write_headers(self._fd, own, self._vmcore.byteorder)
        os.ftruncate(self._fd, start + size)
        os.fsync(self._fd)
        return self._verify(own, start, size)

    def _verify(self, own: Mapping[int, DeviceDumpNote], start: int, size: int) -> tuple[str, ...]:
        # Read from the disk, if possible, and not from the page cache that was written a moment ago.
        os.posix_fadvise(self._fd, start, size, os.POSIX_FADV_DONTNEED)
        image = file_image(self._fd, self._vmcore.image.path)
        notes = image.notes(start, size, self._vmcore.byteorder)
        return verify_notes(image, notes, start, start + size, own)

    def _commit(self, fields: tuple[int, bytes]) -> None:
        offset, data = fields
        before = os.pread(self._fd, len(data), offset)
        try:
            pwrite(self._fd, data, offset)
            os.fsync(self._fd)
        except BaseException:
            # Either of the two may be on disk. If the old one cannot be put back, the new area has to stay.
            try:
                pwrite(self._fd, before, offset)
                os.fsync(self._fd)
            except OSError as error:
                reason = f"the header cannot be written: {error.strerror}"
                raise WriteFailed(f"{reason}; the new device dumps may or may not be attached") from error
            os.ftruncate(self._fd, self._size)
            raise

    def _move(
        self, fields: tuple[int, bytes] | None, start: int, size: int, old_place: int | None
    ) -> tuple[str, ...]:
        """Move the new area from *start* to *old_place*; return a warning if that fails."""
        if fields is None or old_place is None:
            return ()
        offset, data = fields
        try:
            copy_range(self._fd, self._fd, start, old_place, size, Progress())
            os.fsync(self._fd)
            pwrite(self._fd, data, offset)
            os.fsync(self._fd)
            os.ftruncate(self._fd, old_place + size)
            os.fsync(self._fd)
        except OSError as error:
            return (f"is longer than necessary: {error.strerror}",)
        return ()

    def _end_of_descriptors(self) -> int:
        """Return where page data starts. An incomplete file can end before; notes must not be written there."""
        data = page_data(self._vmcore.image, self._header)
        return self._header.data_offset if data is None else data.start
