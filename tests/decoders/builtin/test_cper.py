# SPDX-License-Identifier: LGPL-2.1-or-later
"""Error records built here by the layouts of UEFI 2.10, appendix N; what Linux prints for the same is quoted."""

from __future__ import annotations

import io
import struct
from uuid import UUID

import pytest

from tests.decoders.damage import endures
from vmcoredd_daemon.decoders.builtin.cper import MAX_SECTIONS, Error, decode, decode_error, findings
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Table, Text
from vmcoredd_daemon.errors import InvalidDump

GENERIC = UUID("9876ccad-47b4-4bdb-b65e-16f193c4f3db").bytes_le
IA = UUID("dc3ea0b0-a144-4797-b95b-53fa242b6e1d").bytes_le
ARM = UUID("e19e3d16-bc11-11e4-9caa-c2051d5d46b0").bytes_le
MEMORY = UUID("a5bc1114-6f64-4ede-b863-3e83ed7c83b1").bytes_le
MEMORY_2 = UUID("61ec04fc-48e6-d813-25c9-8daa44750b12").bytes_le
# Written out once, so that the order of bytes is not only that of a library.
PCIE = bytes.fromhex("54e995d9 c1bb 0f43 ad91 b44dcb3c6f35")
PCI_BUS = UUID("c5753963-3b84-4095-bf78-eddad3f9c9dd").bytes_le
PCI_COMPONENT = UUID("eb5e4685-ca66-4769-b6a2-26068b001326").bytes_le
FIRMWARE = UUID("81212a96-09ed-4996-9471-8d729c8e69ed").bytes_le
CXL_PROTOCOL = UUID("80b9efb4-52b5-4de3-a777-68784b771048").bytes_le
UNKNOWN = UUID("01234567-89ab-cdef-0123-456789abcdef").bytes_le

FATAL, RECOVERABLE, CORRECTED, INFORMATIONAL = 1, 0, 2, 3


def memory(valid: int = 0x3FFFFF & ~(1 << 19 | 1 << 20), size: int = 80) -> bytes:
    """A Memory Error Section; without bank group and address, which are another view of the bank."""
    return struct.pack(
        "<QQQQ8HQQQBBHHH",
        valid,
        0x0000000000000400,
        0x0000000C81F95A80,
        0xFFFFFFFFFFFFFFC0,
        *(0, 1, 2, 3, 7, 2050, 16, 5),
        *(0x11, 0x22, 0x33),
        2,
        0b101_000_10,
        1,
        0x1000,
        0x1102,
    )[:size]


def memory_2(valid: int = (1 << 20) - 1) -> bytes:
    return struct.pack(
        "<QQQQ4H5IBBBBQQQII",
        valid,
        0x00470400,
        0x1000,
        0xFFF,
        *(0, 1, 2, 0x0304),
        *(9, 0x12345678, 77, 1, 6),
        *(4, 3, 1, 0),
        *(0x11, 0x22, 0x33),
        0x1000,
        0x1102,
    )


def pcie(valid: int = 0xFF) -> bytes:
    """What Linux printed for a root port of a notebook, plus a serial number and capabilities."""
    aer = struct.pack(
        "<8I4I", 0x14820001, 1 << 14 | 1 << 20, 1 << 20, 0x00462030, 1 << 0 | 1 << 6, 1 << 13, 14, *HEADER
    )
    aer = aer[:44] + struct.pack("<III", 7, 0x54, 0x00E40000) + bytes(40)
    capability = bytes.fromhex("10 00 42 01") + struct.pack(
        "<IHHIHH", 0x8001, 0x201F, 0x0005, 0x0173C813, 0x0042, 0x7013
    )
    section = struct.pack("<QIIHHI", valid, 4, 0x0300, 0x0407, 0x0010, 0)
    section += struct.pack("<HH3sBBHBBHB", 0x8086, 0x9D15, bytes.fromhex("000406"), 5, 0x1C, 0, 0, 6, 3 << 3, 0)
    section += struct.pack("<QHH", 0x1122334455667788, 0x2000, 0x0003)
    return section + capability.ljust(60, b"\0") + aer[:96].ljust(96, b"\0")


HEADER = (0x04000001, 0x0000220F, 0x01070000, 0xDEADBEEF, 0)


