# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's headers, this machine's interfaces, and a driver that is a function; tests/kdump has a real one."""

import errno
import os
import struct
from array import array
from pathlib import Path

import pytest

from tests.collectors.builtin.collecting import collect, members, tree
from tests.collectors.builtin.kernel_headers import values
from vmcoredd_daemon.collectors.builtin import ethtool
from vmcoredd_daemon.collectors.builtin.ethtool import Ethtool

NUMBERS = (
    "SIOCETHTOOL",
    "ETHTOOL_GDRVINFO",
    "ETHTOOL_GREGS",
    "ETHTOOL_GEEPROM",
    "ETHTOOL_GET_DUMP_FLAG",
    "ETHTOOL_GET_DUMP_DATA",
)
STRUCTURES = {
    "ifreq": "IFREQ",
    "ethtool_drvinfo": "DRVINFO",
    "ethtool_regs": "REGS",
    "ethtool_eeprom": "EEPROM",
    "ethtool_dump": "DUMP",
}
OFFSETS = {
    "struct ethtool_drvinfo, driver": 4,
    "struct ethtool_drvinfo, version": 36,
    "struct ethtool_drvinfo, fw_version": 68,
    "struct ethtool_drvinfo, bus_info": 100,
    "struct ethtool_drvinfo, eedump_len": 188,
    "struct ethtool_drvinfo, regdump_len": 192,
    "struct ethtool_regs, version": 4,
    "struct ethtool_regs, len": 8,
    "struct ethtool_eeprom, offset": 8,
    "struct ethtool_eeprom, len": 12,
    "struct ethtool_dump, flag": 8,
    "struct ethtool_dump, len": 12,
    "struct ifreq, ifr_data": 16,
}
REGISTERS = bytes(range(256)) * 3
EEPROM = bytes(i % 251 for i in range(5000))
DUMP = b"firmware" * 1000


def test_structures_are_those_of_the_kernel(tmp_path: Path) -> None:
    expressions = [
        *NUMBERS,
        *(f"sizeof(struct {name})" for name in STRUCTURES),
        *(f"offsetof({o})" for o in OFFSETS),
    ]
    found = values(tmp_path, ["linux/if.h", "linux/sockios.h", "linux/ethtool.h"], expressions)
    ours = [getattr(ethtool, name) for name in NUMBERS]
    sizes = [getattr(ethtool, name).size for name in STRUCTURES.values()]
    assert found == [*ours, *sizes, *OFFSETS.values()]


class Driver:
    """Answers for eth0 as a driver with registers and a firmware dump does."""

    def __init__(self) -> None:
        self.fails: dict[int, int] = {}
        self.dump = DUMP
        self.eeprom = EEPROM
        self.eeprom_size = len(EEPROM)

    def __call__(self, name: str, request: "array[int]") -> None:
        command = int.from_bytes(bytes(request[:4]), "little")
        if name != "eth0" or command in self.fails:
            code = self.fails.get(command, errno.EOPNOTSUPP)
            raise OSError(code, os.strerror(code))
        if command == 0x03:
            strings = (b"cxgb4", b"6.1.0", b"1.25.4", b"0000:02:00.4", b"")
            answer = struct.pack(
                "=I32s32s32s32s32s12s5I", command, *strings, b"", 0, 0, 0, self.eeprom_size, len(REGISTERS)
            )
        elif command == 0x04:
            assert request[8:12] == array("B", struct.pack("=I", len(REGISTERS)))
            answer = struct.pack("=III", command, 0x2A, len(REGISTERS)) + REGISTERS
        elif command == 0x0B:
            offset, size = struct.unpack_from("=II", request, 8)
            assert (len(request), size <= 4096) == (16 + size, True)
            if offset + size > len(self.eeprom):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            answer = bytes(request[:16]) + self.eeprom[offset : offset + size]
        else:
            answer = struct.pack("=IIII", command, 0, 0, len(self.dump)) + (self.dump if command == 0x40 else b"")
        assert len(answer) <= len(request)
        request[: len(answer)] = array("B", answer)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tree(tmp_path, {f"sys/class/net/{name}/device/uevent": b"" for name in ("eth0", "eth1", "vf0")})
    (tmp_path / "sys/class/net/vf0/device/physfn").symlink_to("../../eth0/device")
    tree(tmp_path, {"sys/class/net/lo/uevent": b""})
    return tmp_path


