# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's headers, and a BMC that is a function in place of ioctl(); tests/kdump has an emulated one."""

import ctypes
import errno
import os
import struct
from pathlib import Path

import pytest

from tests.collectors.builtin.collecting import collect, members, tree
from tests.collectors.builtin.kernel_headers import values
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
        self._queue: list[tuple[int, int, bytes]] = []

    def __call__(self, fd: int, number: int, argument: bytearray) -> int:
        if number == ipmi.IPMICTL_SEND_COMMAND:
            address, size, msgid, netfn, cmd, length, data = struct.unpack("@PIlBBHP", argument)
            assert ctypes.string_at(address, size) == struct.pack("@ihBx", 0x0C, 0xF, 0)
            self._queue += self.before
            if cmd not in self.silent:
                code = self.codes.get(cmd, 0)
                answer = b"" if code else self.answer(netfn, cmd, ctypes.string_at(data, length))
                self._queue.append((1, msgid, bytes([code]) + answer))
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

    def answer(self, netfn: int, cmd: int, data: bytes) -> bytes:
        """Answer as IPMI 2.0 has it."""
        if (netfn, cmd, data) == (6, 1, b""):
            return DEVICE
        if (netfn, cmd, data) == (0x0A, 0x40, b""):
            return struct.pack("<BHHIIB", 0x51, self.number, 1024, 0x40302012, 0, 2)
        assert (netfn, cmd) == (0x0A, 0x43)
        reservation, entry_id, offset, size = struct.unpack("<HHBB", data)
        assert (reservation, offset, size) == (0, 0, 0xFF)
        ids = [*self.entries, 0xFFFF]
        following = ids[ids.index(entry_id) + 1] if entry_id else ids[1]
        return following.to_bytes(2, "little") + self.entries[entry_id or ids[0]]


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
    assert sorted(members(dump)) == ["sel", "sel_info"]
    assert "Get Device ID: IPMI completion code d4" in error
    bmc.codes = {0x43: 0xC5}
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert members(dump)["device_id"] == DEVICE
    assert "Get SEL Entry 0x0000: IPMI completion code c5" in error
    bmc.codes = {0x40: 0xC1}
    ((_, (dump, error)),) = collect(Ipmi(root, bmc)).items()
    assert sorted(members(dump)) == ["device_id"]
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
