# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's header, and what a kernel has answered for netdevsim; tests/kdump asks one."""

import errno
import io
import json
import lzma
import random
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.collectors.builtin.collecting import collect, members
from tests.collectors.builtin.kernel_headers import values
from tests.collectors.builtin.kernel_socket import Kernel
from tests.lib.paths import DATA_DIRECTORY
from vmcoredd_daemon.collectors.builtin import devlink, devlink_health, netlink
from vmcoredd_daemon.collectors.builtin.devlink import Devlink
from vmcoredd_daemon.collectors.builtin.netlink import GenericNetlink, attribute, attributes, string

RECORDED = DATA_DIRECTORY / "devlink-netdevsim-6.1.json.xz"
FAMILY = 21
ACK = struct.pack("=IHHIIi", 20, 2, 0, 1, 0, 0)
DONE = struct.pack("=IHHIIi", 20, 3, 0, 1, 0, 0)
FOUND = struct.pack("=IHHII", 28, 16, 0, 1, 0) + b"\1\1\0\0" + attribute(1, struct.pack("=H", FAMILY)) + ACK
DEVICE = string(1, "pci") + string(2, "0000:02:00.0")
NO_REPORTERS = [DONE]


def answer(content: bytes) -> bytes:
    return struct.pack("=IHHII", 20 + len(content), FAMILY, 2, 1, 0) + b"\1\1\0\0" + content


def refused(code: int) -> bytes:
    return struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -code)


def region(size: int, *snapshots: int, name: str = "cr-space") -> bytes:
    numbers = b"".join(attribute(91, attribute(92, struct.pack("=I", number))) for number in snapshots)
    return answer(DEVICE + string(88, name) + attribute(89, struct.pack("=Q", size)) + attribute(90, numbers))


def chunk(address: int, data: bytes) -> bytes:
    return answer(attribute(93, attribute(94, attribute(95, data) + attribute(96, struct.pack("=Q", address)))))


def reporter(name: str, port: bytes = b"") -> bytes:
    return answer(DEVICE + port + attribute(114, string(115, name)))


def message(*items: tuple[int, bytes]) -> bytes:
    return answer(attribute(106, b"".join(attribute(kind, value) for kind, value in items)))


class LimitedFile(io.BytesIO):
    """A file that may have *size* bytes at most."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._size:
            raise OSError(errno.EFBIG, "the device has grown since it said its size")
        return super().write(data)


def collected(*answers: list[bytes]) -> tuple[dict[str, tuple[bytes, str]], list[bytes]]:
    kernel = Kernel([[FOUND], *answers])
    try:
        return collect(Devlink(kernel.connect)), kernel.requests
    finally:
        kernel.close()


def one(found: dict[str, tuple[bytes, str]]) -> tuple[dict[str, bytes], str]:
    ((name, (data, error)),) = found.items()
    assert name == "devlink_0000:02:00.0"
    return members(data), error


def test_numbers_are_those_of_the_kernel(tmp_path: Path) -> None:
    known = {**vars(devlink), **vars(devlink_health)}
    names = [name for name in known if name.startswith("DEVLINK_")]
    assert len(names) > 25
    assert values(tmp_path, ["linux/devlink.h"], names) == [known[name] for name in names]


def test_what_a_kernel_has_answered() -> None:
    recorded = json.loads(lzma.decompress(RECORDED.read_bytes()))
    kernel = Kernel([[bytes.fromhex(one) for one in exchange["answers"]] for exchange in recorded])
    ((name, (data, error)),) = collect(Devlink(kernel.connect)).items()
    kernel.close()
    assert (name, error) == ("devlink_netdevsim1", "")
    assert [request.hex() for request in kernel.requests] == [exchange["request"] for exchange in recorded]
    found = members(data)
    assert len(found["region/dummy/0"]) == 32768
    assert found["health/empty"] == b""
    lines = found["health/dummy"].decode().splitlines()
    assert lines[:6] == [
        "break_message: trouble",
        "test_bool: true",
        "test_u8: 1",
        "test_u32: 3",
        "test_u64: 4",
        "test_string: somestring",
    ]
    assert lines[6] == "test_binary:"
    assert len(bytes.fromhex(lines[7])) == 16
    assert lines[8:] == [
        "test_nest:",
        "  nested_test_bool: false",
        "  nested_test_u8: 0",
        "test_u32_array:",
        *(f"  {number}" for number in range(10)),
        "test_array_of_objects:",
        *(
            line
            for number in range(10)
            for line in ("  -", "    in_array_nested_test_bool: false", f"    in_array_nested_test_u8: {number}")
        ),
    ]


def test_recorded_answers_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is cut off or changed: an error on a line, or less data, and nothing else."""
    monkeypatch.setattr(netlink, "ANSWER_TIMEOUT", 0.02)
    recorded = json.loads(lzma.decompress(RECORDED.read_bytes()))
    chosen = random.Random(1)
    problems: list[str] = []
    for _ in range(60):
        answers = [[bytes.fromhex(one) for one in exchange["answers"]] for exchange in recorded]
        # The family's number stays, and that all of it ends.
        damaged = answers[chosen.randrange(1, len(answers))]
        datagram = bytearray(damaged[0])
        if chosen.random() < 0.5:
            del datagram[chosen.randrange(1, len(datagram)) :]
        else:
            for _ in range(8):
                datagram[chosen.randrange(min(len(datagram), 300))] = chosen.randrange(256)
        damaged[0] = bytes(datagram)
        kernel = Kernel(answers)
        device = Devlink(kernel.connect)
        try:
            for name, size in device.device_dumps():
                with LimitedFile(size) as room:
                    device.collect(name, room)
        except OSError as error:
            problems.append(str(error))
        finally:
            kernel.close()
    assert len(problems) > 20
    assert not [problem for problem in problems if "\n" in problem]