def record(*sections: tuple[bytes, int, str, bytes], severity: int = FATAL) -> bytes:
    """A record of sections: type, severity, text of the field replaceable unit, body."""
    start = 128 + 72 * len(sections)
    descriptors, bodies = b"", b""
    for kind, level, fru, body in sections:
        descriptors += struct.pack(
            "<IIHBBI", start + len(bodies), len(body), 0x0300, 3 if fru else 0, 0, 1 | 1 << 3
        )
        descriptors += kind + UUID(int=7).bytes_le + struct.pack("<I20s", level, fru.encode())
        bodies += body
    header = struct.pack("<4sHIHIII", b"CPER", 0x0100, 0xFFFFFFFF, len(sections), severity, 7, start + len(bodies))
    # Seconds, minutes, hours, precise, day, month, year, century.
    header += bytes.fromhex("59 13 07 01 04 05 26 20")
    header += UUID(int=1).bytes_le + UUID(int=2).bytes_le + UUID(int=3).bytes_le
    header += UUID("e8f56ffe-919c-4cc5-ba88-65abe14913bb").bytes_le
    header += struct.pack("<QIQ12x", 0x5F00000001, 2, 0)
    assert len(header) == 128
    return header + descriptors + bodies


def decoded(data: bytes) -> Decoded:
    return decode("cper", io.BytesIO(data))


def error(kind: bytes, body: bytes, fru: str = "") -> Error:
    return decode_error(kind, FATAL, fru, body)


def fields(of: Error) -> dict[str, Field]:
    return {part.name: part for part in of.parts if isinstance(part, Field)}


def shown(of: Error) -> dict[str, str]:
    return {name: field.text or str(field.value) for name, field in fields(of).items()}


def table(of: Error, name: str) -> list[dict[str, str]]:
    return next(
        [dict(zip(part.columns, map(str, row), strict=True)) for row in part.rows]
        for part in of.parts
        if isinstance(part, Table) and part.name == name
    )


def samples() -> list[tuple[str, bytes]]:
    return [
        ("cper", record((PCIE, FATAL, "", pcie()), (MEMORY, CORRECTED, "DIMM_A1", memory()))),
        (
            "cper",
            record((IA, FATAL, "", ia())) + record((ARM, RECOVERABLE, "", arm()), (GENERIC, 2, "", generic())),
        ),
        (
            "cper",
            record((MEMORY_2, 2, "", memory_2()), (PCI_BUS, 2, "", bus()), (PCI_COMPONENT, 2, "", component())),
        ),
        ("cper", record((FIRMWARE, INFORMATIONAL, "", firmware()), (UNKNOWN, FATAL, "", b"vendor's own"))),
    ]


def test_pcie_is_as_linux_prints_it() -> None:
    """It prints: port_type: 4, root port / version: 3.0 / command: 0x0407, status: 0x0010 /
    device_id: 0000:00:1c.5 / slot: 3 / secondary_bus: 0x06 / vendor_id: 0x8086, device_id: 0x9d15 /
    class_code: 060400 / bridge: secondary_status: 0x2000, control: 0x0003 /
    TLP Header: 04000001 0000220f 01070000 deadbeef."""
    of = error(PCIE, pcie())
    text = shown(of)
    assert of.subject == "0000:00:1c.5"
    assert text["Port Type"] == "4, Root Port"
    assert text["Version"] == "3.0"
    assert text["Command"].startswith("0x407: I/O Space Enable, Memory Space Enable, Bus Master Enable")
    assert text["Status"] == "0x10: Capabilities List"
    assert (text["Vendor ID"], text["Device ID"], text["Class Code"]) == ("0x8086", "0x9d15", "0x060400")
    assert (text["Slot Number"], text["Secondary Bus Number"]) == ("3", "0x6")
    assert text["Bridge Secondary Status"] == "0x2000: Received Master Abort"
    assert text["Bridge Control"] == "0x0003"
    assert text["Header Log"] == "04000001 0000220f 01070000 deadbeef"
    assert text["Uncorrectable Error Status"] == "0x104000: Completion Timeout, Unsupported Request Error"
    assert text["Uncorrectable Error Mask"] == "0x100000: Unsupported Request Error"
    assert text["Correctable Error Status"] == "0x41: Receiver Error, Bad TLP"
    assert text["Correctable Error Mask"] == "0x2000: Advisory Non-Fatal Error"
    assert text["Advanced Error Capabilities and Control"].endswith("First Error Pointer 14")
    assert text["Device Status"] == "0x5: Correctable Error Detected, Fatal Error Detected"
    assert text["Link Status"] == "0x7013: speed 3, width x1"
    wrong = {name for name, field in fields(of).items() if field.wrong}
    assert wrong == {
        "Bridge Secondary Status",
        "Device Status",
        "Uncorrectable Error Status",
        "Correctable Error Status",
    }
    serial = fields(of)["PCI Express Device Serial Number"]
    assert (serial.value, serial.private) == (0x1122334455667788, True)


