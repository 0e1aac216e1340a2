# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's headers, and a BMC that is a function in place of ioctl(); tests/kdump has an emulated one."""

import ctypes
import errno
import os
import re
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.collectors.builtin.collecting import collect, members, tree
from tests.collectors.builtin.kernel_headers import values
from tests.decoders.builtin import sensor_records
from tests.lib.tools import require
from vmcoredd_daemon.collectors.builtin import ipmi
from vmcoredd_daemon.collectors.builtin.ipmi import SEL_INFO, Interface, Ipmi

NUMBERS = {
    "IPMICTL_SEND_COMMAND": ipmi.IPMICTL_SEND_COMMAND,
    "IPMICTL_RECEIVE_MSG_TRUNC": ipmi.IPMICTL_RECEIVE_MSG_TRUNC,
    "IPMI_SYSTEM_INTERFACE_ADDR_TYPE": ipmi.SYSTEM_INTERFACE,
    "IPMI_BMC_CHANNEL": ipmi.BMC_CHANNEL,
    "IPMI_RESPONSE_RECV_TYPE": ipmi.RESPONSE_RECV_TYPE,
    "IPMI_MAX_MSG_LENGTH": ipmi.MAX_MESSAGE,
    "IPMI_NETFN_APP_REQUEST": ipmi.NETFN_APP,
    "IPMI_NETFN_STORAGE_REQUEST": ipmi.NETFN_STORAGE,
    "IPMI_GET_DEVICE_ID_CMD": ipmi.GET_DEVICE_ID,
    "sizeof(struct ipmi_system_interface_addr)": ipmi.ADDRESS.size,
    "sizeof(struct ipmi_addr)": ipmi.MAX_ADDRESS,
    "sizeof(struct ipmi_req)": ipmi.REQ.size,
    "sizeof(struct ipmi_recv)": ipmi.RECV.size,
    "offsetof(struct ipmi_req, addr_len)": 8,
    "offsetof(struct ipmi_req, msgid)": 16,
    "offsetof(struct ipmi_req, msg.cmd)": 25,
    "offsetof(struct ipmi_req, msg.data_len)": 26,
    "offsetof(struct ipmi_req, msg.data)": 32,
    "offsetof(struct ipmi_recv, addr)": 8,
    "offsetof(struct ipmi_recv, msgid)": 24,
    "offsetof(struct ipmi_recv, msg.data_len)": 34,
    "offsetof(struct ipmi_recv, msg.data)": 40,
}

DEVICE = bytes.fromhex("20 81 02 39 02 bf a2 02 00 00 10")
ENTRIES = [
    bytes.fromhex("01 00 02 10 20 30 40 20 00 04 0c 71 6f a0 ff ff"),
    bytes.fromhex("02 00 02 11 20 30 40 20 00 04 20 08 6f a1 ff ff"),
    # IDs need not follow each other.
    bytes.fromhex("07 00 c0 12 20 30 40 a2 02 00 01 02 03 04 05 06"),
]
RECORDS = [
    sensor_records.compact_sensor(0x0001, 0x71, 0x0C, sensor_records.string("DIMM_A1")),
    sensor_records.full_sensor(0x0005, 0x30, 0x01, sensor_records.string("Inlet Temp")),
    # The longest that a header allows, and one without anything.
    sensor_records.record(0x0017, 0xC0, bytes(range(255))),
    sensor_records.record(0x0018, 0xC0, b""),
]


def test_structures_are_those_of_the_kernel(tmp_path: Path) -> None:
    found = values(tmp_path, ["linux/ipmi.h"], list(NUMBERS))
    # printf() has printed ioctl numbers as they are: unsigned.
    assert dict(zip(NUMBERS, found, strict=True)) == NUMBERS


