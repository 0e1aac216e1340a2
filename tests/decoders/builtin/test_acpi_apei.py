# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tables that the test builds, judged by iasl; the boot error region is built by ACPI 6.5, 18.3.2.7.1."""

from __future__ import annotations

import functools
import io
import re
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.decoders.builtin.test_cper import IA, MEMORY, PCIE, UNKNOWN, ia, memory, pcie
from tests.decoders.damage import endures
from tests.lib.tools import require
from vmcoredd_daemon.collectors.builtin.archive import Archive
from vmcoredd_daemon.decoders.builtin.acpi_apei import MAX_ERRORS, decode
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Section, Table, Text
from vmcoredd_daemon.errors import InvalidDump

FATAL, CORRECTED = 1, 2


def table(signature: bytes, body: bytes) -> bytes:
    head = struct.pack(
        "<4sIBB6s8sI4sI", signature, 36 + len(body), 1, 0, b"VENDOR", b"MODEL 1 ", 7, b"INTL", 0x20200925
    )
    content = bytearray(head + body)
    content[9] = -sum(content) & 0xFF
    return bytes(content)


def register(space: int = 0, width: int = 64, at: int = 0x7F68B018) -> bytes:
    return struct.pack("<BBBBQ", space, width, 0, 4, at)


def notification(kind: int) -> bytes:
    return struct.pack("<BBHIIIIII", kind, 28, 0x3E, 1000, 33, 4, 5, 6, 7)


def aer(kind: int, source: int) -> bytes:
    common = struct.pack("<HHHBBII", kind, source, 0, 1, 1, 8, 2)
    common += struct.pack("<IHHHHIIII", 0x000105, 0x1C, 5, 0x0F, 0, 0x100000, 0x462030, 0x2000, 0x1E0)
    return common + {6: struct.pack("<I", 7), 7: b"", 8: struct.pack("<III", 1, 2, 3)}[kind]


def generic(kind: int, source: int) -> bytes:
    body = struct.pack("<HHHBBIII", kind, source, 0xFFFF, 0, 1, 9, 3, 0x1000)
    body += register() + notification(11 if kind == 10 else 3) + struct.pack("<I", 0x400)
    return body + (register(at=0x7F68B020) + struct.pack("<QQ", 0xFFFFFFFE, 1) if kind == 10 else b"")


def banks(*numbers: int) -> bytes:
    return b"".join(struct.pack("<BBBBIQIII", n, 0, 1, 0, 0x400, 0xFF, 0x401, 0x402, 0x403) for n in numbers)


SOURCES = (
    struct.pack("<HHHBBIIQQB7x", 0, 0, 0, 1, 1, 1, 1, 0x1000C14, 0xFF, 2) + banks(0, 1),
    struct.pack("<HHHBBII", 1, 1, 0, 0, 1, 1, 1) + notification(5) + struct.pack("<B3x", 1) + banks(4),
    struct.pack("<HHIIII", 2, 2, 0, 1, 1, 0x2000),
    aer(6, 3),
    aer(7, 4),
    aer(8, 5),
    generic(9, 6),
    generic(10, 7),
    struct.pack("<HHHBBII", 11, 8, 0, 4, 1, 1, 1) + notification(6) + struct.pack("<B3x", 0),
)

HEST = table(b"HEST", struct.pack("<I", len(SOURCES)) + b"".join(SOURCES))
BERT = table(b"BERT", struct.pack("<IQ", 0x4000, 0x7F68C000))


def instructions(signature: bytes, actions: range, count: int) -> bytes:
    entries = b"".join(
        struct.pack("<BBBB", action, action % count, action & 1, 0)
        + register(1, 8, 0xB2)
        + struct.pack("<QQ", action, 0xFF)
        for action in actions
    )
    return table(signature, struct.pack("<IB3xI", 48 if signature == b"ERST" else 12, 0, len(actions)) + entries)


ERST = instructions(b"ERST", range(17), 19)
EINJ = instructions(b"EINJ", range(10), 5)


