# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attach to a flattened vmcore that is a file: through the filter of ``stream``, into a new file of that name."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, cast

from ...errors import WriteFailed
from ...files import BLOCK_SIZE, replace_file, sync
from ...note import VMCOREDD_HEADER_SIZE, ByteOrder, DeviceDumpNote, pack_vmcoredd_header
from ...progress import Progress
from ..copy.read_back import verify_notes
from ..formats import Notes, Vmcore, recognise
from ..image import Image, file_image
from .stream import attach_stream
from .stream_plan import read_blocks


def attach_flattened(
    fd: int,
    path: str,
    vmcore: Vmcore,
    dumps: Sequence[DeviceDumpNote],
    replaced: Collection[int],
    committing: Callable[[], None],
    progress: Progress,
) -> tuple[str, ...]:
    """Attach *dumps*, leave out the notes at the offsets *replaced*; return the names of altered device dumps.

    Raises OSError, and the errors of :func:`.stream.attach_stream`; the file is then as it was.
    """
    additions = _ReadyNotes(dumps, replaced, vmcore.byteorder)
    kept = sum(1 for note in vmcore.device_dumps() if note.offset not in replaced)

    def write(out: int) -> tuple[str, ...]:
        image = file_image(fd, path)
        with (
            open(fd, "rb", BLOCK_SIZE, closefd=False) as source,
            open(out, "wb", BLOCK_SIZE, closefd=False) as new,
        ):
            source.seek(0)
            progress.start("writing a new file", image.size)
            counted = _CountedReader(source, progress)
            problems = attach_stream(cast(BinaryIO, counted), new, additions, path, image)
        if problems:
            raise WriteFailed(f"{path}: cannot attach: {problems[0]}")
        sync(out)
        return _verify(out, path, dumps, kept)

    return replace_file(fd, path, write, committing)


@dataclass(frozen=True, slots=True)
class _CountedReader:
    """A file that reports how much of it is read."""

    file: BinaryIO
    progress: Progress

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.progress.advance(len(data))
        return data


def _verify(out: int, path: str, dumps: Sequence[DeviceDumpNote], kept: int) -> tuple[str, ...]:
    os.posix_fadvise(out, 0, 0, os.POSIX_FADV_DONTNEED)
    new = recognise(file_image(out, path))
    own = [note.offset for note in new.device_dumps()][kept:]
    if len(own) != len(dumps):
        raise WriteFailed(f"only {len(own)} of {len(dumps)} device dumps read back")
    start, size = new.note_ranges[0]
    return verify_notes(new.image, new.notes(), start, start + size, dict(zip(own, dumps, strict=True)))


@dataclass(frozen=True, slots=True)
class _ReadyNotes:
    """Device dumps that are notes already: both :class:`.stream_plan.Additions` and its NewNotes."""

    dumps: Sequence[DeviceDumpNote]
    replaced: Collection[int]
    byteorder: ByteOrder

    def new_notes(self, image: Image, notes: Notes, byteorder: ByteOrder, page_size: int) -> "_ReadyNotes":
        return self

    @property
    def size(self) -> int:
        return sum(dump.note_size for dump in self.dumps)

    def blocks(self, problems: list[str]) -> Iterator[bytes]:
        for dump in self.dumps:
            yield pack_vmcoredd_header(dump.dump_name.encode("ascii"), dump.note_size, self.byteorder)
            size = dump.note_size - VMCOREDD_HEADER_SIZE
            what = f"device dump {dump.dump_name}"
            yield from read_blocks(partial(os.pread, dump.fd), VMCOREDD_HEADER_SIZE, size, what, problems)
