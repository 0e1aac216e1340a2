# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sensor Data Records (SDR) of IPMI: names of sensors, and what their raw readings are in units.

IPMI Specification 2.0, section 43; readings are converted by the formula in 36.3. The records follow each other
as ``ipmitool sdr dump`` writes them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ...text import printable
from ..decoded import Part, Table, Value
from ..structure import named
from .ipmi_events import GENERIC_EVENTS, OEM_EVENT_TYPES, SENSOR_SPECIFIC, THRESHOLD, sensor_type_name

MAX_SENSORS = 4096
"""Sensors that are decoded; a compact record may stand for 15 of them."""

_HEADER = 5
"""Bytes of a record's header, table 43-1. The offsets of the specification begin with 1 at the header; those below
are the same minus 6, from the record key bytes on."""

_VERSIONS = (0x51, 0x02, 0x01)
"""SDR Version: 51h is that of IPMI 1.5 and 2.0; ipmitool reads 02h and 01h, too."""

FULL, COMPACT, EVENT_ONLY, GENERIC_LOCATOR, FRU_LOCATOR, MC_LOCATOR = 0x01, 0x02, 0x03, 0x10, 0x11, 0x12
"""Record types."""

_LOCATORS: Mapping[int, str] = MappingProxyType(
    {
        GENERIC_LOCATOR: "Generic Device Locator",
        FRU_LOCATOR: "FRU Device Locator",
        MC_LOCATOR: "Management Controller Device Locator",
    }
)

ENTITIES: Mapping[int, str] = MappingProxyType(
    {
        0x00: "unspecified",
        0x01: "other",
        0x02: "unknown",
        0x03: "processor",
        0x04: "disk or disk bay",
        0x05: "peripheral bay",
        0x06: "system management module",
        0x07: "system board",
        0x08: "memory module",
        0x09: "processor module",
        0x0A: "power supply",
        0x0B: "add-in card",
        0x0C: "front panel board",
        0x0D: "back panel board",
        0x0E: "power system board",
        0x0F: "drive backplane",
        0x10: "system internal expansion board",
        0x11: "other system board",
        0x12: "processor board",
        0x13: "power unit",
        0x14: "power module",
        0x15: "power management",
        0x16: "chassis back panel board",
        0x17: "system chassis",
        0x18: "sub-chassis",
        0x19: "other chassis board",
        0x1A: "Disk Drive Bay",
        0x1B: "Peripheral Bay",
        0x1C: "Device Bay",
        0x1D: "fan / cooling device",
        0x1E: "cooling unit",
        0x1F: "cable / interconnect",
        0x20: "memory device",
        0x21: "System Management Software",
        0x22: "System Firmware",
        0x23: "Operating System",
        0x24: "system bus",
        0x25: "Group",
        0x26: "Remote Management Communication Device",
        0x27: "External Environment",
        0x28: "battery",
        0x29: "Processing blade",
        0x2A: "Connectivity switch",
        0x2B: "Processor/memory module",
        0x2C: "I/O module",
        0x2D: "Processor/IO module",
        0x2E: "Management Controller Firmware",
        0x2F: "IPMI Channel",
        0x30: "PCI Bus",
        0x31: "PCI Express Bus",
        0x32: "SCSI Bus",
        0x33: "SATA / SAS bus",
        0x34: "Processor / front-side bus",
        0x35: "Real Time Clock",
        0x37: "air inlet",
        0x40: "air inlet",
        0x41: "processor / CPU",
        0x42: "baseboard / main system board",
    }
)
"""Entity ID Codes, table 43-13."""

