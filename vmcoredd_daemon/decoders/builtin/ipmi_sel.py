# SPDX-License-Identifier: LGPL-2.1-or-later
"""Entries of a System Event Log (SEL) of IPMI: what happened when, and which of it needs attention.

IPMI Specification 2.0: SEL records in 32.1 to 32.3, their Event Data in 29.7, timestamps in 37. What Linux writes
when it panics: ``send_panic_events()`` in ``drivers/char/ipmi/ipmi_msghandler.c``.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ...text import counted, printable, utc
from ..decoded import Table
from ..structure import bits
from .ipmi_events import (
    CRITICAL_EVENTS,
    EXTENSIONS,
    GENERIC_EVENTS,
    MEMORY,
    PEF_ACTIONS,
    SENSOR_SPECIFIC,
    THRESHOLD,
    event_name,
    sensor_type_name,
)
from .ipmi_manufacturers import manufacturer_name
from .ipmi_sdr import Sensor

MAX_ENTRIES = 4096
"""Entries that are decoded, the newest."""

MAX_FINDINGS = 8
"""Kinds of critical events that are findings; the others are counted."""

MAX_PANIC = 80
"""Characters of a panic's text that are a fact; the table has all."""

ENTRY = 16
"""Bytes of an entry."""

SYSTEM_EVENT, OEM_TIMESTAMPED, OEM, LINUX_PANIC = 0x02, range(0xC0, 0xE0), range(0xE0, 0x100), 0xF0
"""Record types, 32.1 to 32.3."""

PRE_INIT = 0x20000000
"""Timestamps up to this one are seconds since the initialisation of the SEL device (37.1); FFFFFFFFh is none."""

_SOFTWARE: tuple[tuple[range, str], ...] = (
    (range(0x10), "BIOS"),
    (range(0x10, 0x20), "SMI Handler"),
    (range(0x20, 0x30), "System Management Software"),
    (range(0x30, 0x40), "OEM"),
    (range(0x40, 0x47), "Remote Console software"),
    (range(0x47, 0x48), "Terminal Mode Remote Console software"),
)
"""System Software IDs, table 5-4."""

_BMC = 0x20
"""Its slave address."""

_LINUX = (0x41, 0x20, SENSOR_SPECIFIC, 0xA1)
"""Generator, sensor type, event type and Event Data 1 of the event that Linux writes at a panic."""


