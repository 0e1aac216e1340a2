# SPDX-License-Identifier: LGPL-2.1-or-later
"""IPMI: the System Event Log (SEL) of the machine's BMC."""

import errno
import fcntl
import logging
import os
import select
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .archive import Archive, archive_size
from .files import Problems

# linux/ipmi.h: struct ipmi_system_interface_addr; struct ipmi_req and struct ipmi_recv end with a struct ipmi_msg.
ADDRESS = struct.Struct("@ihBx")
REQ = struct.Struct("@PIlBBHP")
RECV = struct.Struct("@iPIlBBHP")
SYSTEM_INTERFACE = 0x0C
BMC_CHANNEL = 0xF
RESPONSE_RECV_TYPE = 1
MAX_ADDRESS = 40
"""Bytes of a struct ipmi_addr."""
MAX_MESSAGE = 272
"""Bytes of a message, IPMI_MAX_MSG_LENGTH of linux/ipmi_msgdefs.h."""

# _IOR('i', 13, struct ipmi_req), _IOWR('i', 11, struct ipmi_recv), by asm/ioctl.h, which differs on POWER.
READ = (1 if os.uname().machine.startswith("ppc") else 2) << 30
IPMICTL_SEND_COMMAND = READ | REQ.size << 16 | ord("i") << 8 | 13
IPMICTL_RECEIVE_MSG_TRUNC = 3 << 30 | RECV.size << 16 | ord("i") << 8 | 11

# IPMI Specification 2.0: network functions in table 5-1, commands in appendix G.
NETFN_APP = 0x06
NETFN_STORAGE = 0x0A
GET_DEVICE_ID = 0x01
GET_SEL_INFO = 0x40
GET_SEL_ENTRY = 0x43
FIRST, LAST = 0x0000, 0xFFFF
"""IDs of entries."""
ENTRY = 16
"""Bytes of an entry, of any type."""

TIMEOUT = 5.0
"""Seconds for one message; if the BMC does not answer, the driver itself gives up much later."""

EXTRA_ENTRIES = 64
"""Entries that the BMC may add between planning and collecting."""

log = logging.getLogger(__name__)