def test_only_valid_fields_are_shown() -> None:
    of = error(PCIE, pcie(valid=1 << 3))
    assert of.subject == "0000:00:1c.5"
    assert set(fields(of)) == {
        "Vendor ID",
        "Device ID",
        "Class Code",
        "Segment Number",
        "Primary Bus Number/Device Bus Number",
        "Device Number",
        "Function Number",
        "Secondary Bus Number",
        "Slot Number",
    }
    assert error(PCIE, pcie(valid=0)).parts == ()
    assert error(MEMORY, memory(valid=0)).parts == ()


def test_memory_is_as_linux_prints_it() -> None:
    """It prints: error_status: Storage error in DRAM memory (0x0000000000000400) /
    physical_address: 0x0000000c81f95a80 /
    node:0 card:1 module:2 rank:1 bank:3 device:7 row:133122 column:16 bit_position:5 chip_id:5 /
    error_type: 2, single-bit ECC."""
    of = error(MEMORY, memory())
    text = shown(of)
    assert text["Error Status"] == "0x0000000000000400: ERR_MEM: Storage error in memory (DRAM)"
    assert text["Physical Address"] == "0x0000000c81f95a80"
    assert text["Memory Error Type"] == "2, Single-bit ECC"
    names = ("Node", "Card", "Module", "Rank Number", "Bank", "Device", "Row", "Column", "Bit Position")
    assert [fields(of)[name].value for name in names] == [0, 1, 2, 1, 3, 7, 2050, 16, 5]
    assert (fields(of)["Extended Row"].value, fields(of)["Chip Identification"].value) == (2 << 16 | 2050, 5)
    assert (text["Card Handle"], text["Module Handle"]) == ("0x1000", "0x1102")
    assert of.subject == "node 0 card 1 module 2 rank 1"
    assert error(MEMORY, memory(), fru="DIMM_A1").subject == "DIMM_A1"


def test_memory_of_uefi_2_1_has_no_rank() -> None:
    of = error(MEMORY, memory(valid=(1 << 15) - 1, size=73))
    assert fields(of)["Memory Error Type"].value == 2
    assert "Rank Number" not in fields(of)
    assert of.problems == ()
    beyond = error(MEMORY, memory(size=73))
    assert beyond.problems == ("Memory Error: validation bits are set for fields beyond its end",)
    assert fields(beyond)["Row"].value == 2050


def test_bank_is_split_into_group_and_address() -> None:
    body = memory(valid=1 << 19 | 1 << 20)
    body = body[:38] + struct.pack("<H", 0x0A0B) + body[40:]
    assert {name: field.value for name, field in fields(error(MEMORY, body)).items()} == {
        "Bank Address": 0x0B,
        "Bank Group": 0x0A,
    }


def test_memory_2_has_wider_fields() -> None:
    of = error(MEMORY_2, memory_2())
    values = {name: field.value for name, field in fields(of).items()}
    assert (values["Device"], values["Row"], values["Column"], values["Rank"]) == (9, 0x12345678, 77, 1)
    assert (values["Bit Position"], values["Chip Identification"]) == (6, 4)
    assert (shown(of)["Memory Error Type"], shown(of)["Status"]) == ("3, Multi-bit ECC", "Uncorrected")
    assert shown(of)["Error Status"].endswith("Storage error in memory (DRAM), Address, Control, Data, Overflow")
    assert shown(of)["Module Handle"] == "0x00001102"
    assert of.subject == "node 0 card 1 module 2 rank 1"


def generic() -> bytes:
    body = struct.pack("<Q6BHQ", 0x1FFF, 0, 2, 1, 1, 0b0101, 2, 0, 0x50657)
    body += b"Intel(R) Xeon(R) Gold 6230R".ljust(128, b"\0")
    return body + struct.pack("<5Q", 0x24, 0x1000, 0x2000, 0x3000, 0xFFFFFFFF81000000)


