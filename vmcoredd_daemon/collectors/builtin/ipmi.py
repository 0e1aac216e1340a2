# SPDX-License-Identifier: LGPL-2.1-or-later
"""IPMI: the System Event Log (SEL) of the machine's BMC, and the Sensor Data Records (SDR) with names for it."""

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

# _IOR('i', 13, struct ipmi_req), _IOWR('i', 11, struct ipmi_recv), by asm/ioctl.h, which differs on these.
READ = (1 if os.uname().machine.startswith(("ppc", "mips", "sparc")) else 2) << 30
IPMICTL_SEND_COMMAND = READ | REQ.size << 16 | ord("i") << 8 | 13
IPMICTL_RECEIVE_MSG_TRUNC = 3 << 30 | RECV.size << 16 | ord("i") << 8 | 11

# IPMI Specification 2.0: network functions in table 5-1, commands in appendix G.
NETFN_SENSOR = 0x04
NETFN_APP = 0x06
NETFN_STORAGE = 0x0A
GET_DEVICE_ID = 0x01
GET_SELF_TEST_RESULTS = 0x04
GET_SEL_INFO = 0x40
GET_SEL_ENTRY = 0x43
FIRST, LAST = 0x0000, 0xFFFF
"""IDs of entries and of records."""
ENTRY = 16
"""Bytes of an entry, of any type."""
RECORD_HEADER = 5
"""Bytes of a record's header: ID, version, type and the size of the rest."""
RECORD = RECORD_HEADER + 0xFF
"""Bytes that a record may have; most have 64 or fewer."""

# Completion codes, table 5-2.
INVALID_COMMAND = 0xC1
RESERVATION_CANCELED = 0xC5
CANNOT_RETURN_BYTES = 0xCA

TIMEOUT = 5.0
"""Seconds for one message; if the BMC does not answer, the driver itself gives up much later."""

EXTRA_ENTRIES = 64
"""Entries that the BMC may add between planning and collecting."""

SDR_TIMEOUT = 10.0
"""Seconds for all records: they only name what the log has."""

MAX_RECORDS = 1024
"""Records that are read; large machines have some hundreds."""

EXTRA_RECORDS = 16
"""Records that the BMC may have beyond its count: that of device SDRs is of sensors."""

PIECE, SMALLEST_PIECE = 32, 8
"""Bytes of a record that are asked for at a time; half of it if a BMC cannot return as many."""

TRIES = 8
"""How often one record is begun, with a new reservation or smaller pieces."""

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
SELF_TEST = Command("Get Self Test Results", NETFN_APP, GET_SELF_TEST_RESULTS)
SEL_INFO = Command("Get SEL Info", NETFN_STORAGE, GET_SEL_INFO)


@dataclass(frozen=True, slots=True)
class RecordSource:
    """Where a BMC has its records. The commands of both (33.9 to 33.12, 35.2 to 35.4) have the same structure."""

    info: Command
    count: slice
    """Of the answer to *info*: the number of records, or of sensors."""
    reserve: Command
    get: Command


SDR_REPOSITORY = RecordSource(
    info=Command("Get SDR Repository Info", NETFN_STORAGE, 0x20),
    count=slice(1, 3),
    reserve=Command("Reserve SDR Repository", NETFN_STORAGE, 0x22),
    get=Command("Get SDR", NETFN_STORAGE, 0x23),
)
DEVICE_SDRS = RecordSource(
    info=Command("Get Device SDR Info", NETFN_SENSOR, 0x20),
    count=slice(0, 1),
    reserve=Command("Reserve Device SDR Repository", NETFN_SENSOR, 0x22),
    get=Command("Get Device SDR", NETFN_SENSOR, 0x21),
)


class Refused(OSError):
    """The BMC has answered with a completion code other than 00h."""

    def __init__(self, command: Command, code: int) -> None:
        super().__init__(errno.EIO, f"{command.name}: IPMI completion code {code:02x}")
        self.code = code


class Ipmi:
    """One device dump for each BMC, ``ipmi0``: a tar archive of its event log.

    ``sel`` has the entries, 16 bytes each, the oldest first, as ``ipmitool sel writeraw`` writes them;
    ``ipmitool sel readraw`` prints them. ``sel_info``, ``device_id`` and ``self_test`` are the answers to Get SEL
    Info, Get Device ID and Get Self Test Results (IPMI 2.0, 31.2, 20.1 and 20.4): OEM entries are to be read by
    the manufacturer in ``device_id``.

    ``sdr`` has the Sensor Data Records: names and units of the sensors that the log has by number. They are of the
    SDR repository, or of the BMC's own sensors if it has none, one after the other as ``ipmitool sdr dump`` writes
    them; ``ipmitool -S sdr sel ereadraw sel`` reads both.

    Some kB, by messages through ``/dev/ipmiN`` (Linux ``include/uapi/linux/ipmi.h``), one for each entry and some
    three for a record. The log comes first; the records may take 10 s, and their failure costs only them.

    The BMC has its own processor and memory: the log survives panic, reset and power cut, and its last entries may
    tell the cause of the panic. Nothing is removed from it. Needs the modules ipmi_si, or the driver of another
    interface, and ipmi_devintf, which is not loaded automatically.
    """

    def __init__(self, root: Path = Path("/"), ioctl: Ioctl = fcntl.ioctl) -> None:
        self._devices = root / "dev"
        self._class = root / "sys/class/ipmi"
        self._ioctl = ioctl

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        """Return one for each BMC, whether it answers or not, sized for what it has now."""
        for path in sorted(self._class.glob("ipmi*")):
            entries = records = 0
            try:
                with self._open(path.name) as send:
                    entries = entries_in(send(SEL_INFO))
                    source = record_source(send(DEVICE_ID))
                    records = records_in(send, source) if source else 0
            except OSError as error:
                # collect() asks again, and fails.
                log.info("%s: %s", path.name, error)
            sizes = [(entries + EXTRA_ENTRIES) * ENTRY, (records + EXTRA_RECORDS) * RECORD]
            yield path.name, archive_size([MAX_MESSAGE, MAX_MESSAGE, MAX_MESSAGE, *sizes])

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
        if not answer:
            raise OSError(errno.EIO, f"{command.name}: IPMI completion code missing")
        if answer[0]:
            raise Refused(command, answer[0])
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
    device_id = b""
    with Problems() as problems:
        with problems.kept():
            device_id = send(DEVICE_ID)
            archive.add("device_id", len(device_id), [device_id])
        with problems.kept():
            sel_info = send(SEL_INFO)
            archive.add("sel_info", len(sel_info), [sel_info])
            number = entries_in(sel_info)
            archive.add("sel", number * ENTRY, sel_entries(send, number))
        with problems.kept():
            if (self_test := answer_if_known(send, SELF_TEST)) is not None:
                archive.add("self_test", len(self_test), [self_test])
        with problems.kept():
            if source := record_source(device_id):
                write_records(send, source, archive)
        archive.finish()


