# SPDX-License-Identifier: LGPL-2.1-or-later
"""The names of codes and bits in SMBIOS structures: System Management BIOS Reference Specification, DSP0134 3.7.

The number above each table is that of the section in DSP0134. Trademark signs are left out.
"""


def _names(first: int, text: str) -> dict[int, str]:
    """Return the names in *text*, with vertical lines between them, by code: the first is *first*."""
    return {code: name for code, name in enumerate((name.strip() for name in text.split("|")), first) if name}


# 6.2, structure types; those without a decoder have a name only.
STRUCTURE_TYPE = _names(
    0,
    "BIOS Information|System Information|Baseboard (or Module) Information|System Enclosure or Chassis"
    "|Processor Information|Memory Controller Information|Memory Module Information|Cache Information"
    "|Port Connector Information|System Slots|On Board Devices Information|OEM Strings"
    "|System Configuration Options|BIOS Language Information|Group Associations|System Event Log"
    "|Physical Memory Array|Memory Device|32-Bit Memory Error Information|Memory Array Mapped Address"
    "|Memory Device Mapped Address"
    "|Built-in Pointing Device|Portable Battery|System Reset|Hardware Security|System Power Controls|Voltage Probe"
    "|Cooling Device|Temperature Probe|Electrical Current Probe|Out-of-Band Remote Access"
    "|Boot Integrity Services (BIS) Entry Point|System Boot Information|64-Bit Memory Error Information"
    "|Management Device|Management Device Component|Management Device Threshold Data|Memory Channel"
    "|IPMI Device Information|System Power Supply|Additional Information|Onboard Devices Extended Information"
    "|Management Controller Host Interface|TPM Device|Processor Additional Information"
    "|Firmware Inventory Information|String Property",
) | {126: "Inactive", 127: "End-of-Table"}

# 7.1.1, 7.1.2.1 and 7.1.2.2
BIOS_CHARACTERISTICS = _names(
    3,
    "BIOS Characteristics are not supported|ISA is supported|MCA is supported|EISA is supported|PCI is supported"
    "|PC card (PCMCIA) is supported|Plug and Play is supported|APM is supported|BIOS is upgradeable (Flash)"
    "|BIOS shadowing is allowed|VL-VESA is supported|ESCD support is available|Boot from CD is supported"
    "|Selectable boot is supported|BIOS ROM is socketed|Boot from PC card (PCMCIA) is supported"
    "|EDD specification is supported|Japanese floppy for NEC 9800 1.2 MB is supported"
    '|Japanese floppy for Toshiba 1.2 MB is supported|5.25" / 360 KB floppy services are supported'
    '|5.25" / 1.2 MB floppy services are supported|3.5" / 720 KB floppy services are supported'
    '|3.5" / 2.88 MB floppy services are supported|Print screen Service is supported'
    "|8042 keyboard services are supported|Serial services are supported|Printer services are supported"
    "|CGA/Mono Video Services are supported|NEC PC-98",
)
BIOS_EXTENSION_1 = _names(
    0,
    "ACPI is supported|USB Legacy is supported|AGP is supported|I2O boot is supported"
    "|LS-120 SuperDisk boot is supported|ATAPI ZIP drive boot is supported|1394 boot is supported"
    "|Smart battery is supported",
)
BIOS_EXTENSION_2 = _names(
    0,
    "BIOS Boot Specification is supported|Function key-initiated network service boot is supported"
    "|Enable targeted content distribution|UEFI Specification is supported"
    "|SMBIOS table describes a virtual machine|Manufacturing mode is supported|Manufacturing mode is enabled",
)

# 7.2.2
WAKE_UP_TYPE = _names(
    0, "Reserved|Other|Unknown|APM Timer|Modem Ring|LAN Remote|Power Switch|PCI PME#|AC Power Restored"
)

# 7.3.1 and 7.3.2
BOARD_FEATURES = _names(
    0,
    "hosting board|requires at least one daughter board or auxiliary card|removable|replaceable|hot swappable",
)
BOARD_TYPE = _names(
    1,
    "Unknown|Other|Server Blade|Connectivity Switch|System Management Module|Processor Module|I/O Module"
    "|Memory Module|Daughter board|Motherboard|Processor/Memory Module|Processor/IO Module|Interconnect board",
)

# 7.4.1 to 7.4.3
CHASSIS_TYPE = _names(
    1,
    "Other|Unknown|Desktop|Low Profile Desktop|Pizza Box|Mini Tower|Tower|Portable|Laptop|Notebook|Hand Held"
    "|Docking Station|All in One|Sub Notebook|Space-saving|Lunch Box|Main Server Chassis|Expansion Chassis"
    "|SubChassis|Bus Expansion Chassis|Peripheral Chassis|RAID Chassis|Rack Mount Chassis|Sealed-case PC"
    "|Multi-system chassis|Compact PCI|Advanced TCA|Blade|Blade Enclosure|Tablet|Convertible|Detachable"
    "|IoT Gateway|Embedded PC|Mini PC|Stick PC",
)
CHASSIS_STATE = _names(1, "Other|Unknown|Safe|Warning|Critical|Non-recoverable")
SECURITY_STATUS = _names(1, "Other|Unknown|None|External interface locked out|External interface enabled")

