# SPDX-License-Identifier: LGPL-2.1-or-later
"""NVMe controllers, as the collector ``nvme`` writes them: Identify Controller and log pages, in a tar archive.

NVM Express Base Specification 2.0: Error Information is in 5.16.1.2, SMART / Health Information in 5.16.1.3
(figure 207), Firmware Slot Information in 5.16.1.4, Telemetry Host-Initiated and Controller-Initiated in 5.16.1.8
and 5.16.1.9. Newer fields are decoded, too: before, they are reserved, and zero.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO

from ...errors import InvalidDump
from ...text import counted
from ..decoded import Decoded, Field, Part, Section, Table, Value
from ..members import Members, decode_members, read_members
from ..structure import Item, ascii_text, bits_of, code_of, fields, named
from .nvme_identify import CRITICAL_TEMPERATURE, MODEL, REVISION, WARNING_TEMPERATURE, identify_controller
from .nvme_status import Status
from .nvme_text import byte_size, celsius, data_units, in_unit, oui, percent, present, thousands, zero_or

IDENTIFY = "identify_controller"
SMART = "smart_log"
FIRMWARE = "firmware_slot_log"
ERRORS = "error_log"
TELEMETRY_HOST = "telemetry_host"
TELEMETRY_CONTROLLER = "telemetry_controller"

ERROR_ENTRY = 64
ERROR_ENTRIES = 256
"""Error Log Page Entries (ELPE) has 8 bits."""

TELEMETRY_BLOCK = 512

SIZES = {
    IDENTIFY: (4096, 4096),
    SMART: (512, 512),
    FIRMWARE: (512, 512),
    ERRORS: (ERROR_ENTRY, ERROR_ENTRY * ERROR_ENTRIES),
}
"""Bytes that a member has: at least, at most."""

WORN = 80
"""Percentage Used from which a device is near the end of its life; the specification only knows 100."""


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode the log pages of one controller. Raises InvalidDump if there are none."""
    members = read_members(data)
    sections, problems = decode_members(members, _DECODERS)
    if not sections:
        raise InvalidDump("; ".join(problems) or "the archive has no log page of NVMe")
    values = {section.name: _values(section) for section in sections}
    verdict = _judge(values, sections)
    return Decoded(
        title=_title(values.get(IDENTIFY, {})),
        findings=tuple(verdict.findings),
        facts=tuple(verdict.facts),
        sections=tuple(_marked(section, verdict.wrong) for section in sections),
        problems=(*problems, *_sizes(members)),
    )


def _sizes(members: Members) -> list[str]:
    problems = []
    for name, (least, most) in SIZES.items():
        member = members.files.get(name)
        if member is not None and 0 < member.size < least:
            problems.append(f"{name}: {member.size} of {least} bytes")
        elif member is not None and member.size > most:
            problems.append(f"{name}: only the first {most} of {member.size} bytes are decoded")
    return problems


CRITICAL_WARNING = {
    0: "available spare below threshold",
    1: "temperature threshold condition",
    2: "NVM subsystem degraded reliability",
    3: "all media read-only",
    4: "volatile memory backup failed",
    5: "Persistent Memory Region read-only or unreliable",
}
CRITICAL_ORDER = (3, 2, 4, 5, 0, 1)
"""Bits of Critical Warning, the worst first."""
SPARE_BIT, TEMPERATURE_BIT = 0, 1

GROUP_WARNING = {
    0: "endurance group: available spare below threshold",
    2: "endurance group: degraded reliability",
    3: "endurance group: read-only",
}

WARNING = "Critical Warning"
TEMPERATURE = "Composite Temperature"
SPARE = "Available Spare"
SPARE_THRESHOLD = "Available Spare Threshold"
USED = "Percentage Used"
GROUPS = "Endurance Group Critical Warning Summary"
UNSAFE_SHUTDOWNS = "Unsafe Shutdowns"
MEDIA_ERRORS = "Media and Data Integrity Errors"

