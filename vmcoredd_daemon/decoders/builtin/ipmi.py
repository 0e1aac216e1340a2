# SPDX-License-Identifier: LGPL-2.1-or-later
"""``ipmi0``: the System Event Log (SEL) of a BMC, with the names and units of its sensors.

IPMI Specification 2.0: the answers to Get Device ID (20.1), Get Self Test Results (20.4) and Get SEL Info (31.2).
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO

from ...errors import InvalidDump
from ..decoded import Decoded, Field, Part
from ..members import Members, decode_members, read_members
from ..structure import Item, bits, bits_of, fields, hexadecimal_digits, part_of
from .ipmi_manufacturers import manufacturer_name
from .ipmi_sdr import read_repository, repository_parts
from .ipmi_sel import ENTRY, critical_events, read_log, time_text

_DEVICE_SUPPORT: Mapping[int, str] = MappingProxyType(
    {
        0: "Sensor Device",
        1: "SDR Repository Device",
        2: "SEL Device",
        3: "FRU Inventory Device",
        4: "IPMB Event Receiver",
        5: "IPMB Event Generator",
        6: "Bridge",
        7: "Chassis Device",
    }
)
"""Additional Device Support, table 20-2."""

_SELF_TESTS: Mapping[int, str] = MappingProxyType(
    {
        0x55: "No error",
        0x56: "Self Test function not implemented in this controller",
        0x57: "Corrupted or inaccessible data or devices",
        0x58: "Fatal hardware error",
    }
)
"""Get Self Test Results, table 20-4."""

_INACCESSIBLE: Mapping[int, str] = MappingProxyType(
    {
        0: "controller operational firmware corrupted",
        1: "controller update 'boot block' firmware corrupted",
        2: "Internal Use Area of BMC FRU corrupted",
        3: "SDR Repository empty",
        4: "IPMB signal lines do not respond",
        5: "Cannot access BMC FRU device",
        6: "Cannot access SDR Repository",
        7: "Cannot access SEL device",
    }
)
"""The second byte of Get Self Test Results after 57h."""

_OPERATIONS: Mapping[int, str] = MappingProxyType(
    {
        0: "Get SEL Allocation Information",
        1: "Reserve SEL",
        2: "Partial Add SEL Entry",
        3: "Delete SEL",
        7: "Overflow Flag",
    }
)
"""Operation Support, table 31-2."""


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Return what the BMC has logged. Raises InvalidDump if nothing of it is there."""
    members = read_members(data)
    if not members.files.keys() & {"device_id", "sel_info", "sel", "sdr"}:
        raise InvalidDump("there is no device_id, sel_info, sel or sdr")
    repository = read_repository(_read(members, "sdr"))
    log = read_log(_read(members, "sel"), repository.by_event())
    sections, problems = decode_members(
        members,
        {
            "device_id": _device_id,
            "self_test": _self_test,
            "sel_info": _sel_info,
            "sel": lambda _: (log.table(),),
            "sdr": lambda _: repository_parts(repository),
        },
    )
    wrong = {part.name for section in sections for part in section.parts if isinstance(part, Field) and part.wrong}
    return Decoded(
        title=_title(_read(members, "device_id")),
        findings=(*critical_events(log.events), *(text for name, text in _FINDINGS.items() if name in wrong)),
        facts=log.facts() if "sel" in members.files else (),
        sections=sections,
        problems=(*problems, *_named("sel", log.problems), *_named("sdr", repository.problems)),
    )


def _read(members: Members, name: str) -> bytes:
    return members.files[name].read() if name in members.files else b""


def _named(member: str, problems: Iterable[str]) -> Iterator[str]:
    return (f"{member}: {problem}" for problem in problems)


_FINDINGS: Mapping[str, str] = MappingProxyType(
    {
        "Self Test Result": "BMC self-test failed",
        "Overflow Flag": "SEL overflow, later events are lost",
        "Free Space in bytes": "SEL is full",
        "Device available": "BMC was not in normal operation",
    }
)
"""What to say of fields that are wrong."""


def _title(device_id: bytes) -> str:
    if len(device_id) < 11:
        return "BMC"
    manufacturer = _manufacturer_id(device_id)
    name = f"{manufacturer_name(manufacturer)} BMC" if manufacturer else "BMC"
    product = int.from_bytes(device_id[9:11], "little")
    return f"{name}, product {product:#06x}, firmware {_firmware(device_id)}"


def _manufacturer_id(device_id: bytes) -> int:
    """Return 20 bits; the others are reserved."""
    return int.from_bytes(device_id[6:9], "little") & 0xFFFFF


def _firmware(device_id: bytes) -> str:
    """Return the major revision, which is binary, and the minor one, which is BCD."""
    return f"{device_id[2] & 0x7F}.{device_id[3]:02x}"


def _device_id(data: bytes) -> tuple[Part, ...]:
    """Return the answer to Get Device ID, table 20-2."""
    part_of(data, 0, 11, "Get Device ID")
    manufacturer = _manufacturer_id(data)
    updating = bool(data[2] & 0x80)
    version = f"{data[4] & 0xF}.{data[4] >> 4:x}"
    items = (
        Item("Product ID", 9, 2, hexadecimal_digits(4)),
        Item("Additional Device Support", 5, 1, bits_of(_DEVICE_SUPPORT)),
    )
    auxiliary = data[11:15].hex(" ")
    return (
        Field("Manufacturer ID", manufacturer, f"{manufacturer}: {manufacturer_name(manufacturer)}"),
        *fields(items, data),
        Field("Device ID", data[0], f"{data[0]:#04x}"),
        Field("Device Revision", data[1] & 0xF),
        Field("Device provides Device SDRs", bool(data[1] & 0x80)),
        Field("Firmware Revision", _firmware(data)),
        *([Field("Auxiliary Firmware Revision Information", auxiliary)] if auxiliary else []),
        Field("IPMI Version", version),
        Field(
            "Device available",
            not updating,
            "device firmware, SDR Repository update or self-initialization in progress"
            if updating
            else "normal device operation",
            updating,
        ),
    )


def _self_test(data: bytes) -> tuple[Part, ...]:
    """Return the answer to Get Self Test Results, table 20-4; FFh is reserved."""
    result, detail = part_of(data, 0, 2, "Get Self Test Results")
    text = _SELF_TESTS.get(result, "reserved" if result == 0xFF else "Device-specific 'internal' failure")
    result_field = Field("Self Test Result", result, text, result not in (0x55, 0x56, 0xFF))
    if result in (0x55, 0x56):
        return (result_field,)
    return (
        result_field,
        Field("Self Test Detail", detail, bits(detail, _INACCESSIBLE) if result == 0x57 else f"{detail:#04x}"),
    )


def _sel_info(data: bytes) -> tuple[Part, ...]:
    """Return the answer to Get SEL Info, table 31-2."""
    part_of(data, 0, 14, "Get SEL Info")
    overflow = bool(data[13] & 0x80)
    items = (
        Item("SEL Version", 0, 1, lambda value: f"{value & 0xF}.{value >> 4:x}"),
        Item("Entries", 1, 2),
        # FFFFh stands for more, too.
        Item("Free Space in bytes", 3, 2, str, lambda value: value < ENTRY),
        Item("Most recent addition timestamp", 5, 4, time_text),
        Item("Most recent erase timestamp", 9, 4, time_text),
        Item("Operation Support", 13, 1, bits_of(_OPERATIONS)),
    )
    return (
        *fields(items, data),
        Field(
            "Overflow Flag",
            overflow,
            "Events have been dropped due to lack of space" if overflow else "",
            overflow,
        ),
    )
