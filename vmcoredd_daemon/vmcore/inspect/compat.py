# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a program does with a vmcore, foretold by the rules of its source; and the notes as such programs walk it.

crash and makedumpfile check less than we do, and each something else, so a broken file is not the same to both.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ...manifest import MANIFEST_NAME
from ...note import MAX_DEVICE_DUMPS, NT_VMCOREDD, VMCOREDD_MAX_NAME_BYTES, VMCOREDD_NOTE_NAME, ByteOrder, round_up
from ..image import Image

_NHDR_SIZE = 12
_MAX_NOTES = 1 << 17
"""Notes that are looked at; a forged file may have any number."""
_MAX_NAME = 256
_MAX_LINES = 16


@dataclass(slots=True)
class Verdict:
    """What one program does."""

    reads: bool = True
    """Whether it takes the file, and does not fall over it."""
    vmcoreinfo: bool = False
    """Whether it finds VMCOREINFO, without which it knows little of the kernel."""
    device_dumps: int = 0
    """How many it lists, or keeps."""
    problems: list[str] = field(default_factory=list)
    """Why not, or not all; each in one line."""
    remarks: list[str] = field(default_factory=list)
    """What else is to be known; each in one line."""

    def refuse(self, reason: str) -> "Verdict":
        """Make it one that does not read the file, because of *reason*, and return it."""
        self.reads, self.vmcoreinfo, self.device_dumps = False, False, 0
        self.problems.append(reason)
        return self


@dataclass(frozen=True, slots=True)
class RawNote:
    """The header of a note, whatever it says."""

    offset: int
    n_namesz: int
    n_descsz: int
    n_type: int
    name: bytes
    """The bytes behind the header: the name, if n_namesz is right, and more."""
    dump_name: bytes

    @property
    def end(self) -> int:
        """Offset behind it, if it were right."""
        return self.offset + _NHDR_SIZE + round_up(self.n_namesz, 4) + round_up(self.n_descsz, 4)


def raw_notes(image: Image, offset: int, size: int, byteorder: ByteOrder) -> Iterator[RawNote]:
    """Yield notes from *offset* on as long as they start within *size* bytes, and the file has their headers."""
    end = offset + size
    for _ in range(_MAX_NOTES):
        data = image.pread(_NHDR_SIZE + _MAX_NAME, offset) if offset < min(end, image.size) else b""
        if len(data) < _NHDR_SIZE:
            return
        namesz, descsz, n_type = struct.unpack_from(f"{byteorder.prefix}III", data)
        start = _NHDR_SIZE + round_up(namesz, 4)
        note = RawNote(
            offset, namesz, descsz, n_type, data[_NHDR_SIZE:], data[start : start + VMCOREDD_MAX_NAME_BYTES]
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
                verdict.problems.append(f"takes n_namesz of device dump {count - 1} for {known}: {note.n_namesz}")
            if b"\0" not in note.dump_name:
                verdict.remarks.append(f"device dump {count - 1} has no NUL in its name: it prints more than that")
            # Of 64 of them and their manifest, it drops the manifest, which says nothing of a device.
            lost |= count > MAX_DEVICE_DUMPS and note.dump_name.partition(b"\0")[0] != MANIFEST_NAME.encode()
        verdict.vmcoreinfo |= is_vmcoreinfo(note)
    # A forged file may have any number of them.
    del verdict.problems[_MAX_LINES:], verdict.remarks[_MAX_LINES:]
    verdict.device_dumps = min(count, MAX_DEVICE_DUMPS)
    if count > MAX_DEVICE_DUMPS:
        said = verdict.problems if lost else verdict.remarks
        said.append(f"drops {count - MAX_DEVICE_DUMPS} of {count} device dumps in silence")


def is_vmcoreinfo(note: RawNote) -> bool:
    """Tell whether *note* is VMCOREINFO of Linux, not of Xen."""
    return note.name.startswith(b"VMCOREINFO") and not note.name.startswith(b"VMCOREINFO_XEN")
