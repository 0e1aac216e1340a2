# SPDX-License-Identifier: LGPL-2.1-or-later

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import flattened as fuzz
from tests.lib.flattened_writer import (
    END,
    HEADER,
    Piece,
    flatten,
    makedumpfile_flat,
    makedumpfile_restore,
    restore,
)
from tests.lib.image import image_of
from vmcoredd_daemon.errors import InvalidVmcore
from vmcoredd_daemon.vmcore import flattened as module
from vmcoredd_daemon.vmcore.flattened import unflatten
from vmcoredd_daemon.vmcore.formats import recognise
from vmcoredd_daemon.vmcore.image import Image, file_image


@pytest.mark.parametrize(
    "options", [["-E"], ["-E", "-d", "31"], ["-c"], ["-l", "-d", "31"], ["-c", "--cyclic-buffer", "1"]]
)
def test_same_as_makedumpfile_restores(source_vmcore: Path, tmp_path: Path, options: list[str]) -> None:
    flat = makedumpfile_flat(source_vmcore, tmp_path / "flat", *options)
    restored = makedumpfile_restore(flat, tmp_path / "restored")
    with flat.open("rb") as file, restored.open("rb") as expected:
        image = file_image(file.fileno(), "FILE")
        inner = unflatten(image)
        assert inner.size == os.path.getsize(restored)
        for offset in range(0, inner.size, 1 << 20):
            assert inner.pread(1 << 20, offset) == expected.read(1 << 20), hex(offset)
        theirs = recognise(file_image(expected.fileno(), "FILE"))
        ours = recognise(image)
        assert (ours.format, ours.machine) == ("flattened", "x86_64")
        assert ours.note_ranges == theirs.note_ranges
        assert list(ours.notes()) == list(theirs.notes())


PIECES = st.lists(st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=20)), max_size=30)


@given(PIECES, st.integers(0, 90), st.integers(0, 90))
def test_any_order_and_overlap(pieces: list[Piece], offset: int, size: int) -> None:
    image = unflatten(image_of(flatten(pieces)))
    expected = restore(pieces)
    assert image.size == len(expected)
    assert image.pread(size, offset) == expected[offset : offset + size]
    assert image.pread(1000, 0) == expected


@given(st.lists(st.integers(1, 5), min_size=1, max_size=600), st.integers(1, 4))
def test_writers_in_turn(sizes: list[int], writers: int) -> None:
    """As makedumpfile does; and as long runs have to be cut."""
    ends = [place * 10_000 for place in range(writers)]
    pieces = []
    for number, size in enumerate(sizes):
        pieces.append((ends[number % writers], bytes([number % 251 + 1]) * size))
        ends[number % writers] += size
    image = unflatten(image_of(flatten(pieces)))
    expected = restore(pieces)
    assert image.pread(1 << 20, 0) == expected
    # Backwards, too.
    for offset in range(len(expected) - 7, 0, -len(expected) // 40 - 1 if len(expected) < 4000 else -997):
        assert image.pread(7, offset) == expected[offset : offset + 7]


def piece(offset: int, size: int, data: bytes = b"") -> bytes:
    return struct.pack(">qq", offset, size) + data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEADER[:100], "is truncated: it ends at offset 0x64, inside its header"),
        (HEADER, "is truncated: it ends at offset 0x1000, without an end mark"),
        (HEADER + END[:7], "is truncated: it ends at offset 0x1007, without an end mark"),
        (HEADER + piece(0, 5, b"abc"), "is truncated: it ends at offset 0x1013, inside the piece at offset"),
        (HEADER + piece(0, 3, b"abc"), "is truncated: it ends at offset 0x1013, without an end mark"),
        (HEADER + piece(-2, 3, b"abc") + END, "the piece at offset 0x1000 has offset -2"),
        (HEADER + piece(-1, 3, b"abc") + END, "the piece at offset 0x1000 has offset -1"),
        (HEADER + piece(0, 0) + END, "the piece at offset 0x1000 has size 0, not 1 to"),
        (HEADER + piece(0, -1) + END, "the piece at offset 0x1000 has size -1, not 1 to"),
        (HEADER + piece(0, 1 << 31) + END, "the piece at offset 0x1000 has size 2147483648, not 1 to"),
        (HEADER + piece((1 << 63) - 2, 3, b"abc") + END, "the piece at offset 0x1000 has offset 0x7ffffffff"),
        (HEADER[:23] + b"\2" + HEADER[24:] + END, "type at offset 0x10 is 2, the flattened format has 1"),
        (flatten([(0, HEADER)]), "a flattened file inside a flattened file is not supported"),
        (flatten([(0, b"neither")]), "what the flattened file holds is neither ELF nor kdump-compressed"),
    ],
)  # fmt: skip
def test_broken_files(data: bytes, message: str) -> None:
    with pytest.raises(InvalidVmcore) as caught:
        recognise(image_of(data))
    assert str(caught.value).startswith(f"FILE: {message}")
    assert "\n" not in str(caught.value)


def test_too_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RUNS", 3)
    pieces = [(offset, b"x") for offset in (0, 2, 4)]
    assert unflatten(image_of(flatten(pieces))).size == 5
    with pytest.raises(InvalidVmcore, match=r"^FILE: has more than 3 runs of pieces, at 0x1033$"):
        unflatten(image_of(flatten([*pieces, (6, b"x")])))


def test_file_that_changes() -> None:
    data = bytearray(flatten([(0, b"abc"), (3, b"def")]))
    image = unflatten(Image(lambda size, offset: bytes(data[offset : offset + size]), len(data), "FILE"))
    assert image.pread(6, 0) == b"abcdef"
    data[4096:4112] = bytes(16)
    with pytest.raises(InvalidVmcore, match=r"^FILE: the piece at offset 0x1000 has size 0"):
        image.pread(6, 0)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """As many runs as there may be, all of which overlap."""
    path = tmp_path / "flat"
    count = module.MAX_RUNS
    with path.open("wb") as file:
        file.write(HEADER)
        for place in range(0, count, 1024):
            file.write(b"".join(piece(3 * (count - number), 4, b"data") for number in range(place, place + 1024)))
        file.write(END)
    script = (
        "import os, sys\n"
        "from vmcoredd_daemon.vmcore.flattened import unflatten\n"
        "from vmcoredd_daemon.vmcore.image import file_image\n"
        "image = unflatten(file_image(os.open(sys.argv[1], os.O_RDONLY), 'FILE'))\n"
        "image.pread(1000, 5000)\n"
        "print(image.size, *(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    run = subprocess.run([sys.executable, "-c", script, path], check=True, capture_output=True, text=True)
    size, peak = map(int, run.stdout.split())
    assert size == 3 * count + 4
    assert peak << 10 < 64 << 20


def test_fuzz() -> None:
    assert 500 < fuzz.main(2000) < 1900
