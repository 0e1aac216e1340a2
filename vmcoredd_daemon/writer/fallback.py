# SPDX-License-Identifier: LGPL-2.1-or-later
"""Save a crash to disk, kernel log and vmcore; if one way fails, try the next.

The configured format comes first; without one, it is what makedumpfile makes. If makedumpfile fails, the source is
copied as it is. If that does not fit into the target, makedumpfile leaves out what is not needed, or as much is
copied as fits. If the source cannot be read or does not respond, the device dumps are written alone.
"""

import logging
from dataclasses import replace

from ..config.vmcore_format import Format
from ..errors import InvalidVmcore, NoSpace, QuotaExceeded, VmcoreddError, WriteFailed
from ..journal import Event, record
from . import makedumpfile
from .elf import write_device_dumps, write_elf
from .job import Job, reserve_space
from .kernel_log import KERNEL_LOG, save_kernel_log
from .result import WriteResult

log = logging.getLogger(__name__)

JOURNAL_SPACE = 1 << 20
"""Bytes that are reserved for the journal, which says what went wrong."""


def write_crash(job: Job) -> WriteResult:
    """Save the kernel log, then write a vmcore. Blocks. Raises NoSpace or WriteFailed, OSError, MemoryError."""
    if problem := save_kernel_log(job.source, job.directory):
        message = f"No {KERNEL_LOG}: {problem}"
        record(Event.KERNEL_LOG_MISSING, logging.WARNING, message, source=job.source)
    with reserve_space(job.directory, JOURNAL_SPACE, missing_ok=True):
        return _write_or_fall_back(job)


def _write_or_fall_back(job: Job) -> WriteResult:
    event = Event.VMCORE_FAILED
    try:
        return _complete(job) if job.output.format is Format.ELF else _filtered(job)
    except QuotaExceeded as error:
        # All notes together are more than crash reads: write the memory without ours, and ours apart.
        reason = _memory_alone(job, str(error))
    except InvalidVmcore as error:
        event, reason = Event.SOURCE_UNREADABLE, str(error)
    except (NoSpace, WriteFailed) as error:
        reason = str(error)
    except MemoryError:
        reason = f"{job.source}: not enough memory to copy it"
    except OSError as error:
        reason = f"{job.directory}: {error.strerror}"
    except Exception as error:
        # A bug: the device dumps can still be written without the memory.
        reason = str(_unexpected(job, error))
    record(event, logging.ERROR, reason, source=job.source, target=job.directory)
    return write_device_dumps(job, reason)


def _memory_alone(job: Job, reason: str) -> str:
    """Write the memory without our device dumps, because of *reason*; return that, and why this failed, too."""
    try:
        write_elf(replace(job, snapshot=replace(job.snapshot, records=(), notes=())))
    except VmcoreddError as error:
        return f"{reason}; {error}"
    except MemoryError:
        return f"{reason}; not enough memory to copy the source"
    return reason


def _filtered(job: Job) -> WriteResult:
    """Write a kdump-compressed vmcore; if that fails, an ELF vmcore."""
    try:
        return _compress(job)
    except VmcoreddError as error:
        return write_elf(job, _report(job, Format.ELF, f"The vmcore is written in ELF format: {error}"))


def _complete(job: Job) -> WriteResult:
    """Write an ELF vmcore, as configured; if the target has no space for it, have makedumpfile compress it."""
    size, free = job.source_size, job.free
    if size > free and makedumpfile.available():
        reason = f"{job.directory}: {free} bytes are free, the source has {size}"
        fallback = _report(job, Format.KDUMP, f"The vmcore is compressed by makedumpfile: {reason}")
        # Level 1 leaves out zero pages, which is no loss; more only if the target is too full even for that.
        output = replace(job.output, format=Format.KDUMP, dump_level=1)
        try:
            return _compress(replace(job, output=output), fallback)
        except VmcoreddError as error:
            _report(job, Format.ELF, f"The vmcore is written in ELF format after all: {error}")
    return write_elf(job)


def _report(job: Job, written: Format, message: str) -> str:
    """Log which format the vmcore has, and why; return that."""
    # Without a configured format, each is what was asked for.
    level = logging.INFO if job.output.format is Format.AUTO else logging.WARNING
    record(Event.FORMAT_CHANGED, level, message, source=job.source, format=written)
    return message


def _compress(job: Job, fallback: str = "") -> WriteResult:
    # Imported late: it takes a megabyte, and most services never need it.
    from .kdump import write_kdump

    try:
        return write_kdump(job, fallback)
    except VmcoreddError:
        raise
    except MemoryError as error:
        raise WriteFailed(f"{job.source}: not enough memory to filter it") from error
    except Exception as error:
        # A bug: the source can still be copied as it is.
        raise _unexpected(job, error) from error


def _unexpected(job: Job, error: Exception) -> WriteFailed:
    log.error("Unexpected error while writing the vmcore", exc_info=error)
    return WriteFailed(f"{job.source}: unexpected error: {type(error).__name__}")