def entry(kind: bytes, severity: int, body: bytes, fru: str = "", revision: int = 0x300, valid: int = 4) -> bytes:
    head = kind + struct.pack("<IHBBI", severity, revision, valid | (3 if fru else 0), 1, len(body))
    head += bytes(range(16)) + struct.pack("<20s", fru.encode())
    # Seconds, minutes, hours, precise, day, month, year, century.
    return head + (bytes.fromhex("59 13 07 01 04 05 26 20") if revision >= 0x300 else b"") + body


def block(*entries: bytes, severity: int = FATAL, raw: bytes = b"") -> bytes:
    data = b"".join(entries)
    status = struct.pack(
        "<IIIII", 1 | len(entries) << 4, 20 + len(data) if raw else 0, len(raw), len(data), severity
    )
    return status + data + raw


REGION = (
    block(entry(PCIE, FATAL, pcie()), entry(MEMORY, CORRECTED, memory(), "DIMM_A1"), raw=b"raw data")
    + block(entry(IA, CORRECTED, ia(), revision=0x201), severity=CORRECTED)
    + bytes(512)
)


def archived(**members: bytes) -> bytes:
    file = io.BytesIO()
    archive = Archive(file)
    for name, content in members.items():
        archive.add(name.replace("__", "/"), len(content), [content])
    archive.finish()
    return file.getvalue()


def samples() -> list[tuple[str, bytes]]:
    return [
        ("acpi_apei", archived(BERT=BERT, EINJ=EINJ, ERST=ERST, HEST=HEST, data__BERT=REGION)),
        ("acpi_apei", archived(BERT=BERT, data__BERT=bytes(0x1000), data__CCEL=b"event log")),
    ]


def decoded(data: bytes) -> Decoded:
    return decode("acpi_apei", io.BytesIO(data))


def fields(section: Section) -> dict[str, Field]:
    return {part.name: part for part in section.parts if isinstance(part, Field)}


def section(of: Decoded, name: str) -> Section:
    return next(section for section in of.sections if section.name == name)


Line = tuple[str, str]


