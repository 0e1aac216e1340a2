# SPDX-License-Identifier: LGPL-2.1-or-later
"""The inventory of the machine: the device dump ``dmi``, in the format of ``dmidecode --dump-bin``.

System Management BIOS Reference Specification, DSP0134 3.7: 5.2 (entry points), 6.1 (structures), 7 (fields). The
entry point is at byte 0, the structures are at byte 32.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO
from uuid import UUID

from ...errors import InvalidDump
from ...text import counted
from ..decoded import Decoded, Field, Part, Section, Table
from ..structure import Item, ascii_text, bits, bits_of, code_of, hexadecimal_digits, named, number
from .cper_section import address, hex16
from .smbios_names import (
    ARRAY_ERROR_CORRECTION,
    ARRAY_LOCATION,
    ARRAY_USE,
    ASSOCIATIVITY,
    BIOS_CHARACTERISTICS,
    BIOS_EXTENSION_1,
    BIOS_EXTENSION_2,
    BOARD_FEATURES,
    BOARD_TYPE,
    CACHE_ERROR_CORRECTION,
    CACHE_LOCATION,
    CACHE_MODE,
    CACHE_TYPE,
    CHASSIS_STATE,
    CHASSIS_TYPE,
    FORM_FACTOR,
    IPMI_INTERFACE,
    MEMORY_TECHNOLOGY,
    MEMORY_TYPE,
    ONBOARD_DEVICE,
    OPERATING_MODE,
    PROCESSOR_CHARACTERISTICS,
    PROCESSOR_FAMILY,
    PROCESSOR_STATUS,
    PROCESSOR_TYPE,
    PROCESSOR_UPGRADE,
    SECURITY_STATUS,
    SLOT_CHARACTERISTICS_1,
    SLOT_CHARACTERISTICS_2,
    SLOT_LENGTH,
    SLOT_TYPE,
    SLOT_USAGE,
    SLOT_WIDTH,
    SRAM_TYPE,
    STRUCTURE_TYPE,
    TYPE_DETAIL,
    WAKE_UP_TYPE,
)

TABLE_START = 32
"""Where structures begin."""

MAX_TABLE_SIZE = 1 << 20
"""Bytes of structures that are read; those of a large server are some 64 kB."""

MAX_FINDINGS = 32
"""States of chassis and processors that are said to be wrong; a machine has a few."""

MAX_STRUCTURES = 4096
"""Structures that are decoded."""


@dataclass(frozen=True, slots=True)
class Structure:
    """One SMBIOS structure, 6.1.2."""

    kind: int
    handle: int
    data: bytes
    """Its formatted area, with the header of 4 bytes."""
    strings: tuple[str, ...]
    version: tuple[int, int]
    """Of the entry point: 3, 7."""

    def string(self, index: int) -> tuple[str | None, str]:
        """Return string *index*, which counts from 1, and how it is shown."""
        if not index:
            return None, "Not Specified"
        if index > len(self.strings):
            return None, f"string {index}, which is missing"
        return self.strings[index - 1], ""


@dataclass(frozen=True, slots=True)
class _String:
    """A field that is the number of a string."""

    name: str
    offset: int
    private: bool = False
    size: int = 1

    def of(self, structure: Structure) -> Field:
        value, text = structure.string(structure.data[self.offset])
        return Field(self.name, value, text, private=self.private)


@dataclass(frozen=True, slots=True)
class _Number:
    """A number, of which a wider field has the value if it is too large; both are converted into one unit."""

    name: str
    offset: int
    size: int
    show: Callable[[int | None], str]
    """Shows the converted value; None is unknown."""
    escape: int
    """Says that the wider field has the value."""
    wide_offset: int
    wide_size: int
    convert: Callable[[int], int | None] = lambda value: value
    convert_wide: Callable[[int], int | None] = lambda value: value

    def of(self, structure: Structure) -> Field:
        raw = number(structure.data, self.offset, self.size, self.name)
        value = self.convert(raw)
        if raw == self.escape and len(structure.data) >= self.wide_offset + self.wide_size:
            value = self.convert_wide(number(structure.data, self.wide_offset, self.wide_size, self.name))
        return Field(self.name, value, self.show(value))


@dataclass(frozen=True, slots=True)
class _Special:
    """A field that no number or string is."""

    name: str
    offset: int
    size: int
    read: Callable[[Structure], tuple[str | int | None, str]]
    """Returns the value, and how it is shown."""
    private: bool = False

    def of(self, structure: Structure) -> Field:
        value, text = self.read(structure)
        return Field(self.name, value, text, private=self.private)


_Entry = Item | _String | _Number | _Special


def _size(value: int | None) -> str:
    """Return bytes in the largest unit without a fraction: ``64 GB``; units are powers of 1,024, as in DSP0134."""
    if value is None:
        return "Unknown"
    units = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
    index = 0
    while value >= 1024 and not value % 1024 and index < len(units) - 1:
        value //= 1024
        index += 1
    return f"{value} {units[index]}"


def _unless_zero(unit: str, zero: str = "Unknown") -> Callable[[int], str]:
    return lambda value: f"{value} {unit}".strip() if value else zero


def _release(value: int) -> str:
    """Return two bytes, major and minor: ``2.14``."""
    return "Not Provided" if value == 0xFFFF else f"{value & 0xFF}.{value >> 8}"


def _handle(value: int) -> str:
    return {0xFFFF: "Not Provided", 0xFFFE: "Not Provided"}.get(value, f"{value:#06x}")


def _bus_address(offset: int) -> Callable[[Structure], tuple[str | None, str]]:
    """Return a reader of Segment Group Number, Bus Number and Device/Function Number at *offset*."""

    def read(structure: Structure) -> tuple[str | None, str]:
        segment, bus, device = (
            number(structure.data, offset, 2, "Segment Group Number"),
            structure.data[offset + 2],
            structure.data[offset + 3],
        )
        if (segment, bus, device) == (0xFFFF, 0xFF, 0xFF):
            return None, "Not Applicable"
        return f"{segment:04x}:{bus:02x}:{device >> 3:02x}.{device & 7}", ""

    return read


# 7.1: BIOS Information.
def _rom_size(value: int) -> str:
    return "16 MB or greater" if value == 0xFF else _size((value + 1) << 16)


def _extended_rom_size(value: int) -> str:
    return f"{value & 0x3FFF} {named(value >> 14, {0: 'MB', 1: 'GB'})}"


_BIOS: tuple[_Entry, ...] = (
    _String("Vendor", 0x04),
    _String("BIOS Version", 0x05),
    Item("BIOS Starting Address Segment", 0x06, 2, hex16),
    _String("BIOS Release Date", 0x08),
    Item("BIOS ROM Size", 0x09, 1, _rom_size),
    Item("BIOS Characteristics", 0x0A, 8, lambda value: bits(value & 0xFFFFFFF8, BIOS_CHARACTERISTICS)),
    Item("BIOS Characteristics Extension Byte 1", 0x12, 1, bits_of(BIOS_EXTENSION_1)),
    Item("BIOS Characteristics Extension Byte 2", 0x13, 1, bits_of(BIOS_EXTENSION_2)),
    Item("System BIOS Release", 0x14, 2, _release),
    Item("Embedded Controller Firmware Release", 0x16, 2, _release),
    Item("Extended BIOS ROM Size", 0x18, 2, _extended_rom_size),
)


# 7.2: System Information.
def _uuid(structure: Structure) -> tuple[str | None, str]:
    raw = structure.data[0x08:0x18]
    if not any(raw):
        return None, "Not Settable"
    if raw == b"\xff" * 16:
        return None, "Not Present"
    # 7.2.1: little-endian as of 2.6; before, the specification did not say it.
    return str(UUID(bytes_le=raw) if structure.version >= (2, 6) else UUID(bytes=raw)), ""


_SYSTEM: tuple[_Entry, ...] = (
    _String("Manufacturer", 0x04),
    _String("Product Name", 0x05),
    _String("Version", 0x06),
    _String("Serial Number", 0x07, private=True),
    _Special("UUID", 0x08, 16, _uuid, private=True),
    Item("Wake-up Type", 0x18, 1, code_of(WAKE_UP_TYPE)),
    _String("SKU Number", 0x19),
    _String("Family", 0x1A),
)

# 7.3: Baseboard (or Module) Information.
_BOARD: tuple[_Entry, ...] = (
    _String("Manufacturer", 0x04),
    _String("Product", 0x05),
    _String("Version", 0x06),
    _String("Serial Number", 0x07, private=True),
    _String("Asset Tag", 0x08, private=True),
    Item("Feature Flags", 0x09, 1, bits_of(BOARD_FEATURES)),
    _String("Location in Chassis", 0x0A),
    Item("Chassis Handle", 0x0B, 2, hex16),
    Item("Board Type", 0x0D, 1, code_of(BOARD_TYPE)),
    Item("Number of Contained Object Handles", 0x0E, 1),
)


# 7.4: System Enclosure or Chassis.
def _state_is_wrong(value: int) -> bool:
    return value in (4, 5, 6)


def _chassis_sku(structure: Structure) -> tuple[str | None, str]:
    at = 0x15 + structure.data[0x13] * structure.data[0x14]
    return structure.string(structure.data[at]) if at < len(structure.data) else (None, "Not Specified")


_CHASSIS: tuple[_Entry, ...] = (
    _String("Manufacturer", 0x04),
    Item(
        "Type",
        0x05,
        1,
        lambda value: f"{named(value & 0x7F, CHASSIS_TYPE)}{', chassis lock is present' if value & 0x80 else ''}",
    ),
    _String("Version", 0x06),
    _String("Serial Number", 0x07, private=True),
    _String("Asset Tag Number", 0x08, private=True),
    Item("Boot-up State", 0x09, 1, code_of(CHASSIS_STATE), _state_is_wrong),
    Item("Power Supply State", 0x0A, 1, code_of(CHASSIS_STATE), _state_is_wrong),
    Item("Thermal State", 0x0B, 1, code_of(CHASSIS_STATE), _state_is_wrong),
    Item("Security Status", 0x0C, 1, code_of(SECURITY_STATUS)),
    Item("OEM-defined", 0x0D, 4, hexadecimal_digits(8)),
    Item("Height", 0x11, 1, _unless_zero("U", "Unspecified")),
    Item("Number of Power Cords", 0x12, 1, _unless_zero("", "Unspecified")),
    _Special("SKU Number", 0x13, 3, _chassis_sku),
)


# 7.5: Processor Information.
def _voltage(value: int) -> str:
    if value & 0x80:
        return f"{(value & 0x7F) / 10:.1f} V"
    return " ".join(text for bit, text in enumerate(("5.0 V", "3.3 V", "2.9 V")) if value >> bit & 1) or "Unknown"


def _processor_status(value: int) -> str:
    return f"Populated, {named(value & 7, PROCESSOR_STATUS)}" if value >> 6 & 1 else "Unpopulated"


def _processor_id(structure: Structure) -> tuple[str, str]:
    return structure.data[0x08:0x10].hex(" ").upper(), ""


def _family(value: int | None) -> str:
    return named(value or 0, PROCESSOR_FAMILY)


def _count(value: int | None) -> str:
    return str(value) if value else "Unknown"


_PROCESSOR: tuple[_Entry, ...] = (
    _String("Socket Designation", 0x04),
    Item("Processor Type", 0x05, 1, code_of(PROCESSOR_TYPE)),
    _Number("Processor Family", 0x06, 1, _family, 0xFE, 0x28, 2),
    _String("Processor Manufacturer", 0x07),
    _Special("Processor ID", 0x08, 8, _processor_id),
    _String("Processor Version", 0x10),
    Item("Voltage", 0x11, 1, _voltage),
    Item("External Clock", 0x12, 2, _unless_zero("MHz")),
    Item("Max Speed", 0x14, 2, _unless_zero("MHz")),
    Item("Current Speed", 0x16, 2, _unless_zero("MHz")),
    Item("Status", 0x18, 1, _processor_status, lambda value: value >> 6 & 1 == 1 and value & 7 == 3),
    Item("Processor Upgrade", 0x19, 1, code_of(PROCESSOR_UPGRADE)),
    Item("L1 Cache Handle", 0x1A, 2, _handle),
    Item("L2 Cache Handle", 0x1C, 2, _handle),
    Item("L3 Cache Handle", 0x1E, 2, _handle),
    _String("Serial Number", 0x20, private=True),
    _String("Asset Tag", 0x21, private=True),
    _String("Part Number", 0x22),
    _Number("Core Count", 0x23, 1, _count, 0xFF, 0x2A, 2),
    _Number("Core Enabled", 0x24, 1, _count, 0xFF, 0x2C, 2),
    _Number("Thread Count", 0x25, 1, _count, 0xFF, 0x2E, 2),
    Item("Processor Characteristics", 0x26, 2, bits_of(PROCESSOR_CHARACTERISTICS)),
    Item("Thread Enabled", 0x30, 2, _unless_zero("")),
)


# 7.8: Cache Information.
def _cache_configuration(value: int) -> str:
    return ", ".join(
        (
            f"Level {(value & 7) + 1}",
            "Enabled" if value >> 7 & 1 else "Disabled",
            "Socketed" if value >> 3 & 1 else "Not Socketed",
            CACHE_LOCATION[value >> 5 & 3],
            CACHE_MODE[value >> 8 & 3],
        )
    )


def _cache_size(value: int) -> int:
    return (value & 0x7FFF) << (16 if value >> 15 else 10)


def _cache_size_2(value: int) -> int:
    return (value & 0x7FFFFFFF) << (16 if value >> 31 else 10)


_CACHE: tuple[_Entry, ...] = (
    _String("Socket Designation", 0x04),
    Item("Cache Configuration", 0x05, 2, _cache_configuration),
    _Number("Maximum Cache Size", 0x07, 2, _size, 0xFFFF, 0x13, 4, _cache_size, _cache_size_2),
    _Number("Installed Size", 0x09, 2, _size, 0xFFFF, 0x17, 4, _cache_size, _cache_size_2),
    Item("Supported SRAM Type", 0x0B, 2, bits_of(SRAM_TYPE)),
    Item("Current SRAM Type", 0x0D, 2, bits_of(SRAM_TYPE)),
    Item("Cache Speed", 0x0F, 1, _unless_zero("ns")),
    Item("Error Correction Type", 0x10, 1, code_of(CACHE_ERROR_CORRECTION)),
    Item("System Cache Type", 0x11, 1, code_of(CACHE_TYPE)),
    Item("Associativity", 0x12, 1, code_of(ASSOCIATIVITY)),
)

# 7.10: System Slots.
_SLOT: tuple[_Entry, ...] = (
    _String("Slot Designation", 0x04),
    Item("Slot Type", 0x05, 1, code_of(SLOT_TYPE)),
    Item("Slot Data Bus Width", 0x06, 1, code_of(SLOT_WIDTH)),
    Item("Current Usage", 0x07, 1, code_of(SLOT_USAGE)),
    Item("Slot Length", 0x08, 1, code_of(SLOT_LENGTH)),
    Item("Slot ID", 0x09, 2),
    Item("Slot Characteristics 1", 0x0B, 1, bits_of(SLOT_CHARACTERISTICS_1)),
    Item("Slot Characteristics 2", 0x0C, 1, bits_of(SLOT_CHARACTERISTICS_2)),
    _Special("Bus Address", 0x0D, 4, _bus_address(0x0D)),
    Item("Data Bus Width", 0x11, 1),
    Item("Peer Grouping Count", 0x12, 1),
)


# 7.17: Physical Memory Array.
def _array_capacity(value: int) -> int | None:
    return None if value == 0x80000000 else value << 10


def _error_handle(value: int) -> str:
    return {0xFFFE: "Not Provided", 0xFFFF: "No Error"}.get(value, f"{value:#06x}")


_MEMORY_ARRAY: tuple[_Entry, ...] = (
    Item("Location", 0x04, 1, code_of(ARRAY_LOCATION)),
    Item("Use", 0x05, 1, code_of(ARRAY_USE)),
    Item("Memory Error Correction", 0x06, 1, code_of(ARRAY_ERROR_CORRECTION)),
    _Number("Maximum Capacity", 0x07, 4, _size, 0x80000000, 0x0F, 8, _array_capacity),
    Item("Memory Error Information Handle", 0x0B, 2, _error_handle),
    Item("Number of Memory Devices", 0x0D, 2),
)


# 7.18: Memory Device.
def _device_size(value: int) -> int | None:
    return None if value == 0xFFFF else (value & 0x7FFF) << (10 if value >> 15 else 20)


def _show_device_size(value: int | None) -> str:
    return "No Module Installed" if value == 0 else _size(value)


def _width(value: int) -> str:
    return "Unknown" if value in (0, 0xFFFF) else f"{value} bits"


def _device_set(value: int) -> str:
    return {0: "None", 0xFF: "Unknown"}.get(value, str(value))


def _speed(value: int | None) -> str:
    return f"{value} MT/s" if value else "Unknown"


def _millivolts(value: int) -> str:
    return f"{value / 1000:.3g} V" if value else "Unknown"


def _manufacturer_id(value: int) -> str:
    # JEP106: the low byte is the bank, with a parity bit.
    return f"Bank {(value & 0x7F) + 1}, Hex {value >> 8:#04x}" if value else "Unknown"


def _product_id(value: int) -> str:
    return f"{value:#06x}" if value else "Unknown"


def _portion(value: int) -> str:
    if value == 0xFFFFFFFFFFFFFFFF:
        return "Unknown"
    return _size(value) if value else "None"


_MEMORY_DEVICE: tuple[_Entry, ...] = (
    Item("Physical Memory Array Handle", 0x04, 2, hex16),
    Item("Memory Error Information Handle", 0x06, 2, _error_handle),
    Item("Total Width", 0x08, 2, _width),
    Item("Data Width", 0x0A, 2, _width),
    _Number(
        "Size", 0x0C, 2, _show_device_size, 0x7FFF, 0x1C, 4, _device_size, lambda value: (value & 0x7FFFFFFF) << 20
    ),
    Item("Form Factor", 0x0E, 1, code_of(FORM_FACTOR)),
    Item("Device Set", 0x0F, 1, _device_set),
    _String("Device Locator", 0x10),
    _String("Bank Locator", 0x11),
    Item("Memory Type", 0x12, 1, code_of(MEMORY_TYPE)),
    Item("Type Detail", 0x13, 2, bits_of(TYPE_DETAIL)),
    _Number("Speed", 0x15, 2, _speed, 0xFFFF, 0x54, 4),
    _String("Manufacturer", 0x17),
    _String("Serial Number", 0x18, private=True),
    _String("Asset Tag", 0x19, private=True),
    _String("Part Number", 0x1A),
    Item("Rank", 0x1B, 1, lambda value: str(value & 0xF) if value & 0xF else "Unknown"),
    _Number("Configured Memory Speed", 0x20, 2, _speed, 0xFFFF, 0x58, 4),
    Item("Minimum voltage", 0x22, 2, _millivolts),
    Item("Maximum voltage", 0x24, 2, _millivolts),
    Item("Configured voltage", 0x26, 2, _millivolts),
    Item("Memory Technology", 0x28, 1, code_of(MEMORY_TECHNOLOGY)),
    Item("Memory Operating Mode Capability", 0x29, 2, bits_of(OPERATING_MODE)),
    _String("Firmware Version", 0x2B),
    Item("Module Manufacturer ID", 0x2C, 2, _manufacturer_id),
    Item("Module Product ID", 0x2E, 2, _product_id),
    Item("Memory Subsystem Controller Manufacturer ID", 0x30, 2, _manufacturer_id),
    Item("Memory Subsystem Controller Product ID", 0x32, 2, _product_id),
    Item("Non-volatile Size", 0x34, 8, _portion),
    Item("Volatile Size", 0x3C, 8, _portion),
    Item("Cache Size", 0x44, 8, _portion),
    Item("Logical Size", 0x4C, 8, _portion),
    Item("PMIC0 Manufacturer ID", 0x5C, 2, _manufacturer_id),
    Item("PMIC0 Revision Number", 0x5E, 2, hex16),
    Item("RCD Manufacturer ID", 0x60, 2, _manufacturer_id),
    Item("RCD Revision Number", 0x62, 2, hex16),
)
_EMPTY_DEVICE = (
    "Physical Memory Array Handle",
    "Memory Error Information Handle",
    "Size",
    "Form Factor",
    "Device Locator",
    "Bank Locator",
)
"""Fields of a memory device without a module; others mean nothing."""


# 7.20: Memory Array Mapped Address.
def _range_address(value: int | None) -> str:
    return f"{value or 0:#013x}"


_MAPPED_ADDRESS: tuple[_Entry, ...] = (
    _Number("Starting Address", 0x04, 4, _range_address, 0xFFFFFFFF, 0x0F, 8, convert=lambda value: value << 10),
    # The address of the last byte of its last kB.
    _Number(
        "Ending Address", 0x08, 4, _range_address, 0xFFFFFFFF, 0x17, 8, convert=lambda value: (value << 10) + 0x3FF
    ),
    Item("Memory Array Handle", 0x0C, 2, hex16),
    Item("Partition Width", 0x0E, 1),
)


# 7.39: IPMI Device Information; IPMI 2.0, table C1-1.
def _base_address(structure: Structure) -> tuple[int, str]:
    value = number(structure.data, 0x08, 8, "Base Address")
    if structure.data[0x04] == 4:
        return value, f"{(value & 0xFF) >> 1:#04x} (SMBus)"
    # The lowest bit says which space it is; that of the address is in the modifier.
    lowest = structure.data[0x10] >> 4 & 1 if len(structure.data) > 0x10 else 0
    return value, f"{address((value & ~1) | lowest)} ({'I/O' if value & 1 else 'Memory-mapped'})"


_IPMI: tuple[_Entry, ...] = (
    Item("Interface Type", 0x04, 1, code_of(IPMI_INTERFACE)),
    Item("IPMI Specification Revision", 0x05, 1, lambda value: f"{value >> 4}.{value & 0xF}"),
    Item("I2C Target Address", 0x06, 1, lambda value: f"{value >> 1:#04x}"),
    Item("NV Storage Device Address", 0x07, 1, lambda value: "Not Present" if value == 0xFF else str(value)),
    _Special("Base Address", 0x08, 8, _base_address),
    Item(
        "Register spacing",
        0x10,
        1,
        lambda value: named(
            value >> 6,
            {0: "Successive Byte Boundaries", 1: "32-bit Boundaries", 2: "16-byte Boundaries"},
        ),
    ),
    Item("Interrupt Number", 0x11, 1, _unless_zero("", "Unspecified")),
)

# 7.42: Onboard Devices Extended Information.
_ONBOARD: tuple[_Entry, ...] = (
    _String("Reference Designation", 0x04),
    Item(
        "Device Type",
        0x05,
        1,
        lambda value: f"{named(value & 0x7F, ONBOARD_DEVICE)}, {'Enabled' if value >> 7 else 'Disabled'}",
    ),
    Item("Device Type Instance", 0x06, 1),
    _Special("Bus Address", 0x07, 4, _bus_address(0x07)),
)

_STRUCTURES: Mapping[int, tuple[_Entry, ...]] = {
    0: _BIOS,
    1: _SYSTEM,
    2: _BOARD,
    3: _CHASSIS,
    4: _PROCESSOR,
    7: _CACHE,
    9: _SLOT,
    16: _MEMORY_ARRAY,
    17: _MEMORY_DEVICE,
    19: _MAPPED_ADDRESS,
    38: _IPMI,
    41: _ONBOARD,
}
_MEMORY_DEVICE_TYPE = 17
_PROCESSOR_TYPE = 4
_CHASSIS_TYPE = 3
_END_OF_TABLE = 127


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode entry point and structures. Raises InvalidDump if there is no entry point."""
    data.seek(0)
    version, size, problems = _entry_point(data.read(TABLE_START))
    data.seek(TABLE_START)
    table = data.read(min(size, MAX_TABLE_SIZE))
    structures, damage = _structures(table, version)
    problems += damage
    if not damage and len(table) < size and not (structures and structures[-1].kind == _END_OF_TABLE):
        problems.append(f"the table has {len(table)} bytes, the entry point says {size}")
    sections = [
        Section(f"{STRUCTURE_TYPE[each.kind]} {each.handle:#06x}", fields_of(each))
        for each in structures
        if each.kind in _STRUCTURES
    ]
    findings = tuple(islice(_findings(structures, sections), MAX_FINDINGS))
    return Decoded(
        _title(structures, version),
        findings,
        tuple(_facts(structures)),
        (*sections, *_others(structures)),
        tuple(problems),
    )


