# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import io

import pytest

from tests.decoders.archives import archive
from tests.decoders.damage import endures
from vmcoredd_daemon.decoders.builtin.devlink import bad_state, decode
from vmcoredd_daemon.decoders.decoded import Decoded, Table, Text
from vmcoredd_daemon.errors import InvalidDump

HEALTH = b"fw state: error\nsyndrome: 7\nassert:\n  var0: 1\n"
REGION = b"printable, but memory" + bytes(2048)
MEMBERS = {
    "health/fw": HEALTH,
    "health/port1/tx": b"state: 3\nSQ:\n  - HW state: 1\n",
    "health/rx": b"",
    "region/cr-space/1": REGION,
    "region/port2/nvm/0": b"\x7f" * 16,
}


def decoded(members: dict[str, bytes], name: str = "devlink_0000:02:00.0") -> Decoded:
    return decode(name, io.BytesIO(archive(members)))


def test_reporters_and_regions() -> None:
    found = decoded(MEMBERS)
    assert found.summary == "devlink 0000:02:00.0, 1 health reporter in error state, 3 health reporters, 2 regions"
    reporters, regions = found.sections[0].parts
    assert isinstance(reporters, Table)
    assert isinstance(regions, Table)
    assert reporters.rows == (("fw", 46, "fw state: error"), ("port1/tx", 29, ""), ("rx", 0, ""))
    assert regions.rows == (("cr-space", "1", 2069), ("port2/nvm", "0", 16))
    texts = {
        section.name: part for section in found.sections[1:] for part in section.parts if isinstance(part, Text)
    }
    assert list(texts) == ["health/fw", "health/port1/tx", "region/cr-space/1", "region/port2/nvm/0"]
    assert texts["health/fw"].text == HEALTH.decode()
    assert texts["region/cr-space/1"].name == "first 1024 of 2069 bytes"
    assert texts["region/cr-space/1"].text.startswith("00000000: 7072 696e 7461 626c")


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("state: healthy", False),
        ("state: bad", True),
        ("Firmware Status: FATAL error", True),
        ("status: no error", False),
        ("state: 1", False),
        ("syndrome: 0", False),
        ("syndrome: 0x00", False),
        ("- synd: 0x0c", True),
        ("error: 1", False),
        ("state:", False),
    ],
)
def test_error_states(line: str, bad: bool) -> None:
    assert bool(bad_state(f"name: x\n  {line}\n")) is bad


def test_hostile_archives() -> None:
    hostile = {"health/\x1b[31m": b"state: \x1b]0;error\x07\xff\n", "region/1": b"\0", "other": b"x" * 3000}
    found = decoded(hostile, "devlink_\x1b[2J")
    assert found.title == "devlink \\x1b[2J"
    assert [section.name for section in found.sections] == ["", "health/\\x1b[31m", "region/1", "other"]
    with pytest.raises(InvalidDump, match="no archive"):
        decode("devlink_0000:02:00.0", io.BytesIO(bytes(4096)))
    endures(decode, samples(), cuts=200, flips=150)


def samples() -> list[tuple[str, bytes]]:
    """Return device dumps as machines have them."""
    return [("devlink_0000:02:00.0", archive(MEMBERS))]
