# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write the vmcore as an ELF core file, as the kernel lays it out: with the memory of the source, or without."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..errors import InvalidVmcore
from ..journal import Event, record
from ..manifest import ManifestSource
from ..note import DeviceDumpNote, Note, system_byteorder, system_page_size
from ..vmcore.copy.extents import CopyReport
from ..vmcore.copy.source import Reads, TimedFile, TimedNotes
from ..vmcore.copy.write import VMCORE_INCOMPLETE, write_vmcore
from ..vmcore.elf import Headers, empty_headers, reachable, read_headers, walk
from ..vmcore.image import Image
from ..vmcore.layout import Layout, Source, plan
from .job import Job, report_altered
from .manifest_note import own_note
from .result import DEVICE_DUMPS_ONLY, VMCORE, WRITING, WriteResult


def write_elf(job: Job, fallback: str = "") -> WriteResult:
    """Write the source's memory, or as much of it as the target has space for, with the device dumps in it.

    *fallback* says that it is not as makedumpfile would filter it, and why. Blocks. Raises InvalidVmcore if the
    source cannot be read, QuotaExceeded if its notes and ours are more than crash reads, NoSpace and WriteFailed.
    """
    try:
        fd = job.reads.open(job.source)
    except OSError as error:
        raise InvalidVmcore(f"{job.source}: cannot open the source: {error.strerror}") from error
    job.progress.start(WRITING)
    try:
        reads = TimedFile(job.reads, fd, TimedNotes(job.spool_reads))
        image = reads.image(str(job.source))
        found = reachable(read_headers(image))
        headers = found.headers
        if headers.byteorder is not system_byteorder():
            raise InvalidVmcore(f"{job.source}: has the byte order of another machine, {headers.byteorder} endian")
        planned = partial(plan, Source(fd, image.size), headers, _notes(image, headers))
        if found.problem:
            _report_unreachable(job, found.problem)
        described = ManifestSource(
            str(job.source), missing_bytes=found.missing, error=found.problem, fallback=fallback
        )
        return _copy(job, VMCORE, planned, described, reads, partial=bool(found.problem))
    finally:
        job.reads.close(fd)


def write_device_dumps(job: Job, reason: str) -> WriteResult:
    """Write the device dumps alone, because of *reason*. Blocks. Raises QuotaExceeded, NoSpace and WriteFailed."""
    planned = partial(plan, Source(-1, 0), empty_headers(), ())
    described = ManifestSource(str(job.source), error=reason)
    return _copy(job, DEVICE_DUMPS_ONLY, planned, described, TimedNotes(job.spool_reads))


def _copy(
    job: Job,
    name: str,
    planned: Callable[[Sequence[DeviceDumpNote], int], Layout],
    described: ManifestSource,
    reads: Reads,
    *,
    partial: bool = False,
) -> WriteResult:
    """Write what is *planned*; *partial* is as for :func:`write_vmcore`."""
    with own_note(job, described) as own:
        layout = planned([*job.snapshot.notes, *own.notes], system_page_size())
        _warn_if_small(job, layout)
        job.progress.start(WRITING, layout.copied)
        report = write_vmcore(layout, job.directory, name, job.progress, own.complete, reads, partial=partial)
    errors, path = [described.error, _report(job, report), own.problem], job.directory / name
    if report.left_out or partial:
        path = path.with_name(VMCORE_INCOMPLETE)
    if report.left_out:
        missing = f"{report.left_out} of {layout.size} bytes"
        stopped = f"the source stopped responding: {missing} are missing"
        errors.append(stopped if report.blocked else f"the target has no space for {missing}")
    error = "; ".join(filter(None, errors))
    return WriteResult(path, path.stat().st_size, len(job.snapshot.notes), error, described.fallback)


def _report_unreachable(job: Job, problem: str) -> None:
    record(
        Event.SOURCE_UNREADABLE,
        logging.ERROR,
        f"{job.source}: {problem}. kexec-tools makes such headers on arm64 if /proc/kallsyms has no _text: the "
        "kernel is built without KALLSYMS_ALL",
        source=job.source,
    )


def _notes(image: Image, headers: Headers) -> Iterator[Note]:
    """Yield the source's notes up to the first broken one, as the kernel does: the memory matters more."""
    try:
        yield from walk(image, headers)
    except InvalidVmcore as error:
        message = f"{error}; the notes after it are lost"
        record(Event.SOURCE_UNREADABLE, logging.ERROR, message, source=image.path)


def _warn_if_small(job: Job, layout: Layout) -> None:
    free = job.free
    if layout.size > free:
        message = f"{job.directory}: {free} bytes are free, but the vmcore may need {layout.size}"
        record(Event.SPACE_SHORT, logging.WARNING, message, free=free, size=layout.size)


def _report(job: Job, report: CopyReport) -> str:
    """Log what went wrong; return what of that makes the vmcore incomplete."""
    if report.unreadable_pages or report.missing_bytes:
        record(
            Event.SOURCE_UNREADABLE,
            # Pages that cannot be read are usual, a missing end is not.
            logging.ERROR if report.missing_bytes else logging.WARNING,
            f"{job.source}: {report.unreadable_pages} pages could not be read and "
            f"{report.missing_bytes} bytes are missing at the end; the vmcore has zeros instead",
            source=job.source,
            unreadable_pages=report.unreadable_pages,
            missing_bytes=report.missing_bytes,
        )
    if job.reads.blocked:
        record(
            Event.SOURCE_UNREADABLE,
            logging.WARNING,
            f"{job.source}: {job.reads.blocked} reads did not return in time and were abandoned",
            source=job.source,
            blocked=job.reads.blocked,
        )
    return report_altered(report.altered, report.unread)
