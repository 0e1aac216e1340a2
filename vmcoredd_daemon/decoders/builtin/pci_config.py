# SPDX-License-Identifier: LGPL-2.1-or-later
"""The configuration space of a PCI function: header, capabilities, and the errors that they record.

PCI Express Base Specification 6.0: 7.5.1 (header), 7.5.2 (power management), 7.5.3 (PCI Express), 7.7.1 (MSI),
7.7.2 (MSI-X), 7.8.4 (Advanced Error Reporting), 7.9.3 (Device Serial Number), 7.9.14 (Downstream Port
Containment). Header type 2: PC Card Standard 8.0, volume 7. Linux ``include/uapi/linux/pci_regs.h``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from ..decoded import Field, Part, Table
from ..structure import Item, bits, bits_of, code_of, fields, named
from . import pci_names as names
from .aer import CORRECTABLE, UNCORRECTABLE

Show = Callable[[int], str]

EXTENDED = 0x100
"""Where the extended capabilities begin."""

MAX_CAPABILITIES = 64
"""Extended capabilities that are shown: more than the specification defines."""

ROOT_PORT, UPSTREAM, DOWNSTREAM, PCI_BRIDGE, PCIE_BRIDGE, EVENT_COLLECTOR = 0x4, 0x5, 0x6, 0x7, 0x8, 0xA
"""Device/Port Types, 7.5.3.2."""

SPEEDS = {1: "2.5 GT/s", 2: "5.0 GT/s", 3: "8.0 GT/s", 4: "16.0 GT/s", 5: "32.0 GT/s", 6: "64.0 GT/s"}
"""By bit of the Supported Link Speeds Vector, 7.5.3.18, whose number is in Link Capabilities and Link Status."""

STATUS_ERRORS = frozenset({8, 11, 12, 13, 14, 15})
"""Bits of Status that record errors, as those of Secondary Status do."""

MASTER_ABORT = 13
"""To find devices, the kernel also reads those that do not exist: bridges record that as an abort."""

HOST_BRIDGE = 0x0600


class Finding(Enum):
    """What needs attention, the worst first: one of them, and several."""

    SILENT = ("device does not answer", "devices do not answer")
    CONTAINED = ("port contained by DPC", "ports contained by DPC")
    UNCORRECTABLE = ("uncorrectable AER error", "uncorrectable AER errors")
    RECEIVED = ("port received ERR_FATAL/NONFATAL", "ports received ERR_FATAL/NONFATAL")
    FATAL = ("device detected a fatal error", "devices detected a fatal error")
    NON_FATAL = ("device detected a non-fatal error", "devices detected a non-fatal error")
    POWER = ("slot with a power fault", "slots with a power fault")
    DOWN = ("slot with a card, but no link", "slots with a card, but no link")
    WIDTH = ("link below its width", "links below their width")
    SPEED = ("link below its speed", "links below their speed")
    PARITY = ("device with errors in Status", "devices with errors in Status")
    CORRECTABLE = ("correctable AER error", "correctable AER errors")


@dataclass(frozen=True, slots=True)
class Link:
    """The link of a function, as it sees it."""

    speed: int
    """Now; as in SPEEDS."""
    width: int
    """Lanes now; 0 if there is no link."""
    max_speed: int
    max_width: int
    target_speed: int
    """What it is told to reach, 0 if it cannot be told."""


@dataclass(slots=True)
class Function:
    """What the configuration space of a function says."""

    vendor: int = 0xFFFF
    device: int = 0xFFFF
    kind: int = 0xFFFF
    """Class and subclass."""
    revision: int = 0xFF
    port: int | None = None
    """Device/Port Type, None if it has no PCI Express capability."""
    buses: tuple[int, int] | None = None
    """Of a bridge: its secondary and subordinate bus number."""
    link: Link | None = None
    findings: dict[Finding, int] = field(default_factory=dict)
    """What was found, and how many of it."""
    parts: list[Part] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def decode_config(config: bytes) -> Function:
    """Decode *config*: 64, 256 or 4096 bytes; what is missing of them is left out."""
    function = Function()
    if config and set(config[:64]) == {0xFF}:
        # A device that is gone, or hangs: what a read gets then.
        function.findings[Finding.SILENT] = 1
        function.parts.append(Field("Vendor ID", 0xFFFF, "0xffff: the device does not answer", wrong=True))
        return function
    _Decoder(config, function).decode()
    return function


class _Decoder:
    def __init__(self, config: bytes, function: Function) -> None:
        self._config = config
        self._function = function

    def decode(self) -> None:
        function = self._function
        if len(self._config) < 64:
            function.problems.append(f"only {len(self._config)} bytes of its configuration space are there")
        self._header()
        kind = self._byte(0x0E) & 0x7F
        if kind == 0:
            self._device()
        elif kind == 1:
            self._bridge()
        elif kind == 2:
            self._cardbus()
        else:
            function.problems.append(f"header type {kind:#x} is unknown")
        self._interrupts()
        self._capabilities(0x14 if kind == 2 else 0x34)
        self._extended_capabilities()
        if Finding.UNCORRECTABLE in function.findings:
            # The same errors, in less detail.
            function.findings.pop(Finding.FATAL, None)
            function.findings.pop(Finding.NON_FATAL, None)

    def _header(self) -> None:
        function = self._function
        function.vendor, function.device, function.kind = self._word(0), self._word(2), self._word(0x0A)
        function.revision = self._byte(8)
        errors = STATUS_ERRORS - {MASTER_ABORT} if function.kind == HOST_BRIDGE else STATUS_ERRORS
        self._add(0, HEADER)
        self._status("Status", 6, names.STATUS, errors)

    def _device(self) -> None:
        self._bars(6)
        self._add(0, DEVICE_HEADER)

    def _bridge(self) -> None:
        self._bars(2)
        self._add(0, BRIDGE_HEADER)
        self._function.buses = (self._byte(0x19), self._byte(0x1A)) if len(self._config) > 0x1A else None
        self._status("Secondary Status", 0x1E, names.SECONDARY_STATUS, STATUS_ERRORS - {MASTER_ABORT})
        self._windows()
        self._add(0, (Item("Bridge Control", 0x3E, 2, bits_of(names.BRIDGE_CONTROL)),))

    def _cardbus(self) -> None:
        self._bars(1)
        self._status("Secondary Status", 0x16, names.SECONDARY_STATUS, STATUS_ERRORS - {MASTER_ABORT})
        self._add(0, CARDBUS_HEADER)

    def _bars(self, count: int) -> None:
        number = 0
        while number < count:
            wide = self._bar(number, 0x10 + 4 * number, last=number == count - 1)
            number += 2 if wide else 1

    def _bar(self, number: int, offset: int, *, last: bool) -> bool:
        """Add a Base Address Register; return whether it has 64 bits, and takes the next one, too (7.5.1.2.1)."""
        low = self._long(offset)
        if not low or offset + 4 > len(self._config):
            return False
        if low & 1:
            self._part(Field(f"Base Address Register {number}", low, f"I/O ports at {low & ~0x3:#x}"))
            return False
        wide = low >> 1 & 3 == 2 and not last
        value = low | (self._long(offset + 4) << 32 if wide else 0)
        prefetchable = "prefetchable" if low & 8 else "not prefetchable"
        width = "64-bit" if wide else "32-bit"
        text = f"memory at {value & ~0xF:#x}, {width}, {prefetchable}"
        self._part(Field(f"Base Address Register {number}", value, text))
        return wide

    def _windows(self) -> None:
        """Add what a bridge forwards: 7.5.1.3.6, 7.5.1.3.8 to 7.5.1.3.10."""
        if len(self._config) < 0x34:
            return
        low, high = self._byte(0x1C), self._byte(0x1D)
        upper = (self._word(0x30), self._word(0x32)) if low & 0xF == 1 else (0, 0)
        self._window(
            "I/O Base and Limit", upper[0] << 16 | (low & 0xF0) << 8, upper[1] << 16 | (high | 0xF) << 8, 0xFF
        )
        low, high = self._word(0x20), self._word(0x22)
        self._window("Memory Base and Limit", (low & 0xFFF0) << 16, (high & 0xFFF0) << 16, 0xFFFFF)
        low, high = self._word(0x24), self._word(0x26)
        upper = (self._long(0x28), self._long(0x2C)) if low & 0xF == 1 else (0, 0)
        start, end = upper[0] << 32 | (low & 0xFFF0) << 16, upper[1] << 32 | (high & 0xFFF0) << 16
        self._window("Prefetchable Memory Base and Limit", start, end, 0xFFFFF)

    def _window(self, name: str, start: int, limit: int, rest: int) -> None:
        end = limit | rest
        # A base above the limit: nothing is forwarded.
        text = f"{start:#x}-{end:#x}" if start <= end else "none"
        self._part(Field(name, text))

    def _interrupts(self) -> None:
        pin = self._byte(0x3D)
        if pin and len(self._config) > 0x3D:
            letter = "ABCD"[pin - 1] if pin <= 4 else f"unknown {pin:#x}"
            self._part(Field("Interrupt Pin", pin, f"{letter}, line {self._byte(0x3C)}"))

    def _status(self, name: str, offset: int, flags: Mapping[int, str], errors: frozenset[int]) -> None:
        value = self._word(offset)
        if offset + 2 > len(self._config):
            return
        wrong = any(value >> bit & 1 for bit in errors)
        if wrong:
            self._function.findings[Finding.PARITY] = 1
        timing = named(value >> 9 & 3, {0: "fast", 1: "medium", 2: "slow"})
        text = ", ".join([f"{value:#x}: DEVSEL {timing}", *_set(value, flags)])
        self._part(Field(name, value, text, wrong))

    def _capabilities(self, pointer: int) -> None:
        if not self._word(6) >> 4 & 1 or len(self._config) <= pointer:
            return
        found: dict[int, int] = {}
        at = self._byte(pointer) & ~3
        while at:
            # An unprivileged read ends after the header.
            if at >= 0x40 and len(self._config) <= 64:
                break
            if at < 0x40 or at in found or at + 2 > len(self._config) or self._byte(at) == 0xFF:
                what = "has a loop" if at in found else "is broken"
                self._function.problems.append(f"the list of capabilities {what} at {at:#x}")
                break
            found[at] = self._byte(at)
            at = self._byte(at + 1) & ~3
        if found:
            rows = tuple((f"{at:02x}", named(identifier, names.CAPABILITIES)) for at, identifier in found.items())
            self._part(Table("Capabilities", ("Offset", "Capability"), rows))
        for at, identifier in _first(found):
            self._function.parts += self._capability(identifier, self._config[at:EXTENDED])

    def _capability(self, identifier: int, data: bytes) -> Iterator[Part]:
        if identifier == 0x10:
            yield from self._express(data)
        elif identifier == 0x05:
            yield from _msi(data)
        elif items := CAPABILITY_ITEMS.get(identifier):
            yield from fields(items, data)

    def _express(self, data: bytes) -> Iterator[Part]:
        function = self._function
        if len(data) < 4:
            return
        register = int.from_bytes(data[2:4], "little")
        function.port = port = register >> 4 & 0xF
        # Version 1 ends where its device has no more: what follows may be another capability (7.5.3, Linux
        # pcie_cap_has_lnkctl() in drivers/pci/access.c).
        second = register & 0xF >= 2
        has_link = port not in (0x9, EVENT_COLLECTOR)
        is_downstream = port in (ROOT_PORT, DOWNSTREAM)
        has_slot = is_downstream and bool(register >> 8 & 1)
        yield from fields(EXPRESS, data)
        if len(data) < 0x0C:
            return
        self._device_errors(int.from_bytes(data[0x0A:0x0C], "little"))
        if has_link and len(data) >= 0x14:
            yield from fields(EXPRESS_LINK, data)
            yield from fields(EXPRESS_LINK_2 if second else (), data)
            function.link = _link(data, second)
        if has_slot and len(data) >= 0x1C:
            yield from fields(EXPRESS_SLOT, data)
            self._slot_errors(data)
        if port in (ROOT_PORT, EVENT_COLLECTOR):
            yield from fields(EXPRESS_ROOT, data)

    def _device_errors(self, status: int) -> None:
        if status >> 2 & 1:
            self._function.findings[Finding.FATAL] = 1
        elif status >> 1 & 1:
            self._function.findings[Finding.NON_FATAL] = 1

    def _slot_errors(self, data: bytes) -> None:
        link, slot = int.from_bytes(data[0x12:0x14], "little"), int.from_bytes(data[0x1A:0x1C], "little")
        reports_link = data[0x0E] >> 4 & 1
        disabled = data[0x10] >> 4 & 1
        if slot >> 1 & 1:
            self._function.findings[Finding.POWER] = 1
        if reports_link and slot >> 6 & 1 and not link >> 13 & 1 and not disabled:
            self._function.findings[Finding.DOWN] = 1

    def _extended_capabilities(self) -> None:
        if len(self._config) < EXTENDED + 4 or self._long(EXTENDED) in (0, 0xFFFFFFFF):
            return
        found: dict[int, int] = {}
        at = EXTENDED
        while at and len(found) < MAX_CAPABILITIES:
            header = self._long(at)
            if at < EXTENDED or at in found or at + 4 > len(self._config) or header == 0xFFFFFFFF:
                what = "has a loop" if at in found else "is broken"
                self._function.problems.append(f"the list of extended capabilities {what} at {at:#x}")
                break
            if header == 0:
                # As at the beginning, there is none: QEMU's e1000e has such an end, and lspci takes it for one.
                break
            found[at] = header & 0xFFFF
            at = header >> 20 & ~3
        rows = tuple(
            (f"{at:03x}", named(identifier, names.EXTENDED_CAPABILITIES), self._long(at) >> 16 & 0xF)
            for at, identifier in found.items()
        )
        self._part(Table("Extended capabilities", ("Offset", "Capability", "Version"), rows))
        for at, identifier in _first(found):
            self._function.parts += self._extended_capability(identifier, self._config[at:])

    def _extended_capability(self, identifier: int, data: bytes) -> Iterator[Part]:
        if identifier == 0x01:
            yield from self._aer(data)
        elif identifier == 0x03 and len(data) >= 12:
            serial = int.from_bytes(data[4:12], "little")
            yield Field("Serial Number", data[11:3:-1].hex("-"), private=serial not in (0, (1 << 64) - 1))
        elif identifier == 0x1D:
            yield from self._dpc(data)

    def _aer(self, data: bytes) -> Iterator[Part]:
        if len(data) < 0x2C:
            self._function.problems.append("Advanced Error Reporting: its registers are cut off")
            return
        status, mask, severity = (int.from_bytes(data[at : at + 4], "little") for at in (4, 8, 12))
        corrected, corrected_mask = (int.from_bytes(data[at : at + 4], "little") for at in (16, 20))
        # What is masked is recorded, but reported to nobody: probing for devices is an Unsupported Request.
        yield Field("Uncorrectable Error Status", status, _errors(status, mask, severity), bool(status & ~mask))
        yield Field("Uncorrectable Error Mask", mask, bits(mask, UNCORRECTABLE))
        yield Field("Uncorrectable Error Severity", severity, bits(severity, UNCORRECTABLE))
        text = _masked(corrected, corrected_mask, CORRECTABLE)
        yield Field("Correctable Error Status", corrected, text, bool(corrected & ~corrected_mask))
        yield Field("Correctable Error Mask", corrected_mask, bits(corrected_mask, CORRECTABLE))
        self._count(Finding.UNCORRECTABLE, status & ~mask)
        self._count(Finding.CORRECTABLE, corrected & ~corrected_mask)
        yield from fields(AER, data)
        log = " ".join(f"{int.from_bytes(data[at : at + 4], 'little'):08x}" for at in range(0x1C, 0x2C, 4))
        yield Field("Header Log", log)
        if self._function.port in (ROOT_PORT, EVENT_COLLECTOR) and len(data) >= 0x38:
            yield from fields(AER_ROOT, data)
            if data[0x30] & 0x04:
                self._function.findings[Finding.RECEIVED] = 1

    def _dpc(self, data: bytes) -> Iterator[Part]:
        yield from fields(DPC, data)
        if len(data) >= 0x0A and data[8] & 1:
            self._function.findings[Finding.CONTAINED] = 1

    def _count(self, finding: Finding, value: int) -> None:
        if value:
            self._function.findings[finding] = self._function.findings.get(finding, 0) + value.bit_count()

    def _add(self, offset: int, items: tuple[Item, ...]) -> None:
        self._function.parts += fields(items, self._config[offset:])

    def _part(self, part: Part) -> None:
        self._function.parts.append(part)

    def _byte(self, offset: int) -> int:
        return int.from_bytes(self._config[offset : offset + 1], "little")

    def _word(self, offset: int) -> int:
        return int.from_bytes(self._config[offset : offset + 2], "little")

    def _long(self, offset: int) -> int:
        return int.from_bytes(self._config[offset : offset + 4], "little")


def _first(found: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the first of each capability, with its offset: those that are decoded are there once."""
    seen: set[int] = set()
    for at, identifier in found.items():
        if identifier not in seen:
            seen.add(identifier)
            yield at, identifier


