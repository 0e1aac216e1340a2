# SPDX-License-Identifier: LGPL-2.1-or-later
"""SMBIOS tables that the test builds, judged by dmidecode, which reads the same file."""

from __future__ import annotations

import functools
import io
import re
import struct
import subprocess
import tempfile

import pytest

from tests.decoders.damage import endures
from tests.lib.tools import require
from vmcoredd_daemon.collectors.builtin.firmware_tables import relocated
from vmcoredd_daemon.decoders.builtin import smbios_names
from vmcoredd_daemon.decoders.builtin.dmi import MAX_STRUCTURES, decode
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Table
from vmcoredd_daemon.errors import InvalidDump

NONE = 0xFFFF


def structure(kind: int, handle: int, formatted: bytes, *strings: str) -> bytes:
    head = struct.pack("<BBH", kind, 4 + len(formatted), handle)
    text = b"".join(string.encode() + b"\0" for string in strings) or b"\0"
    return head + formatted + text + b"\0"


END = structure(127, 0x7F00, b"")


def dump(*structures: bytes, version: tuple[int, int] = (3, 4), end: bytes = END) -> bytes:
    """A device dump as the collector writes it."""
    table = b"".join(structures) + end
    entry_point = struct.pack("<5sBBBBBBBIQ", b"_SM3_", 0, 24, *version, 0, 1, 0, len(table), 0xE0000)
    return relocated(entry_point).ljust(32, b"\0") + table


def dump_2(*structures: bytes, version: tuple[int, int] = (2, 8)) -> bytes:
    """The same with an entry point of version 2."""
    table = b"".join(structures) + END
    entry_point = struct.pack("<4sBBBBHB5s", b"_SM_", 0, 31, *version, 200, 0, bytes(5))
    entry_point += struct.pack("<5sBHIHB", b"_DMI_", 0, len(table), 0xF0000, len(structures) + 1, 0x28)
    return relocated(entry_point).ljust(32, b"\0") + table


UUID = bytes.fromhex("00112233445566778899aabbccddeeff")


def server() -> tuple[bytes, ...]:
    """A server with two sockets, of which one is empty, and four slots for memory, of which two are empty."""
    bios = struct.pack(
        "<BBHBBQBBBBBBH", 1, 2, 0xF000, 3, 0xFF, 0x1 << 7 | 1 << 11 | 1 << 19, 0x03, 0x0D, 2, 14, 1, 9, 32
    )
    system = struct.pack("<BBBB16sBBB", 1, 2, 3, 4, UUID, 6, 5, 6)
    board = struct.pack("<BBBBBBBHBB", 1, 2, 3, 4, 5, 0b01001, 6, 0x0300, 10, 0)
    chassis = struct.pack("<BBBBBBBBBIBBBBB", 1, 0x80 | 23, 2, 3, 4, 3, 3, 5, 3, 0xABCD, 2, 2, 0, 3, 5)
    processors = [
        processor(handle, socket, status)
        for handle, socket, status in ((0x0400, "CPU1", 0x41), (0x0401, "CPU2", 0))
    ]
    array = struct.pack("<BBBIHHQ", 3, 3, 6, 0x80000000, 0xFFFE, 4, 6 << 40)
    return (
        structure(0, 0x0000, bios, "Dell Inc.", "2.14.2", "01/31/2024"),
        structure(1, 0x0100, system, "Dell Inc.", "PowerEdge R750", "A01", "SERIAL1", "SKU=0123", "PowerEdge"),
        structure(2, 0x0200, board, "Dell Inc.", "0216NK", "A00", "SERIAL2", "TAG2", "Slot 00"),
        structure(3, 0x0300, chassis, "Dell Inc.", "V3", "SERIAL3", "TAG3", "SKU3"),
        *processors,
        cache(0x0700, 1, 0xC000 >> 1),
        cache(0x0701, 3, 0x8000 | 48),
        structure(9, 0x0900, slot(0xB6, 4, (0, 0x3B, 0x10)), "PCIe Slot 1"),
        structure(9, 0x0901, slot(0xB8, 3, (NONE, 0xFF, 0xFF)), "PCIe Slot 2"),
        structure(16, 0x1000, array),
        memory(0x1100, 0x7FFF, "A1", extended=128 << 10),
        memory(0x1101, 16 << 10, "A2"),
        memory(0x1102, 0, "A3"),
        memory(0x1103, 0, "A4"),
        structure(19, 0x1300, struct.pack("<IIHBQQ", 0, 0x1FFFFF, 0x1000, 2, 0, 0)),
        structure(38, 0x2600, struct.pack("<BBBBQBB", 1, 0x20, 0x20, 0xFF, 0xCA9, 0x40, 5)),
        structure(41, 0x2900, struct.pack("<BBBHBB", 1, 0x85, 1, 0, 4, 1), "Integrated NIC 1"),
        structure(11, 0x0B00, b"\x01", "OEM string"),
        structure(221, 0xDD00, b"\x00\x01"),
    )