# fmt: off
UNITS: tuple[str, ...] = (
    "", "degrees C", "degrees F", "degrees K", "Volts", "Amps", "Watts", "Joules", "Coulombs", "VA", "Nits",
    "lumen", "lux", "Candela", "kPa", "PSI", "Newton", "CFM", "RPM", "Hz", "microsecond", "millisecond",
    "second", "minute", "hour", "day", "week", "mil", "inches", "feet", "cu in", "cu feet", "mm", "cm", "m",
    "cu cm", "cu m", "liters", "fluid ounce", "radians", "steradians", "revolutions", "cycles", "gravities",
    "ounce", "pound", "ft-lb", "oz-in", "gauss", "gilberts", "henry", "millihenry", "farad", "microfarad",
    "ohms", "siemens", "mole", "becquerel", "PPM", "reserved", "Decibels", "DbA", "DbC", "gray", "sievert",
    "color temp deg K", "bit", "kilobit", "megabit", "gigabit", "byte", "kilobyte", "megabyte", "gigabyte",
    "word", "dword", "qword", "line", "hit", "miss", "retry", "reset", "overrun / overflow", "underrun",
    "collision", "packets", "messages", "characters", "error", "correctable error", "uncorrectable error",
    "fatal error", "grams",
)
# fmt: on
"""Sensor Unit Type Codes, table 43-15, by code."""

_RATES = ("", "per microsecond", "per millisecond", "per second", "per minute", "per hour", "per day", "")
"""Rate unit, Sensor Units 1, bits 5:3."""

_LINEARIZATIONS: Mapping[int, Callable[[float], float]] = MappingProxyType(
    {
        0x00: lambda x: x,
        0x01: math.log,
        0x02: math.log10,
        0x03: math.log2,
        0x04: math.exp,
        0x05: lambda x: math.pow(10, x),
        0x06: lambda x: math.pow(2, x),
        0x07: lambda x: 1 / x,
        0x08: lambda x: math.pow(x, 2),
        0x09: lambda x: math.pow(x, 3),
        0x0A: math.sqrt,
        0x0B: lambda x: math.copysign(math.pow(abs(x), 1 / 3), x),
    }
)
"""Linearization, byte 24 of a full record; a sensor with 70h or more has other factors for each reading."""

_THRESHOLDS = ("LNR", "LC", "LNC", "UNC", "UC", "UNR")
"""Lower and upper, non-recoverable, critical and non-critical, from low to high."""

# Offset of each threshold, and its bit in the Readable Threshold Mask (byte 19).
_THRESHOLD_BYTES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"LNR": (34, 2), "LC": (35, 1), "LNC": (36, 0), "UNC": (33, 3), "UC": (32, 4), "UNR": (31, 5)}
)

_BCD_PLUS = "0123456789 -.:,_"
_SIX_BITS = bytes(range(0x20, 0x60)).decode("ascii")


