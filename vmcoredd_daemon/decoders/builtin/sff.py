# SPDX-License-Identifier: LGPL-2.1-or-later
"""The memory of a pluggable transceiver: its identity, and what its diagnostics measure.

SFF-8472 12.4: chapter 4, serial ID at A0h, and chapter 9, diagnostics at A2h. SFF-8636 2.10: chapter 6, lower and
upper page 00h. SFF-8024 4.9: identifiers and connectors. Values of several bytes are big-endian.
"""

import math
from collections.abc import Callable, Iterator, Mapping

from ..decoded import Field
from ..structure import Item, bits, code_of, fields

IDENTIFIERS = {
    0x02: "module soldered to motherboard",
    0x03: "SFP/SFP+/SFP28",
    0x0B: "DWDM-SFP/SFP+",
    0x0C: "QSFP",
    0x0D: "QSFP+",
    0x11: "QSFP28",
}
SFP = (0x02, 0x03, 0x0B)
QSFP = (0x0C, 0x0D, 0x11)

CONNECTORS = {
    0x01: "SC",
    0x07: "LC",
    0x08: "MT-RJ",
    0x0B: "optical pigtail",
    0x0C: "MPO 1x12",
    0x0D: "MPO 2x16",
    0x20: "HSSDC II",
    0x21: "copper pigtail",
    0x22: "RJ45",
    0x23: "no separable connector",
}

DIAGNOSTICS = 0x100
"""Where the memory at A2h begins: ``ethtool -m`` puts it after that at A0h."""


def _nonzero(unit: str, factor: int = 1) -> Callable[[int], str]:
    return lambda value: f"{value * factor} {unit}" if value else "not specified"


def temperature(value: int) -> str:
    """Return a temperature of 1/256 C in two's complement."""
    return f"{((value ^ 0x8000) - 0x8000) / 256:.1f} C"


def voltage(value: int) -> str:
    """Return a voltage of 100 uV."""
    return f"{value / 10000:.3f} V"


def current(value: int) -> str:
    """Return a laser bias current of 2 uA."""
    return f"{value / 500:.3f} mA"


def power(value: int) -> str:
    """Return an optical power of 0.1 uW."""
    return f"{value / 10000:.4f} mW ({10 * math.log10(value / 10000):.2f} dBm)" if value else "0 mW"


def _oui(value: int) -> str:
    return value.to_bytes(3, "big").hex(":")


# SFF-8472, table 4-1
SFP_IDENTITY = (
    Item("Identifier", 0, 1, code_of(IDENTIFIERS)),
    Item("Connector", 2, 1, code_of(CONNECTORS)),
    Item("Signaling Rate, Nominal", 12, 1, _nonzero("MBd", 100)),
    Item("Length (SMF)", 14, 1, _nonzero("km")),
    Item("Length (50 um, OM2)", 16, 1, _nonzero("m", 10)),
    Item("Length (62.5 um, OM1)", 17, 1, _nonzero("m", 10)),
    Item("Length (50 um, OM4) or copper cable", 18, 1, _nonzero("m")),
    Item("Length (50 um, OM3)", 19, 1, _nonzero("m", 10)),
    Item("Vendor name", 20, 16, kind=str),
    Item("Vendor OUI", 37, 3, _oui),
    Item("Vendor PN", 40, 16, kind=str),
    Item("Vendor rev", 56, 4, kind=str),
    Item("Wavelength", 60, 2, _nonzero("nm")),
    Item("Vendor SN", 68, 16, kind=str, private=True),
    Item("Date code", 84, 8, kind=str),
)

# SFF-8636, 6.3
QSFP_IDENTITY = (
    Item("Identifier", 128, 1, code_of(IDENTIFIERS)),
    Item("Connector Type", 130, 1, code_of(CONNECTORS)),
    Item("Signaling rate, nominal", 140, 1, _nonzero("MBd", 100)),
    Item("Length (SMF)", 142, 1, _nonzero("km")),
    Item("Length (OM3 50 um)", 143, 1, _nonzero("m", 2)),
    Item("Length (OM2 50 um)", 144, 1, _nonzero("m")),
    Item("Length (OM1 62.5 um)", 145, 1, _nonzero("m")),
    Item("Vendor name", 148, 16, kind=str),
    Item("Vendor OUI", 165, 3, _oui),
    Item("Vendor PN", 168, 16, kind=str),
    Item("Vendor rev", 184, 2, kind=str),
    Item("Vendor SN", 196, 16, kind=str, private=True),
    Item("Date Code", 212, 8, kind=str),
)

