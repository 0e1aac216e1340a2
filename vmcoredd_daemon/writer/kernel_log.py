# SPDX-License-Identifier: LGPL-2.1-or-later
"""The log of the kernel that crashed, saved first: it is small, and often all that is needed.

The file names are those of kdump-utils, which saves ``vmcore-dmesg.txt`` before the vmcore, too.
"""

from pathlib import Path

from ..errors import VmcoreddError
from ..files import sync
from ..lookup import exists
from . import makedumpfile

KERNEL_LOG = "vmcore-dmesg.txt"
KERNEL_LOG_INCOMPLETE = "vmcore-dmesg-incomplete.txt"

TIMEOUT = 20.0
"""Seconds without output from makedumpfile after which it is killed."""


def save_kernel_log(source: Path, directory: Path) -> str:
    """Save the kernel log in *source* into *directory*; return why that failed, or an empty string. Blocks."""
    incomplete = directory / KERNEL_LOG_INCOMPLETE
    try:
        incomplete.unlink(missing_ok=True)
        problem = _dump_dmesg(source, incomplete)
        if not problem:
            incomplete.rename(directory / KERNEL_LOG)
        incomplete.unlink(missing_ok=True)
    except (OSError, MemoryError) as error:
        return f"cannot save it: {getattr(error, 'strerror', 'not enough memory')}"
    return problem


def _dump_dmesg(source: Path, destination: Path) -> str:
    try:
        finished = makedumpfile.run(["--dump-dmesg", source, destination], TIMEOUT)
    except VmcoreddError as error:
        return str(error)
    if finished.status or not exists(destination):
        return finished.reason
    with destination.open("rb") as file:
        sync(file.fileno())
    return ""