@dataclass(frozen=True, slots=True)
class Factors:
    """How a full record makes values of raw readings: ``L[(M * x + B * 10^K1) * 10^K2]``."""

    data_format: int
    """Analog (numeric) Data Format: unsigned, 1's complement, 2's complement, none."""
    linearization: int
    m: int
    b: int
    b_exponent: int
    r_exponent: int

    def value(self, raw: int) -> float | None:
        """Return the value of a raw reading, None if it has none."""
        linear = _LINEARIZATIONS.get(self.linearization)
        if linear is None or self.data_format == 3:
            return None
        signed = raw - (0, 0xFF, 0x100)[self.data_format] if raw & 0x80 else raw
        try:
            value = linear((self.m * signed + self.b * 10.0**self.b_exponent) * 10.0**self.r_exponent)
        except (ValueError, ArithmeticError):
            return None
        # Digits beyond those of the factors are of the conversion.
        return float(f"{value:.6g}") if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor of a full, compact or event-only record."""

    name: str
    owner: int
    """Sensor Owner ID, as the first byte of a Generator ID."""
    lun: int
    number: int
    sensor_type: int
    event_type: int
    entity: str
    unit: str = ""
    factors: Factors | None = None
    thresholds: Mapping[str, float | None] | None = None

    def reading(self, raw: int) -> str:
        """Return a raw reading in units; as it is if the record does not say how."""
        value = None if self.factors is None else self.factors.value(raw)
        return f"raw {raw:#04x}" if value is None else f"{value:.10g} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Device:
    """What a locator record names."""

    name: str
    record_type: int
    entity: str
    address: int
    """I2C slave address of the device, or of the controller that has it."""


@dataclass(frozen=True, slots=True)
class Repository:
    """What is in an SDR repository."""

    sensors: tuple[Sensor, ...]
    devices: tuple[Device, ...]
    problems: tuple[str, ...]
    """What could not be decoded, one line each."""

    def by_event(self) -> Mapping[tuple[int, int, int, int], Sensor]:
        """Return the sensors by what an event has of them: owner, LUN, number and type."""
        # Reversed: of two with one key the first counts.
        return {(each.owner, each.lun, each.number, each.sensor_type): each for each in reversed(self.sensors)}


def read_repository(data: bytes) -> Repository:
    """Return what the records *data* say; those of other types have no names."""
    sensors: list[Sensor] = []
    devices: list[Device] = []
    problems: list[str] = []
    position = 0
    while position + _HEADER <= len(data) and any(data[position : position + _HEADER]):
        record_id = int.from_bytes(data[position : position + 2], "little")
        version, record_type, size = data[position + 2 : position + _HEADER]
        body = data[position + _HEADER : position + _HEADER + size]
        position += _HEADER + size
        if version not in _VERSIONS:
            problems.append(
                f"record {record_id:#06x}: SDR Version {version:#04x} is unknown, the rest is left out"
            )
            break
        if len(body) < size:
            problems.append(f"record {record_id:#06x}: only {len(body)} of {size} bytes are there")
        if record_type in (FULL, COMPACT, EVENT_ONLY, *_LOCATORS):
            if record_type in _LOCATORS and len(body) > 10:
                devices.append(_device(record_type, body))
            elif record_type not in _LOCATORS and len(body) >= _SENSORS[record_type].string:
                sensors += _sensors(record_type, body)
            else:
                problems.append(f"record {record_id:#06x}: {size} bytes are too few for type {record_type:#04x}")
        if len(sensors) > MAX_SENSORS or len(devices) > MAX_SENSORS:
            problems.append(f"only the first {MAX_SENSORS} sensors are decoded")
            break
    else:
        if any(data[position:]):
            problems.append(f"the last {len(data) - position} bytes are no record")
    return Repository(tuple(sensors[:MAX_SENSORS]), tuple(devices[:MAX_SENSORS]), tuple(problems))


def repository_parts(repository: Repository) -> tuple[Part, ...]:
    """Return the tables of sensors and of devices. Thresholds are in the sensor's unit."""
    columns = ("SENSOR", "TYPE", "STATES", "ENTITY", "OWNER", "NUMBER", *_THRESHOLDS, "UNIT")
    devices = tuple(
        (each.name, named(each.record_type, _LOCATORS), each.entity, f"{each.address:#04x}")
        for each in repository.devices
    )
    return (
        Table("Sensors", columns, tuple(_row(sensor) for sensor in repository.sensors)),
        Table("Devices", ("DEVICE", "RECORD TYPE", "ENTITY", "ADDRESS"), devices),
    )


def _row(sensor: Sensor) -> tuple[Value, ...]:
    thresholds = sensor.thresholds or {}
    return (
        sensor.name,
        sensor_type_name(sensor.sensor_type),
        _states(sensor.event_type),
        sensor.entity,
        f"{sensor.owner:#04x}" + (f" LUN {sensor.lun}" if sensor.lun else ""),
        f"{sensor.number:#04x}",
        *(thresholds.get(name) for name in _THRESHOLDS),
        sensor.unit,
    )