@functools.cache
def disassembled(content: bytes) -> list[Line]:
    """Names and values that iasl prints of a table, in its order."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "table.dat")
        path.write_bytes(content)
        subprocess.run(["iasl", "-d", path], check=True, capture_output=True, timeout=20)
        text = path.with_suffix(".dsl").read_text()
    return re.findall(r"^\[[^]]+\] +(.+?) : (.*)$", text, re.MULTILINE)


HEADER = {
    "Signature": "Signature",
    "Table Length": "Length",
    "Revision": "Revision",
    "Checksum": "Checksum",
    "Oem ID": "OEMID",
    "Oem Table ID": "OEM Table ID",
    "Oem Revision": "OEM Revision",
    "Asl Compiler ID": "Creator ID",
    "Asl Compiler Revision": "Creator Revision",
}
SOURCE = {
    "Subtable Type": "Type",
    "Source Id": "Source Id",
    "Related Source Id": "Related Source Id",
    "Flags (decoded below)": "Flags",
    "Enabled": "Enabled",
    "Records To Preallocate": "Number of Records to Pre-allocate",
    "Max Sections Per Record": "Max Sections Per Record",
    "Max Raw Data Length": "Max Raw Data Length",
    "Global Capability Data": "Global Capability Init Data",
    "Global Control Data": "Global Control Init Data",
    "Num Hardware Banks": "Number Of Hardware Banks",
    "Bus": "Bus",
    "Device": "Device",
    "Function": "Function",
    "DeviceControl": "Device Control",
    "Uncorrectable Mask": "Uncorrectable Error Mask",
    "Uncorrectable Severity": "Uncorrectable Error Severity",
    "Correctable Mask": "Correctable Error Mask",
    "Advanced Capabilities": "Advanced Error Capabilities and Control",
    "Root Error Command": "Root Error Command",
    "2nd Uncorrectable Mask": "Secondary Uncorrectable Error Mask",
    "2nd Uncorrectable Severity": "Secondary Uncorrectable Error Severity",
    "2nd Advanced Capabilities": "Secondary Advanced Error Capabilities and Control",
    "Notify Type": "Notification Type",
    "Configuration Write Enable": "Configuration Write Enable",
    "PollInterval": "Poll Interval",
    "Vector": "Vector",
    "Polling Threshold Value": "Switch To Polling Threshold Value",
    "Polling Threshold Window": "Switch To Polling Threshold Window",
    "Error Threshold Value": "Error Threshold Value",
    "Error Threshold Window": "Error Threshold Window",
    "Error Status Block Length": "Error Status Block Length",
    "Read Ack Preserve": "Read Ack Preserve",
    "Read Ack Write": "Read Ack Write",
}
BANK = {
    "Bank Number": "Bank Number",
    "Clear Status On Init": "Clear Status On Initialization",
    "Control Register": "Control Register MSR Address",
    "Control Data": "Control Init Data",
    "Status Register": "Status Register MSR Address",
    "Address Register": "Address Register MSR Address",
    "Misc Register": "Misc Register MSR Address",
}


def as_iasl(value: object) -> object:
    return value if isinstance(value, str) else f"{value:X}"


def normal(value: str) -> str:
    """Return what iasl prints without quotes, comments and zeros before a number."""
    value = value.partition(" [")[0].strip()
    return value.strip('" ') if value.startswith('"') else value.lstrip("0") or "0"


@pytest.mark.parametrize("content", [BERT, EINJ, ERST, HEST], ids=["BERT", "EINJ", "ERST", "HEST"])
def test_header_is_as_iasl_prints_it(content: bytes) -> None:
    require("iasl")
    name = content[:4].decode()
    ours = fields(section(decoded(archived(**{name: content})), name))
    theirs = dict(disassembled(content)[: len(HEADER)])
    assert {key: normal(value) for key, value in theirs.items()} == {
        key: as_iasl(ours[ours_name].value) for key, ours_name in HEADER.items()
    }
    assert ours["Checksum"].text.endswith("(ok)")


def test_bert_is_as_iasl_prints_it() -> None:
    require("iasl")
    ours = fields(section(decoded(archived(BERT=BERT)), "BERT"))
    theirs = dict(disassembled(BERT))
    assert int(theirs["Boot Error Region Length"], 16) == ours["Boot Error Region Length"].value == 0x4000
    assert int(theirs["Boot Error Region Address"], 16) == ours["Boot Error Region"].value == 0x7F68C000


def test_hest_is_as_iasl_prints_it() -> None:
    require("iasl")
    of = decoded(archived(HEST=HEST))
    sources = [section for section in of.sections if section.name.startswith("HEST source")]
    assert len(sources) == len(SOURCES)
    lines = disassembled(HEST)[len(HEADER) :]
    assert lines[0] == ("Error Source Count", f"{len(SOURCES):08X}")
    starts = [index for index, (name, _) in enumerate(lines) if name == "Subtable Type"]
    compared = 0
    for ours, start, end in zip(sources, starts, [*starts[1:], len(lines)], strict=True):
        theirs = [(name, value) for name, value in lines[start:end] if name in SOURCE]
        # Of its banks, iasl prints fields with other names.
        assert {SOURCE[name]: int(value.partition(" [")[0], 16) for name, value in theirs} == {
            name: field.value for name, field in fields(ours).items() if name in SOURCE.values()
        }
        compared += len(theirs)
        bank_lines = [(BANK[name], int(value, 16)) for name, value in lines[start:end] if name in BANK]
        tables = [part for part in ours.parts if isinstance(part, Table)]
        columns = [
            (column, int(str(value), 0))
            for part in tables
            for row in part.rows
            for column, value in zip(part.columns, row, strict=True)
            if column != "Status Data Format"
        ]
        assert sorted(bank_lines) == sorted(columns)
    assert compared > 100


def test_types_and_notifications_have_names() -> None:
    of = decoded(archived(HEST=HEST))
    assert [fields(section)["Type"].text.partition(", ")[2] for section in of.sections[1:]] == [
        "IA-32 Architecture Machine Check Exception",
        "IA-32 Architecture Corrected Machine Check",
        "IA-32 Architecture Non-Maskable Interrupt",
        "PCI Express Root Port AER",
        "PCI Express Device AER",
        "PCI Express/PCI-X Bridge AER",
        "Generic Hardware Error Source",
        "Generic Hardware Error Source version 2",
        "IA-32 Architecture Deferred Machine Check",
    ]
    source = fields(section(of, "HEST source 7"))
    assert source["Notification Type"].text == "11, Software Delegated Exception"
    assert source["Error Status Address"].text == "System Memory 0x000000007f68b018, 64 bits"
    assert source["Related Source Id"].text == "none"
    root = fields(section(of, "HEST source 3"))
    assert root["Bus"].text == "0001:05"
    assert root["Flags"].text == "0x1: FIRMWARE_FIRST"
    assert root["Correctable Error Mask"].text == "0x2000: Advisory Non-Fatal Error"
    assert of.facts == ("9 error sources",)


# What ACPICA names differently from the specification.
OTHER_NAMES = {
    "BEGIN_DUMMY_WRITE_OPERATION": "BEGIN_DUMMY_WRITE",
    "GET_ERROR_LOG_ADDRESS_RANGE": "GET_ERROR_ADDRESS_RANGE",
    "GET_ERROR_LOG_ADDRESS_RANGE_LENGTH": "GET_ERROR_ADDRESS_LENGTH",
    "GET_ERROR_LOG_ADDRESS_RANGE_ATTRIBUTES": "GET_ERROR_ATTRIBUTES",
    "SKIP_NEXT_INSTRUCTION_IF_TRUE": "SKIP_NEXT_IF_TRUE",
    "SET_SRC_ADDRESS_BASE": "SET_SOURCE_ADDRESS",
    "SET_DST_ADDRESS_BASE": "SET_DESTINATION_ADDRESS",
    "BEGIN_INJECTION_OPERATION": "BEGIN_OPERATION",
    "GET_TRIGGER_ERROR_ACTION_TABLE": "GET_TRIGGER_TABLE",
}
TIMINGS = {"ERST": "EXECUTE_TIMINGS", "EINJ": "GET_EXECUTE_TIMINGS"}


@pytest.mark.parametrize(("name", "content"), [("ERST", ERST), ("EINJ", EINJ)])
def test_instructions_are_as_iasl_prints_them(name: str, content: bytes) -> None:
    require("iasl")
    of = section(decoded(archived(**{name: content})), name)
    rows = next(part for part in of.parts if isinstance(part, Table)).rows
    lines = disassembled(content)

    def values(key: str) -> list[str]:
        return [value for each, value in lines if each == key]

    def names(key: str) -> list[str]:
        return [value.partition("[")[2].strip("]").upper().replace(" ", "_") for value in values(key)]

    others = OTHER_NAMES | {"GET_EXECUTE_OPERATION_TIMINGS": TIMINGS[name]}
    known = [index for index, action in enumerate(names("Action")) if "UNKNOWN" not in action]
    assert len(known) >= 10
    assert [others.get(str(rows[index][0]), rows[index][0]) for index in known] == [
        names("Action")[index] for index in known
    ]
    assert [others.get(str(row[1]), row[1]) for row in rows] == names("Instruction")
    assert [int(str(row[4]), 16) for row in rows] == [int(value, 16) for value in values("Value")]
    assert [int(str(row[5]), 16) for row in rows] == [int(value, 16) for value in values("Mask")]
    assert {row[3] for row in rows} == {"System I/O 0x00000000000000b2, 8 bits"}
    assert [row[2] for row in rows[:2]] == ["0x0", "0x1: PRESERVE_REGISTER"]


def test_boot_errors_are_findings() -> None:
    of = decoded(archived(BERT=BERT, HEST=HEST, data__BERT=REGION))
    assert of.title == "ACPI BERT, HEST of VENDOR MODEL 1"
    assert of.findings == (
        "1 fatal PCIe error of 0000:00:1c.5",
        "1 corrected memory error of DIMM_A1",
        "1 corrected processor error of APIC 0x24",
    )
    assert of.problems == ()
    assert [each.name for each in of.sections if each.name.startswith("data")] == [
        "data/BERT",
        "data/BERT error 1",
        "data/BERT error 2",
        f"data/BERT block {len(REGION) - 512 - len(block(entry(IA, 2, ia(), revision=0x201))):#x}",
        "data/BERT error 3",
    ]
    status = fields(section(of, "data/BERT"))
    assert status["Block Status"].text == "0x1: Uncorrectable Error Valid; Error Data Entry Count 2"
    assert status["Error Severity"].text == "1, Fatal"
    raw = next(part for part in section(of, "data/BERT").parts if isinstance(part, Text))
    assert raw.text.endswith("raw data\n")
    memory_entry = fields(section(of, "data/BERT error 2"))
    assert memory_entry["Section Type"].text == "Platform Memory"
    assert memory_entry["FRU Text"].value == "DIMM_A1"
    assert memory_entry["FRU Id"].private
    assert memory_entry["Timestamp"].text == "2026-05-04 07:13:59"
    assert memory_entry["Revision"].text == "3.0"
    assert memory_entry["Row"].value == 2050
    processor = section(of, "data/BERT error 3")
    assert "Timestamp" not in fields(processor)
    assert any(isinstance(part, Table) for part in processor.parts)


@pytest.mark.parametrize("region", [bytes(4096), b"\xff" * 4096, b""])
def test_no_boot_error(region: bytes) -> None:
    of = decoded(archived(BERT=BERT, data__BERT=region))
    assert (of.findings, of.facts, of.problems) == ((), ("no boot error",), ())


def test_region_that_is_cut_off() -> None:
    of = decoded(archived(data__BERT=REGION[:200]))
    assert of.title == "ACPI error data"
    assert of.findings == ("1 fatal PCIe error of 0000:00:1c.5",)
    assert len(of.problems) == 2
    assert of.problems[0].startswith("data/BERT: ")
    assert of.problems[1] == "data/BERT error 1: 100 bytes are missing at its end"


def test_many_boot_errors_are_bounded() -> None:
    of = decoded(archived(data__BERT=block(*[entry(UNKNOWN, FATAL, b"")] * 1000)))
    assert of.findings == (f"{MAX_ERRORS} fatal unknown errors",)
    blocks = decoded(archived(data__BERT=block() * 10000))
    assert len(blocks.sections) == 64


def test_wrong_checksum_and_length_are_said() -> None:
    damaged = bytearray(BERT)
    damaged[-1] ^= 1
    of = decoded(archived(BERT=bytes(damaged)))
    assert of.findings == ("BERT has a wrong checksum",)
    assert fields(of.sections[0])["Checksum"].wrong
    of = decoded(archived(ERST=ERST[:-40]))
    assert "ERST: has 552 bytes, its Length says 592" in of.problems
    assert "ERST: only 15 of its 17 instructions are decoded" in of.problems


def test_source_of_unknown_type_ends_the_list() -> None:
    content = table(b"HEST", struct.pack("<I", 2) + SOURCES[2] + struct.pack("<HH", 77, 1) + bytes(40))
    of = decoded(archived(HEST=content))
    assert of.facts == ("1 error source",)
    assert of.problems == ("HEST: byte 60: an error source of unknown type 77, and thus of unknown size",)


def test_other_data_are_shown() -> None:
    of = decoded(archived(data__CCEL=b"event log"))
    assert of.sections == (
        Section("data/CCEL", (Text("Content", "00000000: 6576 656e 7420 6c6f 67                   event log\n"),)),
    )


def test_no_archive() -> None:
    with pytest.raises(InvalidDump):
        decoded(HEST)


def test_damaged_tables_are_endured() -> None:
    endures(decode, samples(), cuts=150, flips=80)
