# SPDX-License-Identifier: LGPL-2.1-or-later
"""What becomes of the device dumps that a vmcore has, when others are put into it.

A device dump that a manifest describes, and that has the name of a new one, is replaced; one that no manifest
describes is a kernel's own, and stays. All manifests become one.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from ...errors import InvalidVmcore, NameInUse, QuotaExceeded
from ...manifest import MANIFEST_NAME, MAX_SIZE, Failure, Manifest, ManifestDump, ManifestSource, load
from ...note import MAX_DEVICE_DUMPS, NT_VMCOREDD, VMCOREDD_HEADER_SIZE, Note
from ..image import Image
from ..inspect.inspect import read_manifest, search


@dataclass(frozen=True, slots=True)
class Merge:
    """The device dumps that are there already, and their manifests."""

    replaced: frozenset[int]
    """Offsets of the notes that are left out."""
    manifests: tuple[Manifest, ...]
    """Without what they say of device dumps that are replaced."""
    warnings: tuple[str, ...]
    """Manifests that stay as they are, and why, each in one line."""

    def manifest(
        self, producer: str, written_usec: int, entries: Sequence[ManifestDump], failures: Sequence[Failure] = ()
    ) -> Manifest:
        """Return the one manifest of all: of what stays, of the new *entries* and *failures*."""
        return Manifest(
            producer,
            written_usec,
            (*(entry for old in self.manifests for entry in old.device_dumps), *entries),
            (*(failure for old in self.manifests for failure in old.failures), *failures),
            sum(old.failures_forgotten for old in self.manifests),
            self.manifests[-1].source if self.manifests else ManifestSource(),
        )


def plan_merge(image: Image, notes: Iterable[Note], names: Collection[str]) -> Merge:
    """Return what is among *notes* of *image*, for new device dumps with these *names*.

    Raises NameInUse for a name of a device dump that is not replaced, InvalidVmcore.
    """
    replaced, manifests, warnings, size = set(), [], [], 0
    for dump in search(image, notes).dumps:
        if dump.name == MANIFEST_NAME:
            try:
                text = read_manifest(image, dump)
                size += len(text)
                if size > MAX_SIZE:
                    raise InvalidVmcore(f"{MANIFEST_NAME}: all of them have more than {MAX_SIZE} bytes")
                manifests.append(_without(load(text), names))
            except InvalidVmcore as error:
                warnings.append(f"{error}; it is kept as it is")
                continue
        elif dump.name not in names:
            continue
        elif dump.sha256 is None:
            raise NameInUse(
                f"{image.path}: has a device dump {dump.name} "
                "that no manifest describes, and which is not replaced"
            )
        replaced.add(dump.offset - VMCOREDD_HEADER_SIZE)
    return Merge(frozenset(replaced), tuple(manifests), tuple(warnings))


def _without(manifest: Manifest, names: Collection[str]) -> Manifest:
    kept = tuple(entry for entry in manifest.device_dumps if entry.name not in names)
    return replace(manifest, device_dumps=kept)


def check_names(path: str, notes: Iterable[Note], replaced: Collection[int], names: Sequence[str]) -> None:
    """Raise NameInUse when two of *names* are the same, QuotaExceeded when crash would not find them all.

    *notes* are those of the vmcore, *replaced* the offsets of those that are left out.
    """
    for index, name in enumerate(names):
        if name in names[:index]:
            raise NameInUse(f"{path}: two device dumps are to be called {name}")
    # The manifest comes last: crash not finding it is no harm.
    new = [name for name in names if name != MANIFEST_NAME]
    count = len(new)
    for note in notes:
        if note.n_type == NT_VMCOREDD and note.offset not in replaced:
            count += 1
        if count > MAX_DEVICE_DUMPS:
            raise QuotaExceeded(
                f"{path}: no room for device dump {new[-1] if new else MANIFEST_NAME}: it would have more than "
                f"{MAX_DEVICE_DUMPS}, and crash reads no more"
            )


def check_manifest_size(path: str, text: bytes) -> None:
    """Raise QuotaExceeded when nobody would read a manifest of this *text*."""
    if len(text) > MAX_SIZE:
        raise QuotaExceeded(f"{path}: the manifest would have {len(text)} bytes, at most {MAX_SIZE} are read")
