# SPDX-License-Identifier: LGPL-2.1-or-later
"""Registers as the drivers of Linux order them, and memories as Intel and SFF describe them."""

from __future__ import annotations

import io
import struct

import pytest

from tests.decoders.archives import archive
from tests.decoders.damage import endures
from vmcoredd_daemon.decoders.builtin.ethtool import decode
from vmcoredd_daemon.decoders.decoded import Decoded, Field, Text
from vmcoredd_daemon.errors import InvalidDump

MAC = bytes.fromhex("525400123456")


def driver(name: str, device: int) -> bytes:
    return (
        f"interface: eth0\ndriver: {name}\nversion: 6.1.0\nfirmware-version: 1.63, 0x800009fa\n"
        f"bus-info: 0000:02:00.0\nregisters-version: {1 << 24 | device:#x}\n"
    ).encode()


def eeprom(size: int = 1024) -> bytes:
    """Return an EEPROM of Intel's with its checksum, which is made as the specification says."""
    words = [*struct.unpack("<3H", MAC), *range(0x100, 0x100 + 60)]
    words.append((0xBABA - sum(words)) & 0xFFFF)
    return struct.pack("<64H", *words) + bytes(range(256)) * ((size - 128) // 256)


def array(size: int, values: dict[int, int]) -> bytes:
    """Return an array of registers, of which some have a value."""
    return struct.pack(f"<{size}I", *(values.get(number, 0) for number in range(size)))


def device_dump(name: str, device: int = 0x10D3, **members: bytes) -> bytes:
    return archive({**members, "driver": driver(name, device)})


def decoded(name: str, device: int = 0x10D3, **members: bytes) -> Decoded:
    return decode(f"{name}_0000:02:00.0", io.BytesIO(device_dump(name, device, **members)))


def fields(found: Decoded, section: str) -> dict[str, Field]:
    [parts] = [each.parts for each in found.sections if each.name == section]
    return {part.name: part for part in parts if isinstance(part, Field)}


def texts(found: Decoded, section: str) -> list[Text]:
    [parts] = [each.parts for each in found.sections if each.name == section]
    return [part for part in parts if isinstance(part, Text)]


# CTRL: SLU and ASDE, flow control. STATUS: link up at 1000 Mb/s, full duplex.
E1000 = array(32, {0: 0x1814_0260, 1: 0x8008_0783, 2: 0x0400_8002, 3: 4096, 7: 0x0103_F0FA, 12: 1})
IGB = array(
    739,
    {
        0: 0x0014_0240,
        1: 0x0028_0383,
        32: 0x0444_803E,
        38: 0xA503_F0FA,
        54: 12,
        58: 0,
        137: 4096,
        179: 0x1200_5452,
        738: 9,
    },
)


@pytest.mark.parametrize("name", ["e1000", "e1000e"])
def test_registers_of_e1000(name: str) -> None:
    found = decoded(name, registers=E1000)
    assert found.summary == f"{name}, firmware 1.63, 0x800009fa, 1000 Mb/s, full duplex"
    shown = fields(found, "registers")
    assert shown["CTRL"].text == "0x18140260: ASDE, SLU, RFCE, TFCE"
    assert shown["STATUS"].text == "0x80080783: FD, LU (1000 Mb/s, full duplex)"
    assert shown["RCTL"].text == "0x04008002: EN, BAM, SECRC"
    assert shown["TCTL"].text == "0x0103f0fa: EN, PSP, RTLC"
    assert (shown["RDLEN"].value, shown["PHY type"].value) == (4096, 1)
    assert [text.name for text in texts(found, "registers")] == ["Registers"]
    assert fields(found, "driver")["bus-info"].value == "0000:02:00.0"


def test_registers_of_igb() -> None:
    found = decoded("igb", 0x1521, registers=IGB)
    assert (found.findings, found.facts) == (("12 CRC errors",), ("1000 Mb/s, full duplex",))
    shown = fields(found, "registers")
    assert shown["RCTL"].text == "0x0444803e: EN, SBP, UPE, MPE, LPE, BAM, VFE, DPF, SECRC"
    assert (shown["CRCERRS"].wrong, shown["MPC"].wrong, shown["RDLEN(0)"].value) == (True, False, 4096)
    # The MAC addresses in it are left out.
    assert [text.name for text in texts(found, "registers")] == [
        "Registers, first 716 of 2956 bytes",
        "Registers from 0x34c on",
    ]
    assert not any("5254" in text.text for text in texts(found, "registers"))


@pytest.mark.parametrize(
    ("name", "status", "fact"),
    [
        ("e1000", 0x0000_0001, "no link"),
        ("e1000", 0x0000_0002, "10 Mb/s, half duplex"),
        ("e1000e", 0x0000_0043, "100 Mb/s, full duplex"),
        ("igc", 0x0040_0083, "2500 Mb/s, full duplex"),
        ("igb", 0x0040_0083, "1000 Mb/s, full duplex"),
    ],
)
def test_link(name: str, status: int, fact: str) -> None:
    assert decoded(name, registers=array(32, {1: status})).facts == (fact,)


def test_device_that_does_not_answer() -> None:
    assert decoded("igb", registers=b"\xff" * 2956).findings == ("device does not answer",)


def test_registers_of_another_driver() -> None:
    found = decoded("cxgb4", registers=bytes(range(256)) * 32)
    assert found.findings == found.facts == ()
    [text] = texts(found, "registers")
    assert text.name == "Registers, first 4096 of 8192 bytes"


def test_eeprom_of_intel() -> None:
    found = decoded("e1000", eeprom=eeprom())
    shown = fields(found, "eeprom")
    assert (shown["Ethernet Address"].value, shown["Ethernet Address"].private) == ("52:54:00:12:34:56", True)
    assert (shown["Checksum"].text, shown["Checksum"].wrong) == ("0xbaba", False)
    [text] = texts(found, "eeprom")
    assert (text.name, text.text[:18]) == ("Bytes, first 506 of 890 bytes", "00000006: 0001 010")
    broken = bytearray(eeprom())
    broken[20] ^= 1
    found = decoded("e1000e", eeprom=bytes(broken))
    assert found.findings == ("EEPROM checksum wrong",)
    assert fields(found, "eeprom")["Checksum"].wrong
    # I210 without flash, and a word that was never written.
    assert decoded("igb", 0x157B, eeprom=bytes(broken)).findings == ()
    assert decoded("e1000e", eeprom=bytes(broken[:126]) + b"\xff\xff").findings == ()
    assert fields(decoded("igb", eeprom=b"\xff" * 512), "eeprom")["Content"].value == "empty"


def sfp() -> bytes:
    """Return the memory of an SFP+, A0h and A2h, with its check code."""
    memory = bytearray(512)
    memory[0:3] = bytes((3, 4, 7))
    memory[12], memory[16], memory[19] = 103, 8, 30
    memory[20:36] = b"FINISAR CORP.   "
    memory[37:40] = bytes.fromhex("009065")
    memory[40:60] = b"FTLX8571D3BCL   A   "
    memory[60:62] = (850).to_bytes(2, "big")
    memory[63] = sum(memory[:63]) & 0xFF
    memory[68:92] = b"AGD123X         170102  "
    memory[92] = 0x68
    # 40.5 C, 3.3 V, 6 mA, 0.5 mW, 1 mW; low RX power is a warning, and the signal is lost.
    memory[256 + 96 : 256 + 106] = struct.pack(">hHHHH", 10368, 33000, 3000, 5000, 10000)
    memory[256 + 110], memory[256 + 117] = 0x02, 0x40
    return bytes(memory)


def qsfp() -> bytes:
    """Return the memory of a QSFP28, lower page and upper page 00h, with its check code."""
    memory = bytearray(256)
    memory[0] = memory[128] = 0x11
    memory[6] = 0x80
    memory[22:24], memory[26:28] = struct.pack(">h", -256), struct.pack(">H", 32500)
    memory[34:36] = struct.pack(">H", 1)
    memory[130], memory[140], memory[142], memory[143] = 0x0C, 255, 2, 35
    memory[148:164] = b"Mellanox        "
    memory[168:186] = b"MMA1B00-C100D   A2"
    memory[191] = sum(memory[128:191]) & 0xFF
    memory[196:220] = b"MT1812FT01234   180320  "
    return bytes(memory)


def test_memory_of_an_sfp() -> None:
    found = decoded("tg3", eeprom=sfp())
    assert found.findings == ("2 transceiver alarms",)
    shown = fields(found, "eeprom")
    assert {name: shown[name].text or shown[name].value for name in list(shown)[1:]} == {
        "Identifier": "SFP/SFP+/SFP28",
        "Connector": "LC",
        "Signaling Rate, Nominal": "10300 MBd",
        "Length (SMF)": "not specified",
        "Length (50 um, OM2)": "80 m",
        "Length (62.5 um, OM1)": "not specified",
        "Length (50 um, OM4) or copper cable": "not specified",
        "Length (50 um, OM3)": "300 m",
        "Vendor name": "FINISAR CORP.",
        "Vendor OUI": "00:90:65",
        "Vendor PN": "FTLX8571D3BCL",
        "Vendor rev": "A",
        "Wavelength": "850 nm",
        "Vendor SN": "AGD123X",
        "Date code": "170102",
        "Status": "0x2: Rx_LOS State",
        "Alarm Flags": "0x0",
        "Warning Flags": "0x40: RX Power Low Warning",
        "Temperature": "40.5 C",
        "Vcc": "3.300 V",
        "TX Bias": "6.000 mA",
        "TX Power": "0.5000 mW (-3.01 dBm)",
        "RX Power": "1.0000 mW (0.00 dBm)",
    }
    assert [name for name, field in shown.items() if field.private] == ["Vendor SN"]
    # Its bytes have the serial number.
    assert texts(found, "eeprom") == []


def test_memory_of_a_qsfp() -> None:
    found = decoded("mlx5_core", eeprom=qsfp())
    assert found.findings == ("1 transceiver alarm",)
    shown = {name: field.text or field.value for name, field in fields(found, "eeprom").items()}
    expected = {
        "Identifier": "QSFP28",
        "Connector Type": "MPO 1x12",
        "Vendor name": "Mellanox",
        "Vendor PN": "MMA1B00-C100D",
        "Vendor SN": "MT1812FT01234",
        "Length (SMF)": "2 km",
        "Length (OM3 50 um)": "70 m",
        "Temperature flags": "0x80: Temp High Alarm",
        "Temperature": "-1.0 C",
        "Supply Voltage": "3.250 V",
        "Rx1 Power": "0.0001 mW (-40.00 dBm)",
        "Rx2 Power": "0 mW",
    }
    assert expected.items() <= shown.items()


def test_memory_without_its_check_code_is_no_transceiver() -> None:
    broken = bytearray(sfp())
    broken[30] ^= 1
    found = decoded("tg3", eeprom=bytes(broken))
    assert "Vendor SN" not in fields(found, "eeprom")
    assert len(texts(found, "eeprom")) == 1


def test_firmware_dumps() -> None:
    found = decoded("bnxt_en", dump=b"sEgM" + bytes(8000))
    assert found.facts == ("firmware dump of 8004 bytes",)
    assert texts(found, "dump")[0].name == "first 4096 of 8004 bytes"
    assert texts(decoded("liquidio", dump=b"octeon: ok\n" * 900), "dump")[0].text == "octeon: ok\n" * 900


def test_what_is_not_of_ethtool() -> None:
    """A driver's own device dump, as of the kernel's facility, may have such a name."""
    with pytest.raises(InvalidDump, match="it is empty"):
        decode("cxgb4_0000:02:00.4", io.BytesIO(b""))
    for data, title in ((bytes(4096), "only zeros: 4096 bytes"), (archive({"log": b"x"}), "archive of 1 file")):
        assert decode("cxgb4_0000:02:00.4", io.BytesIO(data)).title == title
    hostile = archive({"driver": b"driver: \x1b[31m<b>\nfirmware-version: \xff\n" + b"a: b\n" * 9999})
    found = decode("igb_0000:02:00.0", io.BytesIO(hostile))
    assert found.title == "\\x1b[31m<b>, firmware \\xff"
    assert decode("igb_0000:02:00.0", io.BytesIO(archive({"dump": b""}))).title == "igb"


def test_damaged_dumps() -> None:
    endures(decode, samples(), cuts=150, flips=100)


def samples() -> list[tuple[str, bytes]]:
    """Return device dumps as machines have them."""
    return [
        ("e1000_0000:00:03.0", device_dump("e1000", registers=E1000, eeprom=eeprom())),
        ("igb_0000:02:00.0", device_dump("igb", 0x1521, registers=IGB, eeprom=eeprom(512))),
        ("mlx5_core_0000:02:00.0", device_dump("mlx5_core", eeprom=qsfp(), dump=bytes(range(256)) * 4)),
        ("tg3_0000:02:00.0", device_dump("tg3", registers=bytes(256), eeprom=sfp())),
    ]
