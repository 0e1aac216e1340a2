# SPDX-License-Identifier: LGPL-2.1-or-later
"""A network device: driver, registers, EEPROM and firmware dump, as ethtool gets them.

Registers are an array that the driver defines, see REGISTERS. Bits: PCI/PCI-X Family of Gigabit Ethernet
Controllers Software Developer's Manual (Intel 317453), 13.4; Intel 82576 Gigabit Ethernet Controller Datasheet,
chapter 8. Linux ``drivers/net/ethernet/intel/e1000/e1000_hw.h``, ``igb/e1000_defines.h``, ``igc/igc_defines.h``.
EEPROM: 317453, 5.6: words 00h to 02h are the Ethernet Address, words 00h to 3Fh sum up to BABAh.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from ...text import counted, shortened
from ..decoded import Decoded, Field, Part, Section
from ..excerpt import MAX_BYTES, MAX_TEXT, excerpt, first_bytes, is_text, lines_of
from ..members import Member, Members, is_archive, read_members
from ..structure import Item, fields, hexadecimal_digits
from .sff import is_module, module_fields
from .unknown import decode as decode_unknown

MAX_DRIVER = 4096
"""Bytes of the text about the driver."""

MAX_LINES = 64

EEPROM_SHOWN = 512

EEPROM_READ = 64 << 10
"""As many bytes as the collector takes."""

CHECKED = 0x80
"""Bytes of an EEPROM of Intel's that have a checksum: their words sum up to CHECKSUM."""

CHECKSUM = 0xBABA

FLASHLESS = (0x157B, 0x157C)
"""Device IDs of I210 without flash, of which the words are no EEPROM: Linux ``igb/e1000_i210.c``."""

CTRL = {
    0: "FD",
    3: "LRST",
    5: "ASDE",
    6: "SLU",
    7: "ILOS",
    11: "FRCSPD",
    12: "FRCDPLX",
    26: "RST",
    27: "RFCE",
    28: "TFCE",
    30: "VME",
    31: "PHY_RST",
}
STATUS = {0: "FD", 1: "LU", 4: "TXOFF", 5: "TBIMODE"}
RCTL = {1: "EN", 2: "SBP", 3: "UPE", 4: "MPE", 5: "LPE", 15: "BAM", 18: "VFE", 22: "DPF", 23: "PMCF", 26: "SECRC"}
TCTL = {1: "EN", 3: "PSP", 22: "SWXOFF", 24: "RTLC"}

LINK_UP, FULL_DUPLEX, SPEED_2500 = 1 << 1, 1 << 0, 1 << 22
SPEEDS = ("10 Mb/s", "100 Mb/s", "1000 Mb/s", "1000 Mb/s")
"""By bits 6 and 7 of STATUS."""

SILENT = 0xFFFFFFFF
"""What a register reads as if the device does not answer."""


def _flags(names: Mapping[int, str]) -> Callable[[int], str]:
    """Return what shows the bits of *names*: others are numbers, or are not the same in all controllers."""

    def show(value: int) -> str:
        known = ", ".join(name for bit, name in names.items() if value >> bit & 1)
        return f"{value:#010x}: {known}" if known else f"{value:#010x}"

    return show


def _status(value: int) -> str:
    return f"{_flags(STATUS)(value)} ({link_of(value, igc=False)})"


def _igc_status(value: int) -> str:
    return f"{_flags(STATUS)(value)} ({link_of(value, igc=True)})"


def link_of(status: int, *, igc: bool) -> str:
    """Return what the register STATUS says of the link: ``1000 Mb/s, full duplex``."""
    if status == SILENT:
        return "no answer"
    if not status & LINK_UP:
        return "no link"
    # 1000 Mb/s is set, too.
    speed = "2500 Mb/s" if igc and status & SPEED_2500 else SPEEDS[status >> 6 & 3]
    return f"{speed}, {'full' if status & FULL_DUPLEX else 'half'} duplex"


def _registers(names: Mapping[int, str], *, igc: bool = False) -> tuple[Item, ...]:
    show: dict[str, Callable[[int], str]] = {
        "CTRL": _flags(CTRL),
        "STATUS": _igc_status if igc else _status,
        "RCTL": _flags(RCTL),
        "TCTL": _flags(TCTL),
    }
    return tuple(Item(name, 4 * index, 4, show.get(name, hexadecimal_digits(8))) for index, name in names.items())


