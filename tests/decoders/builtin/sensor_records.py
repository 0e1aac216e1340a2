# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes records of SEL and SDR, field by field as IPMI 2.0 has them."""

import struct
from collections.abc import Sequence

THRESHOLD, SENSOR_SPECIFIC = 0x01, 0x6F
EIGHT_BITS, SIX_BITS, BCD_PLUS = 0xC0, 0x80, 0x40


def record(record_id: int, record_type: int, body: bytes) -> bytes:
    """A record with its header."""
    return struct.pack("<HBBB", record_id, 0x51, record_type, len(body)) + body


def string(text: str) -> bytes:
    """An ID string in 8-bit ASCII."""
    return bytes([EIGHT_BITS | len(text)]) + text.encode("latin-1")


def full_sensor(
    record_id: int,
    number: int,
    sensor_type: int,
    name: bytes,
    *,
    owner: int = 0x20,
    lun: int = 0,
    event_type: int = THRESHOLD,
    entity: tuple[int, int] = (3, 1),
    units: tuple[int, int, int] = (0, 1, 0),
    linearization: int = 0,
    m: int = 1,
    b: int = 0,
    b_exponent: int = 0,
    r_exponent: int = 0,
    readable: int = 0x3F,
    thresholds: Sequence[int] = (0, 0, 0, 0, 0, 0),
) -> bytes:
    """Table 43-1; thresholds from upper non-recoverable to lower non-critical, as they follow there."""
    body = bytes([owner, lun, number, *entity, 0x7F, 0x68, sensor_type, event_type])
    body += bytes(4) + bytes([readable, 0]) + bytes(units) + bytes([linearization])
    body += bytes([m & 0xFF, m >> 2 & 0xC0, b & 0xFF, b >> 2 & 0xC0, 0])
    body += bytes([(r_exponent & 0xF) << 4 | b_exponent & 0xF])
    upper, lower = bytes(thresholds[:3]), bytes(thresholds[3:])
    # Flags, five readings, hysteresis, reserved and OEM are around them.
    body += bytes(6) + upper + lower[:1] + lower[1:] + bytes(2) + bytes(3)
    assert len(body) == 42
    return record(record_id, 0x01, body + name)


def compact_sensor(
    record_id: int,
    number: int,
    sensor_type: int,
    name: bytes,
    *,
    owner: int = 0x20,
    lun: int = 0,
    event_type: int = SENSOR_SPECIFIC,
    entity: tuple[int, int] = (8, 1),
    sharing: int = 0x01,
    modifier: int = 0,
) -> bytes:
    """Table 43-2."""
    body = bytes([owner, lun, number, *entity, 0x03, 0x40, sensor_type, event_type])
    body += bytes(6) + bytes([0xC0, 0, 0]) + bytes([sharing, modifier]) + bytes(6)
    assert len(body) == 26
    return record(record_id, 0x02, body + name)


def event_only_sensor(
    record_id: int,
    number: int,
    sensor_type: int,
    name: bytes,
    *,
    owner: int = 0x20,
    event_type: int = SENSOR_SPECIFIC,
    sharing: int = 0x01,
    modifier: int = 0,
) -> bytes:
    """Table 43-3."""
    body = bytes([owner, 0, number, 7, 1, sensor_type, event_type, sharing, modifier, 0, 0])
    return record(record_id, 0x03, body + name)


def locator(record_id: int, record_type: int, first: bytes, entity: tuple[int, int], name: bytes) -> bytes:
    """Tables 43-7 to 43-9, of which *first* are the bytes before the entity."""
    assert len(first) == 7
    return record(record_id, record_type, first + bytes(entity) + b"\0" + name)


def event(
    record_id: int,
    time: int,
    sensor_type: int,
    number: int,
    data: bytes,
    *,
    event_type: int = SENSOR_SPECIFIC,
    generator: tuple[int, int] = (0x20, 0),
    deasserted: bool = False,
) -> bytes:
    """A system event record, table 32-1."""
    return struct.pack(
        "<HBIBBBBBB3s",
        record_id,
        0x02,
        time,
        *generator,
        0x04,
        sensor_type,
        number,
        event_type | 0x80 * deasserted,
        data,
    )
