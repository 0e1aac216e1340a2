# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names of the status codes of NVMe commands.

NVM Express Base Specification 2.0, figures 92 to 99; what is newer: 2.2, figures 102 to 106. Codes of fabrics are
left out: I/O commands have the same, with other names, and a controller on PCI Express has no fabrics.
"""

from collections.abc import Mapping
from dataclasses import dataclass

GENERIC, COMMAND_SPECIFIC, MEDIA, PATH, VENDOR_SPECIFIC = 0, 1, 2, 3, 7

TYPES = {
    GENERIC: "Generic Command Status",
    COMMAND_SPECIFIC: "Command Specific Status",
    MEDIA: "Media and Data Integrity Errors",
    PATH: "Path Related Status",
    VENDOR_SPECIFIC: "Vendor Specific",
}

CODES: Mapping[int, Mapping[int, str]] = {
    GENERIC: {
        0x00: "Successful Completion",
        0x01: "Invalid Command Opcode",
        0x02: "Invalid Field in Command",
        0x03: "Command ID Conflict",
        0x04: "Data Transfer Error",
        0x05: "Commands Aborted due to Power Loss Notification",
        0x06: "Internal Error",
        0x07: "Command Abort Requested",
        0x08: "Command Aborted due to SQ Deletion",
        0x09: "Command Aborted due to Failed Fused Command",
        0x0A: "Command Aborted due to Missing Fused Command",
        0x0B: "Invalid Namespace or Format",
        0x0C: "Command Sequence Error",
        0x0D: "Invalid SGL Segment Descriptor",
        0x0E: "Invalid Number of SGL Descriptors",
        0x0F: "Data SGL Length Invalid",
        0x10: "Metadata SGL Length Invalid",
        0x11: "SGL Descriptor Type Invalid",
        0x12: "Invalid Use of Controller Memory Buffer",
        0x13: "PRP Offset Invalid",
        0x14: "Atomic Write Unit Exceeded",
        0x15: "Operation Denied",
        0x16: "SGL Offset Invalid",
        0x18: "Host Identifier Inconsistent Format",
        0x19: "Keep Alive Timer Expired",
        0x1A: "Keep Alive Timeout Invalid",
        0x1B: "Command Aborted due to Preempt and Abort",
        0x1C: "Sanitize Failed",
        0x1D: "Sanitize In Progress",
        0x1E: "SGL Data Block Granularity Invalid",
        0x1F: "Command Not Supported for Queue in CMB",
        0x20: "Namespace is Write Protected",
        0x21: "Command Interrupted",
        0x22: "Transient Transport Error",
        0x23: "Command Prohibited by Command and Feature Lockdown",
        0x24: "Admin Command Media Not Ready",
        0x25: "Invalid Key Tag",
        0x26: "Host Dispersed Namespace Support Not Enabled",
        0x27: "Host Identifier Not Initialized",
        0x28: "Incorrect Key",
        0x29: "FDP Disabled",
        0x2A: "Invalid Placement Handle List",
        0x80: "LBA Out of Range",
        0x81: "Capacity Exceeded",
        0x82: "Namespace Not Ready",
        0x83: "Reservation Conflict",
        0x84: "Format In Progress",
        0x85: "Invalid Value Size",
        0x86: "Invalid Key Size",
        0x87: "KV Key Does Not Exist",
        0x88: "Unrecovered Error",
        0x89: "Key Exists",
    },
    COMMAND_SPECIFIC: {
        0x00: "Completion Queue Invalid",
        0x01: "Invalid Queue Identifier",
        0x02: "Invalid Queue Size",
        0x03: "Abort Command Limit Exceeded",
        0x05: "Asynchronous Event Request Limit Exceeded",
        0x06: "Invalid Firmware Slot",
        0x07: "Invalid Firmware Image",
        0x08: "Invalid Interrupt Vector",
        0x09: "Invalid Log Page",
        0x0A: "Invalid Format",
        0x0B: "Firmware Activation Requires Conventional Reset",
        0x0C: "Invalid Queue Deletion",
        0x0D: "Feature Identifier Not Saveable",
        0x0E: "Feature Not Changeable",
        0x0F: "Feature Not Namespace Specific",
        0x10: "Firmware Activation Requires NVM Subsystem Reset",
        0x11: "Firmware Activation Requires Controller Level Reset",
        0x12: "Firmware Activation Requires Maximum Time Violation",
        0x13: "Firmware Activation Prohibited",
        0x14: "Overlapping Range",
        0x15: "Namespace Insufficient Capacity",
        0x16: "Namespace Identifier Unavailable",
        0x18: "Namespace Already Attached",
        0x19: "Namespace Is Private",
        0x1A: "Namespace Not Attached",
        0x1B: "Thin Provisioning Not Supported",
        0x1C: "Controller List Invalid",
        0x1D: "Device Self-test In Progress",
        0x1E: "Boot Partition Write Prohibited",
        0x1F: "Invalid Controller Identifier",
        0x20: "Invalid Secondary Controller State",
        0x21: "Invalid Number of Controller Resources",
        0x22: "Invalid Resource Identifier",
        0x23: "Sanitize Prohibited While Persistent Memory Region is Enabled",
        0x24: "ANA Group Identifier Invalid",
        0x25: "ANA Attach Failed",
        0x26: "Insufficient Capacity",
        0x27: "Namespace Attachment Limit Exceeded",
        0x28: "Prohibition of Command Execution Not Supported",
        0x29: "I/O Command Set Not Supported",
        0x2A: "I/O Command Set Not Enabled",
        0x2B: "I/O Command Set Combination Rejected",
        0x2C: "Invalid I/O Command Set",
        0x2D: "Identifier Unavailable",
        0x2E: "Namespace Is Dispersed",
        0x2F: "Invalid Discovery Information",
        0x30: "Zoning Data Structure Locked",
        0x31: "Zoning Data Structure Not Found",
        0x32: "Insufficient Discovery Resources",
        0x33: "Requested Function Disabled",
        0x34: "ZoneGroup Originator Invalid",
        0x35: "Invalid Host",
        0x36: "Invalid NVM Subsystem",
        0x37: "Invalid Controller Data Queue",
        0x38: "Not Enough Resources",
        0x39: "Controller Suspended",
        0x3A: "Controller Not Suspended",
        0x3B: "Controller Data Queue Full",
        0x80: "Conflicting Attributes",
        0x81: "Invalid Protection Information",
        0x82: "Attempted Write to Read Only Range",
        0x83: "Command Size Limit Exceeded",
        0x84: "Invalid Command ID",
        0x85: "Incompatible Namespace or Format",
        0x86: "Fast Copy Not Possible",
        0x87: "Overlapping I/O Range",
        0x88: "Namespace Not Reachable",
        0x89: "Insufficient Resources",
        0x8A: "Insufficient Program Resources",
        0x8B: "Invalid Memory Namespace",
        0x8C: "Invalid Memory Range Set",
        0x8D: "Invalid Memory Range Set Identifier",
        0x8E: "Invalid Program Data",
        0x8F: "Invalid Program Index",
        0x90: "Invalid Program Type",
        0x91: "Maximum Memory Ranges Exceeded",
        0x92: "Maximum Memory Range Sets Exceeded",
        0x93: "Maximum Programs Activated",
        0x94: "Maximum Program Bytes Exceeded",
        0x95: "Memory Range Set In Use",
        0x96: "No Program",
        0x97: "Overlapping Memory Ranges",
        0x98: "Program Not Activated",
        0x99: "Program In Use",
        0x9A: "Program Index Not Downloadable",
        0x9B: "Program Too Big",
        0x9C: "Successful Media Verification Read",
        0xB8: "Zoned Boundary Error",
        0xB9: "Zone Is Full",
        0xBA: "Zone Is Read Only",
        0xBB: "Zone Is Offline",
        0xBC: "Zone Invalid Write",
        0xBD: "Too Many Active Zones",
        0xBE: "Too Many Open Zones",
        0xBF: "Invalid Zone State Transition",
    },
    MEDIA: {
        0x80: "Write Fault",
        0x81: "Unrecovered Read Error",
        0x82: "End-to-end Guard Check Error",
        0x83: "End-to-end Application Tag Check Error",
        0x84: "End-to-end Reference Tag Check Error",
        0x85: "Compare Failure",
        0x86: "Access Denied",
        0x87: "Deallocated or Unwritten Logical Block",
        0x88: "End-to-End Storage Tag Check Error",
    },
    PATH: {
        0x00: "Internal Path Error",
        0x01: "Asymmetric Access Persistent Loss",
        0x02: "Asymmetric Access Inaccessible",
        0x03: "Asymmetric Access Transition",
        0x60: "Controller Pathing Error",
        0x70: "Host Pathing Error",
        0x71: "Command Aborted By Host",
    },
}

FIRST_VENDOR_CODE = 0xC0

_FAULTS = frozenset(
    {
        *((GENERIC, code) for code in (0x04, 0x06, 0x1C, 0x22, 0x88)),
        *((MEDIA, code) for code in (0x80, 0x81, 0x82, 0x83, 0x84, 0x88)),
        *((PATH, code) for code in (0x00, 0x60)),
    }
)


@dataclass(frozen=True, slots=True)
class Status:
    """A status field, without the phase tag below it."""

    value: int
    """15 bits, as nvme-cli shows them."""

    @property
    def code(self) -> int:
        """Status Code (SC)."""
        return self.value & 0xFF

    @property
    def code_type(self) -> int:
        """Status Code Type (SCT)."""
        return self.value >> 8 & 7

    @property
    def do_not_retry(self) -> bool:
        """Do Not Retry (DNR): the same command is expected to fail again."""
        return bool(self.value >> 14 & 1)

    @property
    def fault(self) -> bool:
        """Whether the device failed; most other codes say that a program asked for what it does not support."""
        return (self.code_type, self.code) in _FAULTS

    def __str__(self) -> str:
        """Return its name: ``Unrecovered Read Error``."""
        kind = TYPES.get(self.code_type, f"unknown type {self.code_type:#x}")
        name = CODES.get(self.code_type, {}).get(self.code)
        if name is None and self.code >= FIRST_VENDOR_CODE and self.code_type != VENDOR_SPECIFIC:
            name = f"{kind}: Vendor Specific {self.code:#04x}"
        return name or f"{kind}: {self.code:#04x}"
