# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a disk was told to write, and where a power cut would have left it.

QEMU's block/blklogwrites.c keeps each write and each flush, in the order in which they were begun, in the format
of Linux drivers/md/dm-log-writes.c. A disk that loses its power has whatever was written before the last flush,
and any part of what came after.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


@dataclass(frozen=True, slots=True)
class Write:
    """One entry of the log."""

    sector: int
    sectors: int
    flags: int
    offset: int
    """Of the data in the log."""


def options(disk: Path, log: Path) -> tuple[str, ...]:
    """Return options of QEMU for a virtio disk with a log, which is up to date after each entry.

    The host need not flush anything: its kernel outlives QEMU.
    """
    files = [f"driver=file,node-name={path.name},filename={path},cache.no-flush=on" for path in (disk, log)]
    logged = f"driver=blklogwrites,node-name=logged,file={disk.name},log={log.name},log-super-update-interval=1"
    blockdevs = [option for node in (*files, logged) for option in ("-blockdev", node)]
    return (*blockdevs, "-device", "virtio-blk-pci,drive=logged")


def length(log: Path) -> int:
    """Return how many entries the log has now."""
    with log.open("rb") as file:
        super_block = file.read(28)
    # QEMU has not made it yet.
    if len(super_block) < 28:
        return 0
    magic, version, entries, sector = struct.unpack("<QQQI", super_block)
    assert (magic, version, sector) == (MAGIC, 1, SECTOR)
    return int(entries)


def read(log: Path) -> list[Write]:
    """Return all entries."""
    entries, offset = [], SECTOR
    with log.open("rb") as file:
        for _ in range(length(log)):
            sector, sectors, flags, _ = struct.unpack("<QQQQ", os.pread(file.fileno(), 32, offset))
            assert not flags & MARK
            entries.append(Write(sector, sectors, flags, offset + SECTOR))
            offset += SECTOR + (0 if flags & DISCARD else sectors * SECTOR)
    return entries


def last_flush(entries: Sequence[Write], end: int) -> int:
    """Return how many of the first *end* entries the disk has to keep."""
    return max((number + 1 for number, entry in enumerate(entries[:end]) if entry.flags & FLUSH), default=0)


def kept(entries: Sequence[Write], end: int, lost: random.Random | None) -> list[Write]:
    """Return the writes that a disk has after a power cut behind the first *end* entries.

    Those after the last flush are all lost, or those that *lost* picks, one write in two.
    """
    flushed = last_flush(entries, end)
    rest = entries[flushed:end] if lost else []
    return [*entries[:flushed], *(entry for entry in rest if entry.flags & FUA or (lost and lost.random() < 0.5))]


def replay(log: Path, entries: Sequence[Write], disk: Path) -> Path:
    """Write *entries* to a disk that is as it was when the log began."""
    with log.open("rb") as source, disk.open("r+b") as target:
        for entry in entries:
            if not entry.flags & DISCARD:
                data = os.pread(source.fileno(), entry.sectors * SECTOR, entry.offset)
                os.pwrite(target.fileno(), data, entry.sector * SECTOR)
    return disk