# Figure 207. Revision 2.1 calls unsafe shutdowns unexpected power losses.
HEALTH = (
    Item(WARNING, 0, 1, bits_of(CRITICAL_WARNING)),
    Item(TEMPERATURE, 1, 2, zero_or(celsius)),
    Item(SPARE, 3, 1, percent),
    Item(SPARE_THRESHOLD, 4, 1, percent),
    Item(USED, 5, 1, percent),
    Item(GROUPS, 6, 1, bits_of(GROUP_WARNING)),
    Item("Data Units Read", 32, 16, zero_or(data_units)),
    Item("Data Units Written", 48, 16, zero_or(data_units)),
    Item("Host Read Commands", 64, 16, thousands),
    Item("Host Write Commands", 80, 16, thousands),
    Item("Controller Busy Time", 96, 16, in_unit("min")),
    Item("Power Cycles", 112, 16, thousands),
    Item("Power On Hours", 128, 16, in_unit("h")),
    Item(UNSAFE_SHUTDOWNS, 144, 16, thousands),
    Item(MEDIA_ERRORS, 160, 16, thousands),
    Item("Number of Error Information Log Entries", 176, 16, thousands),
    Item("Warning Composite Temperature Time", 192, 4, in_unit("min")),
    Item("Critical Composite Temperature Time", 196, 4, in_unit("min")),
    *(Item(f"Temperature Sensor {number}", 198 + 2 * number, 2, zero_or(celsius)) for number in range(1, 9)),
    Item("Thermal Management Temperature 1 Transition Count", 216, 4, thousands),
    Item("Thermal Management Temperature 2 Transition Count", 220, 4, thousands),
    Item("Total Time For Thermal Management Temperature 1", 224, 4, in_unit("s")),
    Item("Total Time For Thermal Management Temperature 2", 228, 4, in_unit("s")),
)


def _smart(data: bytes) -> tuple[Part, ...]:
    return fields(HEALTH, present(data))


ACTIVE_SLOT = "Active Firmware Slot"
NEXT_SLOT = "Next Active Firmware Slot"
SLOTS = "Firmware Revision for Slot"


def _firmware(data: bytes) -> tuple[Part, ...]:
    """5.16.1.4: Active Firmware Info (AFI), and the revisions of seven slots."""
    data = present(data)
    active, following = data[0] & 7, data[0] >> 4 & 7
    rows: list[tuple[Value, ...]] = []
    for slot in range(1, 8):
        revision = ascii_text(data[8 * slot : 8 * slot + 8])
        if revision:
            rows.append((slot, revision, slot == active, slot == following))
    return (
        Field(ACTIVE_SLOT, active),
        Field(NEXT_SLOT, following, str(following) if following else "not reported"),
        Table(SLOTS, ("Slot", REVISION, "Active", "Next"), tuple(rows)),
    )


TRANSPORTS = {1: "RDMA", 2: "Fibre Channel", 3: "TCP", 254: "Intra-host Transport"}

ERROR_TABLE = "Error Information"
STATUS_FIELD = "Status Field"
ERROR_COLUMNS = (
    "Error Count",
    "Status",
    "Namespace",
    "LBA",
    "Submission Queue ID",
    "Command ID",
    STATUS_FIELD,
    "Do Not Retry",
    "Parameter Error Location",
    "Vendor Specific Information Available",
    "Transport Type",
    "Command Specific Information",
    "Transport Type Specific Information",
    "Command Set Indicator",
    "Opcode",
)
NO_COMMAND = 0xFFFF
NO_LBA = 0xFFFFFFFFFFFFFFFF


def _errors(data: bytes) -> tuple[Part, ...]:
    # If all are zero, there are no entries.
    if not data or any(data):
        present(data)
    rows = []
    for start in range(0, min(len(data), ERROR_ENTRIES * ERROR_ENTRY), ERROR_ENTRY):
        entry = data[start : start + ERROR_ENTRY]
        # An error count of 0 is no entry.
        if len(entry) == ERROR_ENTRY and any(entry[:8]):
            rows.append(_error(entry))
    return (Table(ERROR_TABLE, ERROR_COLUMNS, tuple(rows)),)


def _error(entry: bytes) -> tuple[Value, ...]:
    """5.16.1.2; the Command Set Indicator and the Opcode are newer, and valid if Log Page Version is 1."""

    def number(offset: int, size: int, none: int | None = None) -> int | None:
        value = int.from_bytes(entry[offset : offset + size], "little")
        return None if value == none else value

    # Bit 0 is the Phase Tag.
    status = Status(int.from_bytes(entry[12:14], "little") >> 1)
    has_opcode = entry[63] == 1
    return (
        number(0, 8),
        str(status),
        number(24, 4),
        number(16, 8, NO_LBA),
        number(8, 2, NO_COMMAND),
        number(10, 2, NO_COMMAND),
        status.value,
        status.do_not_retry,
        _location(int.from_bytes(entry[14:16], "little")),
        number(28, 1, 0),
        named(entry[29], TRANSPORTS) if entry[29] else None,
        number(32, 8),
        number(40, 2),
        entry[30] if has_opcode else None,
        entry[31] if has_opcode else None,
    )


