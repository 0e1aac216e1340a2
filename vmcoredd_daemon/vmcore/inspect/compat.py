# SPDX-License-Identifier: LGPL-2.1-or-later
"""What crash and makedumpfile do with a vmcore, predicted by the rules of their source; how they walk its notes.

Both check less than we do, and each checks something else, so they treat a broken file differently.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ...manifest import MANIFEST_NAME
from ...note import (
    MAX_DEVICE_DUMPS,
    NHDR_SIZE,
    NT_VMCOREDD,
    VMCOREDD_MAX_NAME_BYTES,
    VMCOREDD_NOTE_NAME,
    ByteOrder,
    round_up,
)
from ..image import Image

_MAX_NOTES = 1 << 17
"""Notes that are looked at; a forged file may have any number."""
_MAX_NAME = 256
_MAX_LINES = 16


@dataclass(slots=True)
class Verdict:
    """What one program does with the file."""

    reads: bool = True
    """Whether it accepts the file, and does not crash on it."""
    vmcoreinfo: bool = False
    """Whether it finds VMCOREINFO, without which it knows little of the kernel."""
    device_dumps: int | None = 0
    """How many it lists (crash) or keeps (makedumpfile); None if that is not known."""
    problems: list[str] = field(default_factory=list)
    """Why it does not read the file, or not all of it; each in one line."""
    remarks: list[str] = field(default_factory=list)
    """What else the user should know; each in one line."""

    def refuse(self, reason: str) -> "Verdict":
        """Say that the program does not read the file, because of *reason*; return this verdict."""
        self.reads, self.vmcoreinfo, self.device_dumps = False, False, 0
        self.problems.append(reason)
        return self

    def unknown(self, reason: str) -> None:
        """Say that it is not known, because of *reason*, what the program makes of the device dumps."""
        self.device_dumps = None
        self.remarks.append(f"not known for {reason}")


@dataclass(frozen=True, slots=True)
class RawNote:
    """The header of a note, unchecked."""

    offset: int
    n_namesz: int
    n_descsz: int
    n_type: int
    name: bytes
    """The bytes behind the header: the name, if n_namesz is right, and what follows."""
    dump_name: bytes

    @property
    def end(self) -> int:
        """Offset behind the note, as its header says."""
        return self.offset + NHDR_SIZE + round_up(self.n_namesz, 4) + round_up(self.n_descsz, 4)


def raw_notes(image: Image, offset: int, size: int, byteorder: ByteOrder) -> Iterator[RawNote]:
    """Yield notes from *offset* on as long as they start within *size* bytes, and the file has their headers."""
    end = offset + size
    for _ in range(_MAX_NOTES):
        data = image.pread(NHDR_SIZE + _MAX_NAME, offset) if offset < min(end, image.size) else b""
        if len(data) < NHDR_SIZE:
            return
        namesz, descsz, n_type = struct.unpack_from(f"{byteorder.prefix}III", data)
        start = NHDR_SIZE + round_up(namesz, 4)
        note = RawNote(
            offset, namesz, descsz, n_type, data[NHDR_SIZE:], data[start : start + VMCOREDD_MAX_NAME_BYTES]
        )
        yield note
        offset = note.end


def count_for_crash(verdict: Verdict, notes: Iterable[RawNote]) -> None:
    """Count the device dumps that crash lists among *notes*, of which it stores ``NR_DEVICE_DUMPS``."""
    count, lost = 0, False
    for note in notes:
        if note.n_type == NT_VMCOREDD:
            count += 1
            if note.n_namesz != len(VMCOREDD_NOTE_NAME):
                known = len(VMCOREDD_NOTE_NAME)
                verdict.problems.append(
                    f"assumes n_namesz {known} of device dump {count - 1}: it is {note.n_namesz}"
                )
            if b"\0" not in note.dump_name:
                verdict.remarks.append(f"prints more than the name of device dump {count - 1}, which has no NUL")
            # The manifest is no loss: it describes no device.
            lost |= count > MAX_DEVICE_DUMPS and note.dump_name.partition(b"\0")[0] != MANIFEST_NAME.encode()
        verdict.vmcoreinfo |= is_vmcoreinfo(note)
    # A forged file may have any number of them.
    del verdict.problems[_MAX_LINES:], verdict.remarks[_MAX_LINES:]
    verdict.device_dumps = min(count, MAX_DEVICE_DUMPS)
    if count > MAX_DEVICE_DUMPS:
        said = verdict.problems if lost else verdict.remarks
        said.append(f"silently drops {count - MAX_DEVICE_DUMPS} of {count} device dumps")


def is_vmcoreinfo(note: RawNote) -> bool:
    """Return whether *note* is the VMCOREINFO of Linux, not of Xen."""
    return note.name.startswith(b"VMCOREINFO") and not note.name.startswith(b"VMCOREINFO_XEN")
