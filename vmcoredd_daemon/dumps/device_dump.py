# SPDX-License-Identifier: LGPL-2.1-or-later
"""One device dump, its states, and the limits that the kernel's facility lacks."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from ..errors import CollectorFailed, VmcoreddError
from ..manifest import Failure, ManifestDump, State
from ..note import DeviceDumpNote

log = logging.getLogger(__name__)


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
    collector: str
    started_usec: int
    state: State = State.COLLECTING
    size: int = 0
    """True size in bytes, 0 until it is complete."""
    sha256: str = ""
    finished_usec: int = 0
    error: VmcoreddError | None = None
    """Why it failed, or is truncated."""
    note: DeviceDumpNote | None = None
    caller: str = ""
    """Unique name of the connection that asked for it, empty for the service itself."""

    @classmethod
    def restored(cls, number: int, record: ManifestDump, note: DeviceDumpNote) -> "DeviceDump":
        """Return the device dump that an earlier daemon has left in the spool."""
        return cls(
            number,
            record.name,
            record.limit,
            note.note_size,
            record.collector,
            record.started_usec,
            State(record.state),
            record.size,
            record.sha256,
            record.finished_usec,
            CollectorFailed(record.error) if record.error else None,
            note,
        )

    def failure(self) -> Failure:
        """Return what the manifest says of it, when it failed."""
        name = self.error.dbus_name if self.error else ""
        return Failure(self.name, self.collector, name, str(self.error), self.finished_usec)

    def described(self, sha256: str) -> ManifestDump:
        """Return what the manifest will say of it, with its SHA-256."""
        return replace(self, sha256=sha256).record()

    def record(self) -> ManifestDump:
        """Return what the manifest says of it."""
        return ManifestDump(
            self.name,
            self.size,
            self.limit,
            self.sha256,
            self.collector,
            self.state.value,
            self.started_usec,
            self.finished_usec,
            "" if self.error is None else str(self.error),
        )


class Usage:
    """The names and bytes that are taken, by all device dumps but those that failed."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of all notes."""
        self._numbers: set[int] = set()
        self._names: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def changed(self, change: Change, dump: DeviceDump) -> None:
        """Follow the dump list."""
        if change is Change.RESERVED:
            self.add(dump)
        elif change is not Change.ADDED and dump.number in self._numbers:
            self._numbers.remove(dump.number)
            self._names[dump.name] -= 1
            if not self._names[dump.name]:
                del self._names[dump.name]
            self.size -= dump.note_size

    def add(self, dump: DeviceDump) -> None:
        """Add a device dump. One that fails at once, or was left in the spool, may be called like another."""
        self._numbers.add(dump.number)
        self._names[dump.name] += 1
        self.size += dump.note_size


class Listeners(list[Callable[[Change, DeviceDump], None]]):
    """Who is told what happens to device dumps."""

    def notify(self, change: Change, dump: DeviceDump) -> None:
        """Tell all of them."""
        for listener in self:
            try:
                listener(change, dump)
            except Exception:
                # Who only wants to know cannot make a device dump fail.
                log.exception("Device dump %s: cannot announce that it is %s", dump.name, change)


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
