# SPDX-License-Identifier: LGPL-2.1-or-later
"""The control page of faults.c, and a daemon that is started with it."""

import mmap
import os
import re
import struct
import subprocess
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

from tests.lib.service import Service

KINDS = (
    *("open", "write", "read", "fsync", "link", "rename", "unlink", "ftruncate", "fallocate", "memfd_create"),
    *("fcntl", "flock", "mkdir", "statvfs", "stat", "readdir", "pthread_create", "fork", "pipe", "mmap", "copy"),
    *("malloc", "close", "lseek"),
)
ENTRIES, TEXT, PREFIX = 4096, 160, 256
_HEAD = struct.Struct("=7i4xQQ")
_PATTERN = _HEAD.size + PREFIX
_HIT = _PATTERN + TEXT
_LOG = _HIT + TEXT


class Mode(IntEnum):
    """What happens at the step."""

    OFF = 0
    COUNT = 1
    FAIL = 2
    SHORT = 3
    KILL = 4
    KILL_AFTER = 5


def build(directory: Path) -> Path:
    """Compile faults.c."""
    library = directory / "faults.so"
    source = Path(__file__).with_name("faults.c")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-std=gnu17", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


class Control:
    """One control page, for one process: the first that is started with it."""

    def __init__(self, path: Path, prefix: Path) -> None:
        size = _LOG + ENTRIES * TEXT
        with path.open("w+b") as file:
            file.truncate(size)
            self._page = mmap.mmap(file.fileno(), size)
        self._page[_HEAD.size : _HEAD.size + PREFIX] = os.fsencode(prefix).ljust(PREFIX, b"\0")
        self._prefix = str(prefix)

    def arm(
        self,
        mode: Mode,
        pattern: str = "",
        target: int = -1,
        error: int = 0,
        kinds: Sequence[str] = (),
        ignored: Sequence[str] = (),
    ) -> None:
        """Let a step fail, and behind it all that are of these *kinds*: number *target* of those like *pattern*.

        They are counted from now and from 0. Calls of the kinds *ignored* are no steps.
        """
        self._page[_PATTERN:_HIT] = pattern.encode().ljust(TEXT, b"\0")
        pid = struct.unpack_from("=i", self._page)[0]
        # The mode comes last: until then nothing is counted.
        _HEAD.pack_into(self._page, 0, pid, Mode.OFF, 0, target, error, 0, 0, _bits(kinds), _bits(ignored))
        struct.pack_into("=i", self._page, 4, mode)

    def disarm(self) -> None:
        """Let everything succeed."""
        struct.pack_into("=i", self._page, 4, Mode.OFF)

    @property
    def hit(self) -> str:
        """The first call that failed, or an empty string."""
        hits = _HEAD.unpack_from(self._page)[6]
        return self._text(_HIT) if hits else ""

    @property
    def steps(self) -> list[str]:
        """The calls since :meth:`arm`."""
        count = min(_HEAD.unpack_from(self._page)[2], ENTRIES)
        return [self._text(_LOG + number * TEXT) for number in range(count)]

    def _text(self, offset: int) -> str:
        return self._page[offset : offset + TEXT].split(b"\0")[0].decode().replace(self._prefix, "").strip()


def pattern_of(step: str) -> str:
    """Return a pattern for fnmatch(3) that the same step has in every run, whatever the time and the inode."""
    kind, _, path = step.partition(" ")
    return f"{kind} *" + re.sub(r"\d{4}-\d\d-\d\d-[\d:.-]+|(?<=#)\d+", "*", path)


def _bits(kinds: Sequence[str]) -> int:
    return sum(1 << KINDS.index(kind) for kind in kinds)


class FaultyService(Service):
    """A daemon whose calls fail; with *library* None, one whose calls do not."""

    library: Path | None = None
    page: Path | None = None

    def _command(self) -> Sequence[str]:
        command = super()._command()
        if self.library is None:
            return command
        return ["env", f"LD_PRELOAD={self.library}", f"VMCOREDD_FAULTS={self.page}", *command]
