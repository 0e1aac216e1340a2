# SPDX-License-Identifier: LGPL-2.1-or-later
"""One device dump, its states, and the limits that the kernel's facility lacks."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from .errors import CollectorFailed, NameInUse, QuotaExceeded, TooLarge, VmcoreddError
from .manifest import MANIFEST_NAME, Failure, ManifestDump, State
from .note import MAX_DEVICE_DUMPS, DeviceDumpNote

log = logging.getLogger(__name__)


class Change(StrEnum):
    """What happened to a device dump."""

    RESERVED = "reserved"
    ADDED = "added"
    FAILED = "failed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the kernel's facility lacks."""

    max_dumps: int = MAX_DEVICE_DUMPS
    """crash reads NR_DEVICE_DUMPS, 64, and drops further ones in silence."""
    max_dump_size: int = 256 << 20
    """Bytes of one note."""
    max_total_size: int = 1 << 30
    """Bytes of all notes."""
    max_collecting: int = 64
    """Collectors that run at once; a system bus has 128 outstanding replies for a connection."""
    max_collecting_per_caller: int = 60
    """Device dumps that one caller may have begun and not finished: one whose collectors hang leaves some room."""
    max_failures: int = 64
    """Failures that are remembered; older ones are only counted."""

    def check(self, name: str, note_size: int, others: "Taken", begun: int = 0) -> None:
        """Raise NameInUse, TooLarge or QuotaExceeded when *name*, with a note of *note_size* bytes, does not go
        with *others*, or its caller has *begun* too many already.
        """
        if name == MANIFEST_NAME or name in others:
            why = "reserved for the manifest" if name == MANIFEST_NAME else "in use"
            raise NameInUse(f"device dump {name}: the name is {why}")
        if note_size > self.max_dump_size:
            raise TooLarge(f"device dump {name}: {note_size} bytes, at most {self.max_dump_size} are allowed")
        if len(others) >= self.max_dumps:
            raise QuotaExceeded(f"device dump {name}: there are {len(others)} already, which is the limit")
        if begun >= self.max_collecting_per_caller:
            raise QuotaExceeded(f"device dump {name}: its caller has {begun} unfinished ones, which is the limit")
        total = others.size + note_size
        if total > self.max_total_size:
            raise QuotaExceeded(
                f"device dump {name}: {total} bytes in all, at most {self.max_total_size} are allowed"
            )


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


class Taken:
    """The names and bytes that are taken, by all device dumps but those that failed."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of all notes."""
        self._numbers: set[int] = set()
        self._names: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def changed(self, change: Change, dump: DeviceDump) -> None:
        """Follow the dump list."""
        if change is Change.RESERVED:
            self.take(dump)
        elif change is not Change.ADDED and dump.number in self._numbers:
            self._numbers.remove(dump.number)
            self._names[dump.name] -= 1
            if not self._names[dump.name]:
                del self._names[dump.name]
            self.size -= dump.note_size

    def take(self, dump: DeviceDump) -> None:
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


def now_usec() -> int:
    """Return the time of device dumps: microseconds since 1970, by the clock of this kernel."""
    return time.time_ns() // 1000