def _entry_point(data: bytes) -> tuple[tuple[int, int], int, list[str]]:
    """Return version, size of the table and problems of an entry point, 5.2. Raises InvalidDump if it is none."""
    if data.startswith(b"_SM3_") and len(data) >= 0x18:
        version, size, checked = (data[0x07], data[0x08]), number(data, 0x0C, 4, "size"), data[: data[0x06]]
    elif data.startswith(b"_SM_") and len(data) >= 0x1F:
        version, size, checked = (data[0x06], data[0x07]), number(data, 0x16, 2, "size"), data[: data[0x05]]
    elif data.startswith(b"_DMI_") and len(data) >= 0x0F:
        version, size, checked = (data[0x0E] >> 4, data[0x0E] & 0xF), number(data, 0x06, 2, "size"), data[:0x0F]
    else:
        raise InvalidDump("no SMBIOS entry point at its beginning")
    return version, size, ["entry point: wrong checksum"] if sum(checked) & 0xFF else []


def _structures(table: bytes, version: tuple[int, int]) -> tuple[list[Structure], list[str]]:
    """Return the structures up to that which ends the table, 6.1, and what is wrong with the table."""
    structures: list[Structure] = []
    start = 0
    while start + 4 <= len(table):
        if len(structures) == MAX_STRUCTURES:
            return structures, [f"only the first {MAX_STRUCTURES} structures are decoded"]
        kind, length = table[start], table[start + 1]
        strings_start = start + length
        end = table.find(b"\0\0", strings_start)
        if length < 4 or strings_start > len(table) or end < 0:
            return structures, [
                f"byte {TABLE_START + start}: a structure of type {kind} is broken, the rest is not read"
            ]
        strings = (
            tuple(ascii_text(text) for text in table[strings_start:end].split(b"\0"))
            if end > strings_start
            else ()
        )
        handle = number(table, start + 2, 2, "Handle")
        structures.append(Structure(kind, handle, table[start:strings_start], strings, version))
        if kind == _END_OF_TABLE:
            break
        start = end + 2
    return structures, []


