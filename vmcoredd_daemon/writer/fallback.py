# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write what is to be on disk of a crash: kernel log and vmcore; and fall back rather than lose.

First choice is the configured format. Where makedumpfile fails, the source is copied as it is; where that does not
fit on the target, makedumpfile leaves out what can be spared, or as much is copied as fits; where the source
cannot be read, or does not answer, the device dumps alone are written.
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

JOURNAL_ROOM = 1 << 20
"""Bytes that are kept free for the journal, which says what went wrong."""


def write_crash(job: Job) -> WriteResult:
    """Save the kernel log, then write a vmcore. Blocks. Raises NoSpace or WriteFailed, OSError, MemoryError."""
    if problem := save_kernel_log(job.source, job.directory):
        message = f"No {KERNEL_LOG}: {problem}"
        record(Event.KERNEL_LOG_MISSING, logging.WARNING, message, source=job.source)
    with reserve_space(job.directory, JOURNAL_ROOM, missing_ok=True):
        return _write_or_fall_back(job)


def _write_or_fall_back(job: Job) -> WriteResult:
    event = Event.VMCORE_FAILED
    try:
        return _filtered(job) if job.output.format is Format.KDUMP else _whole(job)
    except QuotaExceeded as error:
        # All notes together are more than crash reads: the memory goes without ours.
        reason = _memory_alone(job, str(error))
    except InvalidVmcore as error:
        event, reason = Event.SOURCE_UNREADABLE, str(error)
    except (NoSpace, WriteFailed) as error:
        reason = str(error)
    except MemoryError:
        reason = f"{job.source}: no memory is left to copy it"
    except OSError as error:
        reason = f"{job.directory}: {error.strerror}"
    except Exception as error:
        # A bug: the device dumps can still be written without the memory.
        reason = str(_unexpected(job, error))
    record(event, logging.ERROR, reason, source=job.source, target=job.directory)
    return write_device_dumps(job, reason)


def _memory_alone(job: Job, reason: str) -> str:
    """Write the memory without our device dumps, because of *reason*; return that, and why it failed, too."""
    try:
        write_elf(replace(job, snapshot=replace(job.snapshot, records=(), notes=())))
    except VmcoreddError as error:
        return f"{reason}; {error}"
    except MemoryError:
        return f"{reason}; no memory is left to copy the source"
    return reason


def _filtered(job: Job) -> WriteResult:
    """Write what was asked for, a kdump-compressed vmcore, or an ELF vmcore where that cannot be."""
    try:
        return _compress(job)
    except VmcoreddError as error:
        message = f"The vmcore is written in ELF format: {error}"
        record(Event.FORMAT_CHANGED, logging.WARNING, message, source=job.source, format=Format.ELF)
        return write_elf(job, str(error))


def _whole(job: Job) -> WriteResult:
    """Write what was asked for, an ELF vmcore; where the target has no room for it, makedumpfile compresses it."""
    size, free = job.source_size, job.free
    if size > free and makedumpfile.available():
        reason = f"{job.directory}: {free} bytes are free, the source has {size}"
        message = f"The vmcore is compressed by makedumpfile: {reason}"
        record(Event.FORMAT_CHANGED, logging.WARNING, message, source=job.source, format=Format.KDUMP)
        # Zero pages are no loss; what else goes is decided by the room that there is.
        output = replace(job.output, format=Format.KDUMP, dump_level=1)
        try:
            return _compress(replace(job, output=output), reason)
        except VmcoreddError as error:
            message = f"Back to ELF format: {error}"
            record(Event.FORMAT_CHANGED, logging.WARNING, message, source=job.source, format=Format.ELF)
    return write_elf(job)


def _compress(job: Job, fallback: str = "") -> WriteResult:
    # Not before it is needed: a megabyte for as long as the service waits.
    from .kdump import write_kdump

    try:
        return write_kdump(job, fallback)
    except VmcoreddError:
        raise
    except MemoryError as error:
        raise WriteFailed(f"{job.source}: no memory is left to filter it") from error
    except Exception as error:
        # A bug: the source can still be copied as it is.
        raise _unexpected(job, error) from error


def _unexpected(job: Job, error: Exception) -> WriteFailed:
    log.error("Unexpected error while a vmcore is written", exc_info=error)
    return WriteFailed(f"{job.source}: unexpected error: {type(error).__name__}")