def _link(data: bytes, second: bool) -> Link:
    capabilities, status = int.from_bytes(data[0x0C:0x10], "little"), int.from_bytes(data[0x12:0x14], "little")
    target = data[0x30] & 0xF if second and len(data) > 0x30 else 0
    return Link(status & 0xF, status >> 4 & 0x3F, capabilities & 0xF, capabilities >> 4 & 0x3F, target)


def _msi(data: bytes) -> Iterator[Part]:
    control = int.from_bytes(data[2:4], "little")
    yield from fields(MSI, data)
    if control >> 7 & 1:
        yield from fields(MSI_64, data)
    else:
        yield from fields(MSI_32, data)


def speed_name(speed: int) -> str:
    """Return the speed of a link, ``8.0 GT/s``."""
    return named(speed, SPEEDS)


def address_name(requester: int) -> str:
    """Return bus, device and function of a Requester ID, ``03:00.0``."""
    return f"{requester >> 8:02x}:{requester >> 3 & 0x1F:02x}.{requester & 7}"


def _set(value: int, names: Mapping[int, str]) -> Iterator[str]:
    return (name for bit, name in names.items() if value >> bit & 1)


def _errors(status: int, mask: int, severity: int) -> str:
    shown = []
    for bit in range(32):
        if status >> bit & 1:
            kind = "fatal" if severity >> bit & 1 else "non-fatal"
            masked = ", masked" if mask >> bit & 1 else ""
            shown.append(f"{UNCORRECTABLE.get(bit, f'unknown bit {bit}')} ({kind}{masked})")
    return f"{status:#x}: {', '.join(shown)}" if shown else "0x0"


