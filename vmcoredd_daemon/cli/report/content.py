# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the page says, before it is HTML."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from ...decoders.decoded import Decoded
from ...manifest import MANIFEST_NAME, Failure, Manifest, State
from ...vmcore.inspect.inspect import FoundDump
from ...vmcore.inspect.summary import Summary
from ..operands import unused_file_name

REDACTED = "[redacted]"
"""Stands for what identifies a machine or its owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A device dump of the vmcore, and what it says."""

    dump: FoundDump
    decoded: Decoded
    """As much as fits into the page."""
    left_out: int = 0
    """Bytes of it that did not fit."""

    @property
    def troubled(self) -> bool:
        """Whether its data are not what its collector was asked for."""
        return self.dump.verified is False or self.incomplete

    @property
    def incomplete(self) -> bool:
        """Whether its collector was cut off."""
        return self.dump.entry is not None and self.dump.entry.state != State.COMPLETE

    @property
    def is_manifest(self) -> bool:
        """Whether it is what the other device dumps are described in."""
        return self.dump.name == MANIFEST_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A vmcore and its device dumps. None, or an empty text, is what is not known."""

    file_name: str
    """Without its directory, which is another one wherever the page is read."""
    size: int
    """Bytes of the file."""
    format: str
    machine: str
    """As uname(2) calls it."""
    host: str | None
    hardware: str | None
    """As the kernel's log has it."""
    summary: Summary
    panic: str | None
    log: str
    """The end of the kernel's log."""
    manifest: Manifest | None
    entries: tuple[Entry, ...]
    """In the order of the file."""
    failures: tuple[Failure, ...]
    problems: tuple[str, ...]
    """What is wrong with the file."""
    redacted: bool = False

    @property
    def dumps(self) -> tuple[Entry, ...]:
        """The device dumps, without the manifest, those with faults first, then those with findings."""
        dumps = (entry for entry in self.entries if not entry.is_manifest)
        return tuple(sorted(dumps, key=lambda entry: (not entry.troubled, not entry.decoded.findings)))


def extraction(report: Report) -> Iterator[tuple[Entry, str]]:
    """Yield each device dump with the command that extracts it."""
    names = [entry.dump.name for entry in report.entries]
    taken: set[str] = set()
    for entry in report.entries:
        name, index = entry.dump.name, entry.dump.index
        file = unused_file_name(name, index, taken)
        # A reader must be able to type it; and vmcoredd extract takes digits for an index.
        plain = name.isprintable() and not name.isdecimal() and not name.startswith("-") and REDACTED not in name
        operand = name if plain and names.count(name) == 1 else str(index)
        words = ["vmcoredd", "extract", as_operand(report.file_name), operand, "-o", as_operand(file)]
        yield entry, shlex.join(words)


def as_operand(file_name: str) -> str:
    """Return *file_name* as a program does not take it for an option."""
    return f"./{file_name}" if file_name.startswith("-") else file_name