Ioctl = Callable[[int, int, bytearray], int]
"""As fcntl.ioctl(), which changes its last argument. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Command:
    """A message to the BMC."""

    name: str
    netfn: int
    cmd: int
    data: bytes = b""


Send = Callable[[Command], bytes]
"""Sends a message to the BMC; returns the data of the answer, without the completion code. Raises OSError."""

DEVICE_ID = Command("Get Device ID", NETFN_APP, GET_DEVICE_ID)
SEL_INFO = Command("Get SEL Info", NETFN_STORAGE, GET_SEL_INFO)


class Ipmi:
    """One device dump for each BMC, ``ipmi0``: a tar archive of its event log.

    ``sel`` has the entries, 16 bytes each, the oldest first, as ``ipmitool sel writeraw`` writes them;
    ``ipmitool sel readraw`` prints them. ``sel_info`` and ``device_id`` are the answers to Get SEL Info and Get
    Device ID (IPMI 2.0, 31.2 and 20.1): OEM entries are to be read by the manufacturer in it. Some kB, by
    messages through ``/dev/ipmiN`` (Linux ``include/uapi/linux/ipmi.h``), one for each entry.

    The BMC has its own processor and memory: the log survives panic, reset and power cut, and its last entries may
    tell the cause of the panic. Nothing is removed from it. Needs the modules ipmi_si, or the driver of another
    interface, and ipmi_devintf, which is not loaded automatically.
    """

    def __init__(self, root: Path = Path("/"), ioctl: Ioctl = fcntl.ioctl) -> None:
        self._devices = root / "dev"
        self._class = root / "sys/class/ipmi"
        self._ioctl = ioctl

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        """Return one for each BMC, whether it answers or not, sized for the entries that it has now."""
        for path in sorted(self._class.glob("ipmi*")):
            entries = 0
            try:
                with self._open(path.name) as send:
                    entries = entries_in(send(SEL_INFO))
            except OSError as error:
                # collect() asks again, and fails.
                log.info("%s: %s", path.name, error)
            yield path.name, archive_size([MAX_MESSAGE, MAX_MESSAGE, (entries + EXTRA_ENTRIES) * ENTRY])

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        """Write the log of one; raise OSError at the end for what the BMC did not answer."""
        with self._open(dump_name) as send:
            write_log(send, data)

    @contextmanager
    def _open(self, name: str) -> Iterator[Send]:
        fd = os.open(self._devices / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield Interface(fd, self._ioctl)
        finally:
            os.close(fd)


class Interface:
    """An open ``/dev/ipmiN``, through which one thread sends messages. Does not own *fd*."""

    def __init__(self, fd: int, ioctl: Ioctl = fcntl.ioctl, timeout: float = TIMEOUT) -> None:
        self._fd = fd
        self._ioctl = ioctl
        self._timeout = timeout
        self._msgid = 0
        self._answers = select.poll()
        self._answers.register(fd, select.POLLIN)

    def __call__(self, command: Command) -> bytes:
        """Send *command*, and return the answer. Blocks; raises OSError, also for a completion code."""
        self._msgid += 1
        address = array("B", ADDRESS.pack(SYSTEM_INTERFACE, BMC_CHANNEL, 0))
        # An empty array has no address.
        data = array("B", command.data or b"\0")
        message = (command.netfn, command.cmd, len(command.data), data.buffer_info()[0])
        request = REQ.pack(address.buffer_info()[0], len(address), self._msgid, *message)
        # fcntl.ioctl() copies an argument of at most 1024 bytes, and releases the GIL during the call.
        self._ioctl(self._fd, IPMICTL_SEND_COMMAND, bytearray(request))
        deadline = time.monotonic() + self._timeout
        answer = None
        while answer is None:
            left = deadline - time.monotonic()
            if left <= 0 or not self._answers.poll(left * 1000):
                raise OSError(errno.ETIMEDOUT, f"{command.name}: no answer within {self._timeout:g} s")
            answer = self._received()
        if not answer or answer[0]:
            raise OSError(errno.EIO, f"{command.name}: IPMI completion code {answer[:1].hex() or 'missing'}")
        return answer[1:]

    def _received(self) -> bytes | None:
        """Return the next message if it is the answer; others are events, or late answers."""
        address, data = array("B", bytes(MAX_ADDRESS)), array("B", bytes(MAX_MESSAGE))
        message = (0, 0, len(data), data.buffer_info()[0])
        received = bytearray(RECV.pack(0, address.buffer_info()[0], len(address), 0, *message))
        self._ioctl(self._fd, IPMICTL_RECEIVE_MSG_TRUNC, received)
        kind, _, _, msgid, _, _, size, _ = RECV.unpack(received)
        return data[:size].tobytes() if (kind, msgid) == (RESPONSE_RECV_TYPE, self._msgid) else None


def entries_in(sel_info: bytes) -> int:
    """Return the number of entries in the log. Raises OSError for an answer that is too short."""
    if len(sel_info) < 3:
        raise OSError(errno.EIO, f"{SEL_INFO.name}: the answer has {len(sel_info)} bytes, not 3 or more")
    return int.from_bytes(sel_info[1:3], "little")


def write_log(send: Send, data: BinaryIO) -> None:
    """Write the archive; raise OSError at the end for what the BMC did not answer."""
    archive = Archive(data)
    with Problems() as problems:
        with problems.kept():
            device_id = send(DEVICE_ID)
            archive.add("device_id", len(device_id), [device_id])
        with problems.kept():
            sel_info = send(SEL_INFO)
            archive.add("sel_info", len(sel_info), [sel_info])
            number = entries_in(sel_info)
            archive.add("sel", number * ENTRY, sel_entries(send, number))
        archive.finish()


def sel_entries(send: Send, number: int) -> Iterator[bytes]:
    """Yield *number* entries, fewer if the log has fewer. Raises OSError."""
    entry_id = FIRST
    for _ in range(number):
        command = get_sel_entry(entry_id)
        answer = send(command)
        if len(answer) != 2 + ENTRY:
            raise OSError(errno.EIO, f"{command.name}: the answer has {len(answer)} bytes, not {2 + ENTRY}")
        yield answer[2:]
        next_id = int.from_bytes(answer[:2], "little")
        # A faulty BMC may return the same entry for ever.
        if next_id in (FIRST, LAST, entry_id):
            return
        entry_id = next_id


def get_sel_entry(entry_id: int) -> Command:
    """Return the message for one entry. It asks for all bytes (FFh), which needs no reservation."""
    request = struct.pack("<HHBB", 0, entry_id, 0, 0xFF)
    return Command(f"Get SEL Entry {entry_id:#06x}", NETFN_STORAGE, GET_SEL_ENTRY, request)
