# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starts makedumpfile and waits for it: its exit status, output and errors are what the caller sees."""

import errno
import os
import signal

from ...errors import VmcoreddError
from ...terminal.stdio import complain
from .makedumpfile_options import Call

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""What a shell reports for a program that is missing, or is not executable."""

IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def start(call: Call, stdout: int | None = None) -> int:
    """Start makedumpfile, with *stdout* or with ours; return its process ID. Raises OSError."""
    actions = [] if stdout is None else [(os.POSIX_SPAWN_DUP2, stdout, 1)]
    return os.posix_spawnp(
        call.program,
        [call.program, *call.arguments],
        os.environ,
        file_actions=actions,
        setsigdef=IGNORED_BY_PYTHON,
    )


def finish(process: int) -> int:
    """Wait for makedumpfile; return its exit status, negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def missing(call: Call, error: OSError) -> int:
    """Say that there is no makedumpfile; return the exit status."""
    complain(f"{call.program}: {error.strerror}")
    return NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE


def reason(error: Exception) -> str:
    """Return what went wrong, in one line; of a bug, what it was."""
    return str(error) if isinstance(error, VmcoreddError) else f"internal error: {type(error).__name__}: {error}"
