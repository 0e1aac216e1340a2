# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manifest as a device dump: written with the others, and completed when it is known how the copy went."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from ..dumps.device_dump import Snapshot
from ..files import close
from ..manifest import MANIFEST_NAME, PRODUCER, Manifest, ManifestMachine, ManifestSource, now_usec
from ..note import (
    VMCOREDD_HEADER_SIZE,
    DeviceDumpNote,
    note_size,
    pack_vmcoredd_header,
    system_byteorder,
    system_page_size,
)
from ..vmcore.copy.extents import CopyReport
from ..vmcore.copy.write import Complete
from .job import Job
from .machine import machine_of

_GROWTH = 512
"""Bytes by which the manifest may grow when it is completed: counts, and why memory is missing."""

_REASON = 400
"""Characters that a reason may have, so that it fits."""


@dataclass(frozen=True, slots=True)
class OwnNote:
    """What the service adds to the device dumps of a vmcore: the manifest, or nothing."""

    notes: tuple[DeviceDumpNote, ...] = ()
    complete: Complete | None = None
    """Completes the manifest."""
    problem: str = ""
    """Why the manifest is missing, if it should be there."""


@contextmanager
def own_note(job: Job, source: ManifestSource) -> Iterator[OwnNote]:
    """Provide the manifest of what *job* writes; if there is no memory for it, the vmcore is written without."""
    with ExitStack() as stack:
        if not job.output.manifest:
            yield OwnNote()
            return
        try:
            note, complete = stack.enter_context(manifest_note(job.snapshot, source, machine_of(job)))
        except OSError as error:
            own = OwnNote(problem=f"it has no manifest: {error.strerror}")
        except MemoryError:
            own = OwnNote(problem="it has no manifest: not enough memory")
        else:
            own = OwnNote((note,), complete)
        yield own


@contextmanager
def manifest_note(
    snapshot: Snapshot, source: ManifestSource, machine: ManifestMachine
) -> Iterator[tuple[DeviceDumpNote, Complete]]:
    """Provide the note of a snapshot's manifest, in memory, and the function that completes it. Raises OSError."""
    source = replace(source, error=source.error[:_REASON], fallback=source.fallback[:_REASON])
    data = _manifest(snapshot, source, machine).dump()
    size = note_size(len(data) + _GROWTH, system_page_size())
    header = pack_vmcoredd_header(MANIFEST_NAME.encode("ascii"), size, system_byteorder())
    fd = os.memfd_create(MANIFEST_NAME, os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(header + data)
            file.truncate(size)
        note = DeviceDumpNote(MANIFEST_NAME, fd, size, len(data), "")
        yield note, partial(_complete, snapshot, source, machine, size - VMCOREDD_HEADER_SIZE)
    finally:
        close(fd)


def _complete(
    snapshot: Snapshot, source: ManifestSource, machine: ManifestMachine, space: int, report: CopyReport
) -> bytes:
    error = source.error
    if report.left_out and not error:
        stopped = f"the source stopped responding: {report.left_out} bytes are missing"
        error = stopped if report.blocked else f"no space for {report.left_out} bytes"
    source = replace(
        source,
        unreadable_pages=report.unreadable_pages,
        missing_bytes=source.missing_bytes + report.missing_bytes + report.left_out,
        error=error,
    )
    data = _manifest(snapshot, source, machine).dump()
    # If it is too long, the manifest stays as it was before the copy.
    return data if len(data) <= space else b""


def _manifest(snapshot: Snapshot, source: ManifestSource, machine: ManifestMachine) -> Manifest:
    return Manifest(
        PRODUCER,
        now_usec(),
        snapshot.records,
        snapshot.failures,
        snapshot.failures_forgotten,
        source,
        machine,
        snapshot.idle_collectors,
    )
