# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names of PCI: classes, capabilities, and the bits of registers.

Classes and identifiers of capabilities: PCI Code and ID Assignment Specification 1.14, chapters 1 to 3. Bits: PCI
Express Base Specification 6.0, in the section that is given at each table; those of AER are in :mod:`.aer`. Linux
``include/uapi/linux/pci_regs.h`` has the same numbers.
"""

BASE_CLASSES = {
    0x00: "device built before class codes",
    0x01: "mass storage controller",
    0x02: "network controller",
    0x03: "display controller",
    0x04: "multimedia device",
    0x05: "memory controller",
    0x06: "bridge device",
    0x07: "simple communication controller",
    0x08: "base system peripheral",
    0x09: "input device",
    0x0A: "docking station",
    0x0B: "processor",
    0x0C: "serial bus controller",
    0x0D: "wireless controller",
    0x0E: "intelligent I/O controller",
    0x0F: "satellite communication controller",
    0x10: "encryption/decryption controller",
    0x11: "data acquisition and signal processing controller",
    0x12: "processing accelerator",
    0x13: "non-essential instrumentation",
    0x40: "co-processor",
    0xFF: "device of no defined class",
}

CLASSES = {
    0x0001: "VGA-compatible device",
    0x0100: "SCSI controller",
    0x0101: "IDE controller",
    0x0102: "floppy disk controller",
    0x0103: "IPI bus controller",
    0x0104: "RAID controller",
    0x0105: "ATA controller",
    0x0106: "Serial ATA controller",
    0x0107: "Serial Attached SCSI controller",
    0x0108: "Non-volatile memory subsystem",
    0x0109: "Universal Flash Storage controller",
    0x0200: "Ethernet controller",
    0x0201: "Token Ring controller",
    0x0202: "FDDI controller",
    0x0203: "ATM controller",
    0x0204: "ISDN controller",
    0x0205: "WorldFip controller",
    0x0206: "PICMG 2.14 Multi Computing",
    0x0207: "InfiniBand controller",
    0x0208: "Host fabric controller",
    0x0300: "VGA-compatible controller",
    0x0301: "XGA controller",
    0x0302: "3D controller",
    0x0400: "video device",
    0x0401: "audio device",
    0x0402: "computer telephony device",
    0x0403: "High Definition Audio",
    0x0500: "RAM",
    0x0501: "Flash",
    0x0502: "CXL Memory Device",
    0x0600: "Host bridge",
    0x0601: "ISA bridge",
    0x0602: "EISA bridge",
    0x0603: "MCA bridge",
    0x0604: "PCI-to-PCI bridge",
    0x0605: "PCMCIA bridge",
    0x0606: "NuBus bridge",
    0x0607: "CardBus bridge",
    0x0608: "RACEway bridge",
    0x0609: "Semi-transparent PCI-to-PCI bridge",
    0x060A: "InfiniBand-to-PCI host bridge",
    0x060B: "Advanced Switching to PCI host bridge",
    0x0700: "serial controller",
    0x0701: "parallel port",
    0x0702: "multiport serial controller",
    0x0703: "modem",
    0x0704: "GPIB controller",
    0x0705: "Smart Card",
    0x0800: "interrupt controller",
    0x0801: "DMA controller",
    0x0802: "system timer",
    0x0803: "RTC controller",
    0x0804: "PCI Hot-Plug controller",
    0x0805: "SD Host controller",
    0x0806: "IOMMU",
    0x0807: "Root Complex Event Collector",
    0x0900: "keyboard controller",
    0x0901: "digitizer (pen)",
    0x0902: "mouse controller",
    0x0903: "scanner controller",
    0x0904: "gameport controller",
    0x0C00: "IEEE 1394 controller",
    0x0C01: "ACCESS.bus",
    0x0C02: "SSA",
    0x0C03: "USB controller",
    0x0C04: "Fibre Channel",
    0x0C05: "SMBus",
    0x0C06: "InfiniBand",
    0x0C07: "IPMI interface",
    0x0C08: "SERCOS interface",
    0x0C09: "CANbus",
    0x0C0A: "MIPI I3C Host controller",
    0x0D00: "iRDA compatible controller",
    0x0D10: "RF controller",
    0x0D11: "Bluetooth",
    0x0D12: "Broadband",
    0x0D20: "Ethernet (802.11a)",
    0x0D21: "Ethernet (802.11b)",
    0x0E00: "I2O controller",
    0x1000: "network and computing encryption controller",
    0x1010: "entertainment encryption controller",
    0x1100: "DPIO module",
    0x1101: "performance counters",
    0x1120: "management card",
}
"""By class and subclass; a subclass of 80h is another device of the class."""

CAPABILITIES = {
    0x00: "Null",
    0x01: "PCI Power Management Interface",
    0x02: "AGP",
    0x03: "VPD",
    0x04: "Slot Identification",
    0x05: "MSI",
    0x06: "CompactPCI Hot Swap",
    0x07: "PCI-X",
    0x08: "HyperTransport",
    0x09: "Vendor-Specific",
    0x0A: "Debug port",
    0x0B: "CompactPCI central resource control",
    0x0C: "PCI Hot-Plug",
    0x0D: "PCI Bridge Subsystem Vendor ID",
    0x0E: "AGP 8x",
    0x0F: "Secure Device",
    0x10: "PCI Express",
    0x11: "MSI-X",
    0x12: "Serial ATA Data/Index Configuration",
    0x13: "Advanced Features",
    0x14: "Enhanced Allocation",
    0x15: "Flattening Portal Bridge",
}

EXTENDED_CAPABILITIES = {
    0x0000: "Null",
    0x0001: "Advanced Error Reporting",
    0x0002: "Virtual Channel",
    0x0003: "Device Serial Number",
    0x0004: "Power Budgeting",
    0x0005: "Root Complex Link Declaration",
    0x0006: "Root Complex Internal Link Control",
    0x0007: "Root Complex Event Collector Endpoint Association",
    0x0008: "Multi-Function Virtual Channel",
    0x0009: "Virtual Channel with MFVC",
    0x000A: "Root Complex Register Block Header",
    0x000B: "Vendor-Specific Extended Capability",
    0x000C: "Configuration Access Correlation",
    0x000D: "Access Control Services",
    0x000E: "Alternative Routing-ID Interpretation",
    0x000F: "Address Translation Services",
    0x0010: "Single Root I/O Virtualization",
    0x0011: "Multi-Root I/O Virtualization",
    0x0012: "Multicast",
    0x0013: "Page Request Interface",
    0x0015: "Resizable BAR",
    0x0016: "Dynamic Power Allocation",
    0x0017: "TPH Requester",
    0x0018: "Latency Tolerance Reporting",
    0x0019: "Secondary PCI Express",
    0x001A: "Protocol Multiplexing",
    0x001B: "Process Address Space ID",
    0x001C: "LN Requester",
    0x001D: "Downstream Port Containment",
    0x001E: "L1 PM Substates",
    0x001F: "Precision Time Measurement",
    0x0020: "PCI Express over M-PHY",
    0x0021: "FRS Queueing",
    0x0022: "Readiness Time Reporting",
    0x0023: "Designated Vendor-Specific Extended Capability",
    0x0024: "VF Resizable BAR",
    0x0025: "Data Link Feature",
    0x0026: "Physical Layer 16.0 GT/s",
    0x0027: "Lane Margining at the Receiver",
    0x0028: "Hierarchy ID",
    0x0029: "Native PCIe Enclosure Management",
    0x002A: "Physical Layer 32.0 GT/s",
    0x002B: "Alternate Protocol",
    0x002C: "System Firmware Intermediary",
    0x002D: "Shadow Functions",
    0x002E: "Data Object Exchange",
    0x002F: "Device 3",
    0x0030: "Integrity and Data Encryption",
    0x0031: "Physical Layer 64.0 GT/s",
    0x0032: "Flit Logging",
    0x0033: "Flit Performance Measurement",
    0x0034: "Flit Error Injection",
}

# 7.5.1.1.3
COMMAND = {
    0: "I/O Space Enable",
    1: "Memory Space Enable",
    2: "Bus Master Enable",
    3: "Special Cycle Enable",
    4: "Memory Write and Invalidate",
    5: "VGA Palette Snoop",
    6: "Parity Error Response",
    7: "IDSEL Stepping/Wait Cycle Control",
    8: "SERR# Enable",
    9: "Fast Back-to-Back Transactions Enable",
    10: "Interrupt Disable",
}

# 7.5.1.1.4; bits 9 and 10 are DEVSEL Timing
STATUS = {
    0: "Immediate Readiness",
    3: "Interrupt Status",
    4: "Capabilities List",
    5: "66 MHz Capable",
    6: "User Definable Features",
    7: "Fast Back-to-Back Transactions Capable",
    8: "Master Data Parity Error",
    11: "Signaled Target Abort",
    12: "Received Target Abort",
    13: "Received Master Abort",
    14: "Signaled System Error",
    15: "Detected Parity Error",
}

# 7.5.1.3.7
SECONDARY_STATUS = {
    5: "66 MHz Capable",
    7: "Fast Back-to-Back Transactions Capable",
    8: "Master Data Parity Error",
    11: "Signaled Target Abort",
    12: "Received Target Abort",
    13: "Received Master Abort",
    14: "Received System Error",
    15: "Detected Parity Error",
}

# 7.5.1.3.13
BRIDGE_CONTROL = {
    0: "Parity Error Response Enable",
    1: "SERR# Enable",
    2: "ISA Enable",
    3: "VGA Enable",
    4: "VGA 16-bit Decode",
    5: "Master Abort Mode",
    6: "Secondary Bus Reset",
    7: "Fast Back-to-Back Transactions Enable",
    8: "Primary Discard Timer",
    9: "Secondary Discard Timer",
    10: "Discard Timer Status",
    11: "Discard Timer SERR# Enable",
}

# 7.5.3.2
PORT_TYPES = {
    0x0: "PCI Express Endpoint",
    0x1: "Legacy PCI Express Endpoint",
    0x4: "Root Port of PCI Express Root Complex",
    0x5: "Upstream Port of PCI Express Switch",
    0x6: "Downstream Port of PCI Express Switch",
    0x7: "PCI Express to PCI/PCI-X Bridge",
    0x8: "PCI/PCI-X to PCI Express Bridge",
    0x9: "Root Complex Integrated Endpoint",
    0xA: "Root Complex Event Collector",
}

# 7.5.3.3
DEVICE_CAPABILITIES = {
    5: "Extended Tag Field Supported",
    15: "Role-Based Error Reporting",
    16: "ERR_COR Subclass Capable",
    28: "Function Level Reset Capability",
}

# 7.5.3.4
DEVICE_CONTROL = {
    0: "Correctable Error Reporting Enable",
    1: "Non-Fatal Error Reporting Enable",
    2: "Fatal Error Reporting Enable",
    3: "Unsupported Request Reporting Enable",
    4: "Enable Relaxed Ordering",
    8: "Extended Tag Field Enable",
    9: "Phantom Functions Enable",
    10: "Aux Power PM Enable",
    11: "Enable No Snoop",
}

# 7.5.3.5
DEVICE_STATUS = {
    0: "Correctable Error Detected",
    1: "Non-Fatal Error Detected",
    2: "Fatal Error Detected",
    3: "Unsupported Request Detected",
    4: "AUX Power Detected",
    5: "Transactions Pending",
    6: "Emergency Power Reduction Detected",
}

# 7.5.3.6
LINK_CAPABILITIES = {
    18: "Clock Power Management",
    19: "Surprise Down Error Reporting Capable",
    20: "Data Link Layer Link Active Reporting Capable",
    21: "Link Bandwidth Notification Capability",
    22: "ASPM Optionality Compliance",
}

# 7.5.3.7; bits 0 and 1 are ASPM Control
LINK_CONTROL = {
    3: "Read Completion Boundary 128 bytes",
    4: "Link Disable",
    5: "Retrain Link",
    6: "Common Clock Configuration",
    7: "Extended Synch",
    8: "Enable Clock Power Management",
    9: "Hardware Autonomous Width Disable",
    10: "Link Bandwidth Management Interrupt Enable",
    11: "Link Autonomous Bandwidth Interrupt Enable",
}

# 7.5.3.8; bit 10 was Training Error in revision 1.0a
LINK_STATUS = {
    11: "Link Training",
    12: "Slot Clock Configuration",
    13: "Data Link Layer Link Active",
    14: "Link Bandwidth Management Status",
    15: "Link Autonomous Bandwidth Status",
}

# 7.5.3.11
SLOT_STATUS = {
    0: "Attention Button Pressed",
    1: "Power Fault Detected",
    2: "MRL Sensor Changed",
    3: "Presence Detect Changed",
    4: "Command Completed",
    5: "MRL Sensor State open",
    6: "Presence Detect State",
    7: "Electromechanical Interlock Status",
    8: "Data Link Layer State Changed",
}

# 7.5.3.12
ROOT_CONTROL = {
    0: "System Error on Correctable Error Enable",
    1: "System Error on Non-Fatal Error Enable",
    2: "System Error on Fatal Error Enable",
    3: "PME Interrupt Enable",
    4: "Configuration RRS Software Visibility Enable",
}

# 7.5.3.20
LINK_STATUS_2 = {
    0: "Current De-emphasis Level -3.5 dB",
    1: "Equalization 8.0 GT/s Complete",
    2: "Equalization 8.0 GT/s Phase 1 Successful",
    3: "Equalization 8.0 GT/s Phase 2 Successful",
    4: "Equalization 8.0 GT/s Phase 3 Successful",
    5: "Link Equalization Request 8.0 GT/s",
    6: "Retimer Presence Detected",
    7: "Two Retimers Presence Detected",
}

# 7.8.4.7; bits 0 to 4 are First Error Pointer
ERROR_CAPABILITIES = {
    5: "ECRC Generation Capable",
    6: "ECRC Generation Enable",
    7: "ECRC Check Capable",
    8: "ECRC Check Enable",
    9: "Multiple Header Recording Capable",
    10: "Multiple Header Recording Enable",
    11: "TLP Prefix Log Present",
    12: "Completion Timeout Prefix/Header Log Capable",
}

# 7.8.4.9
ROOT_ERROR_COMMAND = {
    0: "Correctable Error Reporting Enable",
    1: "Non-Fatal Error Reporting Enable",
    2: "Fatal Error Reporting Enable",
}

# 7.8.4.10
ROOT_ERROR_STATUS = {
    0: "ERR_COR Received",
    1: "Multiple ERR_COR Received",
    2: "ERR_FATAL/NONFATAL Received",
    3: "Multiple ERR_FATAL/NONFATAL Received",
    4: "First Uncorrectable Fatal",
    5: "Non-Fatal Error Messages Received",
    6: "Fatal Error Messages Received",
}

# 7.9.14.2
DPC_CAPABILITY = {
    5: "RP Extensions for DPC",
    6: "Poisoned TLP Egress Blocking Supported",
    7: "DPC Software Triggering Supported",
    12: "DL_Active ERR_COR Signaling Supported",
}

# 7.9.14.3; bits 0 and 1 are DPC Trigger Enable
DPC_CONTROL = {
    2: "DPC Completion Control",
    3: "DPC Interrupt Enable",
    4: "DPC ERR_COR Enable",
    5: "Poisoned TLP Egress Blocking Enable",
    6: "DPC Software Trigger",
    7: "DL_Active ERR_COR Enable",
}

DPC_TRIGGERS = {0: "disabled", 1: "enabled for ERR_FATAL", 2: "enabled for ERR_NONFATAL and ERR_FATAL"}

# 7.9.14.4; bits 1 and 2 are DPC Trigger Reason, 5 and 6 its extension
DPC_STATUS = {
    0: "DPC Trigger Status",
    3: "DPC Interrupt Status",
    4: "DPC RP Busy",
}

DPC_REASONS = {
    0: "unmasked uncorrectable error",
    1: "ERR_NONFATAL received",
    2: "ERR_FATAL received",
}

DPC_REASON_EXTENSIONS = {0: "RP PIO error", 1: "DPC Software Trigger"}


def class_name(kind: int) -> str:
    """Return the name of class and subclass, ``Ethernet controller``."""
    if name := CLASSES.get(kind):
        return name
    base = BASE_CLASSES.get(kind >> 8)
    return f"class {kind:04x}" if base is None else base
