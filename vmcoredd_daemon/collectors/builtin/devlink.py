# SPDX-License-Identifier: LGPL-2.1-or-later
"""devlink: what drivers report of the health of devices, and regions of the memory of devices."""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import BinaryIO

from .archive import Archive, archive_size
from .devlink_health import HealthText, c_string, number
from .files import Problems
from .netlink import Connect, GenericNetlink, attribute, attributes, connect

# linux/devlink.h
DEVLINK_CMD_REGION_GET = 42
DEVLINK_CMD_REGION_NEW = 44
DEVLINK_CMD_REGION_DEL = 45
DEVLINK_CMD_REGION_READ = 46
DEVLINK_CMD_HEALTH_REPORTER_GET = 52
DEVLINK_CMD_HEALTH_REPORTER_DUMP_GET = 56
DEVLINK_ATTR_BUS_NAME = 1
DEVLINK_ATTR_DEV_NAME = 2
DEVLINK_ATTR_PORT_INDEX = 3
DEVLINK_ATTR_REGION_NAME = 88
DEVLINK_ATTR_REGION_SIZE = 89
DEVLINK_ATTR_REGION_SNAPSHOTS = 90
DEVLINK_ATTR_REGION_SNAPSHOT = 91
DEVLINK_ATTR_REGION_SNAPSHOT_ID = 92
DEVLINK_ATTR_REGION_CHUNKS = 93
DEVLINK_ATTR_REGION_CHUNK = 94
DEVLINK_ATTR_REGION_CHUNK_DATA = 95
DEVLINK_ATTR_REGION_CHUNK_ADDR = 96
DEVLINK_ATTR_FMSG = 106
DEVLINK_ATTR_HEALTH_REPORTER = 114
DEVLINK_ATTR_HEALTH_REPORTER_NAME = 115

HEALTH_LIMIT = 1 << 20
"""Bytes of text of one reporter; all of it is in memory before its size is known."""

REGION_LIMIT = 16 << 20
"""Bytes of one snapshot; a new one takes as much memory in the driver."""

MAX_PARTS = 256
"""Reporters, and regions, of all devices that are collected."""

MAX_NAME = 80


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a device's memory that its driver exposes."""

    where: bytes
    """Attributes that name it in a request."""
    name: str
    size: int
    snapshots: tuple[int, ...]