# 7.5.1, 7.5.2 (the families of which machines still run), 7.5.5 and 7.5.9
PROCESSOR_TYPE = _names(1, "Other|Unknown|Central Processor|Math Processor|DSP Processor|Video Processor")
PROCESSOR_FAMILY = {
    0x01: "Other",
    0x02: "Unknown",
    0x20: "Power PC Family",
    **_names(0x28, "Intel Core Duo|Intel Core Duo mobile|Intel Core Solo mobile|Intel Atom|Intel Core M"),
    **_names(0x2D, "Intel Core m3|Intel Core m5|Intel Core m7"),
    **_names(0x3B, "AMD Opteron 6100 Series|AMD Opteron 4100 Series|AMD Opteron 6200 Series"),
    **_names(0x3E, "AMD Opteron 4200 Series|AMD FX Series"),
    0x40: "MIPS Family",
    **_names(0x46, "AMD C-Series|AMD E-Series|AMD A-Series|AMD G-Series|AMD Z-Series|AMD R-Series"),
    **_names(0x4C, "AMD Opteron 4300 Series|AMD Opteron 6300 Series|AMD Opteron 3300 Series|AMD FirePro Series"),
    **_names(0x66, "AMD Athlon X4 Quad-Core|AMD Opteron X1000 Series|AMD Opteron X2000 Series APU"),
    **_names(0x69, "AMD Opteron A-Series|AMD Opteron X3000 Series APU|AMD Zen Processor Family"),
    0x82: "Itanium",
    **_names(0x83, "AMD Athlon 64|AMD Opteron|AMD Sempron|AMD Turion 64|Dual-Core AMD Opteron|AMD Athlon 64 X2"),
    **_names(0x8A, "Quad-Core AMD Opteron|Third-Generation AMD Opteron"),
    **_names(0xA1, "Quad-Core Intel Xeon 3200 Series|Dual-Core Intel Xeon 3000 Series"),
    **_names(0xA3, "Quad-Core Intel Xeon 5300 Series|Dual-Core Intel Xeon 5100 Series"),
    **_names(0xA9, "Quad-Core Intel Xeon 5400 Series|Quad-Core Intel Xeon|Dual-Core Intel Xeon 5200 Series"),
    **_names(0xB2, "Intel Pentium 4|Intel Xeon"),
    0xBF: "Intel Core 2 Duo",
    0xC2: "Intel Core 2 Quad",
    0xC6: "Intel Core i7",
    0xCC: "z/Architecture",
    **_names(0xCD, "Intel Core i5|Intel Core i3|Intel Core i9"),
    0xD6: "Multi-Core Intel Xeon",
    0xE0: "Multi-Core Intel Xeon 3400 Series",
    **_names(0x100, "ARMv7|ARMv8|ARMv9"),
    **_names(0x200, "RISC-V RV32|RISC-V RV64|RISC-V RV128"),
    **_names(0x258, "LoongArch|Loongson 1|Loongson 2|Loongson 3|Loongson 2K|Loongson 3A|Loongson 3B|Loongson 3C"),
    **_names(0x260, "Loongson 3D|Loongson 3E"),
}
PROCESSOR_STATUS = {
    0: "Unknown",
    1: "CPU Enabled",
    2: "CPU Disabled by User through BIOS Setup",
    3: "CPU Disabled By BIOS (POST Error)",
    4: "CPU is Idle, waiting to be enabled",
    7: "Other",
}
PROCESSOR_UPGRADE = _names(
    1,
    "Other|Unknown|Daughter Board|ZIF Socket|Replaceable Piggy Back|None|LIF Socket|Slot 1|Slot 2|370-pin socket"
    "|Slot A|Slot M|Socket 423|Socket A (Socket 462)|Socket 478|Socket 754|Socket 940|Socket 939|Socket mPGA604"
    "|Socket LGA771|Socket LGA775|Socket S1|Socket AM2|Socket F (1207)|Socket LGA1366|Socket G34|Socket AM3"
    "|Socket C32|Socket LGA1156|Socket LGA1567|Socket PGA988A|Socket BGA1288|Socket rPGA988B|Socket BGA1023"
    "|Socket BGA1224|Socket LGA1155|Socket LGA1356|Socket LGA2011|Socket FS1|Socket FS2|Socket FM1|Socket FM2"
    "|Socket LGA2011-3|Socket LGA1356-3|Socket LGA1150|Socket BGA1168|Socket BGA1234|Socket BGA1364|Socket AM4"
    "|Socket LGA1151|Socket BGA1356|Socket BGA1440|Socket BGA1515|Socket LGA3647-1|Socket SP3|Socket SP3r2"
    "|Socket LGA2066|Socket BGA1392|Socket BGA1510|Socket BGA1528|Socket LGA4189|Socket LGA1200|Socket LGA4677"
    "|Socket LGA1700|Socket BGA1744|Socket BGA1781|Socket BGA1211|Socket BGA2422|Socket LGA1211|Socket LGA2422"
    "|Socket LGA5773|Socket BGA5773|Socket AM5|Socket SP5|Socket SP6|Socket BGA883|Socket BGA1190|Socket BGA4129"
    "|Socket LGA4710|Socket LGA7529",
)
PROCESSOR_CHARACTERISTICS = _names(
    2,
    "64-bit Capable|Multi-Core|Hardware Thread|Execute Protection|Enhanced Virtualization"
    "|Power/Performance Control|128-bit Capable|Arm64 SoC ID",
)

