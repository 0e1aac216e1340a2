# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an NVMe controller says it is.

NVM Express Base Specification 2.0: Identify Controller is figure 275, Power State Descriptor figure 276. Fields
and bits that 2.1 adds are decoded, too: before, they are reserved, and zero.
"""

from collections.abc import Mapping

from ..decoded import Field, Part, Table, Value
from ..structure import Item, bits, bits_of, code_of, fields, hexadecimal_digits, named
from .nvme_text import byte_size, celsius, in_unit, oui, plus_one, present, thousands, times, zero_or


def identify_controller(data: bytes) -> tuple[Part, ...]:
    """Return the fields of Identify Controller. Raises InvalidDump if it was not read."""
    data = present(data)
    return (*fields(BEFORE_GUID, data), *_guid(data), *fields(AFTER_GUID, data), *_power_states(data))


def _version(value: int) -> str:
    major, minor, tertiary = value >> 16, value >> 8 & 0xFF, value & 0xFF
    return f"{major}.{minor}.{tertiary}" if tertiary else f"{major}.{minor}"


def _transfer(value: int) -> str:
    return f"2^{value} times the minimum memory page size"


def _queue_entry(value: int) -> str:
    least, most = value & 15, value >> 4
    return f"{1 << least} to {1 << most} bytes" if least < most else f"{1 << least} bytes"


def _flags_and(value: int, flag_bits: int, names: Mapping[int, str], code: str) -> str:
    """Return the code that some bits make, and the names of the other bits, *flag_bits*."""
    _, _, known = bits(value & flag_bits, names).partition(": ")
    return f"{value:#x}: {', '.join(filter(None, (code, known)))}"


def _firmware_updates(value: int) -> str:
    slots = value >> 1 & 7
    return _flags_and(value, ~0xE, FIRMWARE_UPDATES, f"{slots} slot{'s' * (slots != 1)}")


def _sanitize(value: int) -> str:
    return _flags_and(value, 0x3FFFFFFF, SANITIZE, named(value >> 30, NO_DEALLOCATE))


def _write_cache(value: int) -> str:
    return _flags_and(value, ~6, {0: "present"}, named(value >> 1 & 3, FLUSH_ALL))


MULTIPATH = {0: "multiple ports", 1: "multiple controllers", 2: "SR-IOV Virtual Function", 3: "ANA Reporting"}

EVENTS = {
    8: "Namespace Attribute Notices",
    9: "Firmware Activation Notices",
    11: "Asymmetric Namespace Access Change Notices",
    12: "Predictable Latency Event Aggregate Log Change Notices",
    13: "LBA Status Information Notices",
    14: "Endurance Group Event Aggregate Log Page Change Notices",
    15: "Normal NVM Subsystem Shutdown",
    16: "Temperature Threshold Hysteresis Recovery",
    17: "Reachability Groups Change Notices",
    19: "Allocated Namespace Attribute Notices",
    27: "Zone Descriptor Changed Notices",
    31: "Discovery Log Page Change Notices",
}

ATTRIBUTES = {
    0: "128-bit Host Identifier",
    1: "Non-Operational Power State Permissive Mode",
    2: "NVM Sets",
    3: "Read Recovery Levels",
    4: "Endurance Groups",
    5: "Predictable Latency Mode",
    6: "Traffic Based Keep Alive Support",
    7: "Namespace Granularity",
    8: "SQ Associations",
    9: "UUID List",
    10: "Multi-Domain Subsystem",
    11: "Fixed Capacity Management",
    12: "Variable Capacity Management",
    13: "Delete Endurance Group",
    14: "Delete NVM Set",
    15: "Extended LBA Formats Supported",
    16: "MDTS and Size Limits Exclude Metadata",
    17: "HMB Restrict Non-Operational Power State Access",
    18: "Reservations and Host Identifier Interaction",
    19: "Flexible Data Placement",
}

CONTROLLER_TYPES = {
    0: "not reported",
    1: "I/O controller",
    2: "Discovery controller",
    3: "Administrative controller",
}

ADMIN_COMMANDS = {
    0: "Security Send and Security Receive",
    1: "Format NVM",
    2: "Firmware Commit and Firmware Image Download",
    3: "Namespace Management",
    4: "Device Self-test",
    5: "Directives",
    6: "NVMe-MI Send and NVMe-MI Receive",
    7: "Virtualization Management",
    8: "Doorbell Buffer Config",
    9: "Get LBA Status",
    10: "Command and Feature Lockdown",
    11: "Host Managed Live Migration",
}

FIRMWARE_UPDATES = {
    0: "first slot read only",
    4: "activation without a reset",
    5: "Support Multiple Update Detection",
}

LOG_PAGES = {
    0: "SMART / Health Information per namespace",
    1: "Commands Supported and Effects",
    2: "extended data for Get Log Page",
    3: "Telemetry",
    4: "Persistent Event",
    5: "Supported Log Pages",
    6: "Telemetry Data Area 4",
}

NVM_COMMANDS = {
    0: "Compare",
    1: "Write Uncorrectable",
    2: "Dataset Management",
    3: "Write Zeroes",
    4: "Save and Select of features",
    5: "reservations",
    6: "Timestamp",
    7: "Verify",
    8: "Copy",
    9: "NVM Copy Single Atomicity",
    10: "NVM All Fast Copy",
    11: "Maximum Write Zeroes with Deallocate",
    12: "Namespace Zeroes",
}

SANITIZE = {
    0: "Crypto Erase",
    1: "Block Erase",
    2: "Overwrite",
    3: "Verification",
    29: "No-Deallocate Inhibited",
}

NO_DEALLOCATE = {
    0: "whether media is modified after sanitize is not reported",
    1: "media is not additionally modified after sanitize",
    2: "media is additionally modified after sanitize",
}

FORMAT = {
    0: "format applies to all namespaces",
    1: "secure erase applies to all namespaces",
    2: "cryptographic erase",
    3: "no broadcast NSID",
}

FLUSH_ALL = {
    0: "flush of all namespaces not reported",
    2: "no flush of all namespaces",
    3: "flush of all namespaces",
}

WRITE_PROTECTION = {
    0: "No Write Protect and Write Protect",
    1: "Write Protect Until Power Cycle",
    2: "Permanent Write Protect",
}

ACCESS_STATES = {
    0: "ANA Optimized",
    1: "ANA Non-Optimized",
    2: "ANA Inaccessible",
    3: "ANA Persistent Loss",
    4: "ANA Change",
    6: "ANAGRPID does not change",
    7: "non-zero ANAGRPID in Namespace Management",
}

SUBSYSTEM_REPORT = {0: "NVMe Storage Device", 1: "NVMe Enclosure"}
MANAGEMENT_ENDPOINTS = {0: "SMBus/I2C Port", 1: "PCIe Port"}
SELF_TEST = {0: "one at a time in the NVM subsystem", 1: "Host-Initiated Refresh"}

SERIAL = "Serial Number"
MODEL = "Model Number"
REVISION = "Firmware Revision"
WARNING_TEMPERATURE = "Warning Composite Temperature Threshold"
CRITICAL_TEMPERATURE = "Critical Composite Temperature Threshold"
GUID = "FRU Globally Unique Identifier"
GUID_OFFSET = 112

# Figure 275: up to the GUID, and what follows.
BEFORE_GUID = (
    Item("PCI Vendor ID", 0, 2, hexadecimal_digits(4)),
    Item("PCI Subsystem Vendor ID", 2, 2, hexadecimal_digits(4)),
    Item(SERIAL, 4, 20, kind=str, private=True),
    Item(MODEL, 24, 40, kind=str),
    Item(REVISION, 64, 8, kind=str),
    Item("Recommended Arbitration Burst", 72, 1),
    Item("IEEE OUI Identifier", 73, 3, oui),
    Item("Controller Multi-Path I/O and Namespace Sharing Capabilities", 76, 1, bits_of(MULTIPATH)),
    Item("Maximum Data Transfer Size", 77, 1, zero_or(_transfer, "no limit")),
    Item("Controller ID", 78, 2),
    Item("Version", 80, 4, zero_or(_version)),
    Item("RTD3 Resume Latency", 84, 4, zero_or(in_unit("us"))),
    Item("RTD3 Entry Latency", 88, 4, zero_or(in_unit("us"))),
    Item("Optional Asynchronous Events Supported", 92, 4, bits_of(EVENTS)),
    Item("Controller Attributes", 96, 4, bits_of(ATTRIBUTES)),
    Item("Read Recovery Levels Supported", 100, 2, hexadecimal_digits(4)),
    Item("Controller Type", 111, 1, code_of(CONTROLLER_TYPES)),
)
AFTER_GUID = (
    Item("Command Retry Delay Time 1", 128, 2, times(100, "ms")),
    Item("Command Retry Delay Time 2", 130, 2, times(100, "ms")),
    Item("Command Retry Delay Time 3", 132, 2, times(100, "ms")),
    Item("NVM Subsystem Report", 253, 1, bits_of(SUBSYSTEM_REPORT)),
    Item("VPD Write Cycle Information", 254, 1, hexadecimal_digits(2)),
    Item("Management Endpoint Capabilities", 255, 1, bits_of(MANAGEMENT_ENDPOINTS)),
    Item("Optional Admin Command Support", 256, 2, bits_of(ADMIN_COMMANDS)),
    Item("Abort Command Limit", 258, 1, plus_one),
    Item("Asynchronous Event Request Limit", 259, 1, plus_one),
    Item("Firmware Updates", 260, 1, _firmware_updates),
    Item("Log Page Attributes", 261, 1, bits_of(LOG_PAGES)),
    Item("Error Log Page Entries", 262, 1, plus_one),
    Item("Number of Power States Support", 263, 1, plus_one),
    Item("Admin Vendor Specific Command Configuration", 264, 1, hexadecimal_digits(2)),
    Item("Autonomous Power State Transition Attributes", 265, 1, bits_of({0: "supported"})),
    Item(WARNING_TEMPERATURE, 266, 2, zero_or(celsius)),
    Item(CRITICAL_TEMPERATURE, 268, 2, zero_or(celsius)),
    Item("Maximum Time for Firmware Activation", 270, 2, zero_or(times(100, "ms"))),
    Item("Host Memory Buffer Preferred Size", 272, 4, zero_or(times(4, "KiB"), "none")),
    Item("Host Memory Buffer Minimum Size", 276, 4, zero_or(times(4, "KiB"), "none")),
    Item("Total NVM Capacity", 280, 16, zero_or(byte_size)),
    Item("Unallocated NVM Capacity", 296, 16, byte_size),
    Item("Replay Protected Memory Block Support", 312, 4, hexadecimal_digits(8)),
    Item("Extended Device Self-test Time", 316, 2, in_unit("min")),
    Item("Device Self-test Options", 318, 1, bits_of(SELF_TEST)),
    Item("Firmware Update Granularity", 319, 1, zero_or(times(4, "KiB"))),
    Item("Keep Alive Support", 320, 2, zero_or(times(100, "ms"), "not supported")),
    Item("Host Controlled Thermal Management Attributes", 322, 2, bits_of({0: "supported"})),
    Item("Minimum Thermal Management Temperature", 324, 2, zero_or(celsius)),
    Item("Maximum Thermal Management Temperature", 326, 2, zero_or(celsius)),
    Item("Sanitize Capabilities", 328, 4, zero_or(_sanitize, "not supported")),
    Item("Host Memory Buffer Minimum Descriptor Entry Size", 332, 4, zero_or(times(4, "KiB"), "no limit")),
    Item("Host Memory Maximum Descriptors Entries", 336, 2, zero_or(thousands, "no limit")),
    Item("NVM Set Identifier Maximum", 338, 2),
    Item("Endurance Group Identifier Maximum", 340, 2),
    Item("ANA Transition Time", 342, 1, in_unit("s")),
    Item("Asymmetric Namespace Access Capabilities", 343, 1, bits_of(ACCESS_STATES)),
    Item("ANA Group Identifier Maximum", 344, 4),
    Item("Number of ANA Group Identifiers", 348, 4),
    Item("Persistent Event Log Size", 352, 4, times(64, "KiB")),
    Item("Domain Identifier", 356, 2),
    Item("Max Endurance Group Capacity", 368, 16, zero_or(byte_size)),
    Item("Submission Queue Entry Size", 512, 1, _queue_entry),
    Item("Completion Queue Entry Size", 513, 1, _queue_entry),
    Item("Maximum Outstanding Commands", 514, 2, zero_or(thousands)),
    Item("Number of Namespaces", 516, 4),
    Item("Optional NVM Command Support", 520, 2, bits_of(NVM_COMMANDS)),
    Item("Fused Operation Support", 522, 2, bits_of({0: "Compare and Write"})),
    Item("Format NVM Attributes", 524, 1, bits_of(FORMAT)),
    Item("Volatile Write Cache", 525, 1, _write_cache),
    Item("Atomic Write Unit Normal", 526, 2, plus_one),
    Item("Atomic Write Unit Power Fail", 528, 2, plus_one),
    Item("I/O Command Set Vendor Specific Command Configuration", 530, 1, hexadecimal_digits(2)),
    Item("Namespace Write Protection Capabilities", 531, 1, bits_of(WRITE_PROTECTION)),
    Item("Atomic Compare & Write Unit", 532, 2, plus_one),
    Item("Copy Descriptor Formats Supported", 534, 2, hexadecimal_digits(4)),
    Item("SGL Support", 536, 4, hexadecimal_digits(8)),
    Item("Maximum Number of Allowed Namespaces", 540, 4, zero_or(thousands)),
    Item("Maximum Domain Namespace Attachments", 544, 16, zero_or(thousands)),
    Item("Maximum I/O Controller Namespace Attachments", 560, 4, zero_or(thousands)),
    Item("NVM Subsystem NVMe Qualified Name", 768, 256, kind=str, private=True),
)

# Figure 276.
POWER_STATES = 2048
POWER_STATE = 32
MOST_POWER_STATES = 32
POWER_COLUMNS = (
    "Power State",
    "Maximum Power (W)",
    "Non-Operational State",
    "Entry Latency (us)",
    "Exit Latency (us)",
    "Idle Power (W)",
    "Active Power (W)",
)
POWER_SCALE = {1: 10_000, 2: 100}
"""Parts of a watt, by the code of Idle Power Scale and Active Power Scale."""


def _guid(data: bytes) -> tuple[Field, ...]:
    part = data[GUID_OFFSET : GUID_OFFSET + 16]
    return (Field(GUID, part.hex(), private=True),) if len(part) == 16 and any(part) else ()


def _power_states(data: bytes) -> tuple[Table, ...]:
    if len(data) <= POWER_STATES:
        return ()
    rows = []
    for number in range(min(data[263] + 1, MOST_POWER_STATES)):
        start = POWER_STATES + number * POWER_STATE
        state = data[start : start + POWER_STATE]
        if len(state) == POWER_STATE:
            rows.append(_power_state(number, state))
    return (Table("Power State Descriptors", POWER_COLUMNS, tuple(rows)),)


def _power_state(number: int, state: bytes) -> tuple[Value, ...]:
    most, idle, active = (int.from_bytes(state[at : at + 2], "little") for at in (0, 16, 20))
    return (
        number,
        most / (10_000 if state[3] & 1 else 100) if most else None,
        bool(state[3] & 2),
        int.from_bytes(state[4:8], "little"),
        int.from_bytes(state[8:12], "little"),
        _watts(idle, state[18] >> 6),
        _watts(active, state[22] >> 6),
    )


def _watts(value: int, scale: int) -> float | None:
    return value / POWER_SCALE[scale] if scale in POWER_SCALE else None