def _masked(status: int, mask: int, names: Mapping[int, str]) -> str:
    shown = []
    for bit in range(32):
        if status >> bit & 1:
            shown.append(names.get(bit, f"unknown bit {bit}") + (" (masked)" if mask >> bit & 1 else ""))
    return f"{status:#x}: {', '.join(shown)}" if shown else "0x0"


def _register(flags: Mapping[int, str], *parts: tuple[int, int, Show]) -> Show:
    """Return what shows a register of *flags* and numbers: the lowest bit, width and show of each."""

    def show(value: int) -> str:
        shown = [words(value >> start & (1 << width) - 1) for start, width, words in parts]
        shown += _set(value, flags)
        text = ", ".join(filter(None, shown))
        return f"{value:#x}: {text}" if text else f"{value:#x}"

    return show


def _payload(what: str) -> Show:
    return lambda value: f"{what} {128 << value} bytes" if value <= 5 else f"{what} unknown {value:#x}"


def _aspm(value: int) -> str:
    return ("no ASPM", "ASPM L0s", "ASPM L1", "ASPM L0s and L1")[value]


def _speeds(value: int) -> str:
    return ", ".join(SPEEDS[bit] for bit in SPEEDS if value >> bit - 1 & 1)


def _location(value: int) -> str:
    return f"{value & ~7:#x} from Base Address Register {value & 7}"