# 7.8: Cache Configuration, and 7.8.2 to 7.8.5
CACHE_LOCATION = {0: "Internal", 1: "External", 2: "Reserved", 3: "Unknown"}
CACHE_MODE = {0: "Write Through", 1: "Write Back", 2: "Varies with Memory Address", 3: "Unknown"}
SRAM_TYPE = _names(0, "Other|Unknown|Non-Burst|Burst|Pipeline Burst|Synchronous|Asynchronous")
CACHE_ERROR_CORRECTION = _names(1, "Other|Unknown|None|Parity|Single-bit ECC|Multi-bit ECC")
CACHE_TYPE = _names(1, "Other|Unknown|Instruction|Data|Unified")
ASSOCIATIVITY = _names(
    1,
    "Other|Unknown|Direct Mapped|2-way Set-Associative|4-way Set-Associative|Fully Associative"
    "|8-way Set-Associative|16-way Set-Associative|12-way Set-Associative|24-way Set-Associative"
    "|32-way Set-Associative|48-way Set-Associative|64-way Set-Associative|20-way Set-Associative",
)

# 7.10.1 to 7.10.4, 7.10.6 and 7.10.7
SLOT_TYPE = {
    **_names(
        1,
        "Other|Unknown|ISA|MCA|EISA|PCI|PC Card (PCMCIA)|VL-VESA|Proprietary|Processor Card Slot"
        "|Proprietary Memory Card Slot|I/O Riser Card Slot|NuBus|PCI - 66MHz Capable|AGP|AGP 2X|AGP 4X|PCI-X"
        "|AGP 8X|M.2 Socket 1-DP (Mechanical Key A)|M.2 Socket 1-SD (Mechanical Key E)"
        "|M.2 Socket 2 (Mechanical Key B)|M.2 Socket 3 (Mechanical Key M)|MXM Type I|MXM Type II"
        "|MXM Type III (standard connector)"
        "|MXM Type III (HE connector)|MXM Type IV|MXM 3.0 Type A|MXM 3.0 Type B|PCI Express Gen 2 SFF-8639 (U.2)"
        "|PCI Express Gen 3 SFF-8639 (U.2)|PCI Express Mini 52-pin (CEM spec. 2.0) with bottom-side keep-outs"
        "|PCI Express Mini 52-pin (CEM spec. 2.0) without bottom-side keep-outs"
        "|PCI Express Mini 76-pin (CEM spec. 2.0)|PCI Express Gen 4 SFF-8639 (U.2)"
        "|PCI Express Gen 5 SFF-8639 (U.2)|OCP NIC 3.0 Small Form Factor (SFF)|OCP NIC 3.0 Large Form Factor (LFF)"
        "|OCP NIC Prior to 3.0",
    ),
    0x30: "CXL Flexbus 1.0",
    **_names(
        0xA0,
        "PC-98/C20|PC-98/C24|PC-98/E|PC-98/Local Bus|PC-98/Card|PCI Express|PCI Express x1|PCI Express x2"
        "|PCI Express x4|PCI Express x8|PCI Express x16|PCI Express Gen 2|PCI Express Gen 2 x1"
        "|PCI Express Gen 2 x2|PCI Express Gen 2 x4|PCI Express Gen 2 x8|PCI Express Gen 2 x16|PCI Express Gen 3"
        "|PCI Express Gen 3 x1|PCI Express Gen 3 x2|PCI Express Gen 3 x4|PCI Express Gen 3 x8"
        "|PCI Express Gen 3 x16||PCI Express Gen 4|PCI Express Gen 4 x1|PCI Express Gen 4 x2|PCI Express Gen 4 x4"
        "|PCI Express Gen 4 x8|PCI Express Gen 4 x16|PCI Express Gen 5|PCI Express Gen 5 x1|PCI Express Gen 5 x2"
        "|PCI Express Gen 5 x4|PCI Express Gen 5 x8|PCI Express Gen 5 x16|PCI Express Gen 6 and Beyond"
        "|Enterprise and Datacenter 1U E1 Form Factor Slot (EDSFF E1)"
        '|Enterprise and Datacenter 3" E3 Form Factor Slot (EDSFF E3)',
    ),
}
SLOT_WIDTH = _names(
    1,
    "Other|Unknown|8 bit|16 bit|32 bit|64 bit|128 bit|1x or x1|2x or x2|4x or x4|8x or x8|12x or x12|16x or x16"
    "|32x or x32",
)
SLOT_USAGE = _names(1, "Other|Unknown|Available|In use|Unavailable")
SLOT_LENGTH = _names(1, 'Other|Unknown|Short Length|Long Length|2.5" drive form factor|3.5" drive form factor')
SLOT_CHARACTERISTICS_1 = _names(
    0,
    "Characteristics unknown|Provides 5.0 volts|Provides 3.3 volts|Slot's opening is shared with another slot"
    "|PC Card slot supports PC Card-16|PC Card slot supports CardBus|PC Card slot supports Zoom Video"
    "|PC Card slot supports Modem Ring Resume",
)
SLOT_CHARACTERISTICS_2 = _names(
    0,
    "PCI slot supports Power Management Event (PME#) signal|Slot supports hot-plug devices"
    "|PCI slot supports SMBus signal|PCIe slot supports bifurcation|Slot supports async/surprise removal"
    "|Flexbus slot, CXL 1.0 capable|Flexbus slot, CXL 2.0 capable|Flexbus slot, CXL 3.0 capable",
)