def processor(handle: int, socket: str, status: int) -> bytes:
    formatted = struct.pack("<BBBB8sB", 1, 3, 0xB3, 2, bytes.fromhex("a6060600fffb8b0f"), 3)
    formatted += struct.pack("<BHHHBBHHHBBB", 0x8A, 100, 4000, 2900, status, 0x3D, 0x0700, NONE, 0x0701, 4, 5, 6)
    formatted += struct.pack("<BBBHHHHHH", 32, 28, 0xFF, 0xFC, 0xFE, 32, 28, 300, 0)
    return structure(4, handle, formatted, socket, "Intel", "Intel(R) Xeon(R) Gold 6326", "SN4", "TAG4", "PART4")


def cache(handle: int, level: int, size: int) -> bytes:
    configuration = 1 << 7 | 1 << 8 | level - 1
    wide = (size & 0x7FFF) | (1 << 31 if size & 0x8000 else 0)
    formatted = struct.pack("<BHHHHHBBBBII", 1, configuration, size, size, 0x22, 0x20, 0, 5, 5, 7, wide, wide)
    return structure(7, handle, formatted, f"L{level} Cache")


def slot(kind: int, usage: int, at: tuple[int, int, int]) -> bytes:
    segment, bus, device = at
    return struct.pack("<BBBBBHBBHBBBB", 1, kind, 13, usage, 4, 1, 0x0C, 0x05, segment, bus, device, 0, 0)


def memory(handle: int, size: int, locator: str, extended: int = 0) -> bytes:
    formatted = struct.pack(
        "<HHHHHBBBBBHH", 0x1000, 0xFFFE, 72, 64, size, 9, 0xFF, 1, 2, 0x1A, 1 << 7 | 1 << 13, 3200
    )
    formatted += struct.pack("<BBBBBIHHHH", 3, 4, 5, 6, 2, extended, 2933, 1200, 1200, 1200)
    formatted += struct.pack("<BHBHHHHQQQQII", 3, 1 << 3, 0, 0xCE80, 0, 0, 0, 0, extended << 20, 0, 0, 0, 0)
    formatted += struct.pack("<HHHH", 0, 0xFF00, 0, 0xFF00)
    return structure(
        17, handle, formatted, f"DIMM {locator}", f"Bank {locator}", "Samsung", "SN17", "TAG17", "M393A"
    )


