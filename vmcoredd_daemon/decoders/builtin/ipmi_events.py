# SPDX-License-Identifier: LGPL-2.1-or-later
"""What events of IPMI mean: sensor types, states and their details, in the words of the specification.

IPMI Specification 2.0, tables 42-1 to 42-3, with errata; most of its explanations in parentheses are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..structure import named

THRESHOLD, SENSOR_SPECIFIC = 0x01, 0x6F
"""Event/Reading Type Codes, table 42-1; 02h to 0Ch are the other generic ones."""
OEM_EVENT_TYPES = range(0x70, 0x80)

PROCESSOR, MEMORY = 0x07, 0x0C
"""Sensor types."""

SENSOR_TYPES: Mapping[int, str] = MappingProxyType(
    {
        0x01: "Temperature",
        0x02: "Voltage",
        0x03: "Current",
        0x04: "Fan",
        0x05: "Physical Security",
        0x06: "Platform Security Violation Attempt",
        PROCESSOR: "Processor",
        0x08: "Power Supply",
        0x09: "Power Unit",
        0x0A: "Cooling Device",
        0x0B: "Other Units-based Sensor",
        MEMORY: "Memory",
        0x0D: "Drive Slot",
        0x0E: "POST Memory Resize",
        0x0F: "System Firmware Progress",
        0x10: "Event Logging Disabled",
        0x11: "Watchdog 1",
        0x12: "System Event",
        0x13: "Critical Interrupt",
        0x14: "Button / Switch",
        0x15: "Module / Board",
        0x16: "Microcontroller / Coprocessor",
        0x17: "Add-in Card",
        0x18: "Chassis",
        0x19: "Chip Set",
        0x1A: "Other FRU",
        0x1B: "Cable / Interconnect",
        0x1C: "Terminator",
        0x1D: "System Boot / Restart Initiated",
        0x1E: "Boot Error",
        0x1F: "Base OS Boot / Installation Status",
        0x20: "OS Stop / Shutdown",
        0x21: "Slot / Connector",
        0x22: "System ACPI Power State",
        0x23: "Watchdog 2",
        0x24: "Platform Alert",
        0x25: "Entity Presence",
        0x26: "Monitor ASIC / IC",
        0x27: "LAN",
        0x28: "Management Subsystem Health",
        0x29: "Battery",
        0x2A: "Session Audit",
        0x2B: "Version Change",
        0x2C: "FRU State",
    }
)
"""Sensor Type Codes, table 42-3."""

GENERIC_EVENTS: Mapping[int, Mapping[int, str]] = MappingProxyType(
    {
        THRESHOLD: {
            0x00: "Lower Non-critical - going low",
            0x01: "Lower Non-critical - going high",
            0x02: "Lower Critical - going low",
            0x03: "Lower Critical - going high",
            0x04: "Lower Non-recoverable - going low",
            0x05: "Lower Non-recoverable - going high",
            0x06: "Upper Non-critical - going low",
            0x07: "Upper Non-critical - going high",
            0x08: "Upper Critical - going low",
            0x09: "Upper Critical - going high",
            0x0A: "Upper Non-recoverable - going low",
            0x0B: "Upper Non-recoverable - going high",
        },
        0x02: {0x00: "Transition to Idle", 0x01: "Transition to Active", 0x02: "Transition to Busy"},
        0x03: {0x00: "State Deasserted", 0x01: "State Asserted"},
        0x04: {0x00: "Predictive Failure deasserted", 0x01: "Predictive Failure asserted"},
        0x05: {0x00: "Limit Not Exceeded", 0x01: "Limit Exceeded"},
        0x06: {0x00: "Performance Met", 0x01: "Performance Lags"},
        0x07: {
            0x00: "transition to OK",
            0x01: "transition to Non-Critical from OK",
            0x02: "transition to Critical from less severe",
            0x03: "transition to Non-recoverable from less severe",
            0x04: "transition to Non-Critical from more severe",
            0x05: "transition to Critical from Non-recoverable",
            0x06: "transition to Non-recoverable",
            0x07: "Monitor",
            0x08: "Informational",
        },
        0x08: {0x00: "Device Removed / Device Absent", 0x01: "Device Inserted / Device Present"},
        0x09: {0x00: "Device Disabled", 0x01: "Device Enabled"},
        0x0A: {
            0x00: "transition to Running",
            0x01: "transition to In Test",
            0x02: "transition to Power Off",
            0x03: "transition to On Line",
            0x04: "transition to Off Line",
            0x05: "transition to Off Duty",
            0x06: "transition to Degraded",
            0x07: "transition to Power Save",
            0x08: "Install Error",
        },
        0x0B: {
            0x00: "Fully Redundant",
            0x01: "Redundancy Lost",
            0x02: "Redundancy Degraded",
            0x03: "Non-redundant:Sufficient Resources from Redundant",
            0x04: "Non-redundant:Sufficient Resources from Insufficient Resources",
            0x05: "Non-redundant:Insufficient Resources",
            0x06: "Redundancy Degraded from Fully Redundant",
            0x07: "Redundancy Degraded from Non-redundant",
        },
        0x0C: {
            0x00: "D0 Power State",
            0x01: "D1 Power State",
            0x02: "D2 Power State",
            0x03: "D3 Power State",
        },
    }
)
"""Generic Event/Reading Type Codes, table 42-2: code, offset, name."""

POWER_STATES: Mapping[int, str] = MappingProxyType(
    {
        0x00: 'S0 / G0 "working"',
        0x01: 'S1 "sleeping with system h/w & processor context maintained"',
        0x02: 'S2 "sleeping, processor context lost"',
        0x03: 'S3 "sleeping, processor & h/w context lost, memory retained."',
        0x04: 'S4 "non-volatile sleep / suspend-to disk"',
        0x05: 'S5 / G2 "soft-off"',
        0x06: "S4 / S5 soft-off, particular S4 / S5 state cannot be determined",
        0x07: "G3 / Mechanical Off",
        0x08: "Sleeping in an S1, S2, or S3 states",
        0x09: "G1 sleeping",
        0x0A: "S5 entered by override",
        0x0B: "Legacy ON state",
        0x0C: "Legacy OFF state",
    }
)
"""Offsets of System ACPI Power State, and Event Data of Chip Set."""

SPECIFIC_EVENTS: Mapping[int, Mapping[int, str]] = MappingProxyType(
    {
        0x05: {
            0x00: "General Chassis Intrusion",
            0x01: "Drive Bay intrusion",
            0x02: "I/O Card area intrusion",
            0x03: "Processor area intrusion",
            0x04: "LAN Leash Lost",
            0x05: "Unauthorized dock",
            0x06: "FAN area intrusion",
        },
        0x06: {
            0x00: "Secure Mode (Front Panel Lockout) Violation attempt",
            0x01: "Pre-boot Password Violation - user password",
            0x02: "Pre-boot Password Violation attempt - setup password",
            0x03: "Pre-boot Password Violation - network boot password",
            0x04: "Other pre-boot Password Violation",
            0x05: "Out-of-band Access Password Violation",
        },
        PROCESSOR: {
            0x00: "IERR",
            0x01: "Thermal Trip",
            0x02: "FRB1/BIST failure",
            0x03: "FRB2/Hang in POST failure",
            0x04: "FRB3/Processor Startup/Initialization failure",
            0x05: "Configuration Error",
            0x06: "SM BIOS 'Uncorrectable CPU-complex Error'",
            0x07: "Processor Presence detected",
            0x08: "Processor disabled",
            0x09: "Terminator Presence Detected",
            0x0A: "Processor Automatically Throttled",
            0x0B: "Machine Check Exception (Uncorrectable)",
            0x0C: "Correctable Machine Check Error",
        },
        0x08: {
            0x00: "Presence detected",
            0x01: "Power Supply Failure detected",
            0x02: "Predictive Failure",
            0x03: "Power Supply input lost (AC/DC)",
            0x04: "Power Supply input lost or out-of-range",
            0x05: "Power Supply input out-of-range, but present",
            0x06: "Configuration error",
            0x07: "Power Supply Inactive",
        },
        0x09: {
            0x00: "Power Off / Power Down",
            0x01: "Power Cycle",
            0x02: "240VA Power Down",
            0x03: "Interlock Power Down",
            0x04: "AC lost / Power input lost",
            0x05: "Soft Power Control Failure",
            0x06: "Power Unit Failure detected",
            0x07: "Predictive Failure",
        },
        MEMORY: {
            0x00: "Correctable ECC / other correctable memory error",
            0x01: "Uncorrectable ECC / other uncorrectable memory error",
            0x02: "Parity",
            0x03: "Memory Scrub Failed (stuck bit)",
            0x04: "Memory Device Disabled",
            0x05: "Correctable ECC / other correctable memory error logging limit reached",
            0x06: "Presence detected",
            0x07: "Configuration error",
            0x08: "Spare",
            0x09: "Memory Automatically Throttled",
            0x0A: "Critical Overtemperature",
        },
        0x0D: {
            0x00: "Drive Presence",
            0x01: "Drive Fault",
            0x02: "Predictive Failure",
            0x03: "Hot Spare",
            0x04: "Consistency Check / Parity Check in progress",
            0x05: "In Critical Array",
            0x06: "In Failed Array",
            0x07: "Rebuild/Remap in progress",
            0x08: "Rebuild/Remap Aborted",
        },
        0x0F: {
            0x00: "System Firmware Error (POST Error)",
            0x01: "System Firmware Hang",
            0x02: "System Firmware Progress",
        },
        0x10: {
            0x00: "Correctable Memory Error Logging Disabled",
            0x01: "Event 'Type' Logging Disabled",
            0x02: "Log Area Reset/Cleared",
            0x03: "All Event Logging Disabled",
            0x04: "SEL Full",
            0x05: "SEL Almost Full",
            0x06: "Correctable Machine Check Error Logging Disabled",
        },
        0x11: {
            0x00: "BIOS Watchdog Reset",
            0x01: "OS Watchdog Reset",
            0x02: "OS Watchdog Shut Down",
            0x03: "OS Watchdog Power Down",
            0x04: "OS Watchdog Power Cycle",
            0x05: "OS Watchdog NMI / Diagnostic Interrupt",
            0x06: "OS Watchdog Expired, status only",
            0x07: "OS Watchdog pre-timeout Interrupt, non-NMI",
        },
        0x12: {
            0x00: "System Reconfigured",
            0x01: "OEM System Boot Event",
            0x02: "Undetermined system hardware failure",
            0x03: "Entry added to Auxiliary Log",
            0x04: "PEF Action",
            0x05: "Timestamp Clock Synch",
        },
        0x13: {
            0x00: "Front Panel NMI / Diagnostic Interrupt",
            0x01: "Bus Timeout",
            0x02: "I/O channel check NMI",
            0x03: "Software NMI",
            0x04: "PCI PERR",
            0x05: "PCI SERR",
            0x06: "EISA Fail Safe Timeout",
            0x07: "Bus Correctable Error",
            0x08: "Bus Uncorrectable Error",
            0x09: "Fatal NMI",
            0x0A: "Bus Fatal Error",
            0x0B: "Bus Degraded",
        },
        0x14: {
            0x00: "Power Button pressed",
            0x01: "Sleep Button pressed",
            0x02: "Reset Button pressed",
            0x03: "FRU latch open",
            0x04: "FRU service request button",
        },
        0x19: {0x00: "Soft Power Control Failure", 0x01: "Thermal Trip"},
        0x1B: {
            0x00: "Cable/Interconnect is connected",
            0x01: "Configuration Error - Incorrect cable connected / Incorrect interconnection",
        },
        0x1D: {
            0x00: "Initiated by power up",
            0x01: "Initiated by hard reset",
            0x02: "Initiated by warm reset",
            0x03: "User requested PXE boot",
            0x04: "Automatic boot to diagnostic",
            0x05: "OS / run-time software initiated hard reset",
            0x06: "OS / run-time software initiated warm reset",
            0x07: "System Restart",
        },
        0x1E: {
            0x00: "No bootable media",
            0x01: "Non-bootable diskette left in drive",
            0x02: "PXE Server not found",
            0x03: "Invalid boot sector",
            0x04: "Timeout waiting for user selection of boot source",
        },
        0x1F: {
            0x00: "A: boot completed",
            0x01: "C: boot completed",
            0x02: "PXE boot completed",
            0x03: "Diagnostic boot completed",
            0x04: "CD-ROM boot completed",
            0x05: "ROM boot completed",
            0x06: "boot completed - boot device not specified",
            0x07: "Base OS/Hypervisor Installation started",
            0x08: "Base OS/Hypervisor Installation completed",
            0x09: "Base OS/Hypervisor Installation aborted",
            0x0A: "Base OS/Hypervisor Installation failed",
        },
        0x20: {
            0x00: "Critical stop during OS load / initialization",
            0x01: "Run-time Critical Stop",
            0x02: "OS Graceful Stop",
            0x03: "OS Graceful Shutdown",
            0x04: "Soft Shutdown initiated by PEF",
            0x05: "Agent Not Responding",
        },
        0x21: {
            0x00: "Fault Status asserted",
            0x01: "Identify Status asserted",
            0x02: "Slot / Connector Device installed/attached",
            0x03: "Slot / Connector Ready for Device Installation",
            0x04: "Slot/Connector Ready for Device Removal",
            0x05: "Slot Power is Off",
            0x06: "Slot / Connector Device Removal Request",
            0x07: "Interlock asserted",
            0x08: "Slot is Disabled",
            0x09: "Slot holds spare device",
        },
        0x22: {**POWER_STATES, 0x0E: "Unknown"},
        0x23: {
            0x00: "Timer expired, status only",
            0x01: "Hard Reset",
            0x02: "Power Down",
            0x03: "Power Cycle",
            0x08: "Timer interrupt",
        },
        0x24: {
            0x00: "platform generated page",
            0x01: "platform generated LAN alert",
            0x02: "Platform Event Trap generated",
            0x03: "platform generated SNMP trap, OEM format",
        },
        0x25: {0x00: "Entity Present", 0x01: "Entity Absent", 0x02: "Entity Disabled"},
        0x27: {0x00: "LAN Heartbeat Lost", 0x01: "LAN Heartbeat"},
        0x28: {
            0x00: "sensor access degraded or unavailable",
            0x01: "controller access degraded or unavailable",
            0x02: "management controller off-line",
            0x03: "management controller unavailable",
            0x04: "Sensor failure",
            0x05: "FRU failure",
        },
        0x29: {
            0x00: "battery low (predictive failure)",
            0x01: "battery failed",
            0x02: "battery presence detected",
        },
        0x2A: {
            0x00: "Session Activated",
            0x01: "Session Deactivated",
            0x02: "Invalid Username or Password",
            0x03: "Invalid password disable",
        },
        0x2B: {
            0x00: "Hardware change detected with associated Entity",
            0x01: "Firmware or software change detected with associated Entity",
            0x02: "Hardware incompatibility detected with associated Entity",
            0x03: "Firmware or software incompatibility detected with associated Entity",
            0x04: "Entity is of an invalid or unsupported hardware version",
            0x05: "Entity contains an invalid or unsupported firmware or software version",
            0x06: "Hardware Change detected with associated Entity was successful",
            0x07: "Software or F/W Change detected with associated Entity was successful",
        },
        0x2C: {
            0x00: "FRU Not Installed",
            0x01: "FRU Inactive",
            0x02: "FRU Activation Requested",
            0x03: "FRU Activation In Progress",
            0x04: "FRU Active",
            0x05: "FRU Deactivation Requested",
            0x06: "FRU Deactivation In Progress",
            0x07: "FRU Communication Lost",
        },
    }
)
"""Sensor-specific Offsets, table 42-3: sensor type, offset, name."""


@dataclass(frozen=True, slots=True)
class Extension:
    """A field in Event Data 2 or 3 of some sensor-specific events: an event extension code."""

    sensor_type: int
    offsets: tuple[int, ...]
    byte: int
    """2 or 3."""
    name: str
    codes: Mapping[int, str] | None = None
    """Names of its values; without them it is a number."""
    low: int = 0
    """Its lowest bit."""
    mask: int = 0xFF
    """Of the value, after the shift."""

    def text(self, data: int) -> str:
        """Return the field of Event Data 2 or 3, *data*, with its name."""
        value = data >> self.low & self.mask
        text = str(value) if self.codes is None else named(value, self.codes)
        return f"{self.name} {text}" if self.codes is None else f"{self.name}: {text}"


_FIRMWARE_ERRORS: Mapping[int, str] = MappingProxyType(
    {
        0x00: "Unspecified",
        0x01: "No system memory is physically installed in the system",
        0x02: "No usable system memory",
        0x03: "Unrecoverable hard-disk/ATAPI/IDE device failure",
        0x04: "Unrecoverable system-board failure",
        0x05: "Unrecoverable diskette subsystem failure",
        0x06: "Unrecoverable hard-disk controller failure",
        0x07: "Unrecoverable PS/2 or USB keyboard failure",
        0x08: "Removable boot media not found",
        0x09: "Unrecoverable video controller failure",
        0x0A: "No video device detected",
        0x0B: "Firmware (BIOS) ROM corruption detected",
        0x0C: "CPU voltage mismatch",
        0x0D: "CPU speed matching failure",
    }
)

_FIRMWARE_PROGRESS: Mapping[int, str] = MappingProxyType(
    {
        0x00: "Unspecified",
        0x01: "Memory initialization",
        0x02: "Hard-disk initialization",
        0x03: "Secondary processor(s) initialization",
        0x04: "User authentication",
        0x05: "User-initiated system setup",
        0x06: "USB resource configuration",
        0x07: "PCI resource configuration",
        0x08: "Option ROM initialization",
        0x09: "Video initialization",
        0x0A: "Cache initialization",
        0x0B: "SM Bus initialization",
        0x0C: "Keyboard controller initialization",
        0x0D: "Embedded controller/management controller initialization",
        0x0E: "Docking station attachment",
        0x0F: "Enabling docking station",
        0x10: "Docking station ejection",
        0x11: "Disabling docking station",
        0x12: "Calling operating system wake-up vector",
        0x13: "Starting operating system boot process",
        0x14: "Baseboard or motherboard initialization",
        0x16: "Floppy initialization",
        0x17: "Keyboard test",
        0x18: "Pointing device test",
        0x19: "Primary processor initialization",
    }
)

_VERSION_CHANGES: Mapping[int, str] = MappingProxyType(
    {
        0x00: "unspecified",
        0x01: "management controller device ID",
        0x02: "management controller firmware revision",
        0x03: "management controller device revision",
        0x04: "management controller manufacturer ID",
        0x05: "management controller IPMI version",
        0x06: "management controller auxiliary firmware ID",
        0x07: "management controller firmware boot block",
        0x08: "other management controller firmware",
        0x09: "system firmware (EFI / BIOS) change",
        0x0A: "SMBIOS change",
        0x0B: "operating system change",
        0x0C: "operating system loader change",
        0x0D: "service or diagnostic partition change",
        0x0E: "management software agent change",
        0x0F: "management software application change",
        0x10: "management software middleware change",
        0x11: "programmable hardware change",
        0x12: "board/FRU module change",
        0x13: "board/FRU component change",
        0x14: "board/FRU replaced with equivalent version",
        0x15: "board/FRU replaced with newer version",
        0x16: "board/FRU replaced with older version",
        0x17: "board/FRU hardware configuration change",
    }
)

# Get System Restart Cause, table 28-11.
_RESTART_CAUSES: Mapping[int, str] = MappingProxyType(
    {
        0x0: "unknown",
        0x1: "Chassis Control command",
        0x2: "reset via pushbutton",
        0x3: "power-up via power pushbutton",
        0x4: "Watchdog expiration",
        0x5: "OEM",
        0x6: "automatic power-up on AC being applied due to 'always restore' power restore policy",
        0x7: "automatic power-up on AC being applied due to 'restore previous power state' power restore policy",
        0x8: "reset via PEF",
        0x9: "power-cycle via PEF",
        0xA: "soft reset",
        0xB: "power-up via RTC",
    }
)

_SLOT_TYPES: Mapping[int, str] = MappingProxyType(
    {
        0: "PCI",
        1: "Drive Array",
        2: "External Peripheral Connector",
        3: "Docking",
        4: "other standard internal expansion slot",
        5: "slot associated with entity specified by Entity ID for sensor",
        6: "AdvancedTCA",
        7: "DIMM/memory device",
        8: "FAN",
        9: "PCI Express",
        10: "SCSI (parallel)",
        11: "SATA / SAS",
    }
)

_FRU_CAUSES: Mapping[int, str] = MappingProxyType(
    {
        0x0: "Normal State Change",
        0x1: "Change Commanded by software external to FRU",
        0x2: "State Change due to operator changing a Handle latch",
        0x3: "State Change due to operator pressing the hot swap push button",
        0x4: "State Change due to FRU programmatic action",
        0x5: "Communication Lost",
        0x6: "Communication Lost due to local failure",
        0x7: "State Change due to unexpected extraction",
        0x8: "State Change due to operator intervention/update",
        0x9: "Unable to compute IPMB address",
        0xA: "Unexpected Deactivation",
        0xF: "State Change, Cause Unknown",
    }
)

_SUPPLY_ERRORS: Mapping[int, str] = MappingProxyType(
    {
        0x0: "Vendor mismatch",
        0x1: "Revision mismatch",
        0x2: "Processor missing",
        0x3: "Power Supply rating mismatch",
        0x4: "Voltage rating mismatch",
    }
)

_LOG_ACTIONS: Mapping[int, str] = MappingProxyType(
    {
        0x0: "entry added",
        0x1: "entry added because event did not map to standard IPMI event",
        0x2: "entry added along with one or more corresponding SEL entries",
        0x3: "log cleared",
        0x4: "log disabled",
        0x5: "log enabled",
    }
)

_INTERRUPTS: Mapping[int, str] = MappingProxyType(
    {0x0: "none", 0x1: "SMI", 0x2: "NMI", 0x3: "Messaging Interrupt", 0xF: "unspecified"}
)

_TIMER_USES: Mapping[int, str] = MappingProxyType(
    {0x1: "BIOS FRB2", 0x2: "BIOS/POST", 0x3: "OS Load", 0x4: "SMS/OS", 0x5: "OEM", 0xF: "unspecified"}
)

_DEACTIVATIONS: Mapping[int, str] = MappingProxyType(
    {
        0: "unspecified",
        1: "Close Session command",
        2: "timeout",
        3: "configuration change",
    }
)

_CLOCKS: Mapping[int, str] = MappingProxyType(
    {0x0: "SEL Timestamp Clock updated", 0x1: "SDR Timestamp Clock updated"}
)

EXTENSIONS: tuple[Extension, ...] = (
    Extension(0x05, (4,), 2, "network controller"),
    Extension(0x08, (6,), 3, "Error Type", _SUPPLY_ERRORS, mask=0xF),
    Extension(MEMORY, tuple(range(0x0B)), 3, "Memory module/device"),
    Extension(0x0F, (0,), 2, "Error", _FIRMWARE_ERRORS),
    Extension(0x0F, (1, 2), 2, "Progress", _FIRMWARE_PROGRESS),
    Extension(0x10, (0,), 2, "Memory module/device"),
    Extension(0x10, (1,), 2, "Event/Reading Type Code"),
    Extension(0x10, (1,), 3, "Event Offset", mask=0xF),
    Extension(0x10, (5,), 3, "percentage filled"),
    Extension(0x10, (6,), 2, "processor"),
    Extension(0x12, (3,), 2, "Log Entry Action", _LOG_ACTIONS, 4, 0xF),
    Extension(0x12, (3,), 2, "Log Type", MappingProxyType({0: "MCA Log", 1: "OEM 1", 2: "OEM 2"}), mask=0xF),
    Extension(0x12, (5,), 2, "event", MappingProxyType({0: "first of pair", 1: "second of pair"}), 7, 1),
    Extension(0x12, (5,), 2, "Timestamp Clock Type", _CLOCKS, mask=0xF),
    Extension(0x19, (0,), 2, "Requested power state", POWER_STATES),
    Extension(
        0x19, (0,), 3, "Power state at time of request", MappingProxyType({**POWER_STATES, 0x0D: "unknown"})
    ),
    Extension(0x1D, (7,), 2, "restart cause", _RESTART_CAUSES, mask=0xF),
    Extension(0x1D, (7,), 3, "Channel number"),
    Extension(0x21, tuple(range(0x0A)), 2, "Slot/Connector Type", _SLOT_TYPES, mask=0x7F),
    Extension(0x21, tuple(range(0x0A)), 3, "Slot/Connector Number"),
    Extension(0x23, (0, 1, 2, 3, 8), 2, "interrupt type", _INTERRUPTS, 4, 0xF),
    Extension(0x23, (0, 1, 2, 3, 8), 2, "timer use at expiration", _TIMER_USES, mask=0xF),
    Extension(0x28, (0, 4), 2, "Sensor Number"),
    Extension(0x28, (5,), 3, "FRU Device ID or I2C Slave Address"),
    Extension(0x2A, (0, 1, 2, 3), 2, "User ID", mask=0x3F),
    Extension(0x2A, (1,), 3, "Deactivation cause", _DEACTIVATIONS, 4, 3),
    Extension(0x2A, (0, 1, 2, 3), 3, "Channel number", mask=0xF),
    Extension(0x2B, tuple(range(8)), 2, "Version change type", _VERSION_CHANGES),
    Extension(0x2C, tuple(range(8)), 2, "Cause of state change", _FRU_CAUSES, 4, 0xF),
    Extension(0x2C, tuple(range(8)), 2, "Previous state offset", mask=0xF),
)
"""Event Data 2 and 3 of sensor-specific events, table 42-3."""

PEF_ACTIONS: Mapping[int, str] = MappingProxyType(
    {0: "Alert", 1: "power off", 2: "reset", 3: "power cycle", 4: "OEM action", 5: "Diagnostic Interrupt (NMI)"}
)
"""Event Data 2 of a PEF Action, table 42-3: bit, name."""

CRITICAL_EVENTS: Mapping[tuple[int, int, int], tuple[str, str]] = MappingProxyType(
    {
        (event_type, sensor_type, offset): (singular, plural or f"{singular}s")
        for event_type, sensor_type, offset, singular, plural in (
            (SENSOR_SPECIFIC, PROCESSOR, 0x00, "processor IERR", ""),
            (SENSOR_SPECIFIC, PROCESSOR, 0x0B, "uncorrectable machine check exception", ""),
            (SENSOR_SPECIFIC, PROCESSOR, 0x06, "uncorrectable CPU-complex error", ""),
            (SENSOR_SPECIFIC, PROCESSOR, 0x01, "processor thermal trip", ""),
            (SENSOR_SPECIFIC, MEMORY, 0x01, "uncorrectable ECC error", ""),
            (SENSOR_SPECIFIC, MEMORY, 0x02, "memory parity error", ""),
            (SENSOR_SPECIFIC, 0x13, 0x0A, "bus fatal error", ""),
            (SENSOR_SPECIFIC, 0x13, 0x09, "fatal NMI", ""),
            (SENSOR_SPECIFIC, 0x13, 0x08, "bus uncorrectable error", ""),
            (SENSOR_SPECIFIC, 0x13, 0x05, "PCI SERR", ""),
            (SENSOR_SPECIFIC, 0x13, 0x04, "PCI PERR", ""),
            (SENSOR_SPECIFIC, 0x19, 0x01, "chip set thermal trip", ""),
            (SENSOR_SPECIFIC, 0x12, 0x02, "undetermined system hardware failure", ""),
            (SENSOR_SPECIFIC, 0x09, 0x06, "power unit failure", ""),
            (SENSOR_SPECIFIC, 0x08, 0x01, "power supply failure", ""),
            (SENSOR_SPECIFIC, 0x20, 0x01, "run-time critical stop", ""),
            (SENSOR_SPECIFIC, 0x20, 0x00, "critical stop during OS load", "critical stops during OS load"),
            (THRESHOLD, -1, 0x0B, "upper non-recoverable threshold crossing", ""),
            (THRESHOLD, -1, 0x04, "lower non-recoverable threshold crossing", ""),
            (0x07, -1, 0x06, "transition to non-recoverable", "transitions to non-recoverable"),
            (0x07, -1, 0x03, "transition to non-recoverable", "transitions to non-recoverable"),
            (SENSOR_SPECIFIC, 0x23, 0x01, "watchdog hard reset", ""),
            (SENSOR_SPECIFIC, 0x23, 0x02, "watchdog power down", ""),
            (SENSOR_SPECIFIC, 0x23, 0x03, "watchdog power cycle", ""),
            (SENSOR_SPECIFIC, 0x23, 0x00, "watchdog timer expiration", ""),
            (SENSOR_SPECIFIC, 0x11, 0x00, "BIOS watchdog reset", ""),
            (SENSOR_SPECIFIC, 0x11, 0x01, "OS watchdog reset", ""),
            (SENSOR_SPECIFIC, 0x11, 0x02, "OS watchdog shut down", ""),
            (SENSOR_SPECIFIC, 0x11, 0x03, "OS watchdog power down", ""),
            (SENSOR_SPECIFIC, 0x11, 0x04, "OS watchdog power cycle", ""),
            (SENSOR_SPECIFIC, 0x11, 0x05, "OS watchdog NMI", ""),
            (SENSOR_SPECIFIC, 0x13, 0x00, "front panel NMI", ""),
            (SENSOR_SPECIFIC, 0x13, 0x01, "bus timeout", ""),
            (SENSOR_SPECIFIC, 0x13, 0x02, "I/O channel check NMI", ""),
            (SENSOR_SPECIFIC, 0x13, 0x03, "software NMI", ""),
            (SENSOR_SPECIFIC, 0x13, 0x06, "EISA fail safe timeout", ""),
            (SENSOR_SPECIFIC, PROCESSOR, 0x02, "processor FRB1/BIST failure", ""),
            (SENSOR_SPECIFIC, PROCESSOR, 0x03, "processor FRB2 failure", ""),
            (SENSOR_SPECIFIC, PROCESSOR, 0x04, "processor startup failure", ""),
            (SENSOR_SPECIFIC, PROCESSOR, 0x05, "processor configuration error", ""),
            (SENSOR_SPECIFIC, 0x0F, 0x00, "system firmware error", ""),
            (SENSOR_SPECIFIC, 0x0F, 0x01, "system firmware hang", ""),
            (SENSOR_SPECIFIC, MEMORY, 0x0A, "critical overtemperature", ""),
            (SENSOR_SPECIFIC, MEMORY, 0x03, "memory scrub failure", ""),
            (SENSOR_SPECIFIC, MEMORY, 0x05, "correctable ECC limit reached", "correctable ECC limits reached"),
            (SENSOR_SPECIFIC, MEMORY, 0x04, "disabled memory device", ""),
            (SENSOR_SPECIFIC, MEMORY, 0x07, "memory configuration error", ""),
            (SENSOR_SPECIFIC, 0x0D, 0x06, "failed drive array", ""),
            (SENSOR_SPECIFIC, 0x0D, 0x05, "critical drive array", ""),
            (SENSOR_SPECIFIC, 0x0D, 0x01, "drive fault", ""),
            (SENSOR_SPECIFIC, 0x09, 0x02, "240VA power down", ""),
            (SENSOR_SPECIFIC, 0x09, 0x04, "power input loss", "power input losses"),
            (SENSOR_SPECIFIC, 0x09, 0x05, "soft power control failure", ""),
            (SENSOR_SPECIFIC, 0x19, 0x00, "soft power control failure", ""),
            (SENSOR_SPECIFIC, 0x08, 0x03, "power supply input loss", "power supply input losses"),
            (SENSOR_SPECIFIC, 0x08, 0x04, "power supply input loss", "power supply input losses"),
            (SENSOR_SPECIFIC, 0x08, 0x05, "power supply input fault", ""),
            (SENSOR_SPECIFIC, 0x08, 0x06, "power supply configuration error", ""),
            (THRESHOLD, -1, 0x09, "upper critical threshold crossing", ""),
            (THRESHOLD, -1, 0x02, "lower critical threshold crossing", ""),
            (0x07, -1, 0x02, "transition to critical", "transitions to critical"),
            (0x07, -1, 0x05, "transition to critical", "transitions to critical"),
            (0x0B, -1, 0x05, "lack of resources", "lacks of resources"),
            (0x0B, -1, 0x01, "redundancy loss", "redundancy losses"),
            (SENSOR_SPECIFIC, 0x21, 0x00, "slot fault", ""),
            (SENSOR_SPECIFIC, 0x29, 0x01, "battery failure", ""),
            (SENSOR_SPECIFIC, 0x28, 0x03, "unavailable management controller", ""),
            (SENSOR_SPECIFIC, 0x28, 0x05, "FRU failure", ""),
            (SENSOR_SPECIFIC, 0x28, 0x04, "sensor failure", ""),
            (SENSOR_SPECIFIC, 0x08, 0x02, "predictive power supply failure", ""),
            (SENSOR_SPECIFIC, 0x09, 0x07, "predictive power unit failure", ""),
            (SENSOR_SPECIFIC, 0x0D, 0x02, "predictive drive failure", ""),
            (SENSOR_SPECIFIC, 0x29, 0x00, "low battery", "low batteries"),
            (0x04, -1, 0x01, "predictive failure", ""),
        )
    }
)
"""Events that need attention, the worst first: event type, sensor type (-1: any), offset; one and many of them."""


def event_name(event_type: int, sensor_type: int, offset: int) -> str:
    """Return what happened; what the specification does not name is given by its numbers."""
    if event_type == SENSOR_SPECIFIC:
        names: Mapping[int, str] = SPECIFIC_EVENTS.get(sensor_type, {})
    else:
        names = GENERIC_EVENTS.get(event_type, {})
    if offset in names:
        return names[offset]
    if event_type in OEM_EVENT_TYPES:
        return f"OEM event type {event_type:#04x}, offset {offset}"
    if event_type == SENSOR_SPECIFIC:
        return f"offset {offset}"
    return f"event type {event_type:#04x}, offset {offset}"


def sensor_type_name(code: int) -> str:
    """Return the name of a sensor type; C0h to FFh are OEM ones."""
    return f"OEM {code:#04x}" if code >= 0xC0 else named(code, SENSOR_TYPES)
