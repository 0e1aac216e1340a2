# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens to the device dumps that a vmcore already has when others are attached.

A device dump that a manifest describes is replaced by a new one with its name; a device dump that no manifest
describes is a kernel's own, and stays. All manifests are merged into one.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from ...errors import InvalidVmcore, NameInUse, QuotaExceeded
from ...manifest import (
    MANIFEST_NAME,
    MAX_SIZE,
    Failure,
    IdleCollector,
    Manifest,
    ManifestDump,
    ManifestMachine,
    ManifestSource,
    load,
)
from ...note import MAX_DEVICE_DUMPS, NT_VMCOREDD, VMCOREDD_HEADER_SIZE, Note
from ..image import Image
from ..inspect.inspect import read_manifest, search


@dataclass(frozen=True, slots=True)
class Left:
    """What a manifest says of a crash besides its device dumps."""

    failures: tuple[Failure, ...] = ()
    idle_collectors: tuple[IdleCollector, ...] = ()
    machine: ManifestMachine | None = None


@dataclass(frozen=True, slots=True)
class Merge:
    """What becomes of the device dumps and manifests that a vmcore already has."""

    replaced: frozenset[int]
    """Offsets of the notes that the vmcore loses: replaced device dumps, and merged manifests."""
    manifests: tuple[Manifest, ...]
    """Those merged, without the entries of device dumps that are replaced."""
    warnings: tuple[str, ...]
    """Why a manifest is not merged but kept as it is, each in one line."""

    def manifest(
        self,
        producer: str,
        written_usec: int,
        entries: Sequence[ManifestDump],
        failures: Sequence[Failure] = (),
        machine: ManifestMachine | None = None,
        idle_collectors: Sequence[IdleCollector] = (),
    ) -> Manifest:
        """Return the merged manifest, with what is new; without *machine*, with that of the last one."""
        return Manifest(
            producer,
            written_usec,
            (*(entry for old in self.manifests for entry in old.device_dumps), *entries),
            (*(failure for old in self.manifests for failure in old.failures), *failures),
            sum(old.failures_forgotten for old in self.manifests),
            self.manifests[-1].source if self.manifests else ManifestSource(),
            machine or (self.manifests[-1].machine if self.manifests else ManifestMachine()),
            (*(idle for old in self.manifests for idle in old.idle_collectors), *idle_collectors),
        )


def plan_merge(image: Image, notes: Iterable[Note], names: Collection[str]) -> Merge:
    """Plan the merge of new device dumps, called *names*, with those among *notes* of *image*.

    Raises NameInUse if a device dump that no manifest describes has one of *names*, and InvalidVmcore.
    """
    replaced, manifests, warnings, size = set(), [], [], 0
    for dump in search(image, notes).dumps:
        if dump.name == MANIFEST_NAME:
            try:
                text = read_manifest(image, dump)
                size += len(text)
                if size > MAX_SIZE:
                    raise InvalidVmcore(f"{MANIFEST_NAME}: all manifests together have more than {MAX_SIZE} bytes")
                manifests.append(_without_entries(load(text), names))
            except InvalidVmcore as error:
                warnings.append(f"{error}; it is kept as it is")
                continue
        elif dump.name not in names:
            continue
        elif dump.sha256 is None:
            raise NameInUse(
                f"{image.path}: has a device dump {dump.name} that no manifest describes: it is not replaced"
            )
        replaced.add(dump.offset - VMCOREDD_HEADER_SIZE)
    return Merge(frozenset(replaced), tuple(manifests), tuple(warnings))


def _without_entries(manifest: Manifest, names: Collection[str]) -> Manifest:
    kept = tuple(entry for entry in manifest.device_dumps if entry.name not in names)
    return replace(manifest, device_dumps=kept)


def check_names(
    path: str,
    notes: Iterable[Note],
    replaced: Collection[int],
    names: Sequence[str],
    most: int = MAX_DEVICE_DUMPS,
) -> None:
    """Raise NameInUse if two of *names* are the same, QuotaExceeded with more than *most* device dumps.

    *notes* are those of the vmcore, *replaced* the offsets of those that it loses.
    """
    for index, name in enumerate(names):
        if name in names[:index]:
            raise NameInUse(f"{path}: dump name {name} is given twice")
    # The manifest comes last, and crash does not need it.
    new = [name for name in names if name != MANIFEST_NAME]
    count = len(new)
    for note in notes:
        if note.n_type == NT_VMCOREDD and note.offset not in replaced:
            count += 1
        if count > most:
            raise QuotaExceeded(
                f"{path}: cannot add device dump {new[-1] if new else MANIFEST_NAME}: it would have more than the "
                f"{most} that crash reads"
            )


def check_manifest_size(path: str, text: bytes) -> None:
    """Raise QuotaExceeded if the manifest *text* is longer than readers accept."""
    if len(text) > MAX_SIZE:
        raise QuotaExceeded(f"{path}: the manifest would have {len(text)} bytes, but readers accept {MAX_SIZE}")
