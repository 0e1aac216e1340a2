# SPDX-License-Identifier: LGPL-2.1-or-later
"""SEL and SDR as ipmitool reads the same files, and by the specification; tests/kdump has an emulated BMC."""

import calendar
import difflib
import io
import json
import random
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.decoders.builtin.sensor_records import (
    BCD_PLUS,
    SIX_BITS,
    compact_sensor,
    event,
    event_only_sensor,
    full_sensor,
    locator,
    record,
    string,
)
from tests.lib.tools import require
from vmcoredd_daemon.collectors.builtin.archive import Archive
from vmcoredd_daemon.decoders.builtin.ipmi import decode
from vmcoredd_daemon.decoders.builtin.ipmi_events import (
    GENERIC_EVENTS,
    SENSOR_SPECIFIC,
    SENSOR_TYPES,
    SPECIFIC_EVENTS,
)
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Table, pack, to_json, unpack
from vmcoredd_daemon.errors import InvalidDump

NAME = "ipmi0"
DEVICE_ID = bytes.fromhex("20 81 02 39 02 bf a2 02 00 00 01 00 12 34 56")
NOON = calendar.timegm((2026, 11, 30, 12, 0, 0))

SDR = b"".join(
    (
        full_sensor(1, 0x30, 0x01, string("CPU1 Temp"), thresholds=(100, 95, 90, 0, 0, 5), readable=0b111001),
        # 0.058 V for each step.
        full_sensor(
            2, 0x31, 0x02, string("+12V"), units=(0, 4, 0), m=58, r_exponent=-3, thresholds=(0, 230, 0, 0, 180, 0)
        ),
        compact_sensor(3, 0x71, 0x0C, string("DIMM_A1"), entity=(0x20, 1)),
        compact_sensor(4, 0x80, 0x08, string("PS"), sharing=0x02, modifier=0x81, entity=(0x0A, 1)),
        event_only_sensor(5, 0x90, 0x13, string("PCIe Slot "), sharing=0x13, modifier=0x19),
        locator(6, 0x12, bytes([0x20, 0, 0, 0xBF, 0, 0, 0]), (7, 1), string("BMC")),
        locator(7, 0x11, bytes([0x20, 0, 0x80, 0, 0, 0x10, 0]), (0x0A, 1), string("PSU FRU")),
        record(8, 0xC0, bytes.fromhex("a20200 01020304")),
    )
)

EVENTS = (
    event(0x01, 0x2F3, 0x10, 0x01, bytes.fromhex("02 ff ff")),
    event(0x02, NOON, 0x01, 0x30, bytes([0x59, 96, 95]), event_type=0x01),
    event(0x03, NOON + 1, 0x01, 0x30, bytes([0x59, 94, 95]), event_type=0x01, deasserted=True),
    event(0x04, NOON + 2, 0x0C, 0x71, bytes.fromhex("a1 ff ff")),
    event(0x05, NOON + 3, 0x0C, 0x71, bytes.fromhex("a1 ff ff")),
    event(0x06, NOON + 4, 0x0C, 0x71, bytes.fromhex("a1 ff ff")),
    event(0x07, NOON + 5, 0x08, 0x81, bytes.fromhex("01 ff ff")),
    event(0x08, NOON + 6, 0x13, 0x92, bytes.fromhex("05 ff ff")),
    event(0x09, NOON + 7, 0x07, 0x55, bytes.fromhex("00 ff ff"), generator=(0x33, 0)),
    event(0x0A, NOON + 8, 0x23, 0x03, bytes.fromhex("c1 24 ff")),
    bytes.fromhex("0b 00 c1") + (NOON + 9).to_bytes(4, "little") + bytes.fromhex("57 01 00 11 22 33 44 55 66"),
    event(0x0C, NOON + 10, 0x20, ord("F"), b"\xa1at", generator=(0x41, 0)),
    b"\x0d\x00\xf0\x20\x00Fatal excep",
    b"\x0e\x00\xf0\x20\x01tion in int",
    b"\x0f\x00\xf0\x20\x02errupt\0\0\0\0\0",
    bytes.fromhex("10 00 e1") + bytes(range(13)),
)


def archive(members: dict[str, bytes]) -> bytes:
    dump = io.BytesIO()
    writer = Archive(dump)
    for name, content in members.items():
        writer.add(name, len(content), [content])
    writer.finish()
    return dump.getvalue()