def _location(value: int) -> str | None:
    """Return byte and bit in the command; 0xffff says that no parameter is at fault."""
    return None if value == NO_COMMAND else f"byte {value & 0xFF} bit {value >> 8 & 7}"


SCOPES = {0: "not reported", 1: "controller", 2: "NVM subsystem"}
TELEMETRY_IDS = {7: "Telemetry Host-Initiated", 8: "Telemetry Controller-Initiated"}
CONTROLLER_DATA = "Telemetry Controller-Initiated Data Available"
FOLLOWING = "Vendor Data Size"
REASON = "Reason Identifier"


def _telemetry_items(initiator: str, own: tuple[Item, ...]) -> tuple[Item, ...]:
    return (
        Item("Log Identifier", 0, 1, code_of(TELEMETRY_IDS)),
        Item("IEEE OUI Identifier", 5, 3, zero_or(oui)),
        *(
            Item(f"Telemetry {initiator}-Initiated Data Area {area} Last Block", offset, size)
            for area, offset, size in ((1, 8, 2), (2, 10, 2), (3, 12, 2), (4, 16, 4))
        ),
        *own,
        Item(CONTROLLER_DATA, 382, 1, code_of({0: "no", 1: "yes"})),
        Item("Telemetry Controller-Initiated Data Generation Number", 383, 1),
    )


# 5.16.1.8 and 5.16.1.9; the scopes are of 2.1.
TELEMETRY_ITEMS = {
    "Host": _telemetry_items(
        "Host",
        (
            Item("Telemetry Host-Initiated Scope", 380, 1, code_of(SCOPES)),
            Item("Telemetry Host-Initiated Data Generation Number", 381, 1),
        ),
    ),
    "Controller": _telemetry_items(
        "Controller", (Item("Telemetry Controller-Initiated Scope", 381, 1, code_of(SCOPES)),)
    ),
}


def _telemetry(initiator: str, data: bytes) -> tuple[Part, ...]:
    header = present(data[:TELEMETRY_BLOCK])
    following = max(0, len(data) - TELEMETRY_BLOCK)
    # The collector keeps three areas, and of long ones the start only.
    expected = int.from_bytes(header[12:14], "little") * TELEMETRY_BLOCK
    return (
        *fields(TELEMETRY_ITEMS[initiator], header),
        Field(REASON, _reason(header[384:])),
        Field(FOLLOWING, following, byte_size(following) + f", of {expected:,}" * (following < expected)),
    )


def _reason(identifier: bytes) -> str:
    """Return it as text if it is; its format is the vendor's."""
    text = identifier.rstrip(b"\0 ")
    return text.decode("ascii") if text.isascii() and text.decode("ascii").isprintable() else text.hex()


_DECODERS: Mapping[str, Callable[[bytes], tuple[Part, ...]]] = {
    IDENTIFY: identify_controller,
    SMART: _smart,
    FIRMWARE: _firmware,
    ERRORS: _errors,
    TELEMETRY_HOST: partial(_telemetry, "Host"),
    TELEMETRY_CONTROLLER: partial(_telemetry, "Controller"),
}


# What needs attention.


@dataclass(frozen=True, slots=True)
class _Verdict:
    findings: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    wrong: set[str] = field(default_factory=set)
    """Names of fields of the log page SMART / Health Information."""

    def find(self, name: str, finding: str) -> None:
        self.findings.append(finding)
        self.wrong.add(name)


Values = Mapping[str, Value]


def _judge(values: Mapping[str, Values], sections: tuple[Section, ...]) -> _Verdict:
    verdict = _Verdict()
    if SMART in values:
        _judge_health(values[SMART], values.get(IDENTIFY, {}), verdict)
    for section in sections:
        if section.name == ERRORS:
            _judge_errors(section, verdict)
        elif section.name == FIRMWARE:
            _judge_firmware(section, verdict)
    telemetry = values.get(TELEMETRY_CONTROLLER, {})
    if _integer(telemetry, CONTROLLER_DATA) == 1 and _integer(telemetry, FOLLOWING):
        verdict.facts.append("telemetry saved by the controller")
    return verdict


