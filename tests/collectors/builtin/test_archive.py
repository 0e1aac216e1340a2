# SPDX-License-Identifier: LGPL-2.1-or-later
import io
from collections.abc import Iterator

import pytest

from tests.collectors.builtin.collecting import members
from vmcoredd_daemon.collectors.builtin.archive import Archive, archive_size

SIZES = [0, 1, 511, 512, 513, 200_000]


def failing() -> Iterator[bytes]:
    yield b"half"
    raise OSError("the device is gone")


def test_size_is_known_before() -> None:
    data = io.BytesIO()
    archive = Archive(data)
    for size in SIZES:
        archive.add(f"m{size}", size, [b"x" * (size // 2), b"y" * (size - size // 2)])
    archive.finish()
    assert len(data.getvalue()) == archive_size(SIZES)
    assert {name: len(content) for name, content in members(data.getvalue()).items()} == {
        f"m{size}": size for size in SIZES
    }


def test_what_fails_leaves_zeros_and_room_for_more() -> None:
    data = io.BytesIO()
    archive = Archive(data)
    with pytest.raises(OSError, match="the device is gone"):
        archive.add("failing", 1000, failing())
    with pytest.raises(OSError, match="short: only 3 of 5 bytes could be read"):
        archive.add("short", 5, [b"abc"])
    archive.add("long", 5, [b"abcdefgh", b"more"])
    archive.finish()
    assert members(data.getvalue()) == {"failing": b"half" + bytes(996), "short": b"abc\0\0", "long": b"abcde"}