def sel_info(entries: int, *, free: int = 1024, support: int = 0x02) -> bytes:
    values = b"\x51" + entries.to_bytes(2, "little") + free.to_bytes(2, "little")
    return values + NOON.to_bytes(4, "little") + bytes(4) + bytes([support])


SAMPLE = {
    "device_id": DEVICE_ID,
    "sel_info": sel_info(len(EVENTS)),
    "sel": b"".join(EVENTS),
    "self_test": b"\x55\x00",
    "sdr": SDR,
}


def samples() -> list[tuple[str, bytes]]:
    """Device dumps for the campaign."""
    return [(NAME, archive(SAMPLE)), (NAME, archive({"sel": SAMPLE["sel"]}))]


def decoded(members: dict[str, bytes]) -> Decoded:
    return decode(NAME, io.BytesIO(archive(members)))


def table(made: Decoded, member: str, name: str) -> list[dict[str, object]]:
    (section,) = (section for section in made.sections if section.name == member)
    (found,) = (part for part in section.parts if isinstance(part, Table) and part.name == name)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def entries(made: Decoded) -> list[dict[str, object]]:
    return table(made, "sel", "System Event Log")


def sensors(sdr: bytes) -> list[dict[str, object]]:
    return table(decoded({"sdr": sdr}), "sdr", "Sensors")


def fields(made: Decoded, member: str) -> dict[str, Field]:
    (section,) = (section for section in made.sections if section.name == member)
    return {part.name: part for part in section.parts if isinstance(part, Field)}


def row(entry: bytes, sdr: bytes = SDR) -> dict[str, object]:
    (only,) = entries(decoded({"sel": entry, "sdr": sdr}))
    return only


def ipmitool(directory: Path, sel: bytes, sdr: bytes) -> dict[int, list[str]]:
    """Return what ipmitool prints of each entry, by its ID. It needs no BMC, but asks for one, in vain."""
    require("ipmitool")
    (directory / "sel").write_bytes(sel)
    (directory / "sdr").write_bytes(sdr)
    command = ["ipmitool", "-I", "serial-terminal", "-D", "/dev/null:9600", "-S", "sdr", "sel", "ereadraw", "sel"]
    run = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, errors="replace", check=False, timeout=10
    )
    lines = ([word.strip() for word in line.split("|")] for line in run.stdout.splitlines())
    return {int(words[0], 16): words[1:] for words in lines if re.fullmatch("[0-9a-f]+", words[0])}


# --- As ipmitool reads it.


def test_log_is_that_of_ipmitool(tmp_path: Path) -> None:
    theirs = ipmitool(tmp_path, SAMPLE["sel"], SDR)
    ours = {int(str(entry["ID"]), 16): entry for entry in entries(decoded(SAMPLE))}
    assert ours.keys() == theirs.keys() == set(range(1, 17))
    for number in (2, 3, 4, 5, 6, 8):
        day, clock, sensor, _, direction = theirs[number][:5]
        entry = ours[number]
        assert entry["TIME"] == _time(f"{day} {clock}")
        # It has no names for sensors that share a record.
        if number != 8:
            assert sensor == f"{entry['TYPE']} {entry['SENSOR']}"
        assert direction == str(entry["DIRECTION"]).title()
    assert theirs[2][5] == "Reading 96 > Threshold 95 degrees C"
    assert ours[2]["DETAILS"] == "reading 96 degrees C, threshold 95 degrees C"
    assert theirs[1][:2] == ["Pre-Init", f"{0x2F3:010}"]
    assert ours[1]["TIME"] == "pre-init 755 s"
    assert theirs[11][2:] == ["OEM record c1", "570100", "112233445566"]
    assert (ours[11]["TYPE"], ours[11]["GENERATOR"]) == ("OEM record 0xc1", "Intel")
    assert ours[11]["DATA"] == "11 22 33 44 55 66"
    assert theirs[13] == ["Linux kernel panic: Fatal excep"]
    assert ours[13]["EVENT"] == "Linux panic: Fatal excep"
    assert theirs[16] == ["OEM record e1", bytes(range(13)).hex()]
    assert (ours[16]["TYPE"], ours[16]["DATA"]) == ("OEM record 0xe1", bytes(range(13)).hex(" "))


