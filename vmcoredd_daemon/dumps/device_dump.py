# SPDX-License-Identifier: LGPL-2.1-or-later
"""One device dump, what happens to it, who is told, and what all of them together use."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, ParamSpec

from ..errors import CollectorFailed, VmcoreddError
from ..manifest import Failure, IdleCollector, ManifestDump, State, now_usec
from ..note import DeviceDumpNote

log = logging.getLogger(__name__)

_P = ParamSpec("_P")


class Change(StrEnum):
    """What happened to a device dump."""

    RESERVED = "reserved"
    ADDED = "added"
    FAILED = "failed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class DeviceDump:
    """One device dump, as it is at this moment."""

    number: int
    name: str
    limit: int
    """Bytes that it may hold at most."""
    note_size: int
    """Bytes of its note; until it is complete, those that are reserved for it."""
    collector: str
    started_usec: int = field(default_factory=now_usec)
    state: State = State.COLLECTING
    size: int = 0
    """True size in bytes, 0 until it is complete."""
    sha256: str = ""
    finished_usec: int = 0
    error: VmcoreddError | None = None
    """Why it failed or is truncated."""
    note: DeviceDumpNote | None = None
    caller: str = ""
    """Unique name of the connection that asked for it, empty for the service itself."""
    kind: str = ""
    """Name and version of the format of its data, ``nvme/1``; empty if no one has said."""
    keep_size: bool = False
    """Whether its note keeps the bytes that are reserved, as in the kernel."""

    @classmethod
    def restored(cls, number: int, record: ManifestDump, note: DeviceDumpNote) -> "DeviceDump":
        """Return the device dump that an earlier daemon has left in the spool."""
        return cls(
            number=number,
            name=record.name,
            limit=record.limit,
            note_size=note.note_size,
            collector=record.collector,
            started_usec=record.started_usec,
            state=State(record.state),
            size=record.size,
            sha256=record.sha256,
            finished_usec=record.finished_usec,
            error=CollectorFailed(record.error) if record.error else None,
            note=note,
            kind=record.kind,
        )

    def failure(self) -> Failure:
        """Return what the manifest says of one that failed."""
        return Failure(
            name=self.name,
            collector=self.collector,
            error=self.error.dbus_name if self.error else "",
            message=str(self.error),
            time_usec=self.finished_usec,
        )

    def record(self, sha256: str = "") -> ManifestDump:
        """Return what the manifest says of it, with *sha256* while it has none of its own."""
        return ManifestDump(
            name=self.name,
            size=self.size,
            limit=self.limit,
            sha256=sha256 or self.sha256,
            collector=self.collector,
            state=self.state.value,
            started_usec=self.started_usec,
            finished_usec=self.finished_usec,
            error="" if self.error is None else str(self.error),
            kind=self.kind,
        )


class Usage:
    """The names and bytes in use: of all device dumps but those that failed."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of all notes, of unfinished ones those that are reserved."""
        self._sizes: dict[int, int] = {}
        self._names: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def changed(self, change: Change, dump: DeviceDump) -> None:
        """Follow the dump list."""
        if change is Change.RESERVED:
            self.add(dump)
        elif dump.number in self._sizes:
            self.size -= self._sizes.pop(dump.number)
            self._names[dump.name] -= 1
            if not self._names[dump.name]:
                del self._names[dump.name]
            if change is Change.ADDED:
                # Its note has its true size now.
                self.add(dump)

    def add(self, dump: DeviceDump) -> None:
        """Add a device dump. One that fails immediately, or was left in the spool, may share its name."""
        self._sizes[dump.number] = dump.note_size
        self._names[dump.name] += 1
        self.size += dump.note_size


class Listeners(list[Callable[_P, None]], Generic[_P]):
    """Functions that are told what happens."""

    def notify(self, what: str, *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Call all of them; *what* happened is for the log."""
        for listener in self:
            try:
                listener(*args, **kwargs)
            except Exception:
                # A listener cannot make fail what has happened: a device dump, or a vmcore that is on disk.
                log.exception("%s: cannot announce it", what)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The dump list at one moment."""

    generation: int
    """Grows with every change of what a vmcore would hold."""
    records: tuple[ManifestDump, ...]
    notes: tuple[DeviceDumpNote, ...]
    """In the order in which they were appended."""
    failures: tuple[Failure, ...]
    failures_forgotten: int
    idle_collectors: tuple[IdleCollector, ...] = ()
