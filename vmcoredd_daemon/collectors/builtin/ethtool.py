# SPDX-License-Identifier: LGPL-2.1-or-later
"""Network devices: the registers, EEPROM and firmware dumps that drivers give to ethtool."""

import errno
import fcntl
import os
import socket
import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .archive import Archive, archive_size
from .files import Problems

# linux/sockios.h, struct ifreq of linux/if.h, whose union is larger than the pointer
SIOCETHTOOL = 0x8946
IFREQ = struct.Struct("@16sP16x")

# linux/ethtool.h
ETHTOOL_GDRVINFO = 0x03
ETHTOOL_GREGS = 0x04
ETHTOOL_GEEPROM = 0x0B
ETHTOOL_GET_DUMP_FLAG = 0x3F
ETHTOOL_GET_DUMP_DATA = 0x40
DRVINFO = struct.Struct("=I32s32s32s32s32s12s5I")
REGS = struct.Struct("=III")
EEPROM = struct.Struct("=IIII")
DUMP = struct.Struct("=IIII")

MAX_DATA = 16 << 20
"""Bytes of registers, and of a firmware dump: the kernel allocates as many, too."""

MAX_EEPROM = 64 << 10
"""Bytes of an EEPROM: it may be slow, and what follows is firmware as it was shipped."""

PIECE = 4096
"""Bytes of an EEPROM for one request: between requests, the kernel releases its lock of network devices."""

UNKNOWN = 0xFFFFFFFF
"""Size of an EEPROM whose driver does not take an offset for one, as bnxt_en."""

VERSION_SIZE = 64
"""Bytes reserved for the line with the version of the registers."""

Ask = Callable[[str, "array[int]"], None]
"""Has the driver of an interface fill in a structure of linux/ethtool.h. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What a driver reports of one interface."""

    name: str
    dump_name: str
    """Driver and address, as cxgb4 names its device dump: ``cxgb4_0000:02:00.4``."""
    info: str
    registers: int
    """Bytes of registers."""
    eeprom: int
    """Bytes of its EEPROM that are collected."""
    dump: int
    """Bytes of the dump that the driver would give now."""
    problem: OSError | None = None
    """Why the driver reports nothing."""

    @property
    def size(self) -> int:
        """Bytes of the archive at most."""
        return archive_size([len(self.info) + VERSION_SIZE, self.registers, self.eeprom, self.dump])


class Ethtool:
    """One device dump, a tar archive, for each network device with one of these: ``igb_0000:02:00.0``.

    ``driver`` is the text of ``ethtool -i``, and the version of the registers; ``registers`` is what
    ``ethtool -d ETH raw on`` writes, and ``ethtool -d ETH file registers`` decodes if an interface has the same
    driver. ``eeprom`` is the first 64 kB of what ``ethtool -e ETH raw on`` writes: the MAC address, if the driver
    gives it. ``dump`` is what ``ethtool -w ETH data FILE`` writes. Some kB, with a dump up to 16 MB.
    By the ioctl SIOCETHTOOL (Linux ``include/uapi/linux/ethtool.h``).

    The driver of the capture kernel has reset most devices: registers show the state after that, with the link and
    counters that the device keeps. A dump is what the firmware has saved, if the driver asks for that.
    Virtual functions have nothing of their own, and are left out.
    """

    def __init__(self, root: Path = Path("/"), ask: Ask | None = None) -> None:
        self._interfaces = root / "sys/class/net"
        self._ask = ask or _ask

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        """Return one for each device. Waits for the kernel's lock of network devices."""
        for interface in self._found():
            yield interface.dump_name, interface.size

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        """Write all parts of one; raise OSError at the end if a part failed."""
        interface = next((found for found in self._found() if found.dump_name == dump_name), None)
        if interface is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), dump_name)
        if interface.problem is not None:
            raise interface.problem
        archive = Archive(data)
        with Problems() as problems:
            info = interface.info.encode()
            if interface.registers:
                with problems.kept():
                    answer = self._request(interface.name, REGS, ETHTOOL_GREGS, 0, interface.registers)
                    info += f"registers-version: {REGS.unpack_from(answer)[1]:#x}\n".encode()
                    _add(archive, "registers", answer, REGS, interface.registers)
            if interface.eeprom:
                with problems.kept():
                    archive.add("eeprom", interface.eeprom, self._eeprom(interface))
            if interface.dump:
                with problems.kept():
                    answer = self._request(interface.name, DUMP, ETHTOOL_GET_DUMP_DATA, 0, 0, interface.dump)
                    _add(archive, "dump", answer, DUMP, min(DUMP.unpack_from(answer)[3], interface.dump))
            archive.add("driver", len(info), [info])
            archive.finish()

    def _found(self) -> Iterator[Interface]:
        for path in sorted(self._interfaces.glob("*/device")):
            if not (path / "physfn").exists():
                name = path.parent.name
                try:
                    found = self._interface(name)
                except OSError as error:
                    if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
                        continue
                    problem = OSError(error.errno, error.strerror, name)
                    found = Interface(name, f"net_{name}", "", 0, 0, 0, problem)
                if found.registers or found.eeprom or found.dump or found.problem:
                    yield found

    def _interface(self, name: str) -> Interface:
        answer = self._request(name, DRVINFO, ETHTOOL_GDRVINFO)
        fields = DRVINFO.unpack_from(answer)
        driver, version, firmware, bus = (_text(field) for field in fields[1:5])
        try:
            dump = DUMP.unpack_from(self._request(name, DUMP, ETHTOOL_GET_DUMP_FLAG))[3]
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            dump = 0
        lines = {"driver": driver, "version": version, "firmware-version": firmware, "bus-info": bus}
        eeprom, registers = fields[-2:]
        if eeprom:
            lines["eeprom-size"] = "unknown" if eeprom == UNKNOWN else str(eeprom)
        info = "".join(f"{key}: {value}\n" for key, value in {"interface": name, **lines}.items())
        dump_name = f"{driver}_{bus or name}"[:43]
        eeprom = min(eeprom, PIECE if eeprom == UNKNOWN else MAX_EEPROM)
        return Interface(name, dump_name, info, min(registers, MAX_DATA), eeprom, min(dump, MAX_DATA))

    def _eeprom(self, interface: Interface) -> Iterator[bytes]:
        for offset in range(0, interface.eeprom, PIECE):
            size = min(PIECE, interface.eeprom - offset)
            answer = self._request(interface.name, EEPROM, ETHTOOL_GEEPROM, 0, offset, size)
            yield answer[EEPROM.size :].tobytes()

    def _request(self, name: str, kind: struct.Struct, *values: int) -> "array[int]":
        """Return the answer to the request *values*; the last may be the size of the data after the structure."""
        size = values[-1] if len(values) > 1 else 0
        request = array("B", struct.pack(f"={len(values)}I", *values) + bytes(kind.size - 4 * len(values) + size))
        self._ask(name, request)
        return request


def _add(archive: Archive, name: str, answer: "array[int]", kind: struct.Struct, size: int) -> None:
    with memoryview(answer) as view:
        archive.add(name, size, [bytes(view[kind.size : kind.size + size])])


def _text(field: bytes) -> str:
    """Return the ASCII of a C string."""
    return field.partition(b"\0")[0].decode("ascii", "replace").replace("\ufffd", "?").strip()


def _ask(name: str, request: "array[int]") -> None:
    address, _ = request.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        # fcntl.ioctl() copies an argument of at most 1024 bytes, and releases the GIL during the call.
        fcntl.ioctl(any_socket, SIOCETHTOOL, bytearray(IFREQ.pack(name.encode(), address)))