def _time(text: str) -> str:
    """Return ipmitool's time as ours."""
    seconds = calendar.timegm(time.strptime(text, "%m/%d/%y %H:%M:%S UTC"))
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


# Those of later errata, those that need Event Data 2 there, and those that it calls reserved.
UNKNOWN_TO_IPMITOOL = {(0x10, 6), (0x2A, 0), (0x2A, 1), (0x2A, 2), (0x2A, 3), (0x2B, 1), (0x2B, 7)}
RESERVED = {(0x23, 4), (0x23, 5), (0x23, 6), (0x23, 7)}
# ipmitool's words for these resemble another state's: "System unplugged from LAN", "Throttled", "AC lost".
OTHER_WORDS = {(0x05, 4), (0x07, 10), (0x09, 4), (0x0C, 9), (0x21, 2), (0x22, 6), (0x29, 0), (0x2B, 6)}


def test_events_are_those_of_ipmitool(tmp_path: Path) -> None:
    types = [(kind, 1) for kind in GENERIC_EVENTS] + [(SENSOR_SPECIFIC, kind) for kind in range(1, 0x2D)]
    states = [(*each, offset) for each in types for offset in range(16)]
    made = (
        event(number, NOON, sensor_type, 0x55, bytes([offset, 0xFF, 0xFF]), event_type=event_type)
        for number, (event_type, sensor_type, offset) in enumerate(states, 1)
    )
    printed = ipmitool(tmp_path, b"".join(made), b"")
    theirs = {state: printed[number][3] for number, state in enumerate(states, 1)}
    ours = {state: _name(*state) for state in states}
    for state in states:
        if state[1:] not in UNKNOWN_TO_IPMITOOL | RESERVED:
            assert bool(ours[state]) == bool(theirs[state]), (state, ours[state], theirs[state])
    # The words differ, but among all states of a type, ours is most like the same one there: none is shifted.
    compared = [state for state in states if ours[state] and theirs[state]]
    assert len(compared) > 190
    for state in compared:
        same_type = [theirs[other] for other in compared if other[:2] == state[:2]]
        best = max(same_type, key=lambda text: _likeness(ours[state], text))
        assert best == theirs[state] or state[1:] in OTHER_WORDS, (state, ours[state], best)


def _name(event_type: int, sensor_type: int, offset: int) -> str:
    names = SPECIFIC_EVENTS.get(sensor_type, {}) if event_type == SENSOR_SPECIFIC else GENERIC_EVENTS[event_type]
    return names.get(offset, "")


def _likeness(ours: str, theirs: str) -> float:
    return difflib.SequenceMatcher(None, ours.lower(), theirs.lower()).ratio()


def test_sensor_types_are_those_of_ipmitool(tmp_path: Path) -> None:
    sel = b"".join(event(kind, NOON, kind, 0, b"\x01\xff\xff") for kind in range(1, 0x2D))
    theirs = {kind: words[2] for kind, words in ipmitool(tmp_path, sel, b"").items()}
    assert theirs.keys() == SENSOR_TYPES.keys()
    different = {
        kind
        for kind, name in SENSOR_TYPES.items()
        if max(theirs, key=lambda other: _likeness(name, theirs[other])) != kind
    }
    # "Other", and "OS Boot", which is like "Boot Error".
    assert different <= {0x0B, 0x1F}


