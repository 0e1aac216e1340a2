# SPDX-License-Identifier: LGPL-2.1-or-later
"""Exit statuses, and how a signal ends a program that has cleaned up."""

import os
import signal
from contextlib import suppress

SUCCESS, FAILURE, USAGE = 0, 1, 2
"""Exit statuses; a negative one is the number of the signal that is to end the program."""

_SIGNALLED = 128
"""A shell adds this to the signal number for the status of a program that a signal ended."""


class UsageError(Exception):
    """The command line is wrong."""


def leave(status: int) -> int:
    """Return an exit status; if it is that of a signal, that ends the program, so that a shell loop stops too."""
    if status >= 0:
        return status
    # The action of SIGKILL cannot be set.
    with suppress(OSError):
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    # The signal is blocked.
    return shell_status(status)


def shell_status(status: int) -> int:
    """Return an exit status as a shell has it."""
    return status if status >= 0 else _SIGNALLED - status
