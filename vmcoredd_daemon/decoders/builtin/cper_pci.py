# SPDX-License-Identifier: LGPL-2.1-or-later
"""PCI errors in a Common Platform Error Record: UEFI Specification 2.10, appendix N.2.7 to N.2.9.

Layouts: ``struct cper_sec_pcie`` in Linux ``include/linux/cper.h``, ``EFI_PCI_PCIX_BUS_ERROR_DATA`` and
``EFI_GENERIC_ERROR_PCI_DEVICE_ID`` in EDK II ``MdePkg/Include/Guid/Cper.h``. Registers: PCI Express Base
Specification 6.0, 7.5.1 (Command, Status), 7.5.3 (PCI Express Capability) and 7.8.4 (Advanced Error Reporting).
"""

from ..decoded import Field, Part, Table
from ..structure import Item, bits_of, fields, number
from .aer import CORRECTABLE, UNCORRECTABLE
from .cper_section import (
    Body,
    ValidItem,
    address,
    code,
    error_status,
    hex16,
    hex32,
    hexadecimal_text,
    valid_fields,
)

PORT_TYPE = {
    0: "PCI Express End Point",
    1: "Legacy PCI End Point Device",
    4: "Root Port",
    5: "Upstream Switch Port",
    6: "Downstream Switch Port",
    7: "PCI Express to PCI/PCI-X Bridge",
    8: "PCI/PCI-X to PCI Express Bridge",
    9: "Root Complex Integrated Endpoint Device",
    10: "Root Complex Event Collector",
}

_COMMAND = {
    0: "I/O Space Enable",
    1: "Memory Space Enable",
    2: "Bus Master Enable",
    6: "Parity Error Response",
    8: "SERR# Enable",
    10: "Interrupt Disable",
}
_STATUS = {
    0: "Immediate Readiness",
    3: "Interrupt Status",
    4: "Capabilities List",
    8: "Master Data Parity Error",
    11: "Signaled Target Abort",
    12: "Received Target Abort",
    13: "Received Master Abort",
    14: "Signaled System Error",
    15: "Detected Parity Error",
}
_STATUS_ERRORS = 0xF900
"""Bits 8 and 11 to 15; others are no errors."""
_SECONDARY_STATUS = {**_STATUS, 14: "Received System Error"}
_DEVICE_STATUS = {
    0: "Correctable Error Detected",
    1: "Non-Fatal Error Detected",
    2: "Fatal Error Detected",
    3: "Unsupported Request Detected",
    4: "AUX Power Detected",
    5: "Transactions Pending",
}


def _status_is_wrong(value: int) -> bool:
    return bool(value & _STATUS_ERRORS)


def _class_code(value: int) -> str:
    return f"{value:#08x}"


def _version(value: int) -> str:
    return f"{value >> 8 & 0xFF:x}.{value & 0xFF:x}"


_PCIE: tuple[ValidItem, ...] = (
    (0, Item("Port Type", 8, 4, lambda value: code(value, PORT_TYPE))),
    (1, Item("Version", 12, 4, _version)),
    (2, Item("Command", 16, 2, bits_of(_COMMAND))),
    (2, Item("Status", 18, 2, bits_of(_STATUS), _status_is_wrong)),
    (3, Item("Vendor ID", 24, 2, hex16)),
    (3, Item("Device ID", 26, 2, hex16)),
    (3, Item("Class Code", 28, 3, _class_code)),
    (3, Item("Segment Number", 33, 2, hex16)),
    (3, Item("Primary Bus Number/Device Bus Number", 35, 1, hex)),
    (3, Item("Device Number", 32, 1, hex)),
    (3, Item("Function Number", 31, 1)),
    (3, Item("Secondary Bus Number", 36, 1, hex)),
    (3, Item("Slot Number", 37, 2, lambda value: str(value >> 3))),
    (4, Item("PCI Express Device Serial Number", 40, 8, address, private=True)),
    (5, Item("Bridge Secondary Status", 48, 2, bits_of(_SECONDARY_STATUS), _status_is_wrong)),
    (5, Item("Bridge Control", 50, 2, hex16)),
)
_DEVICE_VALID = 3
_CAPABILITY_VALID = 6
_CAPABILITY = slice(52, 112)
_AER_VALID = 7
_AER = slice(112, 208)

_CAPABILITY_ITEMS = (
    Item("Device Control", 8, 2, hex16),
    Item("Device Status", 10, 2, bits_of(_DEVICE_STATUS), lambda value: bool(value & 0xF)),
    Item("Link Control", 16, 2, hex16),
    Item("Link Status", 18, 2, lambda value: f"{value:#06x}: speed {value & 0xF}, width x{value >> 4 & 0x3F}"),
)

_AER_ITEMS = (
    Item("Uncorrectable Error Status", 4, 4, bits_of(UNCORRECTABLE), bool),
    Item("Uncorrectable Error Mask", 8, 4, bits_of(UNCORRECTABLE)),
    Item("Uncorrectable Error Severity", 12, 4, bits_of(UNCORRECTABLE)),
    Item("Correctable Error Status", 16, 4, bits_of(CORRECTABLE), bool),
    Item("Correctable Error Mask", 20, 4, bits_of(CORRECTABLE)),
    Item(
        "Advanced Error Capabilities and Control",
        24,
        4,
        lambda value: f"{value:#010x}: First Error Pointer {value & 0x1F}",
    ),
    Item("Root Error Command", 44, 4, hex32),
    Item("Root Error Status", 48, 4, hex32),
    Item("Error Source Identification", 52, 4, hex32),
)
_HEADER_LOG = slice(28, 44)