@dataclass(frozen=True, slots=True)
class Event:
    """A system event record, type 02h, 32.1."""

    generator: int
    """The slave address or software ID of who has sent it, and a bit that says which."""
    channel: int
    lun: int
    sensor_type: int
    sensor_number: int
    deasserted: bool
    event_type: int
    data: bytes
    """Event Data 1 to 3."""
    sensor: Sensor | None

    @classmethod
    def read(cls, entry: bytes, sensors: Mapping[tuple[int, int, int, int], Sensor]) -> "Event":
        """Return the event in an entry."""
        generator, lun, sensor_type, sensor_number = entry[7], entry[8] & 3, entry[10], entry[11]
        return cls(
            generator=generator,
            channel=entry[8] >> 4,
            lun=lun,
            sensor_type=sensor_type,
            sensor_number=sensor_number,
            deasserted=bool(entry[12] & 0x80),
            event_type=entry[12] & 0x7F,
            data=entry[13:],
            sensor=sensors.get((generator, lun, sensor_number, sensor_type)),
        )

    @property
    def offset(self) -> int:
        """Which of the states of its type."""
        return self.data[0] & 0xF

    @property
    def name(self) -> str:
        """The name of the sensor, its number if the SDR repository has none."""
        return self.sensor.name if self.sensor and self.sensor.name else f"#{self.sensor_number:#04x}"

    @property
    def text(self) -> str:
        """What happened."""
        return event_name(self.event_type, self.sensor_type, self.offset)

    def uses(self, byte: int) -> int:
        """Return what Event Data 2 or 3 is: nothing, the common meaning, an OEM code or a sensor-specific one."""
        return self.data[0] >> (6 if byte == 2 else 4) & 3

    @property
    def sender(self) -> str:
        """The Generator ID as text."""
        if self.generator & 1:
            software = self.generator >> 1
            name = next((name for numbers, name in _SOFTWARE if software in numbers), "software")
            text = f"{name} ({software:#04x})"
        else:
            text = "BMC" if self.generator == _BMC else f"{self.generator:#04x}"
        channel = f", channel {self.channel}" if self.channel else ""
        return text + channel + (f", LUN {self.lun}" if self.lun else "")

    @property
    def details(self) -> str:
        """What Event Data 2 and 3 say, table 29-6."""
        if self.event_type == THRESHOLD:
            return ", ".join(self._readings())
        if self._of_linux:
            text = bytes([self.sensor_number, *self.data[1:]]).partition(b"\0")[0]
            return f"Linux panic: {printable(text.decode('latin-1'))}..."
        return ", ".join([*self._states(), *self._extensions()])

    def _readings(self) -> Iterator[str]:
        for byte, name in ((2, "reading"), (3, "threshold")):
            if self.uses(byte) == 1:
                raw = self.data[byte - 1]
                yield f"{name} {self.sensor.reading(raw) if self.sensor else f'raw {raw:#04x}'}"

    def _states(self) -> Iterator[str]:
        """Yield the previous state and severity; Fh is none."""
        if self.uses(2) != 1:
            return
        severity, previous = self.data[1] >> 4, self.data[1] & 0xF
        if previous != 0xF:
            yield f"before: {event_name(self.event_type, self.sensor_type, previous)}"
        if severity != 0xF:
            yield f"severity: {GENERIC_EVENTS[0x07].get(severity, f'unknown {severity:#x}')}"

    def _extensions(self) -> Iterator[str]:
        if self.event_type != SENSOR_SPECIFIC:
            return
        for extension in EXTENSIONS:
            if extension.sensor_type == self.sensor_type and self.offset in extension.offsets:
                data = self.data[extension.byte - 1]
                if self.uses(extension.byte) == 3 and data != 0xFF:
                    yield extension.text(data)
        if (self.sensor_type, self.offset) == (0x12, 0x04) and self.uses(2) == 3:
            yield f"actions {bits(self.data[1], PEF_ACTIONS)}"

    @property
    def _of_linux(self) -> bool:
        """Whether it has three letters of a panic's text, the first in place of the sensor's number."""
        return (self.generator, self.sensor_type, self.event_type, self.data[0]) == _LINUX

    @property
    def place(self) -> str:
        """Where it happened, for a finding: the sensor, and the memory module if there are several."""
        if self._of_linux:
            return "Linux"
        where = self.name if self.sensor and self.sensor.name else f"sensor {self.sensor_number:#04x}"
        if (self.event_type, self.sensor_type) == (SENSOR_SPECIFIC, MEMORY) and self.uses(3) == 3:
            where += f" module {self.data[2]}"
        return where

    @property
    def critical(self) -> tuple[str, str] | None:
        """What it is called, one and many of it, if it needs attention."""
        if self.deasserted:
            return None
        specific = CRITICAL_EVENTS.get((self.event_type, self.sensor_type, self.offset))
        return specific or CRITICAL_EVENTS.get((self.event_type, -1, self.offset))


@dataclass(frozen=True, slots=True)
class Entry:
    """16 bytes of the log, of any type."""

    data: bytes
    event: Event | None
    """What it is if it is a system event record."""

    @property
    def record_type(self) -> int:
        """Its type."""
        return self.data[2]

    @property
    def time(self) -> str:
        """When it was written; empty if it is of a type that does not say so."""
        timed = self.record_type == SYSTEM_EVENT or self.record_type in OEM_TIMESTAMPED
        return time_text(int.from_bytes(self.data[3:7], "little")) if timed else ""

    @property
    def panic(self) -> str | None:
        """The part of a panic's text that Linux has written here; None if it is another vendor's record.

        Behind the type: the address of the BMC, a number from 0 on, and 11 characters, or fewer and zeros.
        """
        text, _, zeros = self.data[5:].partition(b"\0")
        if self.record_type != LINUX_PANIC or any(zeros) or not text.isascii():
            return None
        return text.decode("ascii") if text.decode("ascii").isprintable() else None

    def row(self) -> tuple[str, ...]:
        """Return it as :data:`COLUMNS` have it."""
        record_id = f"{int.from_bytes(self.data[:2], 'little'):#06x}"
        if event := self.event:
            direction = "deasserted" if event.deasserted else "asserted"
            what = (sensor_type_name(event.sensor_type), event.name, event.text, direction, event.details)
            return record_id, self.time, *what, event.sender, event.data.hex(" ")
        if self.record_type in OEM_TIMESTAMPED:
            manufacturer = manufacturer_name(int.from_bytes(self.data[7:10], "little"))
            return record_id, self.time, self._kind, "", "", "", "", manufacturer, self.data[10:].hex(" ")
        panic = f"Linux panic: {self.panic}" if self.panic is not None else ""
        return record_id, "", self._kind, "", panic, "", "", "", self.data[3:].hex(" ")

    @property
    def _kind(self) -> str:
        oem = self.record_type in OEM_TIMESTAMPED or self.record_type in OEM
        return f"{'OEM' if oem else 'unknown'} record {self.record_type:#04x}"


