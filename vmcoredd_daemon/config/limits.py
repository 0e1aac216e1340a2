# SPDX-License-Identifier: LGPL-2.1-or-later
"""The limits that the kernel's facility lacks: of device dumps, and of what callers of the bus may ask for."""

from collections.abc import Container
from dataclasses import dataclass

from ..errors import NameInUse, QuotaExceeded, TooLarge
from ..manifest import MANIFEST_NAME
from ..note import MAX_DEVICE_DUMPS


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the dump list."""

    max_dumps: int = MAX_DEVICE_DUMPS
    """crash reads NR_DEVICE_DUMPS, 64, and drops further ones in silence."""
    max_dump_size: int = 256 << 20
    """Bytes that may be reserved for one note."""
    max_total_size: int = 1 << 30
    """Bytes of all notes, of unfinished ones those that are reserved."""
    max_collecting: int = 64
    """Collectors that run at the same time; a system bus allows a connection 128 outstanding replies."""
    max_collecting_per_caller: int = 60
    """Unfinished device dumps of one caller: if all its collectors hang, other callers still have some."""
    max_failures: int = 64
    """Failures that are kept; older ones are only counted."""

    def check(
        self, name: str, note_size: int, *, names: Container[str], count: int, total_size: int, begun: int = 0
    ) -> None:
        """Raise NameInUse, TooLarge or QuotaExceeded if a device dump *name* cannot be added to the others.

        *note_size* bytes are reserved for it. There are *count* others, with *names* and *total_size* bytes in
        all; *begun* of them are unfinished ones of its caller.
        """
        if name == MANIFEST_NAME or name in names:
            why = "reserved for the manifest" if name == MANIFEST_NAME else "in use"
            raise NameInUse(f"device dump {name}: the name is {why}")
        if note_size > self.max_dump_size:
            raise TooLarge(f"device dump {name}: {note_size} bytes exceed MaxDumpSize={self.max_dump_size}")
        if count >= self.max_dumps:
            raise QuotaExceeded(f"device dump {name}: MaxDumps={self.max_dumps} is reached")
        if begun >= self.max_collecting_per_caller:
            limit = self.max_collecting_per_caller
            raise QuotaExceeded(f"device dump {name}: its caller has reached MaxCollectingPerCaller={limit}")
        total = total_size + note_size
        if total > self.max_total_size:
            raise QuotaExceeded(
                f"device dump {name}: {total} bytes in all exceed MaxTotalSize={self.max_total_size}"
            )


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What callers may ask for at the same time. A caller is a connection to the bus."""

    max_calls: int = 1024
    """Calls of all callers; each may hold 16 descriptors, and the service has 65536."""
    max_calls_per_caller: int = 128
    """As many as a system bus allows: its ``max_replies_per_connection``."""
    max_message_size: int = 64 << 10
    """Bytes of header or body of a message. A larger one is discarded as it arrives: unpacked, 32 MiB of the
    smallest variants would take gigabytes."""