# 7.17.1 to 7.17.3
ARRAY_LOCATION = {
    **_names(
        1,
        "Other|Unknown|System board or motherboard|ISA add-on card|EISA add-on card|PCI add-on card"
        "|MCA add-on card|PCMCIA add-on card|Proprietary add-on card|NuBus",
    ),
    **_names(
        0xA0,
        "PC-98/C20 add-on card|PC-98/C24 add-on card|PC-98/E add-on card|PC-98/Local bus add-on card"
        "|CXL add-on card",
    ),
}
ARRAY_USE = _names(1, "Other|Unknown|System memory|Video memory|Flash memory|Non-volatile RAM|Cache memory")
ARRAY_ERROR_CORRECTION = _names(1, "Other|Unknown|None|Parity|Single-bit ECC|Multi-bit ECC|CRC")

# 7.18.1 to 7.18.3, 7.18.6 and 7.18.7
FORM_FACTOR = _names(
    1,
    "Other|Unknown|SIMM|SIP|Chip|DIP|ZIP|Proprietary Card|DIMM|TSOP|Row of chips|RIMM|SODIMM|SRIMM|FB-DIMM|Die",
)
MEMORY_TYPE = _names(
    1,
    "Other|Unknown|DRAM|EDRAM|VRAM|SRAM|RAM|ROM|FLASH|EEPROM|FEPROM|EPROM|CDRAM|3DRAM|SDRAM|SGRAM|RDRAM|DDR|DDR2"
    "|DDR2 FB-DIMM|Reserved|Reserved|Reserved|DDR3|FBD2|DDR4|LPDDR|LPDDR2|LPDDR3|LPDDR4"
    "|Logical non-volatile device|HBM|HBM2|DDR5|LPDDR5|HBM3",
)
TYPE_DETAIL = _names(
    1,
    "Other|Unknown|Fast-paged|Static column|Pseudo-static|RAMBUS|Synchronous|CMOS|EDO|Window DRAM|Cache DRAM"
    "|Non-volatile|Registered (Buffered)|Unbuffered (Unregistered)|LRDIMM",
)
MEMORY_TECHNOLOGY = _names(1, "Other|Unknown|DRAM|NVDIMM-N|NVDIMM-F|NVDIMM-P|Intel Optane persistent memory")
OPERATING_MODE = _names(
    1, "Other|Unknown|Volatile memory|Byte-accessible persistent memory|Block-accessible persistent memory"
)

# 7.39.1
IPMI_INTERFACE = {
    0: "Unknown",
    1: "KCS: Keyboard Controller Style",
    2: "SMIC: Server Management Interface Chip",
    3: "BT: Block Transfer",
    4: "SSIF: SMBus System Interface",
}

# 7.42.2
ONBOARD_DEVICE = _names(
    1,
    "Other|Unknown|Video|SCSI Controller|Ethernet|Token Ring|Sound|PATA Controller|SATA Controller|SAS Controller"
    "|Wireless LAN|Bluetooth|WWAN|eMMC (embedded Multi-Media Controller)|NVMe Controller|UFS Controller",
)