def answer_if_known(send: Send, command: Command) -> bytes | None:
    """Return the answer to *command*; None if the BMC does not know it, as a simulated one. Raises OSError."""
    try:
        return send(command)
    except Refused as error:
        if error.code != INVALID_COMMAND:
            raise
        return None


def write_records(send: Send, source: RecordSource, archive: Archive) -> None:
    """Add the member ``sdr``; raise OSError at the end for what could not be read."""
    # Their sizes are known only when they have been read: they wait in memory, at most 270 kB.
    number = records_in(send, source)
    records: list[bytes] = []
    try:
        if number:
            # If it fails, extend() keeps what came before.
            records.extend(sdr_records(send, source, number + EXTRA_RECORDS))
    finally:
        archive.add("sdr", sum(map(len, records)), records)


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


def record_source(device_id: bytes) -> RecordSource | None:
    """Return where the BMC has its records; if it has not said what it has, the usual place."""
    if len(device_id) < 6 or device_id[5] & 0x02:
        return SDR_REPOSITORY
    return DEVICE_SDRS if device_id[1] & 0x80 else None


def records_in(send: Send, source: RecordSource) -> int:
    """Return the number of records, or of sensors, of those that are read. Raises OSError."""
    answer = send(source.info)
    if len(answer) < source.count.stop:
        raise OSError(errno.EIO, f"{source.info.name}: the answer has only {len(answer)} bytes")
    return min(MAX_RECORDS, int.from_bytes(answer[source.count], "little"))


def sdr_records(send: Send, source: RecordSource, number: int, timeout: float = SDR_TIMEOUT) -> Iterator[bytes]:
    """Yield records, *number* at most, each with its header. Raises OSError."""
    reader = RecordReader(send, source, time.monotonic() + timeout)
    record_id = FIRST
    seen: set[int] = set()
    for _ in range(number):
        next_id, record = reader.record(record_id)
        yield record
        # The first has been asked for by another ID than its own.
        seen |= {record_id, int.from_bytes(record[:2], "little")}
        # A faulty BMC may return the same records for ever.
        if next_id == LAST or next_id in seen:
            return
        record_id = next_id
    raise OSError(errno.EIO, f"{source.get.name}: there are more than {number} records")


class RecordReader:
    """Reads records piece by piece, under a reservation: without it, the BMC could change a record meanwhile."""

    def __init__(self, send: Send, source: RecordSource, deadline: float) -> None:
        self._send = send
        self._source = source
        self._deadline = deadline
        self._piece = PIECE
        self._reservation = 0

    def record(self, record_id: int) -> tuple[int, bytes]:
        """Return the ID of the record behind it, and the record. Raises OSError."""
        for _ in range(TRIES):
            try:
                if not self._reservation:
                    self._reserve()
                return self._read(record_id)
            except Refused as refused:
                if refused.code == RESERVATION_CANCELED:
                    self._reservation = 0
                elif refused.code == CANNOT_RETURN_BYTES and self._piece > SMALLEST_PIECE:
                    self._piece //= 2
                else:
                    raise
        raise OSError(
            errno.EIO, f"{self._source.get.name} {record_id:#06x}: {TRIES} times the reservation was lost"
        )

    def _reserve(self) -> None:
        answer = self._send(self._source.reserve)
        self._reservation = int.from_bytes(answer[:2], "little")

    def _read(self, record_id: int) -> tuple[int, bytes]:
        next_id, header = self._part(record_id, 0, RECORD_HEADER)
        # As ipmitool does it: some BMCs return another ID than they were asked for.
        own_id = record_id.to_bytes(2, "little") if record_id != FIRST else header[:2]
        record = own_id + header[2:]
        size = RECORD_HEADER + header[4]
        while len(record) < size:
            _, piece = self._part(record_id, len(record), min(self._piece, size - len(record)))
            record += piece
        return next_id, record

    def _part(self, record_id: int, offset: int, size: int) -> tuple[int, bytes]:
        name = f"{self._source.get.name} {record_id:#06x}"
        if time.monotonic() > self._deadline:
            raise OSError(errno.ETIMEDOUT, f"{name}: there is no more time for records")
        request = struct.pack("<HHBB", self._reservation, record_id, offset, size)
        answer = self._send(Command(name, self._source.get.netfn, self._source.get.cmd, request))
        if len(answer) != 2 + size:
            raise OSError(errno.EIO, f"{name}: the answer has {len(answer)} bytes, not {2 + size}")
        return int.from_bytes(answer[:2], "little"), answer[2:]