def _states(event_type: int) -> str:
    """Return the Event/Reading Type as table 42-1 has it."""
    if event_type == THRESHOLD:
        return "threshold"
    if event_type == SENSOR_SPECIFIC:
        return "sensor-specific"
    if event_type in GENERIC_EVENTS:
        return "generic"
    return "OEM" if event_type in OEM_EVENT_TYPES else "unspecified"


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a record of a sensor has what the types have at different places."""

    sensor_type: int
    sharing: int | None
    """Record Sharing, two bytes; a full record is of one sensor."""
    string: int
    """Sensor ID String Type/Length Code."""


# Tables 43-1 to 43-3.
_SENSORS: Mapping[int, _Places] = MappingProxyType(
    {
        FULL: _Places(7, None, 42),
        COMPACT: _Places(7, 18, 26),
        EVENT_ONLY: _Places(5, 7, 11),
    }
)


def _sensors(record_type: int, body: bytes) -> Iterator[Sensor]:
    """Yield the sensors of a record: one, or those that share it."""
    places = _SENSORS[record_type]
    name = id_string(body[places.string :])
    count, letters, first, instances = 1, False, 0, False
    if places.sharing is not None:
        sharing, modifier = body[places.sharing : places.sharing + 2]
        count, letters = max(1, sharing & 0xF), bool(sharing >> 4 & 1)
        first, instances = modifier & 0x7F, bool(modifier & 0x80)
    for index in range(count):
        modified = _letters(first + index) if letters else str(first + index)
        yield Sensor(
            name=(f"{name}{modified}" if count > 1 else name).strip(),
            owner=body[0],
            lun=body[1] & 0x3,
            number=(body[2] + index) & 0xFF,
            sensor_type=body[places.sensor_type],
            event_type=body[places.sensor_type + 1] & 0x7F,
            entity=_entity(body[3], body[4] + index * instances),
            unit="" if record_type == EVENT_ONLY else _unit(body),
            factors=_factors(body) if record_type == FULL else None,
            thresholds=_thresholds(body) if record_type == FULL else None,
        )


def _letters(number: int) -> str:
    """Return an ID String Instance Modifier of letters: A to Z, AA and so on, table 43-2."""
    text = chr(ord("A") + number % 26)
    return text if number < 26 else _letters(number // 26 - 1) + text


def _entity(code: int, instance: int) -> str:
    """Return an entity; instances from 60h on are relative to their controller."""
    name = f"OEM {code:#04x}" if code >= 0x90 else named(code, ENTITIES)
    return f"{name} {instance & 0x7F}"


def _unit(body: bytes) -> str:
    """Return the unit of Sensor Units 1 to 3, bytes 21 to 23."""
    units, base, modifier = body[15], _unit_name(body[16]), _unit_name(body[17])
    # None: the sensor is discrete.
    if units >> 6 == 3:
        return ""
    relation = {1: "/", 2: "*"}.get(units >> 1 & 3)
    text = f"{base}{relation}{modifier}" if relation else base
    return " ".join(filter(None, ("%" if units & 1 else "", text, _RATES[units >> 3 & 7])))


def _unit_name(code: int) -> str:
    return UNITS[code] if code < len(UNITS) else f"unknown {code:#x}"


def _factors(body: bytes) -> Factors:
    """Return bytes 24 to 30 of a full record."""
    return Factors(
        data_format=body[15] >> 6,
        linearization=body[18] & 0x7F,
        m=_signed(body[19] | (body[20] & 0xC0) << 2, 10),
        b=_signed(body[21] | (body[22] & 0xC0) << 2, 10),
        b_exponent=_signed(body[24] & 0xF, 4),
        r_exponent=_signed(body[24] >> 4, 4),
    )


def _signed(value: int, size: int) -> int:
    """Return a number of *size* bits in 2's complement."""
    return value - (1 << size) if value >> (size - 1) else value


def _thresholds(body: bytes) -> Mapping[str, float | None]:
    """Return those that can be read."""
    if body[8] & 0x7F != THRESHOLD:
        return {}
    factors = _factors(body)
    return {
        name: factors.value(body[place]) for name, (place, bit) in _THRESHOLD_BYTES.items() if body[13] >> bit & 1
    }


def _device(record_type: int, body: bytes) -> Device:
    """Return a locator, tables 43-7 to 43-9: they have the entity and the ID string at the same places."""
    name = id_string(body[10:]).strip()
    # A generic device has the address of its controller first.
    address = body[1] if record_type == GENERIC_LOCATOR else body[0]
    return Device(name, record_type, _entity(body[7], body[8]), address)


def id_string(data: bytes) -> str:
    """Return the string behind the type/length byte with which *data* begin, 43.15; as much of it as there is."""
    if not data:
        return ""
    kind, length = data[0] >> 6, data[0] & 0x1F
    content = data[1:]
    bits = int.from_bytes(content[:32], "little")
    match kind:
        case 1:
            count = min(length, len(content) * 2)
            text = "".join(_BCD_PLUS[bits >> 4 * index & 0xF] for index in range(count))
        case 2:
            count = min(length, len(content) * 8 // 6)
            text = "".join(_SIX_BITS[bits >> 6 * index & 0x3F] for index in range(count))
        case _:
            # Type 0, Unicode, has no encoding defined; the BMCs that use it mean ASCII.
            text = content[:length].partition(b"\0")[0].decode("latin-1")
    return printable(text)
