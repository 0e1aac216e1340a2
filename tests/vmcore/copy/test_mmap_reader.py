# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads through mapped windows; those of a real /proc/vmcore are in tests/kdump."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmcoredd_daemon.vmcore.copy import mmap_reader as mmap_reader
from vmcoredd_daemon.vmcore.copy.mmap_reader import WINDOW, MmapReader, cannot_shrink


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A file of some windows, the last of them not whole."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(2 * WINDOW + 12345))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def read(window: MmapReader, size: int, offset: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: window.preadv(memoryview(buffer), offset)])


def test_only_what_the_kernel_has_is_mapped(file: int) -> None:
    assert not cannot_shrink(file)
    with open("/proc/self/maps", "rb") as own:
        assert cannot_shrink(own.fileno())
        # It cannot be mapped, and says that it is empty.
        with MmapReader(own.fileno()) as window:
            assert b"-" in read(window, 100, 0)


@pytest.mark.parametrize("mapped", [True, False])
def test_reads_are_those_of_pread(file: int, monkeypatch: pytest.MonkeyPatch, *, mapped: bool) -> None:
    monkeypatch.setattr(mmap_reader, "cannot_shrink", lambda fd: mapped)
    size = os.fstat(file).st_size
    reads = [
        (100, 0),
        (4096, 8192),
        (1 << 20, WINDOW - 5),
        (4096, 1),
        (WINDOW + 4096, 4095),
        (10, size - 10),
        (100, size - 10),
        (100, size),
        (100, size + WINDOW),
    ]
    with MmapReader(file) as window:
        for count, offset in reads:
            assert read(window, count, offset) == os.pread(file, count, offset)
            assert (window._mapped is not None) == (mapped and offset + count <= size)
    assert window._mapped is None


def test_file_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap_reader, "cannot_shrink", lambda fd: True)
    with MmapReader(-1) as window, pytest.raises(OSError, match="Bad file descriptor"):
        read(window, 10, 0)