def _power(value: int) -> str:
    states = ("D0", "D1", "D2", "D3hot", "D3cold")
    return "".join(f"PME from {state}, " for bit, state in enumerate(states) if value >> bit & 1).rstrip(", ")


def _dpc_reason(value: int) -> str:
    if not value & 1:
        return ""
    reason = value >> 1 & 3
    if reason == 3:
        return f"reason: {named(value >> 5 & 3, names.DPC_REASON_EXTENSIONS)}"
    return f"reason: {names.DPC_REASONS[reason]}"


def _class(value: int) -> str:
    return f"{value:06x}: {names.class_name(value >> 8)}"


def _identifiers(value: int) -> str:
    return f"{value & 0xFFFF:04x}:{value >> 16:04x}"


def _id(value: int) -> str:
    return f"{value:04x}"


def _layout(value: int) -> str:
    kind = named(value & 0x7F, {0: "device", 1: "PCI-to-PCI bridge", 2: "CardBus bridge"})
    return f"{value & 0x7F}: {kind}{', multi-function device' if value & 0x80 else ''}"


# 7.5.1.1
HEADER = (
    Item("Vendor ID", 0x00, 2, _id),
    Item("Device ID", 0x02, 2, _id),
    Item("Class Code", 0x09, 3, _class),
    Item("Revision ID", 0x08, 1, lambda value: f"{value:02x}"),
    Item("Header Type", 0x0E, 1, _layout),
    Item("Command", 0x04, 2, bits_of(names.COMMAND)),
)