class Bmc:
    """Does what the kernel's ioctl() does for ``/dev/ipmi0``, with a BMC that has these entries behind it."""

    def __init__(self, entries: list[bytes]) -> None:
        self.entries = {int.from_bytes(entry[:2], "little"): entry for entry in entries}
        self.number = len(entries)
        self.codes: dict[int, int] = {}
        self.silent: set[int] = set()
        self.before: list[tuple[int, int, bytes]] = []
        self.events = False
        self.device_id = DEVICE
        self.records = {int.from_bytes(record[:2], "little"): record for record in RECORDS}
        self.record_count: int | None = None
        self.reservation = 0
        self.cancellations = 0
        """How often it ends a reservation."""
        self.most = 255
        """Bytes of a record that fit in an answer."""
        self.short = False
        self.loop = False
        self.refused = 0
        """ID of a record that it does not find."""
        self.delay = 0.0
        self.asked: list[tuple[int, int]] = []
        """Offset and size of each part of a record that it was asked for."""
        self._queue: list[tuple[int, int, bytes]] = []

    def __call__(self, fd: int, number: int, argument: bytearray) -> int:
        if number == ipmi.IPMICTL_SEND_COMMAND:
            address, size, msgid, netfn, cmd, length, data = struct.unpack("@PIlBBHP", argument)
            assert ctypes.string_at(address, size) == struct.pack("@ihBx", 0x0C, 0xF, 0)
            self._queue += self.before
            if cmd not in self.silent:
                self._queue.append((1, msgid, self.completed(netfn, cmd, ctypes.string_at(data, length))))
        else:
            assert number == ipmi.IPMICTL_RECEIVE_MSG_TRUNC
            _, address, size, _, _, _, length, data = struct.unpack("@iPIlBBHP", argument)
            assert size >= 40
            if self.events:
                self._queue.append((2, 0, b"event"))
            if not self._queue:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            kind, msgid, message = self._queue.pop(0)
            assert len(message) <= length
            ctypes.memmove(data, message, len(message))
            argument[:] = struct.pack("@iPIlBBHP", kind, address, 8, msgid, 0, 0, len(message), data)
        return 0

    def completed(self, netfn: int, cmd: int, data: bytes) -> bytes:
        """Return the answer with its completion code."""
        if code := self.codes.get(cmd):
            return bytes([code])
        if (netfn, cmd) in ((0x0A, 0x23), (0x04, 0x21)):
            return self.part_of_record(*struct.unpack("<HHBB", data))
        return b"\0" + self.answer(netfn, cmd, data)

    def answer(self, netfn: int, cmd: int, data: bytes) -> bytes:
        """Answer as IPMI 2.0 has it."""
        match netfn, cmd, data:
            case 6, 1, b"":
                return self.device_id
            case 6, 4, b"":
                return bytes([0x55, 0])
            case 0x0A, 0x40, b"":
                return struct.pack("<BHHIIB", 0x51, self.number, 1024, 0x40302012, 0, 2)
            case 0x0A, 0x20, b"":
                assert self.device_id[5] & 2
                count = len(self.records) if self.record_count is None else self.record_count
                return struct.pack("<BHHIIB", 0x51, count, 1024, 0x40302012, 0, 2)
            case 0x04, 0x20, b"":
                # The sensors of this LUN, not the records.
                return bytes([2, 0x81, 0, 0, 0, 0])
            case (0x0A, 0x22, b"") | (0x04, 0x22, b""):
                self.reservation += 1
                return self.reservation.to_bytes(2, "little")
        assert (netfn, cmd) == (0x0A, 0x43)
        reservation, entry_id, offset, size = struct.unpack("<HHBB", data)
        assert (reservation, offset, size) == (0, 0, 0xFF)
        ids = [*self.entries, 0xFFFF]
        following = ids[ids.index(entry_id) + 1] if entry_id else ids[1]
        return following.to_bytes(2, "little") + self.entries[entry_id or ids[0]]

    def part_of_record(self, reservation: int, record_id: int, offset: int, size: int) -> bytes:
        """Answer Get SDR and Get Device SDR."""
        time.sleep(self.delay)
        self.asked.append((offset, size))
        if size > self.most:
            return b"\xca"
        if record_id and record_id == self.refused:
            return b"\xcb"
        if offset and self.cancellations:
            self.cancellations -= 1
            self.reservation += 1
        if offset and reservation != self.reservation:
            return b"\xc5"
        ids = [*self.records, 0xFFFF]
        record_id = record_id or ids[0]
        part = self.records[record_id][offset : offset + size]
        assert len(part) == size, "a real BMC would refuse that"
        following = record_id if self.loop else ids[ids.index(record_id) + 1]
        return b"\0" + following.to_bytes(2, "little") + (part[1:] if self.short else part)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    # A regular file is always ready in poll().
    tree(tmp_path, {"sys/class/ipmi/ipmi0/uevent": b"", "dev/ipmi0": b""})
    return tmp_path