# SFF-8472, 9.8: offsets at A2h. SFF-8636, 6.2.4 and 6.2.5
SFP_MEASURED = (
    Item("Temperature", 96, 2, temperature),
    Item("Vcc", 98, 2, voltage),
    Item("TX Bias", 100, 2, current),
    Item("TX Power", 102, 2, power),
    Item("RX Power", 104, 2, power),
)
QSFP_MEASURED = (
    Item("Temperature", 22, 2, temperature),
    Item("Supply Voltage", 26, 2, voltage),
    *(Item(f"Rx{lane + 1} Power", 34 + 2 * lane, 2, power) for lane in range(4)),
    *(Item(f"Tx{lane + 1} Bias", 42 + 2 * lane, 2, current) for lane in range(4)),
    *(Item(f"Tx{lane + 1} Power", 50 + 2 * lane, 2, power) for lane in range(4)),
)

_SFP_FLAGS = {
    15: "Temp High",
    14: "Temp Low",
    13: "Vcc High",
    12: "Vcc Low",
    11: "TX Bias High",
    10: "TX Bias Low",
    9: "TX Power High",
    8: "TX Power Low",
    7: "RX Power High",
    6: "RX Power Low",
}


def _flags(name: str, offset: int, size: int, names: Mapping[int, str]) -> Item:
    known = sum(1 << bit for bit in names)
    return Item(name, offset, size, lambda value: bits(value & known, names), lambda value: bool(value & known))


# SFF-8472, 9.10 and 9.11: offsets at A2h; data that are not ready are no fault
SFP_FLAGS = (
    _flags("Alarm Flags", 112, 2, {bit: f"{name} Alarm" for bit, name in _SFP_FLAGS.items()}),
    _flags("Warning Flags", 116, 2, {bit: f"{name} Warning" for bit, name in _SFP_FLAGS.items()}),
)
SFP_STATUS = (_flags("Status", 110, 1, {2: "TX Fault State", 1: "Rx_LOS State"}),)

_LANES = {lane: str(lane + 1) for lane in range(4)}
_LEVELS = {7: "High Alarm", 6: "Low Alarm", 5: "High Warning", 4: "Low Warning"}

# SFF-8636, 6.2.3
QSFP_FLAGS = (
    _flags(
        "LOS",
        3,
        1,
        {
            **{4 + lane: f"Tx{name} LOS" for lane, name in _LANES.items()},
            **{i: f"Rx{n} LOS" for i, n in _LANES.items()},
        },
    ),
    _flags("Tx Fault", 4, 1, {lane: f"Tx{name} Fault" for lane, name in _LANES.items()}),
    _flags("Temperature flags", 6, 1, {bit: f"Temp {name}" for bit, name in _LEVELS.items()}),
    _flags("Supply voltage flags", 7, 1, {bit: f"Vcc {name}" for bit, name in _LEVELS.items()}),
)


def is_module(data: bytes) -> bool:
    """Return whether *data* are the memory of a transceiver: it has a check code of its identity."""
    if len(data) < 128 or data[0] not in IDENTIFIERS:
        return False
    if data[0] in SFP:
        return sum(data[:63]) & 0xFF == data[63]
    return len(data) >= 224 and data[128] in QSFP and sum(data[128:191]) & 0xFF == data[191]


def module_fields(data: bytes) -> Iterator[Field]:
    """Yield what the memory of a transceiver says."""
    if data[0] in QSFP:
        yield from fields(QSFP_IDENTITY, data, "big")
        yield from fields(QSFP_FLAGS, data, "big")
        yield from fields(QSFP_MEASURED, data, "big")
        return
    yield from fields(SFP_IDENTITY, data, "big")
    # Diagnostic Monitoring Type, table 8-5: implemented, and calibrated internally.
    if not data[92] >> 6 & 1:
        return
    measured = data[DIAGNOSTICS:]
    yield from fields(SFP_STATUS, measured, "big")
    yield from fields(SFP_FLAGS, measured, "big")
    if data[92] >> 5 & 1:
        yield from fields(SFP_MEASURED, measured, "big")
