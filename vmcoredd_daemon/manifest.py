# SPDX-License-Identifier: LGPL-2.1-or-later
"""The last device dump of a vmcore, ``vmcoredd_manifest``: what the notes themselves cannot say.

A note's size is rounded up to a page and the kernel's format has no checksum, collector or time. The manifest
is JSON, followed by zeros up to the end of its note::

    {"version": 1, "producer": "vmcoredd 0.2.0", "written_usec": ...,
     "device_dumps": [{"name", "size", "limit", "sha256", "collector", "state", "started_usec", "finished_usec",
                       "error", "kind"}],
     "failures": [{"name", "collector", "error", "message", "time_usec"}], "failures_forgotten": 0,
     "source": {"path", "unreadable_pages", "missing_bytes", "error", "fallback"},
     "machine": {"host", "kernel_release", "machine_id", "boot_id", "vendor", "product", "serial", "bios"},
     "idle_collectors": [{"name", "reason"}]}

Sizes are in bytes, times in microseconds since the epoch. ``kind``, ``machine`` and ``idle_collectors`` are of
version 0.2; older manifests lack them.
"""

import json
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar, get_type_hints

from . import __version__
from .errors import InvalidArgs, InvalidVmcore
from .text import valid_json

MANIFEST_NAME = "vmcoredd_manifest"
PRODUCER = f"vmcoredd {__version__}"
MAX_SIZE = 1 << 20
"""Bytes that a reader accepts."""

_LATER = frozenset({"kind"})
"""Members of device dumps that version 0.1 did not write."""

_KIND = re.compile(r"[!-.0-~]{1,64}/[0-9]{1,9}")

_T = TypeVar("_T")


def now_usec() -> int:
    """Return the time as device dumps have it: microseconds since 1970, by the clock of this kernel."""
    return time.time_ns() // 1000


class State(StrEnum):
    """State of one device dump."""

    COLLECTING = "collecting"
    COMPLETE = "complete"
    TRUNCATED = "truncated"
    """Durable, but its source had more than it may hold, or its collector was cut off."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ManifestDump:
    """One device dump."""

    name: str
    size: int
    """True size in bytes."""
    limit: int
    """Bytes that it may hold at most, as its caller said."""
    sha256: str
    collector: str
    state: str
    started_usec: int
    finished_usec: int
    error: str = ""
    """Why it is not complete, if that is known."""
    kind: str = ""
    """Name and version of the format of the data, ``nvme/1``; see :func:`check_kind`. Empty if no one has said."""

    def dump(self) -> bytes:
        """Return the JSON text."""
        return json.dumps(valid_json(asdict(self)), separators=(",", ":")).encode("ascii")


@dataclass(frozen=True, slots=True)
class Failure:
    """One collector that failed, and why."""

    name: str
    collector: str
    error: str
    """The D-Bus error name."""
    message: str
    time_usec: int


def reason(message: str, name: str) -> str:
    """Return why the device dump *name*, or the collector of that name, failed: *message* names it first."""
    return message.removeprefix(f"device dump {name}: ").removeprefix(f"collector {name}: ")


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """Where the memory came from, and what of it is missing."""

    path: str = ""
    unreadable_pages: int = 0
    missing_bytes: int = 0
    error: str = ""
    """Why this file has not all of the memory."""
    fallback: str = ""
    """Which format was written instead of the configured one, or of the best one, and why: a sentence."""


@dataclass(frozen=True, slots=True)
class ManifestMachine:
    """The machine, and the kernel that died; a text is empty if it is not known."""

    host: str = ""
    kernel_release: str = ""
    machine_id: str = ""
    """Of the system that wrote the vmcore, machine-id(5); an initramfs may have none."""
    boot_id: str = ""
    """Of the capture kernel, /proc/sys/kernel/random/boot_id."""
    vendor: str = ""
    """As the other three of SMBIOS: Linux ``drivers/firmware/dmi-id.c``."""
    product: str = ""
    serial: str = ""
    bios: str = ""
    """Version and date."""

    @property
    def hardware(self) -> str:
        """Vendor, product and BIOS, without the serial number."""
        name = " ".join(filter(None, (self.vendor, self.product)))
        return ", ".join(filter(None, (name, self.bios and f"BIOS {self.bios}")))


_MACHINE = frozenset(each.name for each in fields(ManifestMachine))


@dataclass(frozen=True, slots=True)
class IdleCollector:
    """One collector that made no device dump, and did not fail."""

    name: str
    reason: str
    """Why: there is no such device, a condition is not met, or it is switched off."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The complete manifest."""

    producer: str
    written_usec: int
    device_dumps: tuple[ManifestDump, ...]
    failures: tuple[Failure, ...] = ()
    failures_forgotten: int = 0
    source: ManifestSource = field(default_factory=ManifestSource)
    machine: ManifestMachine = field(default_factory=ManifestMachine)
    idle_collectors: tuple[IdleCollector, ...] = ()

    def dump(self) -> bytes:
        """Return the JSON text."""
        return json.dumps(valid_json({"version": 1} | asdict(self)), separators=(",", ":")).encode("ascii")


