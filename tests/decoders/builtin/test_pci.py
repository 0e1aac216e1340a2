# SPDX-License-Identifier: LGPL-2.1-or-later
"""Configuration spaces that the test builds, judged by lspci, which reads the same text."""

from __future__ import annotations

import functools
import io
import random
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.decoders.damage import endures
from tests.lib.tools import require
from vmcoredd_daemon.decoders.builtin.pci import MAX_DEVICES, MAX_SHOWN, decode
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Section, Table
from vmcoredd_daemon.errors import InvalidDump

# What lspci prints for the bits of a register, by our names for them.
COMMAND = {
    "I/O": "I/O Space Enable",
    "Mem": "Memory Space Enable",
    "BusMaster": "Bus Master Enable",
    "SpecCycle": "Special Cycle Enable",
    "MemWINV": "Memory Write and Invalidate",
    "VGASnoop": "VGA Palette Snoop",
    "ParErr": "Parity Error Response",
    "Stepping": "IDSEL Stepping/Wait Cycle Control",
    "SERR": "SERR# Enable",
    "FastB2B": "Fast Back-to-Back Transactions Enable",
    "DisINTx": "Interrupt Disable",
}
STATUS = {
    "Cap": "Capabilities List",
    "66MHz": "66 MHz Capable",
    "UDF": "User Definable Features",
    "FastB2B": "Fast Back-to-Back Transactions Capable",
    "ParErr": "Master Data Parity Error",
    ">TAbort": "Signaled Target Abort",
    "<TAbort": "Received Target Abort",
    "<MAbort": "Received Master Abort",
    ">SERR": "Signaled System Error",
    "<PERR": "Detected Parity Error",
    "INTx": "Interrupt Status",
}
SECONDARY = {
    **{short: STATUS[short] for short in ("66MHz", "FastB2B", "ParErr", ">TAbort", "<TAbort", "<MAbort", "<PERR")},
    "<SERR": "Received System Error",
}
BRIDGE = {
    "Parity": "Parity Error Response Enable",
    "SERR": "SERR# Enable",
    "NoISA": "ISA Enable",
    "VGA": "VGA Enable",
    "VGA16": "VGA 16-bit Decode",
    "MAbort": "Master Abort Mode",
    ">Reset": "Secondary Bus Reset",
    "FastB2B": "Fast Back-to-Back Transactions Enable",
    "PriDiscTmr": "Primary Discard Timer",
    "SecDiscTmr": "Secondary Discard Timer",
    "DiscTmrStat": "Discard Timer Status",
    "DiscTmrSERREn": "Discard Timer SERR# Enable",
}
DEVICE_STATUS = {
    "CorrErr": "Correctable Error Detected",
    "NonFatalErr": "Non-Fatal Error Detected",
    "FatalErr": "Fatal Error Detected",
    "UnsupReq": "Unsupported Request Detected",
    "AuxPwr": "AUX Power Detected",
    "TransPend": "Transactions Pending",
}
DEVICE_CONTROL = {
    "CorrErr": "Correctable Error Reporting Enable",
    "NonFatalErr": "Non-Fatal Error Reporting Enable",
    "FatalErr": "Fatal Error Reporting Enable",
    "UnsupReq": "Unsupported Request Reporting Enable",
    "RlxdOrd": "Enable Relaxed Ordering",
    "ExtTag": "Extended Tag Field Enable",
    "PhantFunc": "Phantom Functions Enable",
    "AuxPwr": "Aux Power PM Enable",
    "NoSnoop": "Enable No Snoop",
}
LINK_CAPABILITIES = {
    "ClockPM": "Clock Power Management",
    "Surprise": "Surprise Down Error Reporting Capable",
    "LLActRep": "Data Link Layer Link Active Reporting Capable",
    "BwNot": "Link Bandwidth Notification Capability",
    "ASPMOptComp": "ASPM Optionality Compliance",
}
LINK_STATUS = {
    "Train": "Link Training",
    "SlotClk": "Slot Clock Configuration",
    "DLActive": "Data Link Layer Link Active",
    "BWMgmt": "Link Bandwidth Management Status",
    "ABWMgmt": "Link Autonomous Bandwidth Status",
}
LINK_STATUS_2 = {
    "EqualizationComplete": "Equalization 8.0 GT/s Complete",
    "EqualizationPhase1": "Equalization 8.0 GT/s Phase 1 Successful",
    "EqualizationPhase2": "Equalization 8.0 GT/s Phase 2 Successful",
    "EqualizationPhase3": "Equalization 8.0 GT/s Phase 3 Successful",
    "LinkEqualizationRequest": "Link Equalization Request 8.0 GT/s",
}
SLOT_STATUS = {
    "AttnBtn": "Attention Button Pressed",
    "PowerFlt": "Power Fault Detected",
    "MRL": "MRL Sensor State open",
    "CmdCplt": "Command Completed",
    "PresDet": "Presence Detect State",
    "Interlock": "Electromechanical Interlock Status",
}
UNCORRECTABLE = {
    "DLP": "Data Link Protocol Error",
    "SDES": "Surprise Down Error",
    "TLP": "Poisoned TLP Received",
    "FCP": "Flow Control Protocol Error",
    "CmpltTO": "Completion Timeout",
    "CmpltAbrt": "Completer Abort",
    "UnxCmplt": "Unexpected Completion",
    "RxOF": "Receiver Overflow",
    "MalfTLP": "Malformed TLP",
    "ECRC": "ECRC Error",
    "UnsupReq": "Unsupported Request Error",
    "ACSViol": "ACS Violation",
}
CORRECTABLE = {
    "RxErr": "Receiver Error",
    "BadTLP": "Bad TLP",
    "BadDLLP": "Bad DLLP",
    "Rollover": "REPLAY_NUM Rollover",
    "Timeout": "Replay Timer Timeout",
    "AdvNonFatalErr": "Advisory Non-Fatal Error",
}
ROOT_COMMAND = {
    "CERptEn": "Correctable Error Reporting Enable",
    "NFERptEn": "Non-Fatal Error Reporting Enable",
    "FERptEn": "Fatal Error Reporting Enable",
}
ROOT_STATUS = {
    "CERcvd": "ERR_COR Received",
    "MultCERcvd": "Multiple ERR_COR Received",
    "UERcvd": "ERR_FATAL/NONFATAL Received",
    "MultUERcvd": "Multiple ERR_FATAL/NONFATAL Received",
    "FirstFatal": "First Uncorrectable Fatal",
    "NonFatalMsg": "Non-Fatal Error Messages Received",
    "FatalMsg": "Fatal Error Messages Received",
}
DPC_STATUS = {"Trigger": "DPC Trigger Status", "INT": "DPC Interrupt Status", "RPBusy": "DPC RP Busy"}

