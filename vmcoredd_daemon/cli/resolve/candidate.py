# SPDX-License-Identifier: LGPL-2.1-or-later
"""A vmcore that may be that of a crash which has left device dumps: what it says of its crash, and what it has.

It is of the same crash if it has the VMCOREINFO that was recorded with the device dumps, or if its manifest names
the boot of their capture kernel; and if neither of the two says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import of_storage
from ...files import sync_file
from ...manifest import ManifestDump
from ...vmcore import kdump
from ...vmcore.formats import Vmcore, recognise
from ...vmcore.image import file_image
from ...vmcore.inspect import crash
from ...vmcore.inspect.inspect import find_in, held
from ...vmcore.page_data import cut_off_at
from ...vmcore.vmcoreinfo import of_panic
from ..operands import open_vmcore
from ..vmcores import is_incomplete
from .left_over import LeftOver


@dataclass(frozen=True, slots=True)
class Candidate:
    """A vmcore that can be read."""

    path: str
    complete: bool
    """Whether it has all of its memory, and nothing is wrong with it."""
    boot_id: str
    """Of its capture kernel, by its manifest; empty if it is not known."""
    vmcoreinfo: bytes | None
    """Of the kernel that died; None if it is not known."""
    has_manifest: bool
    entries: Mapping[str, ManifestDump | None]
    """The device dumps by name, each with its manifest entry, if it has one."""
    held: frozenset[ManifestDump]
    """Those that were asked for: they are on disk, and their data have the SHA-256 of their manifest entries."""

    def is_of_crash(self, left: LeftOver) -> bool | None:
        """Return whether it is the vmcore of the crash that has *left* device dumps; None if that is not known."""
        pairs = ((self.boot_id, left.boot_id), (self.vmcoreinfo, left.vmcoreinfo))
        evidence = [ours == theirs for ours, theirs in pairs if ours and theirs]
        return all(evidence) if evidence else None


def look_at(path: str, wanted: frozenset[ManifestDump]) -> Candidate:
    """Return what the vmcore at *path* has of *wanted*, once that is on disk. Blocks.

    Raises InvalidVmcore, and for one that is compressed NoSpace and WriteFailed.
    """
    with open_vmcore(path) as fd:
        vmcore = recognise(file_image(fd, path))
        found = find_in(vmcore)
        complete = not found.problems and not _is_incomplete(path, vmcore)
        entries = {dump.name: dump.entry for dump in found.device_dumps}
        has = frozenset[ManifestDump]()
        if complete and not wanted.isdisjoint(entries.values()):
            try:
                sync_file(path)
            except OSError as error:
                raise of_storage(error, f"{path}: cannot be synced") from error
            has = held(found, wanted)
        return Candidate(
            path,
            complete,
            found.manifest.machine.boot_id if found.manifest else "",
            of_panic(vmcore.image, vmcore.notes()),
            found.manifest is not None,
            entries,
            has,
        )


def _is_incomplete(path: str, vmcore: Vmcore) -> bool:
    if is_incomplete(path) or crash.is_incomplete(vmcore.image):
        return True
    return kdump.is_kdump(vmcore.image) and cut_off_at(vmcore.image, kdump.read_header(vmcore.image)) is not None
