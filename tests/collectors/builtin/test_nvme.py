# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's headers, and log pages of a controller that is a function; tests/kdump has a real one."""

import errno
import io
from pathlib import Path

import pytest

from tests.collectors.builtin.collecting import collect, members, tree
from tests.collectors.builtin.kernel_headers import values
from vmcoredd_daemon.collectors.builtin import nvme
from vmcoredd_daemon.collectors.builtin.nvme import Command, Nvme, write_log_pages

FIELDS = ("opcode", "nsid", "addr", "data_len", "cdw10", "cdw11", "cdw12", "cdw13", "timeout_ms")


def test_command_is_that_of_the_kernel(tmp_path: Path) -> None:
    number, size, *offsets = values(
        tmp_path,
        ["linux/nvme_ioctl.h"],
        [
            "NVME_IOCTL_ADMIN_CMD",
            "sizeof(struct nvme_passthru_cmd)",
            *(f"offsetof(struct nvme_passthru_cmd, {field})" for field in FIELDS),
        ],
    )
    assert number & 0xFFFFFFFF == nvme.NVME_IOCTL_ADMIN_CMD
    encoded = Command(0x12, 0x1234, 0x56, 0xA0, 0xA1, 0xA2, 0xA3).encode(0x1122334455667788)
    assert len(encoded) == size
    found = [encoded[offset] for offset in offsets]
    assert found == [0x12, 0x56, 0x88, 0x34, 0xA0, 0xA1, 0xA2, 0xA3, nvme.COMMAND_TIMEOUT & 0xFF]


class Controller:
    """Answers as a controller does that has these log pages."""

    def __init__(self, *, lpa: int = 0b1100, errors: int = 100, blocks: int = 20) -> None:
        identity = bytearray(4096)
        identity[nvme.LPA], identity[nvme.ELPE] = lpa, errors - 1
        self.identity = bytes(identity)
        header = bytearray(512)
        header[nvme.AREA_3_LAST_BLOCK : nvme.AREA_3_LAST_BLOCK + 2] = (blocks - 1).to_bytes(2, "little")
        self.pages = {
            1: bytes(i % 251 for i in range(errors * 64)),
            2: b"smart".ljust(512, b"."),
            3: b"slots".ljust(512, b"."),
            7: bytes(header) + bytes((i // 512) & 0xFF for i in range((blocks - 1) * 512)),
            8: bytes(header),
        }
        self.gone_after = 1 << 62

    def __call__(self, command: Command) -> bytes:
        if command.opcode == 6:
            assert (command.nsid, command.cdw10, command.size) == (0, 1, 4096)
            return self.identity
        assert (command.opcode, command.nsid) == (2, 0xFFFFFFFF)
        # Log specific field 0: nothing is created. Events are retained.
        assert command.cdw10 & 0xFF00 == 0x8000
        page, offset = self.pages[command.cdw10 & 0xFF], command.cdw12 | command.cdw13 << 32
        assert ((command.cdw11 << 16 | command.cdw10 >> 16) + 1) * 4 == command.size <= 4096
        if offset + command.size > self.gone_after:
            raise OSError(errno.EIO, "NVMe status 0x2002")
        return page[offset : offset + command.size].ljust(command.size, b"\0")


def collected(controller: Controller) -> dict[str, bytes]:
    data = io.BytesIO()
    try:
        write_log_pages(controller, data)
    finally:
        controller.written = data.getvalue()  # type: ignore[attr-defined]
    return members(data.getvalue())


def test_all_log_pages() -> None:
    controller = Controller()
    controller.pages[8] = controller.pages[7]
    found = collected(controller)
    assert found == {
        "identify_controller": controller.identity,
        "smart_log": controller.pages[2],
        "firmware_slot_log": controller.pages[3],
        "error_log": controller.pages[1],
        "telemetry_host": controller.pages[7],
        "telemetry_controller": controller.pages[8],
    }


def test_controller_without_offsets_is_not_asked_for_more_than_one_transfer() -> None:
    controller = Controller(lpa=0b1000)
    found = collected(controller)
    assert found["error_log"] == controller.pages[1][:4096]
    assert "telemetry_host" not in found


def test_what_a_controller_does_not_give_costs_no_more_than_that() -> None:
    controller = Controller()
    controller.gone_after = 4096
    with pytest.raises(OSError, match=r"NVMe status 0x2002: 'error_log', and 2 more"):
        collected(controller)
    found = members(controller.written)  # type: ignore[attr-defined]
    assert found["smart_log"] == controller.pages[2]
    assert found["error_log"] == controller.pages[1][:4096] + bytes(2304)
    assert found["telemetry_host"] == controller.pages[7][:4096] + bytes(19 * 512 - 4096 + 512)


def test_telemetry_is_bounded() -> None:
    controller = Controller(errors=256, blocks=65536)
    controller.pages[8] = controller.pages[7]
    with pytest.raises(
        OSError, match=r"telemetry_host: only the first \d+ of 33554432 bytes are collected, and 1 more"
    ):
        collected(controller)
    written = controller.written  # type: ignore[attr-defined]
    assert nvme.SIZE - 4096 < len(written) <= nvme.SIZE
    assert members(written)["telemetry_host"] == controller.pages[7][: nvme.TELEMETRY_LIMIT]


def test_controllers_on_pci_are_found(tmp_path: Path) -> None:
    for number, (address, transport, state) in enumerate(
        [("0000:03:00.0", "pcie", "dead"), ("traddr=10.0.0.1", "tcp", "live"), ("0000:04:00.0", "pcie", "live")]
    ):
        files = {"address": address, "transport": transport, "state": state}
        tree(tmp_path, {f"sys/class/nvme/nvme{number}/{name}": f"{files[name]}\n".encode() for name in files})
    tree(tmp_path, {"dev/nvme2": b"no device file", "sys/class/nvme/nvme3/transport": b"pcie\n"})
    made = collect(Nvme(tmp_path))
    assert sorted(made) == ["nvme_0000:03:00.0", "nvme_0000:04:00.0"]
    assert "nvme0: the controller is dead" in made["nvme_0000:03:00.0"][1]
    assert "Inappropriate ioctl for device" in made["nvme_0000:04:00.0"][1]


def test_controller_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No such device: .nvme_0000:03:00\.0."):
        Nvme(tmp_path).collect("nvme_0000:03:00.0", io.BytesIO())


def test_machine_without_controllers(tmp_path: Path) -> None:
    assert list(Nvme(tmp_path).device_dumps()) == []