# e1000_get_regs() in e1000/e1000_ethtool.c and e1000e/ethtool.c; from 12 on, it depends on the PHY.
E1000 = _registers(
    {
        0: "CTRL",
        1: "STATUS",
        2: "RCTL",
        3: "RDLEN",
        4: "RDH",
        5: "RDT",
        6: "RDTR",
        7: "TCTL",
        8: "TDLEN",
        9: "TDH",
        10: "TDT",
        11: "TIDV",
        12: "PHY type",
    }
)

# igb_get_regs() in igb/igb_ethtool.c; from 54 to 120, it is what the driver has counted.
IGB = _registers(
    {
        0: "CTRL",
        1: "STATUS",
        2: "CTRL_EXT",
        3: "MDIC",
        4: "SCTL",
        5: "CONNSW",
        7: "LEDCTL",
        8: "PBA",
        10: "FRTIMER",
        12: "EECD",
        14: "EICS",
        15: "EIMS",
        20: "ICS",
        21: "IMS",
        32: "RCTL",
        33: "RXCSUM",
        36: "MRQC",
        38: "TCTL",
        42: "WUC",
        44: "WUS",
        47: "PCS_CFG0",
        48: "PCS_LCTL",
        49: "PCS_LSTAT",
        137: "RDLEN(0)",
        141: "RDH(0)",
        145: "RDT(0)",
        149: "RXDCTL(0)",
        219: "TDLEN(0)",
        223: "TDH(0)",
        227: "TDT(0)",
        231: "TXDCTL(0)",
    }
)
IGB_COUNTERS = tuple(
    Item(name, 4 * index, 4, wrong=lambda value: 0 < value < SILENT)
    for index, name in {54: "CRCERRS", 55: "ALGNERRC", 56: "SYMERRS", 57: "RXERRC", 58: "MPC", 68: "RLEC"}.items()
)

# igc_ethtool_get_regs() in igc/igc_ethtool.c: versions of Linux differ in what follows.
IGC = _registers({0: "CTRL", 1: "STATUS", 2: "CTRL_EXT", 3: "MDIC"}, igc=True)

REGISTERS: Mapping[str, tuple[Item, ...]] = {
    "e1000": E1000,
    "e1000e": E1000,
    "igb": (*IGB, *IGB_COUNTERS),
    "igc": IGC,
}
"""By driver, its registers that have names here; all are little-endian."""

WITH_ADDRESS = ("e1000", "e1000e", "igb", "igc")
"""Drivers whose EEPROM begins with a MAC address."""

IGB_ADDRESSES = (179 * 4, 211 * 4)
"""Bytes of igb's registers that are MAC addresses: RAL and RAH."""