def fields_of(structure: Structure) -> tuple[Field, ...]:
    """Return the fields of a structure of a known type; those beyond its end are of a later version."""
    fields = []
    for entry in _STRUCTURES[structure.kind]:
        if entry.offset + entry.size > len(structure.data):
            continue
        fields.append(entry.field(structure.data, "little") if isinstance(entry, Item) else entry.of(structure))
    if structure.kind == _MEMORY_DEVICE_TYPE and any(
        field.name == "Size" and field.value == 0 for field in fields
    ):
        fields = [field for field in fields if field.name in _EMPTY_DEVICE]
    return tuple(fields)


def _others(structures: list[Structure]) -> Iterator[Section]:
    """Return a table of the structures that have no decoder."""
    rows = tuple(
        (f"{each.handle:#06x}", each.kind, STRUCTURE_TYPE.get(each.kind, "OEM-specific"), len(each.data))
        for each in structures
        if each.kind not in _STRUCTURES
    )
    if rows:
        parts: tuple[Part, ...] = (Table("Structures", ("Handle", "Type", "Name", "Length"), rows),)
        yield Section("Other structures", parts)


_PLACEHOLDERS = (
    "",
    "to be filled by o.e.m.",
    "system manufacturer",
    "system product name",
    "default string",
    "o.e.m.",
)
"""What boards say that nobody has given a name, in small letters."""