def test_readings_are_those_of_ipmitool(tmp_path: Path) -> None:
    # Every linearization and data format, with random factors.
    source = random.Random(2)
    sdr, sel = [], []
    for number in range(1, 200):
        factors: dict[str, Any] = {
            "units": ((number % 3) << 6, number % 93, 0),
            "linearization": number % 12,
            "m": source.randrange(-512, 512),
            "b": source.randrange(-512, 512),
            "b_exponent": source.randrange(-2, 3),
            "r_exponent": source.randrange(-4, 1),
        }
        sdr.append(full_sensor(number, number, 0x0B, string(f"sensor {number}"), **factors))
        data = bytes([0x50, source.randrange(256), source.randrange(256)])
        sel.append(event(number, NOON, 0x0B, number, data, event_type=0x01))
    theirs = ipmitool(tmp_path, b"".join(sel), b"".join(sdr))
    compared = 0
    for entry in entries(decoded({"sel": b"".join(sel), "sdr": b"".join(sdr)})):
        words = theirs[int(str(entry["ID"]), 16)]
        found = re.fullmatch(r"Reading (\S+) < Threshold (\S+) (.*)", words[5])
        assert found is not None, words
        ours = re.fullmatch(
            r"reading (-?[0-9.e+-]+)(?: (.*))?, threshold (-?[0-9.e+-]+)(?: (.*))?", str(entry["DETAILS"])
        )
        if ours is None:
            # A logarithm of a negative number, or more than a float holds.
            assert re.search("nan|inf|[0-9]{7}", words[5]), (words, entry)
            continue
        for text, value in ((ours[1], found[1]), (ours[3], found[2])):
            # It has floats of 32 bits.
            if abs(float(text)) > 3e38:
                assert value.endswith("inf")
                continue
            assert float(text) == pytest.approx(float(value), rel=1e-4, abs=0.006), (entry, words)
        if len(found[3]) > 1 and found[3] not in ("unspecified", "overflow", "color temp deg K"):
            assert ours[4] == found[3]
        compared += 1
    assert compared > 130


# --- By the specification.


def test_one_line() -> None:
    made = decoded(SAMPLE)
    assert made.title == "Dell BMC, product 0x0100, firmware 2.39"
    assert made.findings == (
        "1 processor IERR of sensor 0x55",
        "3 uncorrectable ECC errors of DIMM_A1",
        "1 PCI SERR of PCIe Slot AB",
        "1 power supply failure of PS2",
        "1 run-time critical stop of Linux",
        "1 watchdog hard reset of sensor 0x03",
        "1 upper critical threshold crossing of CPU1 Temp",
    )
    assert made.facts == ("16 SEL entries, the last 2026-11-30 12:00:10", "panic: Fatal exception in interrupt")
    assert made.problems == ()


def test_device_id() -> None:
    found = fields(decoded(SAMPLE), "device_id")
    assert {name: (field.value, field.text) for name, field in found.items()} == {
        "Manufacturer ID": (674, "674: Dell"),
        "Product ID": (256, "0x0100"),
        "Additional Device Support": (
            0xBF,
            "0xbf: Sensor Device, SDR Repository Device, SEL Device, FRU Inventory Device, IPMB Event Receiver, "
            "IPMB Event Generator, Chassis Device",
        ),
        "Device ID": (0x20, "0x20"),
        "Device Revision": (1, ""),
        "Device provides Device SDRs": (True, ""),
        "Firmware Revision": ("2.39", ""),
        "Auxiliary Firmware Revision Information": ("00 12 34 56", ""),
        "IPMI Version": ("2.0", ""),
        "Device available": (True, "normal device operation"),
    }
    assert not any(field.wrong for field in found.values())


def test_bmc_that_was_being_updated() -> None:
    made = decoded({"device_id": DEVICE_ID[:2] + b"\x82\x39\x51" + DEVICE_ID[5:6] + bytes(3) + DEVICE_ID[9:11]})
    assert (made.title, made.findings) == (
        "BMC, product 0x0100, firmware 2.39",
        ("BMC was not in normal operation",),
    )
    found = fields(made, "device_id")
    assert (found["Device available"].value, found["Device available"].wrong) == (False, True)
    assert found["IPMI Version"].value == "1.5"
    assert decoded({"device_id": DEVICE_ID[:6] + b"\x12\xd4\x0f" + DEVICE_ID[9:]}).title.startswith(
        "manufacturer 1037330 "
    )


@pytest.mark.parametrize(
    ("answer", "text", "detail", "findings"),
    [
        ("55 00", "No error", None, 0),
        ("56 00", "Self Test function not implemented in this controller", None, 0),
        (
            "57 c1",
            "Corrupted or inaccessible data or devices",
            "0xc1: controller operational firmware corrupted, Cannot access SDR Repository, "
            "Cannot access SEL device",
            1,
        ),
        ("58 07", "Fatal hardware error", "0x07", 1),
        ("ff ff", "reserved", "0xff", 0),
        ("59 01", "Device-specific 'internal' failure", "0x01", 1),
    ],
)
def test_self_test(answer: str, text: str, detail: str | None, findings: int) -> None:
    made = decoded({**SAMPLE, "sel": b"", "self_test": bytes.fromhex(answer)})
    found = fields(made, "self_test")
    assert found["Self Test Result"].text == text
    assert (found["Self Test Detail"].text if "Self Test Detail" in found else None) == detail
    assert made.findings == ("BMC self-test failed",) * findings