@dataclass(slots=True)
class _Seen:
    """What is known of the device so far."""

    lines: dict[str, str]
    findings: list[str]
    facts: list[str]
    problems: list[str]

    @property
    def driver(self) -> str:
        return self.lines.get("driver", "")

    @property
    def device_id(self) -> int:
        """The PCI Device ID, which the version of Intel's registers has."""
        try:
            return int(self.lines.get("registers-version", ""), 16) & 0xFFFF
        except ValueError:
            return 0


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode ``igb_0000:02:00.0`` and others. Raises InvalidDump if its archive is damaged.

    Any driver's own device dump may have such a name: what is not the collector's is unknown.
    """
    if not is_archive(data):
        return decode_unknown(dump_name, data)
    members = read_members(data)
    decoders = {"driver": _driver, "registers": _register_parts, "eeprom": _eeprom, "dump": _dump}
    if members.files.keys().isdisjoint(decoders):
        return decode_unknown(dump_name, data)
    seen = _Seen(_lines(members), [], [], list(members.problems))
    sections = [
        Section(name, tuple(decode_member(members.files[name], seen)))
        for name, decode_member in decoders.items()
        if name in members.files
    ]
    driver = seen.driver or shortened(dump_name.partition("_")[0])
    firmware = seen.lines.get("firmware-version", "")
    return Decoded(
        f"{driver}, firmware {firmware}" if firmware not in ("", "N/A") else driver,
        tuple(seen.findings),
        tuple(seen.facts),
        tuple(sections),
        tuple(seen.problems),
    )


def _lines(members: Members) -> dict[str, str]:
    """Return the text about the driver by its names: ``driver``, ``firmware-version``."""
    member = members.files.get("driver")
    text = lines_of(member.read(MAX_DRIVER)) if member is not None else ""
    lines: dict[str, str] = {}
    for line in text.splitlines()[:MAX_LINES]:
        name, colon, value = line.partition(":")
        if colon:
            lines[shortened(name.strip())] = shortened(value.strip())
    return lines


def _driver(member: Member, seen: _Seen) -> Iterator[Part]:
    for name, value in seen.lines.items():
        yield Field(name, value)


def _register_parts(member: Member, seen: _Seen) -> Iterator[Part]:
    registers = member.read(MAX_BYTES)
    if len(registers) < min(member.size, MAX_BYTES):
        seen.problems.append(f"registers: only {len(registers)} of {member.size} bytes are there")
    yield Field("Size", member.size, f"{member.size} bytes")
    items = REGISTERS.get(seen.driver, ())
    yield from fields(items, registers)
    if items and len(registers) >= 8:
        status = int.from_bytes(registers[4:8], "little")
        if status == SILENT:
            seen.findings.append("device does not answer")
        else:
            seen.facts.append(link_of(status, igc=seen.driver == "igc"))
    if seen.driver == "igb" and len(registers) > 4 * 54:
        errors = int.from_bytes(registers[4 * 54 : 4 * 55], "little")
        if 0 < errors < SILENT:
            seen.findings.append(counted(errors, "CRC error"))
    if seen.driver == "igb":
        # Without its MAC addresses.
        start, end = IGB_ADDRESSES
        yield first_bytes("Registers", registers[:start], member.size)
        if registers[end:]:
            yield first_bytes(f"Registers from {end:#x} on", registers[end:], member.size - end, end)
    elif registers:
        yield first_bytes("Registers", registers, member.size)


def _eeprom(member: Member, seen: _Seen) -> Iterator[Part]:
    eeprom = member.read(EEPROM_READ)
    yield Field("Size", member.size, f"{member.size} bytes")
    if len(eeprom) < min(member.size, EEPROM_READ):
        seen.problems.append(f"eeprom: only {len(eeprom)} of {member.size} bytes are there")
    if not eeprom.strip(b"\0") or not eeprom.strip(b"\xff"):
        yield Field("Content", "empty")
        return
    if is_module(eeprom):
        # All of it is decoded, and its bytes have the serial number.
        found = list(module_fields(eeprom))
        alarms = [field for field in found if field.wrong]
        if alarms:
            seen.findings.append(counted(len(alarms), "transceiver alarm"))
        yield from found
        return
    start = 0
    if seen.driver in WITH_ADDRESS and len(eeprom) >= 6:
        yield Field("Ethernet Address", eeprom[:6].hex(":"), private=True)
        yield from _checksum(eeprom, seen)
        start = 6
    yield first_bytes("Bytes", eeprom[start:EEPROM_SHOWN], member.size - start, start)


def _checksum(eeprom: bytes, seen: _Seen) -> Iterator[Part]:
    if seen.driver == "igc" or seen.device_id in FLASHLESS or len(eeprom) < CHECKED:
        return
    words = [int.from_bytes(eeprom[at : at + 2], "little") for at in range(0, CHECKED, 2)]
    total = sum(words) & 0xFFFF
    # Some are shipped without one.
    wrong = total != CHECKSUM and words[-1] != 0xFFFF
    if wrong:
        seen.findings.append("EEPROM checksum wrong")
    yield Field("Checksum", total, f"{total:#06x}{', not 0xbaba' if wrong else ''}", wrong)


def _dump(member: Member, seen: _Seen) -> Iterator[Part]:
    seen.facts.append(f"firmware dump of {member.size} bytes")
    yield Field("Size", member.size, f"{member.size} bytes")
    start = member.read(MAX_BYTES)
    if start:
        yield excerpt("", member.read(MAX_TEXT) if is_text(start) else start, member.size)
