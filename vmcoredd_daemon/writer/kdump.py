# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write the vmcore with makedumpfile, which filters and compresses it, then attach the device dumps in place.

makedumpfile knows nothing of device dumps; :mod:`..vmcore.attach.kdump` says how they get in. Space for them is
reserved while it runs: they are small, and a full disk must not cost them.
"""

import signal
from pathlib import Path

from ..errors import NO_SPACE, InvalidVmcore, VmcoreddError, WriteFailed, of_storage
from ..files import sync, sync_directory
from ..manifest import ManifestSource
from ..note import MOST_IN_A_FILE
from ..vmcore.attach.attach import attach
from ..vmcore.copy.page_cache import write_back_while
from ..vmcore.copy.source import TimedFile, TimedNotes
from ..vmcore.copy.write import VMCORE_INCOMPLETE
from ..vmcore.formats import recognise
from ..vmcore.image import file_image
from ..vmcore.inspect.kdump_rules import check_pages
from ..vmcore.kdump import read_header
from . import makedumpfile
from .elf import write_device_dumps
from .job import Job, report_altered, reserve_space
from .manifest_note import own_note
from .result import VMCORE, WRITING, WriteResult

HARDEST_LEVEL = 31
"""The dump level that leaves out all that makedumpfile can leave out."""

_MANIFEST_SPACE = 1 << 20
"""Bytes for the manifest, and for rounding up to pages."""


def write_kdump(job: Job, fallback: str = "") -> WriteResult:
    """Write a kdump-compressed vmcore; if it does not fit, without the pages that are not needed.

    *fallback* says that it is not written in the configured format, and why. Blocks. If there is no vmcore, raises
    MakedumpfileMissing, TimedOut, NoSpace or WriteFailed.
    """
    incomplete = job.directory / VMCORE_INCOMPLETE
    try:
        finished = _filter(job, incomplete)
        if problem := _check(incomplete, finished):
            incomplete.unlink(missing_ok=True)
            raise WriteFailed(f"{job.source}: {problem}")
        error = _left_out(job, finished)
        described = ManifestSource(str(job.source), error=error, fallback=fallback)
        problem, lacks = _attach(job, incomplete, described)
        path, doubt = _publish(incomplete, complete=finished.status == 0)
        apart = _write_apart(job, problem) if problem else ""
        error = "; ".join(filter(None, (error, doubt, apart, lacks)))
        return WriteResult(path, path.stat().st_size, len(job.snapshot.notes), error, fallback)
    except OSError as error:
        raise of_storage(error, f"{incomplete}: cannot write") from error


def _filter(job: Job, destination: Path) -> makedumpfile.Exit:
    """Run makedumpfile with the configured dump level, and with the hardest if the target gets full."""
    destination.unlink(missing_ok=True)
    size = job.source_size
    job.progress.start(WRITING, size)

    def advance(percent: float) -> None:
        job.progress.reach(int(size * percent / 100), size)

    levels = sorted({job.output.dump_level, HARDEST_LEVEL})
    space = sum(note.note_size for note in job.snapshot.notes) + _notes_size(job) + _MANIFEST_SPACE
    options = [*job.output.compression.option, *makedumpfile.threads_option(), "-d", ",".join(map(str, levels))]
    # A name that begins with a dash would be an option.
    arguments = [*options, str(job.source.absolute()), str(destination.absolute())]
    try:
        with reserve_space(job.directory, space), write_back_while(destination):
            finished = makedumpfile.run(arguments, makedumpfile.STALL_TIMEOUT, advance)
            if finished.status == -signal.SIGSEGV:
                # Version 1.7.2 sometimes crashes on its own mappings, see docs/kernel-parity.md.
                destination.unlink(missing_ok=True)
                finished = makedumpfile.run(["--non-mmap", *arguments], makedumpfile.STALL_TIMEOUT, advance)
            return finished
    except VmcoreddError:
        destination.unlink(missing_ok=True)
        raise


def _notes_size(job: Job) -> int:
    """Return the bytes of the source's own notes, which an attach copies; 0 if they cannot be read."""
    try:
        fd = job.reads.open(job.source)
    except OSError:
        return 0
    try:
        return sum(size for _, size in recognise(TimedFile(job.reads, fd).image(str(job.source))).note_ranges)
    except InvalidVmcore:
        return 0
    finally:
        job.reads.close(fd)


def _check(path: Path, finished: makedumpfile.Exit) -> str:
    """Return what is wrong with the file that makedumpfile left, or an empty string if crash opens it.

    If makedumpfile failed, it must have marked the file as incomplete, as it does if the target is full
    (DUMP_DH_COMPRESSED_INCOMPLETE in diskdump_mod.h). A makedumpfile that was killed leaves no mark, and it is not
    known what is missing. If it did not fail, all page data must be there.
    """
    complete = finished.status == 0
    try:
        with path.open("rb") as file:
            image = file_image(file.fileno(), str(path))
            if recognise(image).format == "kdump" and read_header(image).incomplete != complete:
                missing = check_pages(image) if complete else []
                return f"makedumpfile left a file that was cut off: {missing[0]}" if missing else ""
    except (FileNotFoundError, InvalidVmcore):
        pass
    return f"makedumpfile left no vmcore: {finished.message}" if complete else finished.reason


def _publish(incomplete: Path, *, complete: bool) -> tuple[Path, str]:
    """Make the file durable, and give it its name if it is *complete*; return its path, and what of that failed.

    The file is kept anyway: another attempt would have to remove it first. Raises OSError if there was no space
    for all of it.
    """
    path = incomplete
    try:
        with incomplete.open("rb") as file:
            sync(file.fileno())
        if complete:
            path = incomplete.rename(incomplete.with_name(VMCORE))
        sync_directory(path.parent)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        return path, f"it may not be on disk: {error.strerror}"
    return path, ""


def _write_apart(job: Job, problem: str) -> str:
    try:
        alone = write_device_dumps(job, problem)
    except VmcoreddError as error:
        return f"the device dumps are only in the spool: {problem}; {error}"
    return f"the device dumps are in {alone.path.name}: {problem}"


def _left_out(job: Job, finished: makedumpfile.Exit) -> str:
    if finished.status:
        return f"it is incomplete: {finished.reason}"
    if finished.no_space and job.output.dump_level != HARDEST_LEVEL:
        level = job.output.dump_level
        return f"the target has no space for dump level {level}, it was written with level {HARDEST_LEVEL}"
    return ""


def _attach(job: Job, path: Path, described: ManifestSource) -> tuple[str, str]:
    """Attach the device dumps; return why that failed, or an empty string, and what the vmcore lacks."""
    # The memory is in the file already, so the manifest is complete.
    with own_note(job, described) as own:
        try:
            notes = [*job.snapshot.notes, *own.notes]
            # How many they may be is configured: as in an ELF vmcore, crash need not read all.
            attached = attach(str(path), notes, most=MOST_IN_A_FILE, reads=TimedNotes(job.spool_reads))
            altered = report_altered(attached.altered)
        except VmcoreddError as error:
            return str(error), own.problem
        return "", "; ".join(filter(None, (altered, own.problem)))