def load(data: bytes) -> Manifest:
    """Parse a manifest and the zeros behind it. Raises InvalidVmcore, which names the field at fault."""
    try:
        content = json.loads(data.rstrip(b"\0"))
    except (ValueError, RecursionError) as error:
        raise InvalidVmcore(f"{MANIFEST_NAME}: not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("version") != 1:
        raise InvalidVmcore(f"{MANIFEST_NAME}: not of version 1")
    return Manifest(
        producer=_value(content, "producer", str),
        written_usec=_value(content, "written_usec", int),
        device_dumps=tuple(_records(content, "device_dumps", ManifestDump, _LATER)),
        failures=tuple(_records(content, "failures", Failure)),
        failures_forgotten=_value(content, "failures_forgotten", int),
        source=_record(_value(content, "source", dict), "source", ManifestSource),
        machine=_record(content.get("machine", {}), "machine", ManifestMachine, _MACHINE),
        idle_collectors=tuple(_records({"idle_collectors": []} | content, "idle_collectors", IdleCollector)),
    )


def load_dump(data: bytes) -> ManifestDump:
    """Parse the JSON of one device dump, as the spool keeps it. Raises InvalidVmcore."""
    try:
        return _record(json.loads(data), "a device dump", ManifestDump, _LATER)
    except (ValueError, RecursionError) as error:
        raise InvalidVmcore(f"a device dump's description is not JSON: {error}") from error


def check_kind(kind: str) -> None:
    """Raise InvalidArgs unless *kind* is empty, or ``NAME/VERSION``: printable ASCII without a slash, a number."""
    if kind and not _KIND.fullmatch(kind):
        raise InvalidArgs(f"kind {kind[:80]!a} is not NAME/VERSION, a name and a number")


def kind_of(collector: str, version: int) -> str:
    """Return the kind of what a registered *collector* collects; empty if its name is none for a kind."""
    kind = f"{collector}/{version}"
    return kind if _KIND.fullmatch(kind) else ""


def _records(content: Mapping[str, Any], key: str, kind: type[_T], optional: Collection[str] = ()) -> Iterator[_T]:
    for entry in _value(content, key, list):
        yield _record(entry, key, kind, optional)


def _record(entry: object, where: str, kind: type[_T], optional: Collection[str] = ()) -> _T:
    """Return *entry* as a *kind*; *optional* members may be missing."""
    if not isinstance(entry, dict):
        raise InvalidVmcore(f"{MANIFEST_NAME}: {where} holds {type(entry).__name__}, not an object")
    types = get_type_hints(kind)
    given = [name for name in types if name in entry or name not in optional]
    return kind(**{name: _value(entry, name, types[name]) for name in given})


def _value(content: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    value = content.get(key)
    # bool is an int to Python, but not to this format.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidVmcore(f"{MANIFEST_NAME}: {key} is not of type {kind.__name__}")
    return value
