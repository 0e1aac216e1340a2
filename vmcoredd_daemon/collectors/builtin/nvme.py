# SPDX-License-Identifier: LGPL-2.1-or-later
"""NVMe controllers: their error logs, health, firmware slots and telemetry."""

import errno
import fcntl
import logging
import os
import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from .archive import BLOCK, Archive, archive_size
from .files import Problems

# linux/nvme_ioctl.h: _IOWR('N', 0x41, struct nvme_passthru_cmd)
NVME_IOCTL_ADMIN_CMD = 0xC0484E41
PASSTHRU_CMD = struct.Struct("=BBHIIIQQII6III")

# NVM Express Base Specification 2.0: opcodes in figure 138, log pages in figure 202.
GET_LOG_PAGE = 0x02
IDENTIFY = 0x06
ERROR_LOG = 0x01
SMART_LOG = 0x02
FIRMWARE_SLOT_LOG = 0x03
TELEMETRY_HOST = 0x07
TELEMETRY_CONTROLLER = 0x08
ALL_NAMESPACES = 0xFFFFFFFF
RETAIN_ASYNCHRONOUS_EVENT = 1 << 15

# Identify Controller, figure 275: log page attributes, error log entries less one.
LPA = 261
ELPE = 262
LPA_EXTENDED_DATA = 1 << 2
LPA_TELEMETRY = 1 << 3

# Telemetry header, figures 211 and 214: the last block of data area 3.
AREA_3_LAST_BLOCK = 12
TELEMETRY_BLOCK = 512

TRANSFER = 4096
"""Bytes of one command, which every controller supports."""

COMMAND_TIMEOUT = 5000
"""Milliseconds for one command; then the kernel resets the controller."""

SIZE = 8 << 20
"""Bytes for one controller; only the start of longer telemetry is kept."""

TELEMETRY_LIMIT = (SIZE - archive_size([4096, 256 * 64, 512, 512, 0, 0])) // 2 // BLOCK * BLOCK


@dataclass(frozen=True, slots=True)
class Command:
    """An admin command that reads *size* bytes."""

    opcode: int
    size: int
    nsid: int = 0
    cdw10: int = 0
    cdw11: int = 0
    cdw12: int = 0
    cdw13: int = 0

    def encode(self, address: int) -> bytearray:
        """Return the ``struct nvme_passthru_cmd`` for a buffer at *address*."""
        words = (self.cdw10, self.cdw11, self.cdw12, self.cdw13, 0, 0)
        fields = (self.opcode, 0, 0, self.nsid, 0, 0, 0, address, 0, self.size, *words, COMMAND_TIMEOUT, 0)
        return bytearray(PASSTHRU_CMD.pack(*fields))


log = logging.getLogger(__name__)

Send = Callable[[Command], bytes]
"""Sends a command to a controller, and returns the answer. Raises OSError."""


