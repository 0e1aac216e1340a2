# SPDX-License-Identifier: LGPL-2.1-or-later
"""Exit statuses, and how a program ends that a signal has stopped."""

import os
import signal
from contextlib import suppress

SUCCESS, FAILURE, USAGE = 0, 1, 2
"""Exit statuses; a negative one stands for the signal that the program is to die of."""


_SIGNALLED = 128
"""What a shell reports for a program that a signal has ended: that, and its number."""


class UsageError(Exception):
    """The program was called in a way that cannot work."""


def leave(status: int) -> int:
    """Return an exit status; where it is that of a signal, die of it: nothing else ends a shell's loop."""
    if status >= 0:
        return status
    # What SIGKILL does cannot be set.
    with suppress(OSError):
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    # It is blocked.
    return _SIGNALLED - status