def pcie_error(data: bytes) -> Body:
    """Decode a PCI Express Error Section, N.2.7. Raises InvalidDump if it has no validation bits."""
    valid = number(data, 0, 8, "PCI Express Error")
    parts: list[Part] = [*valid_fields(_PCIE, data, valid)]
    subject = ""
    if valid >> _DEVICE_VALID & 1 and len(data) >= 36:
        subject = f"{number(data, 33, 2, 'Segment Number'):04x}:{data[35]:02x}:{data[32]:02x}.{data[31]:x}"
    if valid >> _CAPABILITY_VALID & 1 and (capability := data[_CAPABILITY]):
        parts += fields(_CAPABILITY_ITEMS, capability)
        parts.append(hexadecimal_text("Capability Structure", capability))
    if valid >> _AER_VALID & 1 and (aer := data[_AER]):
        parts += fields(_AER_ITEMS, aer)
        parts += _header_log(aer[_HEADER_LOG])
    return Body(tuple(parts), subject)


def _header_log(data: bytes) -> tuple[Field, ...]:
    if len(data) != 16:
        return ()
    # As Linux prints it: four numbers, as the registers are read.
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, 16, 4)]
    text = " ".join(f"{word:08x}" for word in words)
    return (Field("Header Log", text),)


_BUS_ERROR_TYPE = {
    0: "Unknown or OEM system specific error",
    1: "Data Parity Error",
    2: "System Error",
    3: "Master Abort",
    4: "Bus Timeout or No Device Present (No DEVSEL#)",
    5: "Master Data Parity Error",
    6: "Address Parity Error",
    7: "Command Parity Error",
}

_BUS: tuple[ValidItem, ...] = (
    (0, Item("Error Status", 8, 8, error_status)),
    (1, Item("Error Type", 16, 2, lambda value: code(value, _BUS_ERROR_TYPE))),
    (2, Item("Bus Id", 18, 2, lambda value: f"{value >> 8:04x}:{value & 0xFF:02x}")),
    (3, Item("Bus Address", 24, 8, address)),
    (4, Item("Bus Data", 32, 8, address)),
    (5, Item("Bus Command", 40, 8, lambda value: f"{address(value)}: {'PCI-X' if value >> 56 & 1 else 'PCI'}")),
    (6, Item("Bus Requestor Id", 48, 8, address)),
    (7, Item("Bus Completer Id", 56, 8, address)),
    (8, Item("Target Id", 64, 8, address)),
)


def pci_bus_error(data: bytes) -> Body:
    """Decode a PCI/PCI-X Bus Error Section, N.2.8. Raises InvalidDump if it has no validation bits."""
    valid = number(data, 0, 8, "PCI/PCI-X Bus Error")
    subject = f"{data[19]:04x}:{data[18]:02x}" if valid >> 2 & 1 and len(data) >= 20 else ""
    return Body(valid_fields(_BUS, data, valid), subject)


_COMPONENT: tuple[ValidItem, ...] = (
    (0, Item("Error Status", 8, 8, error_status)),
    (1, Item("Vendor ID", 16, 2, hex16)),
    (1, Item("Device ID", 18, 2, hex16)),
    (1, Item("Class Code", 20, 3, _class_code)),
    (1, Item("Function Number", 23, 1)),
    (1, Item("Device Number", 24, 1, hex)),
    (1, Item("Bus Number", 25, 1, hex)),
    (1, Item("Segment Number", 26, 1, hex)),
    (2, Item("Memory Number", 32, 4)),
    (3, Item("IO Number", 36, 4)),
)
_PAIRS = 40
_MAX_PAIRS = 1024


def pci_component_error(data: bytes) -> Body:
    """Decode a PCI/PCI-X Component Error Section, N.2.9. Raises InvalidDump if it has no validation bits."""
    valid = number(data, 0, 8, "PCI/PCI-X Component Error")
    parts: list[Part] = [*valid_fields(_COMPONENT, data, valid)]
    subject = ""
    if valid >> 1 & 1 and len(data) >= 27:
        subject = f"{data[26]:04x}:{data[25]:02x}:{data[24]:02x}.{data[23]:x}"
    if valid >> 4 & 1 and len(data) >= _PAIRS:
        memory = number(data, 32, 4, "Memory Number")
        count = min(memory + number(data, 36, 4, "IO Number"), (len(data) - _PAIRS) // 16, _MAX_PAIRS)
        rows = tuple(
            (
                "memory" if index < memory else "I/O",
                address(number(data, _PAIRS + 16 * index, 8, "Address")),
                address(number(data, _PAIRS + 16 * index + 8, 8, "Data")),
            )
            for index in range(count)
        )
        parts.append(Table("Register Data Pairs", ("Space", "Address", "Data"), rows))
    return Body(tuple(parts), subject)
