# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a disk has after a power cut, by the log of its writes."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from tests.kdump import write_log
from tests.kdump.write_log import DISCARD, FLUSH, FUA, SECTOR

ENTRIES = [
    (0, b"a", 0),
    (1, b"b", 0),
    (0, b"", FLUSH),
    (1, b"c", 0),
    (2, b"d", FUA),
    (3, b"", DISCARD),
    (3, b"e", 0),
]


def write(path: Path) -> Path:
    """Write a log of one sector for each letter."""
    content = struct.pack("<QQQI", write_log.MAGIC, 1, len(ENTRIES), SECTOR).ljust(SECTOR, b"\0")
    for sector, letter, flags in ENTRIES:
        sectors = 1 if flags & DISCARD else len(letter)
        content += struct.pack("<QQQQ", sector, sectors, flags, 0).ljust(SECTOR, b"\0") + letter * SECTOR
    path.write_bytes(content)
    return path


def disk(log: Path, entries: list[write_log.Write]) -> bytes:
    """Return the first letter of each of four sectors."""
    empty = log.with_name("disk")
    empty.write_bytes(b"-" * 4 * SECTOR)
    return write_log.replay(log, entries, empty).read_bytes()[::SECTOR]


def test_everything_is_there_without_a_power_cut(tmp_path: Path) -> None:
    log = write(tmp_path / "log")
    assert write_log.length(log) == len(ENTRIES)
    assert disk(log, write_log.read(log)) == b"acde"


def test_what_was_not_flushed_is_lost(tmp_path: Path) -> None:
    log = write(tmp_path / "log")
    entries = write_log.read(log)
    assert [disk(log, write_log.kept(entries, end, None)) for end in (2, 3, 7)] == [b"----", b"ab--", b"ab--"]


def test_of_what_was_not_flushed_any_part_is_lost(tmp_path: Path) -> None:
    log = write(tmp_path / "log")
    entries = write_log.read(log)
    found = {disk(log, write_log.kept(entries, 7, random.Random(seed))) for seed in range(64)}
    assert found == {b"abd-", b"acd-", b"abde", b"acde"}