FLAGS = {
    "Control": ("Command", COMMAND),
    "Status": ("Status", STATUS),
    "Secondary status": ("Secondary Status", SECONDARY),
    "BridgeCtl": ("Bridge Control", BRIDGE),
    "DevCtl": ("Device Control", DEVICE_CONTROL),
    "DevSta": ("Device Status", DEVICE_STATUS),
    "LnkCap": ("Link Capabilities", LINK_CAPABILITIES),
    "LnkSta": ("Link Status", LINK_STATUS),
    "LnkSta2": ("Link Status 2", LINK_STATUS_2),
    "SltSta": ("Slot Status", SLOT_STATUS),
    "UESta": ("Uncorrectable Error Status", UNCORRECTABLE),
    "UEMsk": ("Uncorrectable Error Mask", UNCORRECTABLE),
    "UESvrt": ("Uncorrectable Error Severity", UNCORRECTABLE),
    "CESta": ("Correctable Error Status", CORRECTABLE),
    "CEMsk": ("Correctable Error Mask", CORRECTABLE),
    "RootCmd": ("Root Error Command", ROOT_COMMAND),
    "RootSta": ("Root Error Status", ROOT_STATUS),
    "DpcSta": ("DPC Status", DPC_STATUS),
}
"""By the label of lspci, our field, and the names of its bits."""

ENDPOINT, ROOT_PORT, DOWNSTREAM, UPSTREAM = 0, 4, 6, 5
EXPRESS, AER, DPC = 0x40, 0x100, 0x180


@dataclass
class Function:
    """A configuration space, written register by register."""

    address: str
    config: bytearray = field(default_factory=lambda: bytearray(4096))

    def put(self, offset: int, size: int, value: int) -> Function:
        self.config[offset : offset + size] = value.to_bytes(size, "little")
        return self

    def text(self) -> str:
        rows = (f"{at:02x}: {self.config[at : at + 16].hex(' ')}\n" for at in range(0, len(self.config), 16))
        return f"{self.address} 0000: 0000:0000 (rev 00)\n\tKernel driver in use: pcieport\n{''.join(rows)}\n"