def test_region_without_a_snapshot_gets_one_for_a_while() -> None:
    listed = [region(5000), DONE]
    made = [answer(DEVICE + attribute(92, struct.pack("=I", 7))), ACK]
    data = bytes(i % 251 for i in range(5000))
    read = [chunk(at, data[at : at + 256]) for at in range(0, 5000, 256)]
    found, requests = collected(NO_REPORTERS, listed, NO_REPORTERS, listed, made, [*read, DONE], [ACK])
    assert one(found) == ({"region/cr-space/7": data}, "")
    which = attribute(92, struct.pack("=I", 7))
    assert [request[16] for request in requests[-3:]] == [44, 46, 45]
    assert [request.endswith(which) for request in requests[-3:]] == [False, True, True]


def test_region_that_has_no_snapshots() -> None:
    listed = [reporter("fw"), DONE], [region(5000), DONE]
    said = [message((108, b""), (110, b""), (111, b"state\0"), (112, b"\x0a"), (113, b"bad\0")), DONE]
    found, _ = collected(*listed, *listed, said, [refused(95)])
    assert one(found) == ({"health/fw": b"state: bad\n"}, "")


def test_no_snapshot_is_made_that_would_fill_the_memory() -> None:
    listed = [DONE], [region(1 << 30) + region(600, 3, name="fw"), DONE]
    found, _ = collected(*listed, *listed, [chunk(0, b"a" * 600), DONE])
    made, error = one(found)
    assert list(made) == ["region/fw/3"]
    assert "a snapshot would take 1073741824 bytes of the driver's memory: 'region/cr-space'" in error


def test_what_fails_costs_no_more_than_that() -> None:
    port = attribute(3, struct.pack("=I", 4))
    listed = [reporter("fw") + reporter("../tx", port), DONE], [region(600, 1, 2), DONE]
    said = [message((111, b"x\0"), (112, b"\3"), (113, b"\7\0\0\0")), DONE]
    read = [chunk(0, b"a" * 256), chunk(512, b"b" * 88), DONE]
    found, requests = collected(*listed, *listed, [refused(5)], said, read)
    made, error = one(found)
    assert made == {"health/port4/.._tx": b"x: 7\n", "region/cr-space/1": b"a" * 256 + bytes(344)}
    assert "Input/output error: 'health/fw', and 1 more" in error
    assert port in requests[-2]


@pytest.mark.parametrize(("size", "sent"), [(1 << 62, devlink.REGION_LIMIT), (512, 512)])
def test_regions_are_bounded(size: int, sent: int) -> None:
    listed = NO_REPORTERS, [region(size, 1), DONE]
    pieces = [chunk(at, bytes(32768)) for at in range(0, sent + 65536, 32768)]
    found, _ = collected(*listed, *listed, pieces)
    made, error = one(found)
    assert [len(data) for data in made.values()] == [sent]
    assert ("only the first 16777216 of 4611686018427387904 bytes are collected" in error) == (size > sent)


def test_health_is_bounded() -> None:
    listed = [reporter("fw"), DONE], [DONE]
    endless = (message((112, b"\x0b"), (113, bytes(16384))) for _ in range(1000))
    found, _ = collected(*listed, *listed, endless)  # type: ignore[arg-type]
    made, error = one(found)
    assert len(made["health/fw"]) == devlink.HEALTH_LIMIT
    assert "only the first 1048576 bytes are collected: 'health/fw'" in error
    deep = [message(*[(107, b"")] * 33)]
    assert "nested deeper than 32 levels: 'health/fw'" in one(collected(*listed, *listed, deep)[0])[1]


def test_kernel_without_devlink() -> None:
    kernel = Kernel([[refused(2)]])
    assert list(Devlink(kernel.connect).device_dumps()) == []
    kernel.close()


def test_device_that_is_gone() -> None:
    kernel = Kernel([[FOUND], [DONE], [DONE]])
    with pytest.raises(OSError, match="No such device: 'devlink_x'"):
        Devlink(kernel.connect).collect("devlink_x", LimitedFile(1))
    kernel.close()


def test_this_machine() -> None:
    # CTRL_CMD_GETFAMILY lists the families that this kernel has.
    families = [dict(attributes(one))[2] for one in GenericNetlink("nlctrl").ask(3, dump=True)]
    sockets: list[socket.socket] = []

    def connect() -> socket.socket:
        sockets.append(netlink.connect())
        return sockets[-1]

    found = list(Devlink(connect).device_dumps())
    # One asks for the family, one for the health reporters, one for the regions.
    assert len(sockets) == (3 if b"devlink\0" in families else 1)
    assert [name for name, size in found if not name.startswith("devlink_") or size <= 0] == []
    assert not found or b"devlink\0" in families
