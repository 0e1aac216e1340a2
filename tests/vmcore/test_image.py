# SPDX-License-Identifier: LGPL-2.1-or-later

import os
from functools import partial
from pathlib import Path

import pytest

from tests.lib.elf_writer import note
from tests.lib.image import image_of
from vmcoredd_daemon.errors import InvalidVmcore
from vmcoredd_daemon.note import ByteOrder
from vmcoredd_daemon.vmcore.image import Image, file_image


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        image = file_image(file.fileno(), "FILE")
        assert image.size == 10
        assert image.read(3, 4, "digits") == b"456"
        # The position of another user does not matter, and is left alone.
        assert file.tell() == 0


def test_bytes_that_are_not_there() -> None:
    with pytest.raises(InvalidVmcore, match=r"^FILE: the file ends at offset 0x3, inside the header$"):
        image_of(b"abc").read(4, 0, "the header")


def test_pipe_has_no_size() -> None:
    ends = os.pipe()
    try:
        with pytest.raises(InvalidVmcore, match=r"^FILE: cannot tell its size: Illegal seek$"):
            file_image(ends[0], "FILE")
    finally:
        for fd in ends:
            os.close(fd)


def test_bytes_that_cannot_be_read(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        image = Image(partial(os.pread, fd), 100, "FILE")
        with pytest.raises(InvalidVmcore, match=r"^FILE: cannot read the header at offset 0x8: Is a directory$"):
            image.read(4, 8, "the header")
        with pytest.raises(InvalidVmcore, match=r"^FILE: cannot read the notes: Is a directory$"):
            list(image.notes(0, 100, ByteOrder.LITTLE))
    finally:
        os.close(fd)


def test_notes() -> None:
    image = image_of(b"...." + note(1, b"one") + note(2, b"two"))
    assert [found.n_type for found in image.notes(4, image.size - 4, ByteOrder.LITTLE)] == [1, 2]
    with pytest.raises(InvalidVmcore, match=r"^FILE: the note at offset"):
        list(image.notes(4, image.size - 9, ByteOrder.LITTLE))


def test_stream() -> None:
    with image_of(b"0123456789").stream() as stream:
        assert stream.read(2) == b"01"
        assert stream.seek(-3, os.SEEK_END) == 7
        assert stream.read() == b"789"
        assert stream.seek(0) == 0
        assert stream.seek(1, os.SEEK_CUR) == 1
        assert stream.read(1) == b"1"
        with pytest.raises(ValueError, match="seek to -1"):
            stream.seek(-1)