# 7.5.1.2
DEVICE_HEADER = (Item("Subsystem Vendor ID and Subsystem ID", 0x2C, 4, _identifiers),)

# 7.5.1.3
BRIDGE_HEADER = (
    Item("Primary Bus Number", 0x18, 1, lambda value: f"{value:02x}"),
    Item("Secondary Bus Number", 0x19, 1, lambda value: f"{value:02x}"),
    Item("Subordinate Bus Number", 0x1A, 1, lambda value: f"{value:02x}"),
)

# Linux include/uapi/linux/pci_regs.h, "Header type 2 (CardBus bridges)"
CARDBUS_HEADER = (
    Item("PCI Bus Number", 0x18, 1, lambda value: f"{value:02x}"),
    Item("CardBus Bus Number", 0x19, 1, lambda value: f"{value:02x}"),
    Item("Subordinate Bus Number", 0x1A, 1, lambda value: f"{value:02x}"),
    Item("Subsystem Vendor ID and Subsystem ID", 0x40, 4, _identifiers),
)

# 7.5.2.1 and 7.5.2.2
POWER_MANAGEMENT = (
    Item(
        "Power Management Capabilities",
        2,
        2,
        _register(
            {5: "Device Specific Initialization", 9: "D1 Support", 10: "D2 Support"},
            (0, 3, lambda value: f"version {value}"),
            (11, 5, _power),
        ),
    ),
    Item(
        "Power Management Control/Status",
        4,
        2,
        _register(
            {3: "No Soft Reset", 8: "PME En", 15: "PME Status"},
            (0, 2, lambda value: ("D0", "D1", "D2", "D3hot")[value]),
        ),
    ),
)