def test_sel_info() -> None:
    found = fields(decoded(SAMPLE), "sel_info")
    assert {name: (field.value, field.text) for name, field in found.items()} == {
        "SEL Version": (0x51, "1.5"),
        "Entries": (16, "16"),
        "Free Space in bytes": (1024, "1024"),
        "Most recent addition timestamp": (NOON, "2026-11-30 12:00:00"),
        "Most recent erase timestamp": (0, "pre-init 0 s"),
        "Operation Support": (2, "0x2: Reserve SEL"),
        "Overflow Flag": (False, ""),
    }


def test_log_that_is_full() -> None:
    made = decoded({"sel_info": sel_info(512, free=15, support=0x82)})
    assert made.findings == ("SEL overflow, later events are lost", "SEL is full")
    assert fields(made, "sel_info")["Overflow Flag"].wrong


def test_empty_log() -> None:
    made = decoded({**SAMPLE, "sel": b""})
    assert (made.findings, made.facts, made.problems) == ((), ("0 SEL entries",), ())


def test_entry() -> None:
    assert row(EVENTS[1]) == {
        "ID": "0x0002",
        "TIME": "2026-11-30 12:00:00",
        "TYPE": "Temperature",
        "SENSOR": "CPU1 Temp",
        "EVENT": "Upper Critical - going high",
        "DIRECTION": "asserted",
        "DETAILS": "reading 96 degrees C, threshold 95 degrees C",
        "GENERATOR": "BMC",
        "DATA": "59 60 5f",
    }


@pytest.mark.parametrize(
    ("sensor_type", "data", "expected"),
    [
        (0x0F, "c0 02 ff", "Error: No usable system memory"),
        (0x0F, "c2 13 ff", "Progress: Starting operating system boot process"),
        (0x0F, "c2 99 ff", "Progress: unknown 0x99"),
        # OEM codes, and what is unspecified.
        (0x0F, "82 13 ff", ""),
        (0x0F, "c2 ff ff", ""),
        (0x08, "36 ff 03", "Error Type: Power Supply rating mismatch"),
        (0x0C, "31 ff 05", "Memory module/device 5"),
        (0x12, "c4 21 ff", "actions 0x21: Alert, Diagnostic Interrupt (NMI)"),
        (0x12, "c5 80 ff", "event: second of pair, Timestamp Clock Type: SEL Timestamp Clock updated"),
        (0x1D, "f7 04 0f", "restart cause: Watchdog expiration, Channel number 15"),
        (0x21, "f0 09 03", "Slot/Connector Type: PCI Express, Slot/Connector Number 3"),
        (0x23, "c1 24 ff", "interrupt type: NMI, timer use at expiration: SMS/OS"),
        (0x2A, "f1 02 21", "User ID 2, Deactivation cause: timeout, Channel number 1"),
        (0x2B, "c7 09 ff", "Version change type: system firmware (EFI / BIOS) change"),
        (
            0x2C,
            "c7 73 ff",
            "Cause of state change: State Change due to unexpected extraction, Previous state offset 3",
        ),
        # The state before, and the severity.
        (0x08, "41 f0 ff", "before: Presence detected"),
        (0x08, "41 2f ff", "severity: transition to Critical from less severe"),
    ],
)
def test_event_data(sensor_type: int, data: str, expected: str) -> None:
    assert row(event(1, NOON, sensor_type, 0x55, bytes.fromhex(data)))["DETAILS"] == expected


@pytest.mark.parametrize(
    ("event_type", "sensor_type", "data", "expected"),
    [
        (0x0B, 0x08, "01 ff ff", "Redundancy Lost"),
        (0x70, 0x01, "03 ff ff", "OEM event type 0x70, offset 3"),
        (0x6F, 0xC5, "03 ff ff", "offset 3"),
        (0x6F, 0x0C, "0f ff ff", "offset 15"),
        (0x15, 0x01, "02 ff ff", "event type 0x15, offset 2"),
    ],
)
def test_event_names(event_type: int, sensor_type: int, data: str, expected: str) -> None:
    found = row(event(1, NOON, sensor_type, 0x55, bytes.fromhex(data), event_type=event_type))
    assert (found["EVENT"], found["SENSOR"]) == (expected, "#0x55")