def test_generic_processor() -> None:
    """Linux prints: processor_type: 0, IA32/X64 / processor_isa: 2, X64 / error_type: 0x01 cache error /
    operation: 1, data read / flags: 0x05 restartable, overflow / level: 2 / processor_id: 0x0000000000000024."""
    of = error(GENERIC, generic())
    text = shown(of)
    assert text["Processor Type"] == "0, IA32/X64"
    assert text["Processor ISA"] == "2, X64"
    assert text["Processor Error Type"] == "0x1: Cache Error"
    assert text["Operation"] == "1, Data Read"
    assert text["Flags"] == "0x5: Restartable, Overflow"
    assert text["CPU Brand String"] == "Intel(R) Xeon(R) Gold 6230R"
    assert text["Instruction IP"] == "0xffffffff81000000"
    assert of.subject == "ID 0x24"


CHECKS = {
    # Data access, data read, level 1, uncorrected, overflow.
    UUID("a55701f5-e3ef-43de-ac72-249b573fad2c"): 0xFF | 1 << 16 | 3 << 18 | 1 << 22 | 1 << 26 | 1 << 29,
    # Generic transaction and read; the level is not valid.
    UUID("fc06b535-5e1f-4562-9f25-0a3b9adb63c3"): 3 | 2 << 16 | 1 << 18 | 7 << 22,
    # Participation: observed; time out; I/O.
    UUID("1cf3f8b3-c5b1-49a2-aa59-5eef92ffa63c"): 7 << 8 | 2 << 30 | 1 << 32 | 2 << 33,
    # Error type: microcode ROM parity; context corrupt.
    UUID("48ab7f57-dc34-4f6c-a7d3-b0b5b0a74314"): 3 | 2 << 16 | 1 << 19,
}


def ia(errors: int = 4, contexts: int = 2) -> bytes:
    body = struct.pack("<QQ", 3 | errors << 2 | contexts << 8, 0x24) + bytes(range(48))
    for kind, check in CHECKS.items():
        body += kind.bytes_le + struct.pack("<6Q", 0b10011, check, 0x1000, 0x2000, 0x3000, 0xFFFFFFFF81000000)
    body += struct.pack("<HHIQ", 1, 24, 0xC0002031, 0) + struct.pack("<3Q", 0xBEA0000000000108, 0x1000, 0)
    return body + struct.pack("<HHIQ", 0, 4, 0, 0) + b"data"


def test_ia_processor_has_checks_and_registers() -> None:
    of = error(IA, ia())
    assert of.subject == "APIC 0x24"
    assert of.problems == ()
    rows = table(of, "Processor Error Information")
    assert [row["Error Structure Type"] for row in rows] == [
        "Cache Check",
        "TLB Check",
        "Bus Check",
        "Micro-architecture Specific Check",
    ]
    said = [row["Check Information"].partition(" ")[2] for row in rows]
    assert said == [
        "(Transaction Type: Data Access, Operation: data read, Level 0x1, Uncorrected, Overflow)",
        "(Transaction Type: Generic, Operation: generic read)",
        "(Participation Type: Local Processor Observed, Time Out, Address Space: I/O)",
        "(Error Type: Microcode ROM Parity Error, Processor Context Corrupt)",
    ]
    assert rows[0]["Target Identifier"] == "0x0000000000001000"
    assert rows[0]["Requestor Identifier"] == ""
    assert rows[0]["Instruction Pointer"] == "0xffffffff81000000"
    registers = table(of, "MSR Registers (Machine Check and other MSRs)")
    assert registers[0] == {"MSR": "0xc0002031", "Value": "0xbea0000000000108"}
    assert registers[1]["MSR"] == "0xc0002032"
    text = {part.name: part.text for part in of.parts if isinstance(part, Text)}
    assert "6461 7461" in text["Unclassified Data"]


def test_ia_processor_whose_numbers_lie() -> None:
    of = error(IA, ia(errors=63))
    assert len(table(of, "Processor Error Information")) == 4
    assert "the data end" in of.problems[0]