# 7.7.1
MSI = (
    Item(
        "MSI Message Control",
        2,
        2,
        _register(
            {0: "MSI Enable", 7: "64 Bit Address Capable", 8: "Per-Vector Masking Capable"},
            (4, 3, lambda value: f"{1 << value} enabled"),
            (1, 3, lambda value: f"{1 << value} requested"),
        ),
    ),
)
MSI_32 = (Item("MSI Message Address", 4, 4, hex), Item("MSI Message Data", 8, 2, hex))
MSI_64 = (Item("MSI Message Address", 4, 8, hex), Item("MSI Message Data", 12, 2, hex))

# 7.7.2
MSI_X = (
    Item(
        "MSI-X Message Control",
        2,
        2,
        _register({14: "Function Mask", 15: "MSI-X Enable"}, (0, 11, lambda value: f"{value + 1} vectors")),
    ),
    Item("MSI-X Table", 4, 4, _location),
    Item("MSI-X Pending Bit Array", 8, 4, _location),
)

CAPABILITY_ITEMS: Mapping[int, tuple[Item, ...]] = {
    0x01: POWER_MANAGEMENT,
    0x0D: (Item("Subsystem Vendor ID and Subsystem ID", 4, 4, _identifiers),),
    0x11: MSI_X,
}
"""By identifier, what is decoded of a capability."""

