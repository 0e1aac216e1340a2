# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that are to become device dumps, and the names that they may have."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import InvalidArgs, NameInUse, QuotaExceeded
from ...manifest import MANIFEST_NAME, ManifestDump
from ...note import MAX_DEVICE_DUMPS, check_dump_name

COLLECTOR = "vmcoredd attach"
"""What the manifest says of them."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A device dump to be."""

    dump_name: str
    path: str
    """``-`` may be standard input."""
    described: ManifestDump | None = field(default=None, kw_only=True)
    """What the manifest says of it, where it was taken before: then the file is a note, and the data follow its
    header.
    """


@dataclass(frozen=True, slots=True)
class OpenFile(NamedFile):
    """One that is open, and is read once."""

    fd: int
    size: int
    """Bytes; more are not read, and zeros stand in for what is missing."""
    offset: int = 0
    """Bytes of the file before the data."""


def check_files(files: Sequence[NamedFile]) -> None:
    """Raise InvalidArgs for a wrong name, NameInUse for one that comes twice, QuotaExceeded for too many."""
    names = [file.dump_name for file in files]
    for index, name in enumerate(names):
        check_dump_name(name)
        if name == MANIFEST_NAME:
            raise InvalidArgs(f"dump name {name} is that of the manifest")
        if name in names[:index]:
            raise NameInUse(f"two device dumps are to be called {name}")
    if len(files) > MAX_DEVICE_DUMPS:
        raise QuotaExceeded(
            f"no room for device dump {names[MAX_DEVICE_DUMPS]}: crash reads {MAX_DEVICE_DUMPS} device dumps"
        )