def test_log(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    ((name, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert (name, error) == ("ipmi0", "")
    found = members(dump)
    assert found["sel"] == b"".join(ENTRIES)
    assert found["device_id"] == DEVICE
    assert found["sel_info"] == bytes.fromhex("51 0300 0004 12203040 00000000 02")
    assert found["self_test"] == bytes([0x55, 0])
    assert found["sdr"] == b"".join(RECORDS)
    # The log matters more.
    assert list(found) == ["device_id", "sel_info", "sel", "self_test", "sdr"]
    assert max(size for _, size in bmc.asked) == 32


def test_log_without_entries(root: Path) -> None:
    ((_, (dump, error)),) = collect(Ipmi(root, Bmc([]))).items()
    assert (members(dump)["sel"], error) == (b"", "")


def test_log_that_grows_while_it_is_read(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.number = 2
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert (members(dump)["sel"], error) == (b"".join(ENTRIES[:2]), "")


def test_log_that_is_shorter_than_it_says(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.number = 5
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert members(dump)["sel"] == b"".join(ENTRIES) + bytes(32)
    assert "sel: only 48 of 80 bytes could be read" in error


def test_what_the_bmc_does_not_answer_costs_no_more_than_that(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.codes = {1: 0xD4}
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert sorted(members(dump)) == ["sdr", "sel", "sel_info", "self_test"]
    assert "Get Device ID: IPMI completion code d4" in error
    bmc.codes = {0x43: 0xC5}
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert members(dump)["device_id"] == DEVICE
    assert "Get SEL Entry 0x0000: IPMI completion code c5" in error
    bmc.codes = {0x40: 0xC1}
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert sorted(members(dump)) == ["device_id", "sdr", "self_test"]
    assert "Get SEL Info: IPMI completion code c1" in error


def test_events_and_late_answers_are_none(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.before = [(2, 1, b"event"), (1, 0, b"\0late")]
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert (members(dump)["sel"], error) == (b"".join(ENTRIES), "")


def test_bmc_that_does_not_answer() -> None:
    bmc = Bmc(ENTRIES)
    bmc.silent = {0x40}
    fd, other = os.pipe()
    try:
        with pytest.raises(TimeoutError, match=r"Get SEL Info: no answer within 0\.01 s"):
            Interface(fd, bmc, timeout=0.01)(SEL_INFO)
    finally:
        os.close(fd)
        os.close(other)


def test_bmc_that_has_nothing_but_events(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.silent, bmc.events = {0x40}, True
    with (root / "dev/ipmi0").open("rb") as file, pytest.raises(TimeoutError, match="no answer"):
        Interface(file.fileno(), bmc, timeout=0.01)(SEL_INFO)


def test_device_file_that_is_none(root: Path) -> None:
    # The kernel itself, and a BMC that has gone.
    assert "Inappropriate ioctl for device" in collect(Ipmi(root))["ipmi0"][1]
    (root / "dev/ipmi0").unlink()
    assert "No such file or directory" in collect(Ipmi(root))["ipmi0"][1]


def test_machine_without_a_bmc(tmp_path: Path) -> None:
    assert list(Ipmi(tmp_path).device_dumps()) == []


def test_ipmitool_reads_records_and_log(root: Path, tmp_path: Path) -> None:
    require("ipmitool")
    ((_, (dump, _)),) = collect(Ipmi(root, Bmc(ENTRIES))).items()
    for name, content in members(dump).items():
        (tmp_path / name).write_bytes(content)
    # The interface is none: all that ipmitool needs is in the files.
    command = ["ipmitool", "-I", "serial-terminal", "-D", "/dev/null:9600", "-S", "sdr", "sel", "ereadraw", "sel"]
    # It answers with a failure, as no BMC answers it.
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert re.findall(r"^ +1 \|.*\| (.*) \| (.*) \| Asserted", said, re.MULTILINE) == [
        ("Memory DIMM_A1", "Correctable ECC")
    ]


def test_reservation_that_is_lost(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.cancellations = 5
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert (members(dump)["sdr"], error) == (b"".join(RECORDS), "")


def test_reservation_that_is_lost_again_and_again(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.cancellations = 10_000
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert members(dump)["sel"] == b"".join(ENTRIES)
    assert "Get SDR 0x0000: 8 times the reservation was lost" in error
    assert len(bmc.asked) == 16


def test_records_of_a_bmc_with_short_answers(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.most = 10
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert (members(dump)["sdr"], error) == (b"".join(RECORDS), "")
    assert {size for _, size in bmc.asked[3:]} <= {32, 16, *range(9)}


@pytest.mark.parametrize("most", [4, 7])
def test_records_that_cannot_be_read(root: Path, most: int) -> None:
    bmc = Bmc(ENTRIES)
    bmc.most = most
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    found = members(dump)
    assert (found["sel"], found["sdr"]) == (b"".join(ENTRIES), b"")
    assert "Get SDR 0x0000: IPMI completion code ca" in error


def test_records_before_one_that_cannot_be_read(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.refused = 0x0017
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert members(dump)["sdr"] == RECORDS[0] + RECORDS[1]
    assert "Get SDR 0x0017: IPMI completion code cb" in error
    bmc.codes[0x04] = 0xD5
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert "self_test" not in members(dump)
    assert "Get Self Test Results: IPMI completion code d5, and 1 more" in error


def test_bmc_that_does_not_know_the_self_test(root: Path) -> None:
    """QEMU's does not; all else of it is complete."""
    bmc = Bmc(ENTRIES)
    bmc.codes[0x04] = 0xC1
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert (list(members(dump)), error) == (["device_id", "sel_info", "sel", "sdr"], "")


def test_records_of_other_sizes_than_asked_for(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.short = True
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert members(dump)["sdr"] == b""
    assert "Get SDR 0x0000: the answer has 6 bytes, not 7" in error


def test_records_that_are_the_same_for_ever(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.loop = True
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert (members(dump)["sdr"], error) == (RECORDS[0], "")


def test_more_records_than_the_bmc_has_counted(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.record_count = 2
    bmc.records = {number: sensor_records.record(number, 0xC0, b"a") for number in range(1, 30)}
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert members(dump)["sdr"] == b"".join(list(bmc.records.values())[:18])
    assert "Get SDR: there are more than 18 records" in error


def test_count_of_records_that_is_absurd_reserves_little(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.record_count = 0xFFFF
    ((_, size),) = Ipmi(root, bmc).device_dumps()
    assert 1024 * 260 < size < 300_000


def test_records_that_take_too_long(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bmc = Bmc(ENTRIES)
    bmc.delay = 0.01
    with (root / "dev/ipmi0").open("rb") as file:
        records = ipmi.sdr_records(Interface(file.fileno(), bmc), ipmi.SDR_REPOSITORY, 10, timeout=0.05)
        assert next(records) == RECORDS[0]
        with pytest.raises(TimeoutError, match=r"Get SDR 0x00..: there is no more time for records"):
            list(records)


def test_bmc_without_a_repository_has_device_records(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.device_id = DEVICE[:5] + b"\xbd" + DEVICE[6:]
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert (members(dump)["sdr"], error) == (b"".join(RECORDS), "")


def test_bmc_without_records(root: Path) -> None:
    bmc = Bmc(ENTRIES)
    bmc.records = {}
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert (members(dump)["sdr"], error) == (b"", "")
    bmc.device_id = DEVICE[:1] + b"\x01" + DEVICE[2:5] + b"\xbd" + DEVICE[6:]
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert ("sdr" in members(dump), error) == (False, "")