def seabios() -> tuple[bytes, ...]:
    """What SeaBIOS gives a machine of QEMU with 2 GB: SMBIOS 2.8, strings and lengths as in hw/smbios/smbios.c."""
    maker = "QEMU"
    product = "Standard PC (Q35 + ICH9, 2009)"
    return (
        structure(
            0,
            0x0000,
            struct.pack("<BBHBBQBBBBBB", 1, 2, 0xE800, 3, 0, 1 << 3, 0, 0x14, 0, 0, 0xFF, 0xFF),
            "SeaBIOS",
            "rel-1.16.3-0-ga6ed6b701f0a-prebuilt.qemu.org",
            "04/01/2014",
        ),
        structure(
            1, 0x0100, struct.pack("<BBBB16sBBB", 1, 2, 3, 0, bytes(16), 6, 0, 0), maker, product, "pc-q35-9.0"
        ),
        structure(
            3,
            0x0300,
            struct.pack("<BBBBBBBBBIBBBBB", 1, 1, 2, 0, 0, 3, 3, 3, 2, 0, 0, 0, 0, 0, 0),
            maker,
            "pc-q35-9.0",
        ),
        structure(
            4,
            0x0400,
            struct.pack("<BBBB8sB", 1, 3, 1, 2, bytes.fromhex("610f0000fffb8b07"), 3)
            + struct.pack(
                "<BHHHBBHHHBBBBBBHH", 0, 0, 2000, 2000, 0x41, 1, NONE, NONE, NONE, 0, 0, 0, 1, 1, 1, 2, 1
            ),
            "CPU 0",
            maker,
            "pc-q35-9.0",
        ),
        structure(16, 0x1000, struct.pack("<BBBIHHQ", 1, 3, 6, 2 << 20, 0xFFFE, 1, 0)),
        structure(
            17,
            0x1100,
            struct.pack(
                "<HHHHHBBBBBHHBBBBBIHHHH",
                0x1000,
                0xFFFE,
                NONE,
                NONE,
                2048,
                9,
                0,
                1,
                0,
                7,
                2,
                0,
                2,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            ),
            "DIMM 0",
            maker,
        ),
        structure(19, 0x1300, struct.pack("<IIHBQQ", 0, 0x1FFFFF, 0x1000, 1, 0, 0)),
        structure(32, 0x2000, bytes(7)),
    )


def samples() -> list[tuple[str, bytes]]:
    return [("dmi", dump(*server())), ("dmi", dump_2(*seabios()))]


def decoded(data: bytes) -> Decoded:
    return decode("dmi", io.BytesIO(data))


def fields(of: Decoded) -> dict[str, dict[str, Field]]:
    """The fields of each structure, by its handle as dmidecode prints it."""
    return {
        f"0x{section.name.rpartition(' 0x')[2].upper()}": {
            part.name: part for part in section.parts if isinstance(part, Field)
        }
        for section in of.sections
        if " 0x" in section.name
    }


def shown(field: Field) -> str:
    return field.text or str(field.value)


# By dmidecode 3.7, which also says KiB where others say kB.
RENAMED = {
    "Platform Firmware Revision": "BIOS Revision",
    "Embedded Controller Firmware Revision": "Firmware Revision",
}