@pytest.mark.parametrize(
    ("generator", "expected"),
    [
        ((0x20, 0), "BMC"),
        ((0x2C, 0x62), "0x2c, channel 6, LUN 2"),
        ((0x01, 0), "BIOS (0x00)"),
        ((0x33, 0), "SMI Handler (0x19)"),
        ((0x41, 0), "System Management Software (0x20)"),
        ((0x61, 0), "OEM (0x30)"),
        ((0x81, 0), "Remote Console software (0x40)"),
        ((0xFF, 0), "software (0x7f)"),
    ],
)
def test_generator(generator: tuple[int, int], expected: str) -> None:
    assert row(event(1, NOON, 0x0C, 0x71, b"\x01\xff\xff", generator=generator))["GENERATOR"] == expected


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (0, "pre-init 0 s"),
        (0x20000000, "pre-init 536870912 s"),
        (0x20000001, "1987-01-05 18:48:33"),
        (0xFFFFFFFE, "2106-02-07 06:28:14"),
        (0xFFFFFFFF, "unspecified"),
    ],
)
def test_times(timestamp: int, expected: str) -> None:
    assert row(event(1, timestamp, 0x0C, 0x71, b"\x01\xff\xff"))["TIME"] == expected


def test_events_are_of_the_sensor_with_their_owner_lun_number_and_type() -> None:
    sdr = b"".join(
        (
            compact_sensor(1, 0x71, 0x0C, string("first")),
            compact_sensor(2, 0x71, 0x0C, string("LUN"), lun=1),
            compact_sensor(3, 0x71, 0x0C, string("other"), owner=0x2C),
            compact_sensor(4, 0x71, 0x0C, string("second")),
            event_only_sensor(5, 0x71, 0x0C, string("BIOS"), owner=0x01),
        )
    )

    def name(generator: tuple[int, int], sensor_type: int = 0x0C) -> object:
        return row(event(1, NOON, sensor_type, 0x71, b"\x01\xff\xff", generator=generator), sdr)["SENSOR"]

    assert (name((0x20, 0)), name((0x20, 1)), name((0x2C, 0)), name((0x01, 0))) == (
        "first",
        "LUN",
        "other",
        "BIOS",
    )
    assert (name((0x20, 2)), name((0x20, 0), 0x08)) == ("#0x71", "#0x71")


def test_sensors() -> None:
    found = sensors(SDR)
    names = ["CPU1 Temp", "+12V", "DIMM_A1", "PS1", "PS2", "PCIe Slot Z", "PCIe Slot AA", "PCIe Slot AB"]
    assert [sensor["SENSOR"] for sensor in found] == names
    assert found[0] == {
        "SENSOR": "CPU1 Temp",
        "TYPE": "Temperature",
        "STATES": "threshold",
        "ENTITY": "processor 1",
        "OWNER": "0x20",
        "NUMBER": "0x30",
        "LNR": None,
        "LC": None,
        "LNC": 5.0,
        "UNC": 90.0,
        "UC": 95.0,
        "UNR": 100.0,
        "UNIT": "degrees C",
    }
    # 230 and 180 steps of 58 mV.
    assert (found[1]["UC"], found[1]["LC"], found[1]["UNIT"]) == (13.34, 10.44, "Volts")
    assert [(sensor["NUMBER"], sensor["ENTITY"]) for sensor in found[3:5]] == [
        ("0x80", "power supply 1"),
        ("0x81", "power supply 2"),
    ]
    assert table(decoded(SAMPLE), "sdr", "Devices") == [
        {
            "DEVICE": "BMC",
            "RECORD TYPE": "Management Controller Device Locator",
            "ENTITY": "system board 1",
            "ADDRESS": "0x20",
        },
        {"DEVICE": "PSU FRU", "RECORD TYPE": "FRU Device Locator", "ENTITY": "power supply 1", "ADDRESS": "0x20"},
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (string("Temp \xb5\0\0"), "Temp \xb5"),
        # "IPMI", the example of 43.15: 29h DCh A6h are I, P, M, I.
        (bytes([SIX_BITS | 4]) + bytes.fromhex("29 dc a6"), "IPMI"),
        (bytes([SIX_BITS | 3]) + bytes.fromhex("29 dc a6"), "IPM"),
        # Digits from the low half on: 1, 2, -, 3, ., space, colon, comma, underline.
        (bytes([BCD_PLUS | 9]) + bytes.fromhex("21 3b ac ed 0f"), "12-3. :,_"),
        (bytes([SIX_BITS | 31]) + bytes.fromhex("29 dc"), "IP"),
        (bytes([0xC0 | 31]) + b"short", "short"),
        (string("\x1b[31m<b>\x9b"), "\\x1b[31m<b>\\x9b"),
        (b"\xc0", ""),
        (b"", ""),
    ],
)
def test_names(name: bytes, expected: str) -> None:
    assert [sensor["SENSOR"] for sensor in sensors(compact_sensor(1, 0x71, 0x0C, name))] == [expected]


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ((0x00, 18, 0), "RPM"),
        ((0x01, 0, 0), "%"),
        ((0x02, 32, 22), "mm/second"),
        ((0x04, 4, 5), "Volts*Amps"),
        ((0x18, 83, 0), "underrun per second"),
        ((0xC0, 1, 0), ""),
        ((0x00, 200, 0), "unknown 0xc8"),
    ],
)
def test_units(units: tuple[int, int, int], expected: str) -> None:
    assert sensors(full_sensor(1, 0x30, 0x0B, string("x"), units=units))[0]["UNIT"] == expected


