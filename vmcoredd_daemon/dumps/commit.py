# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes device dumps durable: those that are ready at the same time share the waits for the disk.

The order is that of :mod:`.spool`: a file is synced before it has its name, so that no name leads to half a device
dump; the directory is synced before the call is answered, so that a power cut cannot take the name away.
Each fails alone, except when the directory, which is common to all, cannot be synced.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from ..files import begin_write_back, link, pwrite, sync
from ..manifest import ManifestDump
from ..note import ByteOrder, DeviceDumpNote, pack_vmcoredd_header
from ..threads.batches import attempt
from .buffer import SYNCED, Buffer
from .spool_directory import SEPARATOR, note_name

F_SEAL_FUTURE_WRITE = 0x0010
"""``include/uapi/linux/fcntl.h``; Python's fcntl module does not have it."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A device dump that was collected."""

    number: int
    buffer: Buffer
    size: int
    """Bytes that the collector has written."""
    describe: Callable[[str], ManifestDump]
    """Says what the manifest will say of it, given its SHA-256."""
    keep_size: bool = False
    """Whether the note gets the size of the buffer, as the kernel's does, instead of the true size."""


def commit_to_disk(
    directory: int, byteorder: ByteOrder, commits: Sequence[Commit]
) -> list[DeviceDumpNote | Exception]:
    """Make device dumps durable in *directory*; return the note of each, or why it is not. Blocks."""
    written = [attempt(partial(_write, byteorder, described=True), commit) for commit in commits]
    # All of them before the first has its name: the journal of the file system then has one transaction for all
    # names, which the sync of the directory commits, instead of one for each.
    synced = [attempt(_sync, note) if isinstance(note, DeviceDumpNote) else note for note in written]
    named = [
        attempt(partial(_name, directory, commit.number), note) if isinstance(note, DeviceDumpNote) else note
        for commit, note in zip(commits, synced, strict=True)
    ]
    names = [
        note_name(commit.number)
        for commit, note in zip(commits, named, strict=True)
        if isinstance(note, DeviceDumpNote)
    ]
    if not names:
        return named
    try:
        sync(directory)
    except OSError as error:
        # Their callers get an error, so the next daemon should not find them; one that it finds is complete.
        for name in names:
            with suppress(OSError):
                os.unlink(name, dir_fd=directory)
        return [error if isinstance(note, DeviceDumpNote) else note for note in named]
    return named


def commit_without_name(byteorder: ByteOrder, commit: Commit) -> DeviceDumpNote:
    """Complete the note of a device dump in a memfd, or in a temporary file. Raises OSError and VmcoreddError."""
    return _write(byteorder, commit, described=False)


def _write(byteorder: ByteOrder, commit: Commit, *, described: bool) -> DeviceDumpNote:
    buffer = commit.buffer
    note = buffer.note(commit.size, keep_size=commit.keep_size)
    record = commit.describe(note.sha256)
    buffer.clear_behind(note.size)
    if described:
        pwrite(note.fd, SEPARATOR + record.dump(), buffer.reserved)
    pwrite(note.fd, pack_vmcoredd_header(note.dump_name.encode("ascii"), note.note_size, byteorder), 0)
    if described and note.size < SYNCED:
        # The disk has all of them to write before fsync(2) waits for the first.
        begin_write_back(note.fd)
    return note


def _sync(note: DeviceDumpNote) -> DeviceDumpNote:
    sync(note.fd)
    return note


def _name(directory: int, number: int, note: DeviceDumpNote) -> DeviceDumpNote:
    link(note.fd, directory, note_name(number))
    return note