def test_registers_eeprom_and_dump(root: Path) -> None:
    ((name, (dump, error)),) = collect(Ethtool(root, Driver())).items()
    assert (name, error) == ("cxgb4_0000:02:00.4", "")
    found = members(dump)
    assert (found["registers"], found["eeprom"], found["dump"]) == (REGISTERS, EEPROM, DUMP)
    assert found["driver"].decode().splitlines() == [
        "interface: eth0",
        "driver: cxgb4",
        "version: 6.1.0",
        "firmware-version: 1.25.4",
        "bus-info: 0000:02:00.4",
        "eeprom-size: 5000",
        "registers-version: 0x2a",
    ]


def test_driver_without_eeprom_and_dump(root: Path) -> None:
    driver = Driver()
    driver.eeprom_size = 0
    driver.fails = {0x3F: errno.EOPNOTSUPP}
    ((_, (dump, error)),) = collect(Ethtool(root, driver)).items()
    assert sorted(members(dump)) == ["driver", "registers"]
    assert error == ""


def test_start_of_a_long_eeprom(root: Path) -> None:
    driver = Driver()
    driver.eeprom = bytes(i % 251 for i in range(100_000))
    driver.eeprom_size = len(driver.eeprom)
    ((_, (dump, error)),) = collect(Ethtool(root, driver)).items()
    found = members(dump)
    assert (found["eeprom"], error) == (driver.eeprom[:65536], "")
    assert b"eeprom-size: 100000\n" in found["driver"]


def test_eeprom_of_unknown_size(root: Path) -> None:
    driver = Driver()
    driver.eeprom_size = 0xFFFFFFFF
    ((_, (dump, error)),) = collect(Ethtool(root, driver)).items()
    assert (members(dump)["eeprom"], error) == (EEPROM[:4096], "")


def test_eeprom_that_ends_before_its_size(root: Path) -> None:
    driver = Driver()
    driver.eeprom_size = 9000
    ((_, (dump, error)),) = collect(Ethtool(root, driver)).items()
    found = members(dump)
    assert (found["eeprom"], found["dump"]) == (EEPROM[:4096].ljust(9000, b"\0"), DUMP)
    assert "Invalid argument" in error


def test_what_fails_costs_no_more_than_that(root: Path) -> None:
    driver = Driver()
    driver.fails = {0x04: errno.EIO}
    ((_, (dump, error)),) = collect(Ethtool(root, driver)).items()
    assert members(dump)["dump"] == DUMP
    assert "[Errno 5] Input/output error" in error
    driver.fails = {0x03: errno.EIO}
    assert "Input/output error: 'eth0'" in collect(Ethtool(root, driver))["net_eth0"][1]


def test_interfaces_of_this_machine_can_be_asked(tmp_path: Path) -> None:
    """The kernel itself, for each interface that it has, as if all of them had a device."""
    interfaces = os.listdir("/sys/class/net")
    tree(tmp_path, {f"sys/class/net/{name}/device/uevent": b"" for name in interfaces})
    answers: dict[str, str | int] = {}

    def ask(name: str, request: "array[int]") -> None:
        try:
            ethtool._ask(name, request)
        except OSError as error:
            answers.setdefault(name, error.errno or 0)
            raise
        answers.setdefault(name, bytes(request[4:36]).partition(b"\0")[0].decode("ascii"))

    found = list(Ethtool(tmp_path, ask).device_dumps())
    assert sorted(answers) == sorted(interfaces)
    # The loopback interface has no driver; each of the others has one, or is gone meanwhile.
    assert answers["lo"] == errno.EOPNOTSUPP
    drivers = {answer for answer in answers.values() if isinstance(answer, str)}
    assert "" not in drivers
    assert {answer for answer in answers.values() if isinstance(answer, int)} <= {errno.EOPNOTSUPP, errno.ENODEV}
    assert [name for name, size in found if not name.startswith(tuple(drivers)) or size <= 0] == []


def test_interface_that_is_none(root: Path) -> None:
    # The kernel itself: no such device.
    assert list(Ethtool(root).device_dumps()) == []