def test_reading_of_a_sensor_without_factors() -> None:
    # Non-linear; and a compact record.
    for sdr in (
        full_sensor(1, 0x30, 0x01, string("x"), linearization=0x70),
        compact_sensor(1, 0x30, 0x01, string("x")),
    ):
        found = row(event(1, NOON, 0x01, 0x30, bytes([0x59, 96, 95]), event_type=0x01), sdr)
        assert found["DETAILS"] == "reading raw 0x60, threshold raw 0x5f"


def test_critical_events_are_counted_and_bounded() -> None:
    sel = [event(number, NOON, 0x0C, number, b"\x01\xff\xff") for number in range(1, 12)]
    sel += [event(12, NOON, 0x0C, 5, b"\x01\xff\xff"), event(13, NOON, 0x0C, 6, b"\x81\xff\xff", deasserted=True)]
    sel += [event(14, NOON, 0x0C, 1, b"\x31\xff\x02"), event(15, NOON, 0x0C, 1, b"\x31\xff\x02")]
    findings = decoded({"sel": b"".join(sel)}).findings
    assert findings[:3] == (
        "2 uncorrectable ECC errors of sensor 0x01 module 2",
        "2 uncorrectable ECC errors of sensor 0x05",
        "1 uncorrectable ECC error of sensor 0x01",
    )
    assert (len(findings), findings[8]) == (9, "4 other critical events")


# --- What is not as it should be.


def test_entries_that_could_not_be_read() -> None:
    made = decoded({"sel": EVENTS[3] + bytes(16) + b"\xff" * 16 + EVENTS[4] + b"\1\2"})
    assert [entry["ID"] for entry in entries(made)] == ["0x0004", "0x0005"]
    assert made.problems == ("sel: the last 2 bytes are no entry", "sel: 2 entries are missing")


def test_log_of_more_than_is_decoded() -> None:
    sel = b"".join(event(number, NOON + number, 0x0C, 0x71, b"\x00\xff\xff") for number in range(1, 5001))
    made = decoded({"sel": sel})
    found = entries(made)
    assert (len(found), found[-1]["ID"]) == (4096, "0x1388")
    assert made.problems == ("sel: only the newest 4096 of 5000 entries are decoded",)


def test_records_of_more_than_is_decoded() -> None:
    sdr = b"".join(compact_sensor(number, 0x71, 0x0C, string("x"), sharing=0x0F) for number in range(1, 400))
    made = decoded({"sdr": sdr})
    assert len(table(made, "sdr", "Sensors")) == 4096
    assert made.problems == ("sdr: only the first 4096 sensors are decoded",)


