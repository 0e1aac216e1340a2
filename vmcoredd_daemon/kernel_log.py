# SPDX-License-Identifier: LGPL-2.1-or-later
"""The log of the kernel that died, saved first: it is small, and often all that is needed.

File names as in kdump-utils, which saves ``vmcore-dmesg.txt`` before the vmcore, too.
"""

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

KERNEL_LOG = "vmcore-dmesg.txt"
KERNEL_LOG_INCOMPLETE = "vmcore-dmesg-incomplete.txt"

TIMEOUT = 20.0
"""Seconds that makedumpfile may take."""


def save_kernel_log(source: Path, directory: Path) -> str:
    """Save the kernel log that is in *source* into *directory*; return why not, or an empty string. Blocks."""
    program = shutil.which("makedumpfile")
    if program is None:
        return "makedumpfile is not there"
    incomplete = directory / KERNEL_LOG_INCOMPLETE
    try:
        incomplete.unlink(missing_ok=True)
        problem = _dump_dmesg(program, source, incomplete)
        if not problem:
            incomplete.rename(directory / KERNEL_LOG)
        incomplete.unlink(missing_ok=True)
    except OSError as error:
        return f"cannot save it: {error.strerror}"
    return problem


def _dump_dmesg(program: str, source: Path, destination: Path) -> str:
    command = [program, "--dump-dmesg", str(source), str(destination)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            status = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            # In D state it cannot even be killed: then it is left to itself.
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
            return f"makedumpfile did not finish within {TIMEOUT:g} s"
        if status or not destination.exists():
            output.seek(0)
            lines = output.read(1000).decode("ascii", "backslashreplace").split("\n")
            reason = next((line.strip() for line in lines if line.strip()), "no message")
            return f"makedumpfile failed with status {status}: {reason[:200]}"
    with destination.open("rb") as file:
        os.fsync(file.fileno())
    return ""
