# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import io

import pytest

from tests.decoders.archives import archive
from tests.decoders.damage import endures
from vmcoredd_daemon.decoders.builtin.unknown import decode
from vmcoredd_daemon.decoders.decoded import Decoded, Table, Text
from vmcoredd_daemon.decoders.excerpt import MAX_SHOWN
from vmcoredd_daemon.errors import InvalidDump

TEXT = b"link down\tnow\n\x1b[31m<script>\n"
BYTES = bytes(range(256)) * 20


def decoded(data: bytes) -> Decoded:
    return decode("firmware_log", io.BytesIO(data))


def text_of(found: Decoded, section: int = 0) -> Text:
    [text] = found.sections[section].parts
    assert isinstance(text, Text)
    return text


def test_text() -> None:
    found = decoded(TEXT * 3 + bytes(100))
    assert found.title == "text, 184 bytes"
    assert text_of(found).text == "link down       now\n\\x1b[31m<script>\n" * 3
    assert decoded("größer\n".encode()).title == "text, 9 bytes"


def test_bytes() -> None:
    found = decoded(BYTES)
    assert found.title == "unknown, 5120 bytes"
    text = text_of(found)
    assert text.name == "first 4096 of 5120 bytes"
    first, *_, last = text.text.splitlines()
    assert first == "00000000: 0001 0203 0405 0607 0809 0a0b 0c0d 0e0f  ................"
    assert last == "00000ff0: f0f1 f2f3 f4f5 f6f7 f8f9 fafb fcfd feff  ................"
    assert decoded(b"\xff" * 8).title == "unknown, 8 bytes"
    assert decoded(b"text, and then\0" + bytes(range(1, 20))).title.startswith("unknown")


def test_zeros() -> None:
    found = decoded(bytes(3 << 20))
    assert (found.title, found.sections) == ("only zeros: 3145728 bytes", ())
    assert decoded(bytes(3 << 20) + b"\1").title == "unknown, 3145729 bytes"


def test_archive() -> None:
    found = decoded(archive({"log": TEXT, "ram": BYTES, "none": b""}, mtime=1_700_000_000))
    assert found.title == "archive of 3 files"
    [table] = found.sections[0].parts
    assert isinstance(table, Table)
    time = "2023-11-14 22:13:20"
    assert table.rows == (("log", len(TEXT), time), ("ram", 5120, time), ("none", 0, time))
    assert [section.name for section in found.sections] == ["", "log", "ram"]
    assert text_of(found, 1).text.startswith("link down")
    assert text_of(found, 2).name == "first 4096 of 5120 bytes"


def test_archive_of_much_text() -> None:
    found = decoded(archive({f"f{number}": b"a line\n" * 100_000 for number in range(7)}, mtime=8**11 - 1))
    assert len(found.sections) == 1 + MAX_SHOWN // 700_000
    assert found.problems == ("too much text: 2 members not shown",)
    [table] = found.sections[0].parts
    assert isinstance(table, Table)
    assert {row[2] for row in table.rows} == {"2242-03-16 12:56:31"}


def test_what_only_begins_as_an_archive() -> None:
    assert decoded(b"\xff" * 257 + b"ustar" + bytes(500)).title == "unknown, 762 bytes"
    with pytest.raises(InvalidDump, match="it is empty"):
        decoded(b"")


def test_damaged_data() -> None:
    endures(decode, samples(), cuts=200, flips=100)


def samples() -> list[tuple[str, bytes]]:
    """Return device dumps of unknown kinds."""
    return [("log", TEXT * 20), ("ram", BYTES), ("both", archive({"log": TEXT, "ram": BYTES[:600]}, mtime=1))]
