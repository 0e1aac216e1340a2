# SPDX-License-Identifier: LGPL-2.1-or-later
"""Crash logs that the test builds, as Intel's own decoder describes them."""

from __future__ import annotations

import io
import struct

import pytest

from tests.decoders.damage import endures
from vmcoredd_daemon.decoders.builtin.pmt import MAX_RECORDS, decode
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Text
from vmcoredd_daemon.errors import InvalidDump

PCORE, ECORE, BOX, MCA, PUNIT = 0x04, 0x06, 0x3D, 0x3E, 0x03


def version(kind: int, header_type: int, product: int = 0x7A, revision: int = 2, consumed: int = 0) -> int:
    return consumed << 31 | kind << 24 | product << 12 | header_type << 8 | revision


def record(first: int, header: bytes, content: bytes) -> bytes:
    """Return a record whose size is in dwords."""
    size = 8 + len(header) + len(content)
    return struct.pack("<IHH", first, size // 4, 0) + header + content


COMMON = struct.pack("<QII", 711448700325, 1, 3)
TYPE_6 = COMMON + bytes((8, 1, 2, 0x80)) + struct.pack("<II", 5, 6)
MCA_RECORD = record(version(MCA, 6), TYPE_6, bytes(range(64)))
PUNIT_RECORD = record(version(PUNIT, 3), COMMON + struct.pack("<I", 0x8000_0001), b"abcd" * 500)
# The size of this one is in bytes.
CORE_RECORD = struct.pack("<IHH", version(PCORE, 1, 0x52), 24, 0) + b"\x11" * 16
LEGACY_RECORD = struct.pack("<IIQHHIBBBBI", version(MCA, 0, 0x2F), 9, 77, 10, 0, 4, 1, 0, 0, 0, 2) + b"\x22" * 8
LOG = MCA_RECORD + PUNIT_RECORD + CORE_RECORD + LEGACY_RECORD + bytes(256)


def decoded(data: bytes) -> Decoded:
    return decode("crashlog1", io.BytesIO(data))


def fields(found: Decoded, section: int) -> dict[str, str]:
    return {
        part.name: part.text or str(part.value)
        for part in found.sections[section].parts
        if isinstance(part, Field)
    }


def texts(found: Decoded) -> list[Text]:
    return [part for section in found.sections for part in section.parts if isinstance(part, Text)]


def test_records() -> None:
    found = decoded(LOG)
    assert found.summary == "Intel crash log, 4 crash log records: MCA, PUNIT, PCORE"
    assert found.problems == ()
    starts = [0, len(MCA_RECORD), len(MCA_RECORD + PUNIT_RECORD), len(MCA_RECORD + PUNIT_RECORD + CORE_RECORD)]
    kinds = ("MCA", "PUNIT", "PCORE", "MCA")
    assert [section.name for section in found.sections] == [
        f"{kind} at {start:#x}" for kind, start in zip(kinds, starts, strict=True)
    ]
    assert fields(found, 0) == {
        "version": "0x3e07a602",
        "revision": "2",
        "header_type": "6",
        "product_id": "0x7a",
        "record_type": "MCA",
        "consumed": "no",
        "record_size": "100 bytes",
        "timestamp": "711448700325",
        "agent_version": "0x1",
        "reason": "0x3",
        "die_id": "8",
        "socket_id": "1",
        "record_collection_completed": "yes",
        "completion_status0": "0x5",
        "completion_status1": "0x6",
    }
    assert fields(found, 1)["completion_status"] == "0x1, complete"
    assert fields(found, 2)["record_size"] == "24 bytes"
    legacy = fields(found, 3)
    assert [legacy[name] for name in ("timestamp", "socket_id", "completion_status", "record_size")] == [
        "77",
        "1",
        "0x2, not complete",
        "40 bytes",
    ]
    assert [text.name for text in texts(found)] == ["data", "data, first 1024 of 2000 bytes", "data", "data"]
    assert texts(found)[0].text.startswith("00000024: 0001 0203")


def test_box_has_records_of_its_own() -> None:
    found = decoded(record(version(BOX, 2), COMMON, CORE_RECORD + MCA_RECORD + bytes(16)))
    assert found.findings == ("2 crash log records: PCORE, MCA",)
    assert [section.name for section in found.sections] == ["BOX at 0x0", "PCORE at 0x18", "MCA at 0x30"]


def test_log_without_a_crash() -> None:
    assert decoded(bytes(4096)).summary == "Intel crash log, empty"
    assert decoded(b"\xff" * 4096).summary == "Intel crash log, not readable: all bytes are ff"
    old = record(version(MCA, 1, consumed=1), b"", bytes(8))
    assert decoded(old).summary == "Intel crash log, all records were read by the firmware"


def test_broken_records() -> None:
    found = decoded(MCA_RECORD + record(version(MCA, 9), b"", bytes(8)))
    assert found.problems == ("the record at 0x64: header type 9 is unknown",)
    found = decoded(MCA_RECORD[:50])
    assert found.problems == ("the record at 0x0: it has 100 bytes, of which 50 are there",)
    assert decoded(MCA_RECORD + struct.pack("<IHH", version(MCA, 1), 0, 0)).problems == (
        "the record at 0x64: its size is 0",
    )
    many = decoded(record(version(MCA, 1), b"", b"") * (MAX_RECORDS + 9))
    assert len(many.sections) == MAX_RECORDS
    assert many.problems == (f"only the first {MAX_RECORDS} records are shown",)
    for data in (b"\xef\xbe\xad\xde", b"ab", struct.pack("<I", version(MCA, 15))):
        with pytest.raises(InvalidDump):
            decoded(data)


def test_damaged_logs() -> None:
    endures(decode, samples(), cuts=200, flips=120)


def samples() -> list[tuple[str, bytes]]:
    """Return device dumps as machines have them."""
    return [("crashlog1", LOG), ("crashlog2", record(version(BOX, 2), COMMON, LOG[:2000]))]
