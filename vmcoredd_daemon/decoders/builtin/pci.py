# SPDX-License-Identifier: LGPL-2.1-or-later
"""PCI: configuration space of all devices, as ``lspci -Dnkxxxx`` prints it, and AER counters of Linux.

``lspci(8)``, option ``-F``; Linux ``Documentation/ABI/testing/sysfs-bus-pci-devices-aer``.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from ...errors import InvalidDump
from ...text import counted, shortened
from ..decoded import Decoded, Field, Part, Section, Table
from ..lines import read_lines
from .pci_config import (
    DOWNSTREAM,
    PCI_BRIDGE,
    PCIE_BRIDGE,
    ROOT_PORT,
    UPSTREAM,
    Finding,
    Function,
    Link,
    decode_config,
    speed_name,
)
from .pci_names import class_name

MAX_DEVICES = 2048
"""Devices that are listed, and whose errors are counted."""

MAX_SHOWN = 768
"""Devices of which all registers are shown: those with findings before others."""

MAX_NAMED = 3
"""Devices that a finding names."""

MAX_COUNTERS = 4096
"""AER counters that are shown."""

MAX_PROBLEMS = 100

CONFIG_SIZE = 4096

DISPLAY = 0x03
"""Base class of display controllers."""

ADDRESS = re.compile(r"((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])(?:\s|$)")
BYTES = re.compile(r"([0-9a-f]{2,3}):((?: [0-9a-f]{2}){1,16})\s*$")
DRIVER = re.compile(r"\tKernel driver in use: (\S+)\s*$")
COUNTER = re.compile(r"(.+)/aer_(\w+):(?:(.+)\s)?(\d+)$")

SEVERITIES = {
    "dev_fatal": ("fatal error", "fatal errors"),
    "rootport_total_err_fatal": ("fatal error message", "fatal error messages"),
    "dev_nonfatal": ("non-fatal error", "non-fatal errors"),
    "rootport_total_err_nonfatal": ("non-fatal error message", "non-fatal error messages"),
    "dev_correctable": ("correctable error", "correctable errors"),
    "rootport_total_err_cor": ("correctable error message", "correctable error messages"),
}
"""Files of AER counters, the worst first: one of what they count, and several."""


@dataclass(slots=True)
class _Device:
    address: str
    """Domain, bus, device and function: ``0000:03:00.0``."""
    driver: str = ""
    config: bytearray = field(default_factory=bytearray)

    @property
    def domain(self) -> int:
        return int(self.address[:-8], 16)

    @property
    def bus(self) -> int:
        return int(self.address[-7:-5], 16)


Found = tuple[_Device, Function]
Below = dict[str, tuple[str, tuple[Finding, ...]]]
"""By the address of a device at the lower end of a link: what is wrong with the link, as text and as findings."""


def decode(dump_name: str, data: BinaryIO) -> Decoded:
    """Decode ``pci``, or the counters ``pci_aer``. Raises InvalidDump if there is no device in it."""
    return _decode_counters(data) if dump_name == "pci_aer" else _decode_devices(data)


def _decode_devices(data: BinaryIO) -> Decoded:
    problems: list[str] = []
    found = [(device, decode_config(bytes(device.config))) for device in _devices(data, problems)]
    if not found:
        raise InvalidDump("no PCI device in it")
    findings: Counter[Finding] = Counter()
    for device, function in found:
        findings.update(function.findings)
        problems += (f"{device.address}: {problem}" for problem in function.problems)
    below = _links_below(found)
    for _, kinds in below.values():
        findings.update(kinds)
    overview = Section("", (Table("Devices", COLUMNS, tuple(_row(*each, below) for each in found)),))
    troubled = [each for each in found if each[1].findings or each[0].address in below]
    shown = {each[0].address for each in (*troubled, *found)[:MAX_SHOWN]}
    if len(found) > MAX_SHOWN:
        problems.append(f"the registers of {len(found) - len(shown)} devices are not shown")
    sections = (
        Section(device.address, _parts(device, function, below))
        for device, function in found
        if device.address in shown
    )
    return Decoded(
        counted(len(found), "device"),
        tuple(_finding(kind, findings[kind], found, below) for kind in Finding if findings[kind]),
        sections=(overview, *sections),
        problems=_bounded(problems),
    )


def _finding(kind: Finding, count: int, found: Iterable[Found], below: Below) -> str:
    """Return a finding, and of which devices it is, if those are few."""
    devices = dict.fromkeys(
        device.address
        for device, function in found
        if function.findings.get(kind) or kind in below.get(device.address, ("", ()))[1]
    )
    where = f" ({', '.join(devices)})" if len(devices) <= MAX_NAMED else ""
    return f"{counted(count, *kind.value)}{where}"


def _devices(data: BinaryIO, problems: list[str]) -> Iterator[_Device]:
    """Yield the devices of the text *data* that have a configuration space."""
    device: _Device | None = None
    count = left_out = 0
    for line in read_lines(data):
        if found := ADDRESS.match(line):
            if device is not None and device.config:
                yield device
            elif device is not None:
                problems.append(f"{device.address}: its configuration space could not be read")
            count += 1
            left_out += count > MAX_DEVICES
            address = found[1] if found[1].count(":") == 2 else f"0000:{found[1]}"
            device = _Device(address) if count <= MAX_DEVICES else None
        elif device is not None:
            _read_line(device, line, problems)
    if device is not None and device.config:
        yield device
    elif device is not None:
        problems.append(f"{device.address}: its configuration space could not be read")
    if left_out:
        problems.append(f"{counted(left_out, 'device')} after the first {MAX_DEVICES} left out")


def _read_line(device: _Device, line: str, problems: list[str]) -> None:
    if found := BYTES.match(line):
        if int(found[1], 16) != len(device.config):
            problems.append(f"{device.address}: the bytes at {found[1]} follow {len(device.config)} bytes")
        elif len(device.config) < CONFIG_SIZE:
            device.config += bytes.fromhex(found[2])
    elif found := DRIVER.match(line):
        device.driver = shortened(found[1])


def _links_below(found: Iterable[Found]) -> Below:
    """Return the links that are slower or narrower than both of their ends can be.

    A card in a smaller slot is as its owner wants it: a link is judged only if its other end is known, too.
    """
    above = {
        (device.domain, function.buses[0]): function
        for device, function in found
        if function.buses is not None and function.port in (ROOT_PORT, DOWNSTREAM, PCIE_BRIDGE)
    }
    # Drivers and firmware of display controllers slow their links while nothing is drawn.
    displays = {(device.domain, device.bus) for device, function in found if function.kind >> 8 == DISPLAY}
    below: Below = {}
    judged: set[tuple[int, int]] = set()
    for device, function in found:
        at = (device.domain, device.bus)
        port = above.get(at)
        # All functions of a device report the same link.
        if port is None or port.link is None or function.link is None or at in judged:
            continue
        if function.port not in (0x0, 0x1, UPSTREAM, PCI_BRIDGE) or not function.link.width:
            continue
        judged.add(at)
        first, last = port.buses or (0, 0)
        shows = any(domain == at[0] and first <= bus <= last for domain, bus in displays)
        texts, findings = _below(function.link, port.link, shows)
        if findings:
            below[device.address] = (", ".join(texts), findings)
    return below


def _below(link: Link, other: Link, shows: bool) -> tuple[list[str], tuple[Finding, ...]]:
    texts: list[str] = []
    findings: list[Finding] = []
    width = min(link.max_width, other.max_width)
    if link.width < width:
        texts.append(f"x{link.width}, but both ends have x{width}")
        findings.append(Finding.WIDTH)
    # The upper end can be told to be slower.
    speeds = (link.max_speed, other.max_speed, *([other.target_speed] if other.target_speed else []))
    # 0: a device that does not say how fast it can be.
    speed = min(speeds)
    if 0 < link.speed < speed and not shows:
        texts.append(f"{speed_name(link.speed)}, but both ends have {speed_name(speed)}")
        findings.append(Finding.SPEED)
    return texts, tuple(findings)


COLUMNS = ("Address", "Class", "Device", "Revision", "Driver", "Link", "Findings")


def _row(device: _Device, function: Function, below: Below) -> tuple[str, ...]:
    link = function.link
    _, kinds = below.get(device.address, ("", ()))
    findings = [counted(count, *kind.value) for kind, count in function.findings.items()]
    findings += (counted(1, *kind.value) for kind in kinds)
    return (
        device.address,
        class_name(function.kind),
        f"{function.vendor:04x}:{function.device:04x}",
        f"{function.revision:02x}",
        device.driver,
        f"{speed_name(link.speed)} x{link.width}" if link is not None and link.width else "",
        ", ".join(findings),
    )


def _parts(device: _Device, function: Function, below: Below) -> tuple[Part, ...]:
    parts = list(function.parts)
    text, _ = below.get(device.address, ("", ()))
    if text:
        parts = [_with_text(part, text) for part in parts]
    if device.driver:
        parts.append(Field("Kernel driver in use", device.driver))
    return tuple(parts)


def _with_text(part: Part, text: str) -> Part:
    if isinstance(part, Field) and part.name == "Link Status":
        return replace(part, text=f"{part.text} ({text})", wrong=True)
    return part


def _decode_counters(data: BinaryIO) -> Decoded:
    rows: list[tuple[str, str, str, int]] = []
    totals: Counter[str] = Counter()
    devices: set[str] = set()
    left_out = 0
    seen = False
    for line in read_lines(data):
        found = COUNTER.match(line)
        if found is None:
            continue
        seen = True
        address, file, name, count = shortened(found[1]), found[2], shortened(found[3] or ""), int(found[4][:20])
        # A total is the sum of the others: it is counted, they are shown.
        is_total = name.startswith("TOTAL") or not name
        if not count:
            continue
        if is_total and file in SEVERITIES:
            totals[file] += count
        if is_total and name:
            continue
        if len(rows) == MAX_COUNTERS:
            left_out += 1
            continue
        devices.add(address)
        rows.append((address, f"aer_{file}", name, count))
    if not seen:
        raise InvalidDump("no AER counter in it")
    problems = [f"{counted(left_out, 'counter')} left out"] if left_out else []
    table = Table("Counters that are not zero", ("Address", "File", "Error", "Count"), tuple(rows))
    return Decoded(
        "AER counters since the capture kernel started",
        tuple(counted(totals[file], *SEVERITIES[file]) for file in SEVERITIES if totals[file]),
        facts=() if totals else ("all are 0",),
        sections=(Section("", (table,)),),
        problems=tuple(problems),
    )


def _bounded(problems: list[str]) -> tuple[str, ...]:
    more = len(problems) - MAX_PROBLEMS
    return (*problems[:MAX_PROBLEMS], *([f"{more} more problems"] if more > 0 else []))