# 7.5.3.2 to 7.5.3.5
EXPRESS = (
    Item(
        "PCI Express Capabilities",
        2,
        2,
        _register(
            {8: "Slot Implemented"},
            (0, 4, lambda value: f"version {value}"),
            (4, 4, code_of(names.PORT_TYPES)),
            (9, 5, lambda value: f"Interrupt Message Number {value}"),
        ),
    ),
    Item("Device Capabilities", 4, 4, _register(names.DEVICE_CAPABILITIES, (0, 3, _payload("payload")))),
    Item(
        "Device Control",
        8,
        2,
        _register(names.DEVICE_CONTROL, (5, 3, _payload("payload")), (12, 3, _payload("read request"))),
    ),
    Item("Device Status", 0x0A, 2, bits_of(names.DEVICE_STATUS), lambda value: bool(value & 6)),
)

# 7.5.3.6 to 7.5.3.8
EXPRESS_LINK = (
    Item(
        "Link Capabilities",
        0x0C,
        4,
        _register(
            names.LINK_CAPABILITIES,
            (0, 4, speed_name),
            (4, 6, lambda value: f"x{value}"),
            (10, 2, _aspm),
            (24, 8, lambda value: f"port {value}"),
        ),
    ),
    Item("Link Control", 0x10, 2, _register(names.LINK_CONTROL, (0, 2, _aspm))),
    Item(
        "Link Status",
        0x12,
        2,
        _register(
            names.LINK_STATUS,
            (0, 4, lambda value: speed_name(value) if value else ""),
            (4, 6, lambda value: f"x{value}" if value else "no link"),
        ),
    ),
)

# 7.5.3.18 to 7.5.3.20
EXPRESS_LINK_2 = (
    Item("Link Capabilities 2", 0x2C, 4, _register({8: "Crosslink Supported"}, (1, 7, _speeds))),
    Item(
        "Link Control 2",
        0x30,
        2,
        _register(
            {4: "Enter Compliance", 5: "Hardware Autonomous Speed Disable"},
            (0, 4, lambda value: f"target {speed_name(value)}" if value else ""),
        ),
    ),
    Item("Link Status 2", 0x32, 2, _register(names.LINK_STATUS_2)),
)

# 7.5.3.9 and 7.5.3.11
EXPRESS_SLOT = (
    Item("Physical Slot Number", 0x16, 2, lambda value: str(value >> 3)),
    Item("Slot Status", 0x1A, 2, bits_of(names.SLOT_STATUS), lambda value: bool(value & 2)),
)

# 7.5.3.12 and 7.5.3.14
EXPRESS_ROOT = (
    Item("Root Control", 0x1C, 2, bits_of(names.ROOT_CONTROL)),
    Item(
        "Root Status",
        0x20,
        4,
        _register(
            {16: "PME Status", 17: "PME Pending"},
            (0, 16, lambda value: f"PME Requester ID {address_name(value)}" if value else ""),
        ),
    ),
)

# 7.8.4.7
AER = (
    Item(
        "Advanced Error Capabilities and Control",
        0x18,
        4,
        _register(
            names.ERROR_CAPABILITIES,
            (0, 5, lambda value: f"First Error Pointer {value}"),
        ),
    ),
)


def _root_status(value: int) -> str:
    return _register(
        names.ROOT_ERROR_STATUS, (27, 5, lambda number: f"Advanced Error Interrupt Message Number {number}")
    )(value)


# 7.8.4.9 to 7.8.4.11
AER_ROOT = (
    Item("Root Error Command", 0x2C, 4, bits_of(names.ROOT_ERROR_COMMAND)),
    Item("Root Error Status", 0x30, 4, _root_status, lambda value: bool(value & 0x04)),
    Item("ERR_COR Source Identification", 0x34, 2, address_name),
    Item("ERR_FATAL/NONFATAL Source Identification", 0x36, 2, address_name),
)

# 7.9.14.2 to 7.9.14.5
DPC = (
    Item(
        "DPC Capability",
        4,
        2,
        _register(names.DPC_CAPABILITY, (0, 5, lambda value: f"DPC Interrupt Message Number {value}")),
    ),
    Item(
        "DPC Control",
        6,
        2,
        _register(
            names.DPC_CONTROL,
            (0, 2, code_of(names.DPC_TRIGGERS)),
        ),
    ),
    Item("DPC Status", 8, 2, _register(names.DPC_STATUS, (0, 7, _dpc_reason)), lambda value: bool(value & 1)),
    Item("DPC Error Source ID", 0x0A, 2, address_name),
)