class Nvme:
    """One device dump for each controller on PCI, ``nvme_0000:03:00.0``: a tar archive of log pages.

    Members are what nvme-cli writes raw: ``identify_controller`` (id-ctrl -b), ``error_log`` (error-log -b),
    ``smart_log`` (smart-log -b), ``firmware_slot_log`` (fw-log -b), ``telemetry_host`` and
    ``telemetry_controller`` (telemetry-log -O). Only existing telemetry is read: none is created, and no event
    is cleared. At most 8 MiB and some seconds, by ``NVME_IOCTL_ADMIN_CMD`` on ``/dev/nvmeN`` (Linux
    ``include/uapi/linux/nvme_ioctl.h``).

    The driver of the capture kernel has reset the controller, which may clear the error log; SMART with its count
    of errors, firmware slots and telemetry stay.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        """Return one for each controller, whether it works or not."""
        for address in self._controllers():
            yield f"nvme_{address}", SIZE

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        """Write the log pages of one; raise OSError at the end for those that it did not return."""
        controller = self._controllers().get(dump_name.removeprefix("nvme_"))
        if controller is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), dump_name)
        state = (controller / "state").read_text().strip()
        if state != "live":
            raise OSError(f"{controller.name}: the controller is {state}")
        device = self._root / "dev" / controller.name
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            write_log_pages(partial(send, fd), data)
        finally:
            os.close(fd)

    def _controllers(self) -> dict[str, Path]:
        """Return the directories of controllers by their PCI address."""
        found = {}
        for path in sorted(self._root.glob("sys/class/nvme/nvme*")):
            try:
                # Others are on a network, and outlive this machine.
                if (path / "transport").read_text().strip() == "pcie":
                    found[(path / "address").read_text().strip()] = path
            except OSError as error:
                # It disappeared after it was listed, or has no address to name it by.
                log.info("%s: %s", path.name, error.strerror)
        return found


def send(fd: int, command: Command) -> bytes:
    """Send a command through the device file *fd*. Blocks; raises OSError, also for an error of the controller."""
    buffer = array("B", bytes(command.size))
    # fcntl.ioctl() copies an argument of at most 1024 bytes, and releases the GIL during the call.
    status = fcntl.ioctl(fd, NVME_IOCTL_ADMIN_CMD, command.encode(buffer.buffer_info()[0]))
    if status:
        raise OSError(errno.EIO, f"NVMe status {status:#x}")
    return buffer.tobytes()


def write_log_pages(admin: Send, data: BinaryIO) -> None:
    """Write the archive; raise OSError at the end for log pages that the controller did not return."""
    identity = admin(Command(IDENTIFY, TRANSFER, cdw10=1))
    archive = Archive(data)
    archive.add("identify_controller", len(identity), [identity])
    # Without extended data, a log page has no offset.
    extended = bool(identity[LPA] & LPA_EXTENDED_DATA)
    errors = (identity[ELPE] + 1) * 64
    with Problems() as problems:
        for name, page, size in [
            ("smart_log", SMART_LOG, 512),
            ("firmware_slot_log", FIRMWARE_SLOT_LOG, 512),
            ("error_log", ERROR_LOG, errors if extended else min(errors, TRANSFER)),
        ]:
            with problems.kept():
                archive.add(name, size, _named(name, log_page(admin, page, size)))
        if extended and identity[LPA] & LPA_TELEMETRY:
            for name, page in [("telemetry_host", TELEMETRY_HOST), ("telemetry_controller", TELEMETRY_CONTROLLER)]:
                with problems.kept():
                    _add_telemetry(archive, admin, name, page)
        archive.finish()


def log_page(admin: Send, page: int, size: int, start: int = 0) -> Iterator[bytes]:
    """Yield *size* bytes of a log page from *start*; both are multiples of 4. Raises OSError."""
    for offset in range(start, start + size, TRANSFER):
        length = min(TRANSFER, start + size - offset)
        dwords = length // 4 - 1
        # The log specific field stays 0: no telemetry is created.
        cdw10 = (dwords & 0xFFFF) << 16 | RETAIN_ASYNCHRONOUS_EVENT | page
        position = (offset & 0xFFFFFFFF, offset >> 32)
        yield admin(Command(GET_LOG_PAGE, length, ALL_NAMESPACES, cdw10, dwords >> 16, *position))


def _add_telemetry(archive: Archive, admin: Send, name: str, page: int) -> None:
    (header,) = _named(name, log_page(admin, page, TELEMETRY_BLOCK))
    blocks = int.from_bytes(header[AREA_3_LAST_BLOCK : AREA_3_LAST_BLOCK + 2], "little") + 1
    size = min(blocks * TELEMETRY_BLOCK, TELEMETRY_LIMIT)
    archive.add(name, size, _named(name, log_page(admin, page, size)))
    if size < blocks * TELEMETRY_BLOCK:
        raise OSError(f"{name}: only the first {size} of {blocks * TELEMETRY_BLOCK} bytes are collected")


def _named(name: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Add the name of the log page to an OSError."""
    try:
        yield from pieces
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from error