@functools.cache
def dmidecode(data: bytes) -> dict[str, dict[str, str]]:
    """What dmidecode prints of each structure, by its handle; a list is its lines with commas."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        command = ["dmidecode", "--from-dump", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
    found: dict[str, dict[str, str]] = {}
    for part in text.split("\n\n"):
        if not (head := re.match(r"Handle (0x[0-9A-F]{4}), DMI type", part)):
            continue
        values = found.setdefault(head[1], {})
        name = ""
        for line in part.splitlines()[2:]:
            if line.startswith("\t\t"):
                values[name] = ", ".join(filter(None, (values[name], line.strip())))
            else:
                name, _, value = line.strip().partition(":")
                name = RENAMED.get(name, name)
                values[name] = re.sub(r"(?<= [kKMGTPEZ])iB$", "B", value.strip())
    return found


# dmidecode's names, where they differ from those of DSP0134.
SAME = {
    "0x0000": {
        "Vendor": "Vendor",
        "Version": "BIOS Version",
        "Release Date": "BIOS Release Date",
        "BIOS Revision": "System BIOS Release",
        "Firmware Revision": "Embedded Controller Firmware Release",
    },
    "0x0100": {
        name: name
        for name in (
            "Manufacturer",
            "Product Name",
            "Version",
            "Serial Number",
            "UUID",
            "Wake-up Type",
            "SKU Number",
            "Family",
        )
    },
    "0x0200": {
        **{name: name for name in ("Manufacturer", "Version", "Serial Number", "Asset Tag", "Chassis Handle")},
        "Product Name": "Product",
        "Location In Chassis": "Location in Chassis",
        "Type": "Board Type",
        "Contained Object Handles": "Number of Contained Object Handles",
    },
    "0x0300": {
        **{name: name for name in ("Manufacturer", "Version", "Serial Number", "Boot-up State", "Thermal State")},
        **{name: name for name in ("Power Supply State", "Security Status", "Height", "SKU Number")},
        "Asset Tag": "Asset Tag Number",
        "OEM Information": "OEM-defined",
        "Number Of Power Cords": "Number of Power Cords",
    },
    "0x0400": {
        **{
            name: name
            for name in ("Socket Designation", "Voltage", "External Clock", "Max Speed", "Current Speed")
        },
        **{name: name for name in ("L1 Cache Handle", "L2 Cache Handle", "L3 Cache Handle", "Serial Number")},
        **{name: name for name in ("Asset Tag", "Part Number", "Core Count", "Core Enabled", "Thread Count")},
        "Type": "Processor Type",
        "Manufacturer": "Processor Manufacturer",
        "Version": "Processor Version",
        "ID": "Processor ID",
        "Upgrade": "Processor Upgrade",
    },
    "0x0700": {
        **{
            name: name
            for name in ("Socket Designation", "Installed Size", "Error Correction Type", "Associativity")
        },
        "Maximum Size": "Maximum Cache Size",
        "System Type": "System Cache Type",
    },
    "0x0900": {
        "Designation": "Slot Designation",
        "Current Usage": "Current Usage",
        "ID": "Slot ID",
        "Bus Address": "Bus Address",
    },
    "0x1000": {
        "Location": "Location",
        "Use": "Use",
        "Error Correction Type": "Memory Error Correction",
        "Maximum Capacity": "Maximum Capacity",
        "Error Information Handle": "Memory Error Information Handle",
        "Number Of Devices": "Number of Memory Devices",
    },
    "0x1100": {
        **{name: name for name in ("Total Width", "Data Width", "Size", "Form Factor", "Bank Locator", "Speed")},
        **{name: name for name in ("Manufacturer", "Serial Number", "Asset Tag", "Part Number", "Rank")},
        **{name: name for name in ("Configured Memory Speed", "Module Manufacturer ID", "Volatile Size")},
        **{name: name for name in ("Memory Subsystem Controller Manufacturer ID", "Firmware Version")},
        "Array Handle": "Physical Memory Array Handle",
        "Error Information Handle": "Memory Error Information Handle",
        "Set": "Device Set",
        "Locator": "Device Locator",
        "Type": "Memory Type",
        "Minimum Voltage": "Minimum voltage",
        "Maximum Voltage": "Maximum voltage",
        "Configured Voltage": "Configured voltage",
        "Non-Volatile Size": "Non-volatile Size",
        "Cache Size": "Cache Size",
        "Logical Size": "Logical Size",
    },
    "0x1300": {
        "Starting Address": "Starting Address",
        "Ending Address": "Ending Address",
        "Physical Array Handle": "Memory Array Handle",
        "Partition Width": "Partition Width",
    },
    "0x2600": {
        "Specification Version": "IPMI Specification Revision",
        "I2C Slave Address": "I2C Target Address",
        "NV Storage Device": "NV Storage Device Address",
        "Base Address": "Base Address",
        "Register Spacing": "Register spacing",
        "Interrupt Number": "Interrupt Number",
    },
    "0x2900": {
        "Reference Designation": "Reference Designation",
        "Type Instance": "Device Type Instance",
        "Bus Address": "Bus Address",
    },
}


def same_as(handle: str) -> dict[str, str]:
    """Handles of one type have the same fields."""
    return SAME.get(f"{handle[:4]}00", {})


@pytest.mark.parametrize("data", [dump(*server()), dump_2(*seabios())], ids=["server", "seabios"])
def test_values_are_as_dmidecode_prints_them(data: bytes) -> None:
    require("dmidecode")
    ours, theirs = fields(decoded(data)), dmidecode(data)
    compared = 0
    for handle, values in theirs.items():
        if handle not in ours:
            continue
        for name, value in values.items():
            if (our_name := same_as(handle).get(name)) and our_name in ours[handle]:
                assert shown(ours[handle][our_name]).lower() == value.lower(), f"{handle} {name}"
                compared += 1
    assert compared > 60


def test_every_value_of_a_server_is_compared() -> None:
    require("dmidecode")
    theirs = dmidecode(dump(*server()))
    for handle, names in SAME.items():
        # "NV Storage Device Address" is printed for one that is there.
        assert set(names) <= set(theirs[handle]), handle


def coded(kind: int, offset: int, size: int, code: int, length: int, width: int = 1) -> bytes:
    """A structure whose field at *offset* has *code*; other bytes are zero."""
    formatted = bytearray(length - 4)
    formatted[offset - 4 : offset - 4 + width] = code.to_bytes(width, "little")
    if kind == 17:
        formatted[0x0C - 4] = 1  # Its size: without a module, it has no other fields.
    return structure(kind, size, bytes(formatted))


# Type, offset, length, name of dmidecode, our names.
CODES = [
    (1, 0x18, 0x1B, "Wake-up Type", smbios_names.WAKE_UP_TYPE),
    (2, 0x0D, 0x0F, "Type", smbios_names.BOARD_TYPE),
    (3, 0x05, 0x15, "Type", smbios_names.CHASSIS_TYPE),
    (3, 0x09, 0x15, "Boot-up State", smbios_names.CHASSIS_STATE),
    (3, 0x0C, 0x15, "Security Status", smbios_names.SECURITY_STATUS),
    (4, 0x05, 0x30, "Type", smbios_names.PROCESSOR_TYPE),
    (4, 0x19, 0x30, "Upgrade", smbios_names.PROCESSOR_UPGRADE),
    (7, 0x10, 0x1B, "Error Correction Type", smbios_names.CACHE_ERROR_CORRECTION),
    (7, 0x11, 0x1B, "System Type", smbios_names.CACHE_TYPE),
    (7, 0x12, 0x1B, "Associativity", smbios_names.ASSOCIATIVITY),
    (9, 0x07, 0x11, "Current Usage", smbios_names.SLOT_USAGE),
    (9, 0x08, 0x11, "Length", smbios_names.SLOT_LENGTH),
    (16, 0x04, 0x17, "Location", smbios_names.ARRAY_LOCATION),
    (16, 0x05, 0x17, "Use", smbios_names.ARRAY_USE),
    (16, 0x06, 0x17, "Error Correction Type", smbios_names.ARRAY_ERROR_CORRECTION),
    (17, 0x0E, 0x54, "Form Factor", smbios_names.FORM_FACTOR),
    (17, 0x12, 0x54, "Type", smbios_names.MEMORY_TYPE),
    (17, 0x28, 0x54, "Memory Technology", smbios_names.MEMORY_TECHNOLOGY),
    (38, 0x04, 0x12, "Interface Type", smbios_names.IPMI_INTERFACE),
    (41, 0x05, 0x0B, "Type", smbios_names.ONBOARD_DEVICE),
]


# Names of dmidecode that have words which DSP0134 has not, or writes apart.
OTHER_NAMES = {
    "Processor+I/O Module",
    "CompactPCI",
    "AdvancedTCA",
    "Blade Enclosing",
    "Intel Optane DC persistent memory",
    "VLB",
    "PCI-66",
    "MXM Type III-HE",
    # Of an earlier version: what DSP0134 calls CXL add-on card now.
    "CXL Flexbus 1.0",
    # A typing error of an earlier version: the socket of desktop processors has lands.
    "Socket BGA1155",
}


def words(name: str) -> set[str]:
    """The words of a name; dmidecode shortens some, and writes others with more blanks."""
    ignored = {
        "chassis",
        "module",
        "style",
        "controller",
        "keyboard",
        "control",
        "length",
        "cards",
        "card",
        "embedded",
    }
    return set(re.findall(r"[a-z0-9.]+", name.lower().replace("sub", "").replace("-", ""))) - ignored


@pytest.mark.parametrize(
    ("kind", "offset", "length", "name", "names"), CODES, ids=[f"{c[0]}-{c[3]}" for c in CODES]
)
def test_names_of_codes_are_those_of_dmidecode(
    kind: int, offset: int, length: int, name: str, names: dict[int, str]
) -> None:
    """In words: dmidecode capitalises, and leaves some out. It is older than some codes."""
    require("dmidecode")
    theirs = dmidecode(dump(*(coded(kind, offset, 0x100 + code, code, length) for code in names)))
    compared = 0
    for code, ours in names.items():
        value = theirs[f"0x{0x100 + code:04X}"][name]
        if value == "<OUT OF SPEC>" or value in OTHER_NAMES:
            continue
        assert words(value) <= words(ours), (code, value, ours)
        compared += 1
    assert compared > len(names) * 2 // 3


def test_families_are_those_of_dmidecode() -> None:
    require("dmidecode")
    data = dump(
        *(
            structure(4, 0x100 + index, bytes(2) + b"\xfe" + bytes(0x21) + family.to_bytes(2, "little"))
            for index, family in enumerate(smbios_names.PROCESSOR_FAMILY)
        )
    )
    theirs = dmidecode(data)
    ours = fields(decoded(data))
    compared = 0
    for index, (family, name) in enumerate(smbios_names.PROCESSOR_FAMILY.items()):
        handle = f"0x{0x100 + index:04X}"
        assert (ours[handle]["Processor Family"].value, shown(ours[handle]["Processor Family"])) == (family, name)
        if theirs[handle]["Family"] != "<OUT OF SPEC>":
            # It leaves out makers and "Series".
            assert words(theirs[handle]["Family"]) <= words(name), (family, theirs[handle]["Family"], name)
            compared += 1
    assert compared > 60


@pytest.mark.parametrize(
    ("kind", "offset", "width", "length", "name", "names"),
    [
        (0, 0x0A, 8, 0x18, "Characteristics", smbios_names.BIOS_CHARACTERISTICS),
        (4, 0x26, 2, 0x30, "Characteristics", smbios_names.PROCESSOR_CHARACTERISTICS),
        (7, 0x0D, 2, 0x1B, "Installed SRAM Type", smbios_names.SRAM_TYPE),
        (9, 0x0C, 1, 0x11, "Characteristics", smbios_names.SLOT_CHARACTERISTICS_2),
        (17, 0x13, 2, 0x54, "Type Detail", smbios_names.TYPE_DETAIL),
        (17, 0x29, 2, 0x54, "Memory Operating Mode Capability", smbios_names.OPERATING_MODE),
    ],
    ids=["bios", "processor", "sram", "slot", "memory", "mode"],
)
def test_names_of_bits_are_those_of_dmidecode(
    kind: int, offset: int, width: int, length: int, name: str, names: dict[int, str]
) -> None:
    require("dmidecode")
    theirs = dmidecode(dump(*(coded(kind, offset, 0x100 + bit, 1 << bit, length, width) for bit in names)))
    compared = 0
    for bit, ours in names.items():
        value = theirs[f"0x{0x100 + bit:04X}"].get(name, "None")
        if value not in ("None", ""):
            # It words most of them as sentences.
            assert len(words(value) & words(ours)) * 2 >= len(words(value)), (bit, value, ours)
            compared += 1
    # dmidecode 3.4 knows three of the characteristics of slots.
    assert compared >= min(len(names) // 2, 3)


def test_slot_types_and_widths_are_those_of_dmidecode() -> None:
    require("dmidecode")
    theirs = dmidecode(dump(*(coded(9, 0x05, 0x100 + code, code, 0x11) for code in smbios_names.SLOT_TYPE)))
    for code, name in smbios_names.SLOT_TYPE.items():
        # "<bus width> <type>"; the width 0 is out of spec.
        value = theirs[f"0x{0x100 + code:04X}"]["Type"].replace("<OUT OF SPEC>", "").strip()
        assert value in OTHER_NAMES or words(value) <= words(name), (code, value, name)
    theirs = dmidecode(dump(*(coded(9, 0x06, 0x100 + code, code, 0x11) for code in smbios_names.SLOT_WIDTH)))
    for code, name in smbios_names.SLOT_WIDTH.items():
        value = (
            theirs[f"0x{0x100 + code:04X}"]["Type"].replace("<OUT OF SPEC>", "").strip().replace("-bit", " bit")
        )
        assert value in ("", name.partition(" or ")[2] or name), (code, value, name)


def test_server_in_one_line() -> None:
    of = decoded(dump(*server()))
    assert of.title == "Dell Inc. PowerEdge R750, BIOS 2.14.2"
    assert of.findings == ("Thermal State: Critical",)
    assert of.facts == ("1 processor", "144 GB of memory in 2 modules")
    assert of.problems == ()


def test_what_identifies_the_machine_is_private() -> None:
    of = decoded(dump(*server()))
    private = {shown(field) for each in fields(of).values() for field in each.values() if field.private}
    assert private == {
        *("SERIAL1", "SERIAL2", "SERIAL3", "SN4", "SN17"),
        *("TAG2", "TAG3", "TAG4", "TAG17"),
        "33221100-5544-7766-8899-aabbccddeeff",
    }
    assert not any(secret in of.summary for secret in private)


def test_values_for_programs() -> None:
    ours = fields(decoded(dump(*server())))
    assert ours["0x1100"]["Size"].value == 128 << 30
    assert ours["0x1100"]["Size"].text == "128 GB"
    assert ours["0x1000"]["Maximum Capacity"].value == 6 << 40
    assert (ours["0x0400"]["Thread Count"].value, ours["0x0400"]["Core Count"].value) == (300, 32)
    assert ours["0x0000"]["Extended BIOS ROM Size"].text == "32 MB"
    assert ours["0x0000"]["BIOS Characteristics Extension Byte 2"].text.endswith("UEFI Specification is supported")
    assert ours["0x0700"]["Cache Configuration"].text == "Level 1, Enabled, Not Socketed, Internal, Write Back"
    assert ours["0x0701"]["Installed Size"].value == 48 << 16
    assert ours["0x0901"]["Bus Address"].value is None
    assert set(ours["0x1102"]) == {
        "Physical Memory Array Handle",
        "Memory Error Information Handle",
        "Size",
        "Form Factor",
        "Device Locator",
        "Bank Locator",
    }


def test_structures_without_a_decoder_are_listed() -> None:
    of = decoded(dump(*server()))
    assert of.sections[-1].name == "Other structures"
    assert of.sections[-1].parts == (
        Table(
            "Structures",
            ("Handle", "Type", "Name", "Length"),
            (
                ("0x0b00", 11, "OEM Strings", 5),
                ("0xdd00", 221, "OEM-specific", 6),
                ("0x7f00", 127, "End-of-Table", 4),
            ),
        ),
    )


def test_qemu_in_one_line() -> None:
    of = decoded(dump_2(*seabios()))
    assert of.title == ("QEMU Standard PC (Q35 + ICH9, 2009), BIOS rel-1.16.3-0-ga6ed6b701f0a-prebuilt.qemu.org")
    assert of.findings == ()
    assert of.facts == ("1 processor", "2 GB of memory in 1 module")
    assert fields(of)["0x0100"]["UUID"].text == "Not Settable"


def test_board_stands_for_a_system_without_a_name() -> None:
    system = structure(1, 1, bytes([1, 2, 0, 0]), "To Be Filled By O.E.M.", "To Be Filled By O.E.M.")
    board = structure(2, 2, bytes([1, 2, 0, 0]), "ASRock", "X570")
    assert decoded(dump(system, board)).title == "ASRock X570"
    assert decoded(dump()).title == "SMBIOS 3.4"


def test_uuid_of_old_versions_is_not_swapped() -> None:
    require("dmidecode")
    data = dump_2(*server(), version=(2, 5))
    ours = fields(decoded(data))["0x0100"]["UUID"].value
    assert ours == dmidecode(data)["0x0100"]["UUID"] == "00112233-4455-6677-8899-aabbccddeeff"


def test_strings_that_are_missing() -> None:
    ours = fields(decoded(dump(structure(1, 1, bytes([1, 9, 0, 2]), "Maker"))))["0x0001"]
    assert (ours["Manufacturer"].value, ours["Product Name"].value, ours["Version"].value) == ("Maker", None, None)
    assert ours["Product Name"].text == "string 9, which is missing"
    assert ours["Version"].text == "Not Specified"


def test_table_that_is_cut_off() -> None:
    whole = dump(*server())
    of = decoded(whole[:-100])
    assert of.title == "Dell Inc. PowerEdge R750, BIOS 2.14.2"
    assert len(of.problems) == 1
    assert re.fullmatch(r"byte \d+: a structure of type \d+ is broken, the rest is not read", of.problems[0])
    of = decoded(dump(structure(1, 1, b""))[:-6])
    assert of.problems == ("the table has 6 bytes, the entry point says 12",)
    assert decoded(dump(structure(1, 1, b"")) + bytes(100)).problems == ()


def test_entry_points() -> None:
    damaged = bytearray(dump(*server()))
    damaged[7] ^= 1
    assert decoded(bytes(damaged)).problems == ("entry point: wrong checksum",)
    legacy = bytearray(struct.pack("<5sBHIHB", b"_DMI_", 0, len(END), 0x20, 1, 0x23))
    legacy[5] = -sum(legacy) & 0xFF
    assert decoded(bytes(legacy).ljust(32, b"\0") + END).title == "SMBIOS 2.3"
    for data in (b"", b"_SM3_", b"text" * 20, bytes(64), b"\xff" * 64):
        with pytest.raises(InvalidDump, match="no SMBIOS entry point"):
            decoded(data)


def test_many_structures_are_bounded() -> None:
    of = decoded(dump(*[structure(1, 1, b"")] * (MAX_STRUCTURES + 1)))
    assert of.problems == (f"only the first {MAX_STRUCTURES} structures are decoded",)


def test_many_findings_are_bounded() -> None:
    chassis = structure(3, 3, bytes([0, 23, 0, 0, 0, 5, 5, 5, 3]))
    assert len(decoded(dump(*[chassis] * 100)).findings) == 32


def test_hostile_strings_are_escaped() -> None:
    of = decoded(dump(structure(1, 1, bytes([1, 2, 0, 0]), "\x1b[2J", "<script>\x07é")))
    assert of.title == "\\x1b[2J <script>\\x07\\xc3\\xa9"


def test_damaged_tables_are_endured() -> None:
    endures(decode, samples(), cuts=150, flips=80)
