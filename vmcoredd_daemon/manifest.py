# SPDX-License-Identifier: LGPL-2.1-or-later
"""The last device dump of a vmcore, ``vmcoredd_manifest``: what the notes themselves cannot say.

A note's size is rounded up to a page and the kernel's format has no checksum, collector or time. The manifest
is JSON, followed by zeros up to the end of its note::

    {"version": 1, "producer": "vmcoredd 0.1.0", "written_usec": ...,
     "device_dumps": [{"name", "size", "limit", "sha256", "collector", "state", "started_usec", "finished_usec",
                       "error"}],
     "failures": [{"name", "collector", "error", "message", "time_usec"}], "failures_forgotten": 0,
     "source": {"path", "unreadable_pages", "missing_bytes", "error", "fallback"}}

Sizes are in bytes, times in microseconds since the epoch.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypeVar, get_type_hints

from . import __version__
from .errors import InvalidVmcore
from .text import valid_json

MANIFEST_NAME = "vmcoredd_manifest"
PRODUCER = f"vmcoredd {__version__}"
MAX_SIZE = 1 << 20
"""Bytes that a reader accepts."""

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


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """Where the memory came from, and what of it is missing."""

    path: str = ""
    unreadable_pages: int = 0
    missing_bytes: int = 0
    error: str = ""
    """Why this file has not all of the memory."""
    fallback: str = ""
    """Why this file is of another format than was asked for."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The complete manifest."""

    producer: str
    written_usec: int
    device_dumps: tuple[ManifestDump, ...]
    failures: tuple[Failure, ...] = ()
    failures_forgotten: int = 0
    source: ManifestSource = field(default_factory=ManifestSource)

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
        device_dumps=tuple(_records(content, "device_dumps", ManifestDump)),
        failures=tuple(_records(content, "failures", Failure)),
        failures_forgotten=_value(content, "failures_forgotten", int),
        source=_record(_value(content, "source", dict), "source", ManifestSource),
    )


def load_dump(data: bytes) -> ManifestDump:
    """Parse the JSON of one device dump, as the spool keeps it. Raises InvalidVmcore."""
    try:
        return _record(json.loads(data), "a device dump", ManifestDump)
    except (ValueError, RecursionError) as error:
        raise InvalidVmcore(f"a device dump's description is not JSON: {error}") from error


def _records(content: Mapping[str, Any], key: str, kind: type[_T]) -> Iterator[_T]:
    for entry in _value(content, key, list):
        yield _record(entry, key, kind)


def _record(entry: object, where: str, kind: type[_T]) -> _T:
    if not isinstance(entry, dict):
        raise InvalidVmcore(f"{MANIFEST_NAME}: {where} holds {type(entry).__name__}, not an object")
    types = get_type_hints(kind)
    return kind(**{name: _value(entry, name, types[name]) for name in types})


def _value(content: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    value = content.get(key)
    # bool is an int to Python, but not to this format.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidVmcore(f"{MANIFEST_NAME}: {key} is not of type {kind.__name__}")
    return value