def function(address: str, port: int, kind: int = 0x0200, secondary: int = 0) -> Function:
    """Return a function with the capabilities that are decoded; a bridge if it has a *secondary* bus."""
    made = (
        Function(address)
        .put(0, 4, 0x10D38086)
        .put(4, 4, 0x00100007)
        .put(8, 4, kind << 16 | 0x01)
        .put(0x34, 1, 0x40)
    )
    if secondary:
        made.put(0x0E, 1, 1).put(0x18, 3, secondary << 16 | secondary << 8)
    made.put(EXPRESS, 2, 0x8010).put(
        EXPRESS + 2, 2, port << 4 | 2 | (0x100 if port in (ROOT_PORT, DOWNSTREAM) else 0)
    )
    made.put(0x80, 4, 0x801F_A011).put(0x84, 4, 0x2003).put(0x88, 4, 0x3000)
    made.put(0xA0, 4, 0x0003_B001).put(0xA4, 2, 0x0008).put(0xB0, 4, 0x0081_0005)
    made.put(0xB4, 8, 0xFEE0_0000).put(0xBC, 2, 0x4021)
    return made.put(AER, 4, 0x14020001).put(0x140, 4, 0x00010003).put(0x144, 8, 0x001B21FFFF3C4C70)


def link(made: Function, status: int, capability: int = 0x0010_0000 | 8 << 4 | 3, target: int = 3) -> Function:
    return made.put(EXPRESS + 0x0C, 4, capability).put(EXPRESS + 0x12, 2, status).put(EXPRESS + 0x30, 2, target)


def dump(*functions: Function) -> bytes:
    return "".join(each.text() for each in functions).encode()


def decoded(data: bytes, name: str = "pci") -> Decoded:
    return decode(name, io.BytesIO(data))


def section(found: Decoded, name: str) -> Section:
    return next(each for each in found.sections if each.name == name)


def value(found: Decoded, device: str, name: str) -> Field:
    return next(part for part in section(found, device).parts if isinstance(part, Field) and part.name == name)


def table(found: Decoded, device: str, name: str) -> Table:
    return next(part for part in section(found, device).parts if isinstance(part, Table) and part.name == name)


def random_functions(count: int) -> list[Function]:
    """Return functions whose registers have any value that a device may have."""
    chance = random.Random(23)
    made = []
    for number in range(count):
        port = chance.choice((ENDPOINT, ROOT_PORT, DOWNSTREAM, UPSTREAM))
        bridge = port != ENDPOINT
        each = function(
            f"0000:{number:02x}:00.0", port, 0x0604 if bridge else 0x0108, 0x80 + number if bridge else 0
        )
        each.put(4, 2, chance.getrandbits(11)).put(6, 2, chance.getrandbits(16) & ~0x0047 & ~(3 << 9) | 0x10)
        each.put(0x1E, 2, chance.getrandbits(16) & 0xF9A0 if bridge else 0)
        each.put(0x3E, 2, chance.getrandbits(12) if bridge else 0)
        each.put(EXPRESS + 8, 2, chance.getrandbits(15) & ~(0x5 << 12 | 0xE0)).put(
            EXPRESS + 0x0A, 2, chance.getrandbits(6)
        )
        width = chance.choice((1, 2, 4, 8, 16))
        each.put(EXPRESS + 0x0C, 4, chance.getrandbits(32) & ~0x3FF | width << 4 | chance.randrange(1, 5))
        each.put(EXPRESS + 0x12, 2, chance.getrandbits(16) & 0xF800 | width << 4 | chance.randrange(1, 5))
        each.put(EXPRESS + 0x1A, 2, chance.getrandbits(9)).put(EXPRESS + 0x32, 2, chance.getrandbits(6))
        for offset in range(AER + 4, AER + 0x38, 4):
            each.put(offset, 4, chance.getrandbits(32))
        if port == ROOT_PORT:
            each.put(0x140, 4, 0x18010003).put(DPC, 4, 0x0001001D).put(DPC + 8, 2, chance.getrandbits(5) & ~6)
            each.put(DPC + 0x0A, 2, chance.getrandbits(16))
        made.append(each)
    return made