def _title(structures: list[Structure], version: tuple[int, int]) -> str:
    """Return ``Dell Inc. PowerEdge R750, BIOS 1.2.3``; the board stands for a system without a name."""
    first = {each.kind: each for each in reversed(structures)}
    names: list[str] = []
    for kind in (1, 2):
        if kind in first and not names:
            names = [
                name
                for offset in (0x04, 0x05)
                if (name := _string_at(first[kind], offset)).lower() not in _PLACEHOLDERS
            ]
    parts = [" ".join(names)]
    if 0 in first and (bios := _string_at(first[0], 0x05)):
        parts.append(f"BIOS {bios}")
    return ", ".join(filter(None, parts)) or f"SMBIOS {version[0]}.{version[1]}"


def _string_at(structure: Structure, offset: int) -> str:
    return (structure.string(structure.data[offset])[0] or "") if offset < len(structure.data) else ""


def _findings(structures: list[Structure], sections: list[Section]) -> Iterator[str]:
    """Return states of the chassis and of processors that are wrong."""
    for structure, section in zip(
        (each for each in structures if each.kind in _STRUCTURES), sections, strict=True
    ):
        for part in section.parts:
            if isinstance(part, Field) and part.wrong:
                where = "" if structure.kind == _CHASSIS_TYPE else f"{_string_at(structure, 0x04)} "
                yield f"{where}{part.name}: {part.text}".strip()


def _facts(structures: list[Structure]) -> Iterator[str]:
    """Return how many processors there are, and how much memory in how many modules."""
    processors = [
        each
        for each in structures
        if each.kind == _PROCESSOR_TYPE and len(each.data) > 0x18 and each.data[0x18] >> 6 & 1
    ]
    if processors:
        yield counted(len(processors), "processor")
    sizes = [
        field.value
        for each in structures
        if each.kind == _MEMORY_DEVICE_TYPE
        for field in fields_of(each)
        if field.name == "Size" and isinstance(field.value, int) and field.value
    ]
    if sizes:
        yield f"{_size(sum(sizes))} of memory in {counted(len(sizes), 'module')}"