def arm(errors: int = 3, contexts: int = 1) -> bytes:
    infos = (
        # Cache error: data access, data write, level 2, corrected.
        struct.pack(
            "<BBHBHBQQQ", 0, 32, 0x1F, 1 << 1, 1, 0b11, 0x1F | 1 << 16 | 4 << 18 | 2 << 22 | 1 << 26, 0x10, 0x20
        ),
        # TLB error: local management.
        struct.pack("<BBHBHBQQQ", 0, 32, 0b101, 1 << 2, 0, 0, 2 | 7 << 18, 0, 0),
        # Bus error: responded, device memory, attributes, secure.
        struct.pack("<BBHBHBQQQ", 0, 32, 0b101, 1 << 3, 9, 0, 0xE80 | 1 << 29 | 3 << 32 | 0xFF << 34, 0, 0),
    )
    context = struct.pack("<HHI", 0, 4, 16) + struct.pack("<QQ", 1, 2)
    length = 40 + 96 + len(context) + 6
    head = struct.pack("<IHHIB3xQQII", 0xF, errors, contexts, length, 1, 0x81000100, 0x413FD0C1, 1, 0)
    return head + b"".join(infos) + context + b"vendor"


def test_arm_processor() -> None:
    """Linux prints: MIDR: 0x00000000413fd0c1 / MPIDR: 0x0000000081000100 / error affinity level: 1 /
    error_info: transaction type: Data Access, operation type: Data write, cache level: 2."""
    of = error(ARM, arm())
    text = shown(of)
    assert (text["MIDR_EL1"], text["MPIDR_EL1"]) == ("0x00000000413fd0c1", "0x0000000081000100")
    assert (text["Error affinity level"], text["Running State"]) == ("1", "0x1: Processor running")
    assert of.subject == "MPIDR 0x81000100"
    cache, tlb, bus_ = table(of, "Processor Error Information")
    assert (cache["Type"], cache["Errors"]) == ("0x2: Cache Error", "Multiple Errors")
    assert cache["Flags"] == "0x3: First error captured, Last error captured"
    assert cache["Error Information"].endswith(
        "(Transaction Type: Data Access, Operation: data write, Level 0x2, Corrected)"
    )
    assert cache["Physical fault address"] == "0x0000000000000020"
    assert (tlb["Errors"], tlb["Virtual fault address"]) == ("Single Error", "")
    assert tlb["Error Information"].endswith("(Operation: local management operation)")
    assert bus_["Error Information"].endswith(
        "(Participation Type: Local Processor responded to request, Address Space: Device Memory Access, "
        "Memory Access Attributes 0xff, Access Mode: Secure)"
    )
    texts = {part.name: part.text for part in of.parts if isinstance(part, Text)}
    assert texts["AArch64 general purpose registers"].startswith("00000000: 0100 0000 0000 0000 0200")
    assert texts["Vendor Specific Error Info"].endswith("vendor\n")


def test_arm_processor_whose_numbers_lie() -> None:
    of = error(ARM, arm(errors=0xFFFF))
    assert of.problems[0] == "ARM Processor Error: only 256 of its structures are decoded"
    assert "the data end" in of.problems[1]


def bus() -> bytes:
    return struct.pack(
        "<QQHHI6Q", 0x1FF, 0x00101600, 6, 0x0102, 0, 0xFEE00000, 0xAA, 1 << 56 | 7, 0x11, 0x22, 0x33
    )


def component() -> bytes:
    body = struct.pack("<QQHH3sBBBBBI", 0x1F, 0x1000, 0x8086, 0x1234, bytes.fromhex("000002"), 1, 4, 5, 0, 0, 0)
    return body + struct.pack("<II4Q", 1, 1, 0x1000, 0xAB, 0x60, 0xCD)


def test_pci_bus_and_component() -> None:
    of = error(PCI_BUS, bus())
    assert of.subject == "0001:02"
    assert shown(of)["Error Type"] == "6, Address Parity Error"
    assert shown(of)["Error Status"].endswith("ERR_PARITY: Bus parity error, Requestor")
    assert shown(of)["Bus Command"] == "0x0100000000000007: PCI-X"
    of = error(PCI_COMPONENT, component())
    assert of.subject == "0000:05:04.1"
    assert shown(of)["Class Code"] == "0x020000"
    assert table(of, "Register Data Pairs") == [
        {"Space": "memory", "Address": "0x0000000000001000", "Data": "0x00000000000000ab"},
        {"Space": "I/O", "Address": "0x0000000000000060", "Data": "0x00000000000000cd"},
    ]


def firmware() -> bytes:
    return struct.pack("<BB6xQ", 2, 2, 0) + UUID(int=5).bytes_le + b"crash log"