def test_record_that_is_broken_costs_itself() -> None:
    sdr = record(1, 0x01, bytes(20)) + record(2, 0x12, bytes(3)) + compact_sensor(3, 0x71, 0x0C, string("DIMM"))
    made = decoded({"sdr": sdr})
    assert [sensor["SENSOR"] for sensor in table(made, "sdr", "Sensors")] == ["DIMM"]
    assert made.problems == (
        "sdr: record 0x0001: 20 bytes are too few for type 0x01",
        "sdr: record 0x0002: 3 bytes are too few for type 0x12",
    )


def test_records_of_another_version_and_padding() -> None:
    made = decoded({"sdr": SDR + b"\x09\x00\x77\x01\x05hello"})
    assert len(table(made, "sdr", "Sensors")) == 8
    assert made.problems == ("sdr: record 0x0009: SDR Version 0x77 is unknown, the rest is left out",)
    assert decoded({"sdr": SDR + bytes(300)}).problems == ()
    assert decoded({"sdr": SDR + b"abc"}).problems == ("sdr: the last 3 bytes are no record",)


def test_answers_that_are_too_short() -> None:
    made = decoded({**SAMPLE, "device_id": DEVICE_ID[:10], "sel_info": b"\x51", "self_test": b"\x55"})
    assert made.title == "BMC"
    assert [section.name for section in made.sections] == ["sel", "sdr"]
    assert [problem.partition(":")[0] for problem in made.problems] == ["device_id", "self_test", "sel_info"]


def test_no_archive_and_another_one() -> None:
    for data in (b"", b"x" * 1000, archive({"other": b"1"})):
        with pytest.raises(InvalidDump):
            decode(NAME, io.BytesIO(data))


def test_panic_text_that_is_another_vendors() -> None:
    for content in (b"\x20\x00\x1b[31m\x1b[0m..", b"\x20\x00ab\0cdefghij", b"\x20\x00\xff" + bytes(10)):
        entry = b"\x01\x00\xf0" + content.ljust(13, b"\0")[:13]
        made = decoded({"sel": entry})
        assert (entries(made)[0]["EVENT"], made.facts) == ("", ("1 SEL entry",))


def test_panics_are_apart() -> None:
    def part(number: int, text: bytes) -> bytes:
        return b"\x01\x00\xf0\x20" + bytes([number]) + text.ljust(11, b"\0")

    first = part(0, b"first panic") + part(1, b", more")
    second = part(0, b"second <b>!")
    assert decoded({"sel": first}).facts[-1] == "panic: first panic, more"
    assert decoded({"sel": first + second}).facts[-1] == "panic: second <b>!"
    long = b"".join(part(number, b"0123456789a") for number in range(20))
    assert decoded({"sel": long}).facts[-1] == "panic: " + ("0123456789a" * 20)[:80]


def _survives(data: bytes) -> None:
    try:
        made = decode(NAME, io.BytesIO(data))
    except InvalidDump:
        return
    assert unpack(json.loads(json.dumps(pack(made)))) == made
    text = json.dumps(to_json(made), ensure_ascii=False, allow_nan=False)
    assert text.isprintable()


def test_truncated_archives() -> None:
    whole = archive(SAMPLE)
    for size in range(0, len(whole), 37):
        _survives(whole[:size])


@pytest.mark.parametrize("member", list(SAMPLE))
def test_truncated_members(member: str) -> None:
    others = {"sel": EVENTS[1] + EVENTS[7]} if member == "sdr" else {}
    for size in range(len(SAMPLE[member])):
        _survives(archive({**others, member: SAMPLE[member][:size]}))


def test_flipped_bits() -> None:
    source = random.Random(1)
    for _ in range(300):
        damaged = dict(SAMPLE)
        for _ in range(source.randrange(1, 6)):
            member = source.choice(["device_id", "sel_info", "sel", "sdr", "sdr", "self_test"])
            content = bytearray(damaged[member])
            content[source.randrange(len(content))] ^= 1 << source.randrange(8)
            damaged[member] = bytes(content)
        _survives(archive(damaged))


def test_random_bytes() -> None:
    source = random.Random(3)
    for _ in range(50):
        _survives(archive({name: source.randbytes(source.randrange(400)) for name in SAMPLE}))
    _survives(archive(dict.fromkeys(SAMPLE, b"\xff" * 512)))
    _survives(archive(dict.fromkeys(SAMPLE, bytes(512))))