@dataclass(slots=True)
class Device:
    """The reporters and regions of a device."""

    reporters: list[tuple[str, bytes]] = field(default_factory=list)
    """The name of each, and the attributes that name it in a request."""
    regions: list[Region] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of the archive at most."""
        regions = (min(one.size, REGION_LIMIT) for one in self.regions for _ in one.snapshots or (0,))
        return archive_size([*(HEALTH_LIMIT for _ in self.reporters), *regions])


class Devlink:
    """One device dump, a tar archive, for each device with health reporters or regions: ``devlink_0000:02:00.0``.

    ``health/NAME`` is what ``devlink health dump show`` prints, as text with one value a line: the driver's own
    dump of that part, made now unless it has one. ``region/NAME/ID`` has the bytes of each snapshot, as
    ``devlink region dump`` prints them; a region without a snapshot gets one, which is deleted again. By generic
    netlink (Linux ``include/uapi/linux/devlink.h``, ``Documentation/networking/devlink``). Some kB to some MB.

    Dumps and snapshots from before the panic are in the memory of the crashed kernel. These come from the driver
    in the capture kernel, after it has reset the device, and contain what firmware and hardware keep.
    """

    def __init__(self, connect: Connect = connect) -> None:
        self._netlink = GenericNetlink("devlink", connect)

    def device_dumps(self) -> Iterator[tuple[str, int]]:
        """Return one for each device. Waits for the kernel's locks of these devices."""
        for name, device in self._found().items():
            yield name, device.size

    def collect(self, dump_name: str, data: BinaryIO) -> None:
        """Write all parts of one; raise OSError at the end if a part failed."""
        device = self._found().get(dump_name)
        if device is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), dump_name)
        archive = Archive(data)
        with Problems() as problems:
            for name, where in device.reporters:
                with problems.kept(), _named(f"health/{name}"):
                    text = b"".join(_bounded(self._health(where), HEALTH_LIMIT))
                    archive.add(f"health/{name}", len(text), [text])
                    if len(text) == HEALTH_LIMIT:
                        raise OSError(errno.EFBIG, f"only the first {HEALTH_LIMIT} bytes are collected")
            for region in device.regions:
                with problems.kept(), _named(f"region/{region.name}"):
                    self._add_region(archive, region)
            archive.finish()

    def _found(self) -> dict[str, Device]:
        devices: dict[str, Device] = {}
        try:
            for kind, name, where, found in self._parts(DEVLINK_CMD_HEALTH_REPORTER_GET):
                reporter = dict(attributes(found.get(DEVLINK_ATTR_HEALTH_REPORTER, b"")))
                reporter_name = reporter.get(DEVLINK_ATTR_HEALTH_REPORTER_NAME, b"")
                key = where + attribute(DEVLINK_ATTR_HEALTH_REPORTER_NAME, reporter_name)
                devices.setdefault(name, Device()).reporters.append((kind + _text(reporter_name), key))
            for kind, name, where, found in self._parts(DEVLINK_CMD_REGION_GET):
                region_name = found.get(DEVLINK_ATTR_REGION_NAME, b"")
                key = where + attribute(DEVLINK_ATTR_REGION_NAME, region_name)
                size = number(found.get(DEVLINK_ATTR_REGION_SIZE, b""))
                snapshots = tuple(_snapshots(found.get(DEVLINK_ATTR_REGION_SNAPSHOTS, b"")))
                devices.setdefault(name, Device()).regions.append(
                    Region(key, kind + _text(region_name), size, snapshots)
                )
        except OSError as error:
            # A kernel without devlink.
            if error.errno not in (errno.ENOENT, errno.EPROTONOSUPPORT):
                raise
        return devices

    def _parts(self, command: int) -> Iterator[tuple[str, str, bytes, dict[int, bytes]]]:
        """Yield of each part its port as a directory, the dump name, its device as attributes, and all of them."""
        for answer in islice(self._netlink.ask(command, dump=True), MAX_PARTS):
            found = dict(attributes(answer))
            where = b"".join(
                attribute(kind, found[kind])
                for kind in (DEVLINK_ATTR_BUS_NAME, DEVLINK_ATTR_DEV_NAME, DEVLINK_ATTR_PORT_INDEX)
                if kind in found
            )
            port = found.get(DEVLINK_ATTR_PORT_INDEX)
            kind = f"port{number(port)}/" if port else ""
            yield kind, f"devlink_{_text(found.get(DEVLINK_ATTR_DEV_NAME, b''))}"[:43], where, found

    def _health(self, where: bytes) -> Iterator[bytes]:
        text = HealthText()
        for answer in self._netlink.ask(DEVLINK_CMD_HEALTH_REPORTER_DUMP_GET, where, dump=True):
            for kind, nested in attributes(answer):
                if kind == DEVLINK_ATTR_FMSG:
                    yield from text.lines(attributes(nested))

    def _add_region(self, archive: Archive, region: Region) -> None:
        if region.snapshots:
            for snapshot in region.snapshots:
                self._add_snapshot(archive, region, snapshot)
            return
        if region.size > REGION_LIMIT:
            raise OSError(errno.EFBIG, f"a snapshot would take {region.size} bytes of the driver's memory")
        try:
            answer = b"".join(islice(self._netlink.ask(DEVLINK_CMD_REGION_NEW, region.where), 1))
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return
            raise
        snapshot = number(dict(attributes(answer)).get(DEVLINK_ATTR_REGION_SNAPSHOT_ID, b""))
        try:
            self._add_snapshot(archive, region, snapshot)
        finally:
            list(self._netlink.ask(DEVLINK_CMD_REGION_DEL, region.where + _snapshot(snapshot)))

    def _add_snapshot(self, archive: Archive, region: Region, snapshot: int) -> None:
        size = min(region.size, REGION_LIMIT)
        pieces = self._read(region.where + _snapshot(snapshot))
        archive.add(f"region/{region.name}/{snapshot}", size, _bounded(pieces, size))
        if size < region.size:
            raise OSError(errno.EFBIG, f"only the first {size} of {region.size} bytes are collected")

    def _read(self, where: bytes) -> Iterator[bytes]:
        done = 0
        for answer in self._netlink.ask(DEVLINK_CMD_REGION_READ, where, dump=True):
            chunks = dict(attributes(answer)).get(DEVLINK_ATTR_REGION_CHUNKS, b"")
            for _, chunk in attributes(chunks):
                found = dict(attributes(chunk))
                address = number(found.get(DEVLINK_ATTR_REGION_CHUNK_ADDR, b""))
                if address != done:
                    raise OSError(errno.EBADMSG, f"netlink: the chunk is at {address}, not at {done}")
                done += len(found.get(DEVLINK_ATTR_REGION_CHUNK_DATA, b""))
                yield found.get(DEVLINK_ATTR_REGION_CHUNK_DATA, b"")


def _snapshots(data: bytes) -> Iterator[int]:
    for kind, nested in attributes(data):
        if kind == DEVLINK_ATTR_REGION_SNAPSHOT:
            yield number(dict(attributes(nested)).get(DEVLINK_ATTR_REGION_SNAPSHOT_ID, b""))


def _snapshot(snapshot: int) -> bytes:
    return attribute(DEVLINK_ATTR_REGION_SNAPSHOT_ID, snapshot.to_bytes(4, sys.byteorder))


def _text(value: bytes) -> str:
    """Return a C string as a name without directories."""
    return c_string(value)[:MAX_NAME].replace("/", "_").replace(" ", "_") or "_"


def _bounded(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Yield at most *limit* bytes of *pieces*."""
    for piece in pieces:
        yield piece[:limit]
        limit -= len(piece)
        if limit <= 0:
            return


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Add *what* to an OSError."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), what) from error