def test_firmware_record_and_unknown_sections() -> None:
    of = error(FIRMWARE, firmware())
    assert shown(of)["Firmware Error Record Type"] == "2, SOC Firmware Error Record Type2"
    assert shown(of)["Record identifier GUID extension"] == str(UUID(int=5))
    assert next(part.text for part in of.parts if isinstance(part, Text)).endswith("crash log\n")
    assert (error(CXL_PROTOCOL, b"x").type_name, error(CXL_PROTOCOL, b"x").kind) == (
        "CXL Protocol Error",
        "CXL protocol error",
    )
    assert error(UNKNOWN, b"x").type_name == "01234567-89ab-cdef-0123-456789abcdef"


def test_record_header() -> None:
    of = decoded(record((PCIE, FATAL, "", pcie())))
    header = {part.name: part for part in of.sections[0].parts if isinstance(part, Field)}
    assert header["Error Severity"].text == "1, Fatal"
    assert header["Error Severity"].wrong
    assert header["Timestamp"].text == "2026-05-04 07:13:59"
    assert header["Notification Type"].text.startswith("MCE (")
    assert header["Flags"].text == "0x2: HW_ERROR_FLAGS_PREVERR"
    assert header["Record ID"].value == 0x5F00000001
    assert {name for name, field in header.items() if field.private} == {"Platform ID", "Partition ID"}
    section = {part.name: part for part in of.sections[1].parts if isinstance(part, Field)}
    assert section["Section Type"].text == "PCIe"
    assert section["Section Severity"].text == "1, Fatal"
    assert of.title == "1 error record"


def test_findings_are_counted_and_the_worst_is_first() -> None:
    of = decoded(
        record(
            (MEMORY, CORRECTED, "DIMM_A1", memory()),
            (UNKNOWN, INFORMATIONAL, "", b""),
            (MEMORY, CORRECTED, "DIMM_A1", memory()),
            (IA, RECOVERABLE, "", ia()),
            (PCIE, FATAL, "Slot 3", pcie()),
        )
    )
    assert of.findings == (
        "1 fatal PCIe error of 0000:00:1c.5",
        "1 recoverable processor error of APIC 0x24",
        "2 corrected memory errors of DIMM_A1",
        "1 informational unknown error",
    )
    assert findings([decode_error(PCIE, 9, "", b"")]) == ("1 unknown 0x9 PCIe error",)


def test_several_records() -> None:
    of = decoded(record((PCIE, FATAL, "", pcie())) + record((MEMORY, 2, "", memory())) + bytes(64))
    assert of.title == "2 error records"
    assert [section.name for section in of.sections] == [
        "record 1",
        "record 1 section 1",
        "record 2",
        "record 2 section 1",
    ]
    assert of.problems == ()
    assert decoded(record() + b"rest").problems == ("byte 128: is no record",)


def test_section_that_is_not_all_there() -> None:
    whole = record((MEMORY, 2, "", memory()))
    of = decoded(whole[:-40])
    assert of.problems == ("record 1 section 1: 80 bytes at 200 of the record are not all there",)
    assert "Node" in {part.name for part in of.sections[1].parts}
    of = decoded(whole[:204])
    assert of.problems[1] == "record 1 section 1: Memory Error: the data end at byte 4, 8 bytes at 0 are missing"
    assert of.sections[1].parts[-1] == Text("Section", "00000000: ffff 2700                                ..'.\n")


def test_many_sections_are_bounded() -> None:
    of = decoded(record(*[(UNKNOWN, FATAL, "", b"x")] * (MAX_SECTIONS + 9)))
    assert len(of.sections) == 1 + MAX_SECTIONS


def test_many_findings_and_records_are_bounded() -> None:
    of = decoded(record(*[(MEMORY, CORRECTED, f"DIMM{index}", b"") for index in range(100)]))
    assert len(of.findings) == 33
    assert of.findings[-1] == "68 more kinds of errors"
    of = decoded(record() * 2000)
    assert of.problems == ("only the first 1024 records are decoded",)


@pytest.mark.parametrize("data", [b"", b"CPER", b"text", bytes(200), b"\xff" * 200])
def test_no_record(data: bytes) -> None:
    if data == b"CPER":
        assert decoded(data).problems != ()
        return
    with pytest.raises(InvalidDump, match="does not begin with CPER"):
        decoded(data)


def test_hostile_text_is_escaped() -> None:
    of = decoded(record((MEMORY, CORRECTED, "\x1b[2J<b>\x07", memory())))
    assert of.findings == ("1 corrected memory error of \\x1b[2J<b>\\x07",)


def test_damaged_records_are_endured() -> None:
    endures(decode, samples(), cuts=150, flips=80)