@functools.cache
def lspci(data: bytes) -> Mapping[str, list[str]]:
    """Return what lspci prints of each device: a line for each label, with the lines that continue it."""
    require("lspci")
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "pci")
        file.write_bytes(data)
        command = ["lspci", "-F", file, "-D", "-n", "-vvv"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    for block in printed.strip().split("\n\n"):
        first, *lines = block.splitlines()
        found[first.split()[0]] = joined = []
        for line in lines:
            text = line.strip()
            if joined and not re.match(r"[A-Z][\w ]*:", text):
                joined[-1] += f" {text}"
            else:
                joined.append(text)
    return found


def label(lines: list[str], name: str, word: str = "") -> str:
    """Return what follows a label, of several the one that has *word*; nothing if there is no such register."""
    found = (line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:") and word in line)
    return next(found, "")


def flags(text: str, names: Mapping[str, str]) -> set[str]:
    """Return our names of the flags that *text* of lspci has set; check that it has all of *names*."""
    shown = dict(re.findall(r"([<>]?[\w/]+)([+-])(?=\W|$)", text))
    assert set(names) <= set(shown), text
    return {names[short] for short, sign in shown.items() if sign == "+" and short in names}


def test_flags_are_those_of_lspci() -> None:
    functions = random_functions(60)
    data = dump(*functions)
    found, compared = decoded(data), set()
    for each in functions:
        lines = lspci(data)[each.address]
        for name, (ours, names) in FLAGS.items():
            if not (text := label(lines, name, next(iter(names)))):
                continue
            shown = value(found, each.address, ours).text
            words = set(re.split(", |: ", re.sub(r" \([^)]*\)", "", shown)))
            assert words & set(names.values()) == flags(text, names), (name, text, shown)
            compared.add(name)
    assert compared == set(FLAGS)


def test_numbers_are_those_of_lspci() -> None:
    functions = random_functions(60)
    data = dump(*functions)
    found = decoded(data)
    for each in functions:
        lines = lspci(data)[each.address]
        for name, ours in (("LnkCap", "Link Capabilities"), ("LnkSta", "Link Status")):
            [[speed, width]] = re.findall(r"Speed ([\d.]+)GT/s.*?Width x(\d+)", label(lines, name))
            assert f"{float(speed):.1f} GT/s, x{width}" in value(found, each.address, ours).text
        assert value(found, each.address, "Header Log").value == label(lines, "HeaderLog")
        if text := label(lines, "Bus"):
            names = ("Primary", "Secondary", "Subordinate")
            buses = [value(found, each.address, f"{name} Bus Number").text for name in names]
            assert re.findall(r"=(\w\w),", text)[:3] == buses
        if text := label(lines, "ErrorSrc"):
            kinds = ("ERR_COR", "ERR_FATAL/NONFATAL")
            sources = [value(found, each.address, f"{kind} Source Identification").value for kind in kinds]
            assert re.findall(r": (\w{4})", text) == [f"{number:04x}" for number in sources]
        if text := label(lines, "Source"):
            assert text == f"{value(found, each.address, 'DPC Error Source ID').value:04x}"


def test_capabilities_are_those_of_lspci() -> None:
    functions = random_functions(20)
    data = dump(*functions)
    found = decoded(data)
    for each in functions:
        lines = [line for line in lspci(data)[each.address] if line.startswith("Capabilities: ")]
        tables = [table(found, each.address, name) for name in ("Capabilities", "Extended capabilities")]
        rows = [row for found_table in tables for row in found_table.rows]
        assert [re.findall(r"\[(\w+)", line)[0] for line in lines] == [row[0] for row in rows]
        theirs = " ".join(lspci(data)[each.address])
        expected = {
            "MSI: Enable+ Count=1/1 Maskable- 64bit+": (
                "MSI Message Control",
                "0x81: 1 enabled, 1 requested, MSI Enable, 64 Bit Address Capable",
            ),
            "Address: 00000000fee00000  Data: 4021": ("MSI Message Address", "0xfee00000"),
            "MSI-X: Enable+ Count=32 Masked-": ("MSI-X Message Control", "0x801f: 32 vectors, MSI-X Enable"),
            "Vector table: BAR=3 offset=00002000": ("MSI-X Table", "0x2000 from Base Address Register 3"),
            "Status: D0 NoSoftRst+ PME-Enable-": ("Power Management Control/Status", "0x8: D0, No Soft Reset"),
            "Device Serial Number 00-1b-21-ff-ff-3c-4c-70": ("Serial Number", "00-1b-21-ff-ff-3c-4c-70"),
        }
        for words, (name, text) in expected.items():
            part = value(found, each.address, name)
            assert words in theirs
            assert (part.text or part.value) == text
        kinds = {
            "Endpoint,": "Endpoint",
            "Root Port (": "Root Port",
            "Upstream Port,": "Upstream Port",
            "Downstream Port (": "Downstream Port",
        }
        [kind] = [ours for words, ours in kinds.items() if f"Express (v2) {words}" in theirs]
        assert kind in value(found, each.address, "PCI Express Capabilities").text
        assert value(found, each.address, "Serial Number").private


def test_title_and_findings() -> None:
    port = link(function("0000:00:01.0", ROOT_PORT, 0x0604, 1), 0x2000 | 4 << 4 | 3)
    card = link(function("0000:01:00.0", ENDPOINT), 4 << 4 | 3)
    # Completion Timeout and Malformed TLP, of which the latter is masked.
    card.put(AER + 4, 4, 1 << 14 | 1 << 18).put(AER + 8, 4, 1 << 18).put(AER + 12, 4, 1 << 18).put(AER + 16, 4, 1)
    port.put(AER + 0x30, 4, 0x24).put(AER + 0x36, 2, 0x0100).put(0x1E, 2, 1 << 14)
    found = decoded(dump(port, card))
    assert found.summary == (
        "2 devices, 1 uncorrectable AER error (0000:01:00.0), 1 port received ERR_FATAL/NONFATAL (0000:00:01.0), "
        "1 link below its width (0000:01:00.0), 1 device with errors in Status (0000:00:01.0), "
        "1 correctable AER error (0000:01:00.0)"
    )
    status = value(found, "0000:01:00.0", "Uncorrectable Error Status")
    assert status.wrong
    assert status.text == "0x44000: Completion Timeout (non-fatal), Malformed TLP (fatal, masked)"
    source = value(found, "0000:00:01.0", "ERR_FATAL/NONFATAL Source Identification")
    assert (source.value, source.text) == (0x0100, "01:00.0")
    shown = value(found, "0000:01:00.0", "Link Status")
    assert (shown.wrong, shown.text) == (True, "0x43: 8.0 GT/s, x4 (x4, but both ends have x8)")
    [overview] = found.sections[0].parts
    assert isinstance(overview, Table)
    assert overview.rows[1] == (
        "0000:01:00.0",
        "Ethernet controller",
        "8086:10d3",
        "01",
        "pcieport",
        "8.0 GT/s x4",
        "1 uncorrectable AER error, 1 correctable AER error, 1 link below its width",
    )


def findings(*functions: Function) -> tuple[str, ...]:
    """The findings, without the addresses of the devices."""
    return tuple(re.sub(r" \(\S.*\)$", "", finding) for finding in decoded(dump(*functions)).findings)


@pytest.mark.parametrize(
    ("upper", "lower", "expected"),
    [
        (0x2083, 0x0083, ()),
        (0x2081, 0x0081, ("1 link below its speed",)),
        (0x2041, 0x0041, ("1 link below its width", "1 link below its speed")),
        # No link, as if the card had died.
        (0x0000, 0x0000, ("1 slot with a card, but no link",)),
    ],
)
def test_link_is_judged_by_both_ends(upper: int, lower: int, expected: tuple[str, ...]) -> None:
    port = link(function("0000:00:01.0", ROOT_PORT, 0x0604, 1), upper).put(EXPRESS + 0x1A, 2, 0x40)
    cards = [link(function(f"0000:01:00.{number}", ENDPOINT), lower) for number in (0, 1)]
    assert findings(port, *cards) == expected


def test_link_that_is_as_good_as_it_can_be() -> None:
    wide = 0x0010_0000 | 16 << 4 | 4
    port = link(function("0000:00:01.0", ROOT_PORT, 0x0604, 1), 0x2083)
    assert findings(port, link(function("0000:01:00.0", ENDPOINT), 0x0083, wide)) == ()
    # Nothing is known of the slot.
    assert findings(link(function("0000:01:00.0", ENDPOINT), 0x0011, wide)) == ()
    # The port was told to be slow, and a display controller is slow if there is nothing to draw.
    slow = link(function("0000:00:01.0", ROOT_PORT, 0x0604, 1), 0x2081, target=1)
    assert findings(slow, link(function("0000:01:00.0", ENDPOINT), 0x0081)) == ()
    idle = link(function("0000:00:01.0", ROOT_PORT, 0x0604, 1), 0x2081)
    assert findings(idle, link(function("0000:01:00.0", ENDPOINT, 0x0300), 0x0081)) == ()


def test_errors_of_a_device() -> None:
    assert findings(function("0000:02:00.0", ROOT_PORT, 0x0604, 3)) == ()
    status = function("0000:02:00.0", ENDPOINT).put(6, 2, 0x8010)
    assert findings(status) == ("1 device with errors in Status",)
    fatal = function("0000:02:00.0", ENDPOINT).put(EXPRESS + 0x0A, 2, 0xC)
    assert findings(fatal) == ("1 device detected a fatal error",)
    contained = function("0000:02:00.0", ROOT_PORT, 0x0604, 3).put(AER, 4, 0x18020001)
    contained.put(DPC, 4, 0x0001001D).put(DPC + 8, 2, 0x0005).put(DPC + 0x0A, 2, 0x0300)
    found = decoded(dump(contained))
    assert found.findings == ("1 port contained by DPC (0000:02:00.0)",)
    assert value(found, "0000:02:00.0", "DPC Status").text == "0x5: reason: ERR_FATAL received, DPC Trigger Status"
    # What a host bridge records while the kernel looks for devices.
    assert findings(Function("0000:00:00.0").put(0, 4, 0x12378086).put(6, 2, 0x2000).put(8, 4, 0x06000000)) == ()


def test_device_that_does_not_answer_and_one_that_could_not_be_read() -> None:
    silent = Function("0000:04:00.0", bytearray(b"\xff" * 256))
    unread = "0000:05:00.0 ffff: ffff:ffff (rev ff)\n\n"
    found = decoded(dump(silent, function("0000:06:00.0", ENDPOINT)) + unread.encode())
    assert found.summary == "2 devices, 1 device does not answer (0000:04:00.0)"
    assert found.problems == ("0000:05:00.0: its configuration space could not be read",)


def test_base_address_registers_and_windows_of_a_bridge() -> None:
    device = function("0000:01:00.0", ENDPOINT)
    device.put(0x10, 8, 0x38_0000_000C).put(0x18, 4, 0xFE00_0000).put(0x1C, 4, 0xE001).put(0x2C, 4, 0x0034_1AE0)
    bridge = function("0000:00:01.0", ROOT_PORT, 0x0604, 1)
    bridge.put(0x1C, 2, 0xF0E0).put(0x20, 4, 0xFE10_FE00).put(0x24, 4, 0x0001_FFF1).put(0x28, 8, 0x38_0000_0038)
    data = dump(device, bridge)
    found = decoded(data)
    shown = [value(found, "0000:01:00.0", f"Base Address Register {number}").text for number in (0, 2, 3)]
    assert shown == [
        "memory at 0x3800000000, 64-bit, prefetchable",
        "memory at 0xfe000000, 32-bit, not prefetchable",
        "I/O ports at 0xe000",
    ]
    assert value(found, "0000:01:00.0", "Subsystem Vendor ID and Subsystem ID").text == "1ae0:0034"
    lines = " ".join(lspci(data)["0000:00:01.0"])
    for name in ("I/O", "Memory", "Prefetchable memory"):
        window = value(found, "0000:00:01.0", f"{name.replace('memory', 'Memory')} Base and Limit").value
        [[start, end, state]] = re.findall(rf"\b{name} behind bridge: (\w+)-(\w+) \[(\w+)", lines)
        assert window == ("none" if state == "disabled" else f"{int(start, 16):#x}-{int(end, 16):#x}")


def test_lists_of_capabilities_that_are_broken() -> None:
    loop = function("0000:01:00.0", ENDPOINT).put(0x41, 1, 0x40).put(AER, 4, 0x10020001)
    found = decoded(dump(loop))
    assert found.problems == (
        "0000:01:00.0: the list of capabilities has a loop at 0x40",
        "0000:01:00.0: the list of extended capabilities has a loop at 0x100",
    )
    assert len(table(found, "0000:01:00.0", "Capabilities").rows) == 1
    away = function("0000:01:00.0", ENDPOINT).put(0x41, 1, 0x10).put(AER, 4, 0x04020001)
    assert [problem.partition(": ")[2] for problem in decoded(dump(away)).problems] == [
        "the list of capabilities is broken at 0x10",
        "the list of extended capabilities is broken at 0x40",
    ]
    many = function("0000:01:00.0", ENDPOINT)
    for offset in range(0x100, 0xFFC, 4):
        many.put(offset, 4, (offset + 4) << 20 | 0x00018)
    assert len(table(decoded(dump(many)), "0000:01:00.0", "Extended capabilities").rows) == 64


def test_text_of_lspci_without_domain_and_with_other_lines() -> None:
    each = function("0000:01:00.0", ENDPOINT)
    text = each.text().replace("0000:01:00.0 0000: 0000:0000", "01:00.0 Ethernet controller: \x1b[31mIntel")
    found = decoded(f"\tControl: I/O+\n{text}".encode() + bytes(4096))
    assert found.summary == "1 device"
    assert found.sections[1].name == "0000:01:00.0"


def test_more_devices_than_are_shown() -> None:
    short = "".join(f"{number:04x}:00:00.0 0200: 8086:10d3\n00: 86 80\n\n" for number in range(MAX_DEVICES + 3))
    found = decoded(short.encode())
    assert found.title == f"{MAX_DEVICES} devices"
    assert found.problems[-1].endswith("more problems")
    assert len(found.sections) == MAX_SHOWN + 1


def test_what_is_no_dump_of_pci() -> None:
    for data in (b"", b"text\n", bytes(4096)):
        with pytest.raises(InvalidDump, match="no PCI device"):
            decoded(data)
        with pytest.raises(InvalidDump, match="no AER counter"):
            decoded(data, "pci_aer")


COUNTERS = b"""\
0000:03:00.0/aer_dev_correctable:RxErr 3
0000:03:00.0/aer_dev_correctable:BadTLP 0
0000:03:00.0/aer_dev_correctable:TOTAL_ERR_COR 3
0000:03:00.0/aer_dev_fatal:Undefined 0
0000:03:00.0/aer_dev_fatal:MalfTLP 1
0000:03:00.0/aer_dev_fatal:TOTAL_ERR_FATAL 1
0000:03:00.0/aer_dev_nonfatal:TOTAL_ERR_NONFATAL 0
0000:00:01.0/aer_rootport_total_err_cor:2
0000:00:01.0/aer_rootport_total_err_fatal:0
"""


def test_counters_that_are_not_zero() -> None:
    found = decoded(COUNTERS, "pci_aer")
    assert found.findings == ("1 fatal error", "3 correctable errors", "2 correctable error messages")
    [only] = found.sections[0].parts
    assert isinstance(only, Table)
    assert only.rows == (
        ("0000:03:00.0", "aer_dev_correctable", "RxErr", 3),
        ("0000:03:00.0", "aer_dev_fatal", "MalfTLP", 1),
        ("0000:00:01.0", "aer_rootport_total_err_cor", "", 2),
    )
    assert decoded(re.sub(rb"\d+\n", b"0\n", COUNTERS), "pci_aer").facts == ("all are 0",)


def test_damaged_dumps() -> None:
    short = random_functions(2)
    for each in short:
        del each.config[0x1A0:]
    endures(decode, [("pci", dump(*short)), ("pci_aer", COUNTERS)], cuts=200, flips=120)


def test_damaged_configuration_spaces() -> None:
    chance = random.Random(7)
    functions = [each for _ in range(4) for each in random_functions(50)]
    for each in functions:
        for _ in range(40):
            offset = chance.choice((chance.randrange(0x100), chance.randrange(0x100, 0x200)))
            each.config[offset] = chance.getrandbits(8)
        del each.config[chance.choice((64, 256, 512)) :]
    found = decoded(dump(*functions))
    assert found.title == "200 devices"
    assert len(found.sections) == 201
    assert found.problems


def samples() -> list[tuple[str, bytes]]:
    """Return device dumps as machines have them."""
    port = link(function("0000:00:01.0", ROOT_PORT, 0x0604, 1), 0x2000 | 4 << 4 | 3)
    card = link(function("0000:01:00.0", ENDPOINT), 4 << 4 | 3)
    return [("pci", dump(port, card, *random_functions(2))), ("pci_aer", COUNTERS)]