COLUMNS = ("ID", "TIME", "TYPE", "SENSOR", "EVENT", "DIRECTION", "DETAILS", "GENERATOR", "DATA")
"""Of the table of entries."""


@dataclass(frozen=True, slots=True)
class Log:
    """A log, or the newest part of it."""

    entries: tuple[Entry, ...]
    """The oldest first."""
    problems: tuple[str, ...]
    """What could not be decoded, one line each."""

    @property
    def events(self) -> Iterator[Event]:
        """The entries that are system events."""
        return (entry.event for entry in self.entries if entry.event)

    def table(self) -> Table:
        """Return all entries."""
        return Table("System Event Log", COLUMNS, tuple(entry.row() for entry in self.entries))

    def facts(self) -> tuple[str, ...]:
        """Return how many entries there are, the time of the last, and the last panic that Linux has written."""
        number = counted(len(self.entries), "SEL entry", "SEL entries")
        times = [entry.time for entry in self.entries if entry.time]
        panics = list(self._panics())
        return (
            f"{number}, the last {times[-1]}" if times else number,
            *(f"panic: {text[:MAX_PANIC]}" for text in panics[-1:]),
        )

    def _panics(self) -> Iterator[str]:
        """Yield the texts of panics, each of several entries."""
        text, following = "", 0
        for entry in self.entries:
            if (part := entry.panic) is None:
                continue
            if text and entry.data[4] != following:
                yield text
                text = ""
            text += part
            following = entry.data[4] + 1
        if text:
            yield text


def read_log(data: bytes, sensors: Mapping[tuple[int, int, int, int], Sensor]) -> Log:
    """Return the newest entries; those of zeros or ones only are what could not be read."""
    every = [data[start : start + ENTRY] for start in range(0, len(data) - ENTRY + 1, ENTRY)]
    present = [entry for entry in every if entry not in (bytes(ENTRY), b"\xff" * ENTRY)]
    problems = []
    if len(data) % ENTRY:
        problems.append(f"the last {len(data) % ENTRY} bytes are no entry")
    if missing := len(every) - len(present):
        problems.append(counted(missing, "entry is missing", "entries are missing"))
    if len(present) > MAX_ENTRIES:
        problems.append(f"only the newest {MAX_ENTRIES} of {len(present)} entries are decoded")
    entries = (
        Entry(entry, Event.read(entry, sensors) if entry[2] == SYSTEM_EVENT else None)
        for entry in present[-MAX_ENTRIES:]
    )
    return Log(tuple(entries), tuple(problems))


def time_text(timestamp: int) -> str:
    """Return a timestamp as text, 37.1."""
    if timestamp == 0xFFFFFFFF:
        return "unspecified"
    if timestamp <= PRE_INIT:
        return f"pre-init {timestamp} s"
    return utc(timestamp * 10**6) or str(timestamp)


def critical_events(events: Iterable[Event]) -> Iterator[str]:
    """Yield what events need attention, the worst first: ``3 uncorrectable ECC errors of DIMM_A1``."""
    found = Counter((names, event.place) for event in events if (names := event.critical))
    ranks = list(dict.fromkeys(CRITICAL_EVENTS.values()))
    worst = sorted(found.items(), key=lambda item: (ranks.index(item[0][0]), -item[1], item[0][1]))
    for ((one, many), place), count in worst[:MAX_FINDINGS]:
        yield f"{counted(count, one, many)} of {place}"
    if others := sum(count for _, count in worst[MAX_FINDINGS:]):
        yield counted(others, "other critical event")