def _judge_health(health: Values, identity: Values, verdict: _Verdict) -> None:
    temperature, spare, used = (_integer(health, name) for name in (TEMPERATURE, SPARE, USED))
    threshold = _integer(health, SPARE_THRESHOLD)
    limit = _temperature_limit(temperature, identity)
    little_spare = SPARE_THRESHOLD in health and spare < threshold <= 100
    # What the values below say better.
    said = {bit for bit, better in ((SPARE_BIT, little_spare), (TEMPERATURE_BIT, limit)) if better}
    warning = _integer(health, WARNING)
    for bit in CRITICAL_ORDER:
        if warning >> bit & 1:
            verdict.wrong.add(WARNING)
            if bit not in said:
                verdict.findings.append(CRITICAL_WARNING[bit])
    if unknown := warning & ~sum(1 << bit for bit in CRITICAL_WARNING):
        verdict.find(WARNING, f"unknown critical warning {unknown:#x}")
    if limit:
        verdict.find(TEMPERATURE, f"{temperature - 273} C ({limit})")
    elif temperature:
        verdict.facts.append(f"{temperature - 273} C")
    if errors := _integer(health, MEDIA_ERRORS):
        verdict.find(MEDIA_ERRORS, f"{errors} media error{'s' * (errors != 1)}")
    if little_spare:
        verdict.find(SPARE, f"{spare} % spare (threshold {threshold} %)")
    if used >= WORN:
        verdict.find(USED, f"{used} % used")
    elif USED in health:
        verdict.facts.append(f"{used} % used")
    if SPARE in health and not little_spare:
        verdict.facts.append(f"{spare} % spare")
    groups = _integer(health, GROUPS)
    for bit, name in GROUP_WARNING.items():
        if groups >> bit & 1:
            verdict.find(GROUPS, name)
    if unsafe := _integer(health, UNSAFE_SHUTDOWNS):
        verdict.facts.append(f"{unsafe} unsafe shutdown{'s' * (unsafe != 1)}")


def _temperature_limit(temperature: int, identity: Values) -> str:
    """Return what threshold of Identify Controller is reached."""
    for name, kind in ((CRITICAL_TEMPERATURE, "critical"), (WARNING_TEMPERATURE, "warning")):
        threshold = _integer(identity, name)
        if threshold and temperature >= threshold:
            return f"{kind} from {threshold - 273} C"
    return ""


def _judge_errors(section: Section, verdict: _Verdict) -> None:
    (table,) = (part for part in section.parts if isinstance(part, Table))
    column = table.columns.index(STATUS_FIELD)
    statuses = [Status(value) for row in table.rows if isinstance(value := row[column], int)]
    for name, count in Counter(str(status) for status in statuses if status.fault).most_common():
        verdict.findings.append(f"{counted(count, 'entry', 'entries')} in the error log: {name}")
    others = sum(not status.fault for status in statuses)
    if others:
        other = "other " * (others < len(statuses))
        verdict.facts.append(f"{counted(others, f'{other}entry', f'{other}entries')} in the error log")


def _judge_firmware(section: Section, verdict: _Verdict) -> None:
    values = _values(section)
    following = _integer(values, NEXT_SLOT)
    if following and following != _integer(values, ACTIVE_SLOT):
        verdict.facts.append(f"firmware of slot {following} from the next reset")


def _values(section: Section) -> dict[str, Value]:
    return {part.name: part.value for part in section.parts if isinstance(part, Field)}


def _integer(values: Values, name: str) -> int:
    """Return a field; 0 if the data end before it."""
    value = values.get(name)
    return value if isinstance(value, int) else 0


def _marked(section: Section, wrong: set[str]) -> Section:
    if section.name != SMART:
        return section
    parts = (
        replace(part, wrong=True) if isinstance(part, Field) and part.name in wrong else part
        for part in section.parts
    )
    return replace(section, parts=tuple(parts))


def _title(identity: Values) -> str:
    model, revision = identity.get(MODEL), identity.get(REVISION)
    title = str(model) if model else "NVMe controller"
    return f"{title}, firmware {revision}" if revision else title
