# SPDX-License-Identifier: LGPL-2.1-or-later
"""The signals that stop the service: blocked from the first line of the program until the service handles them.

Importing takes seconds if the capture kernel is emulated or its disk is slow. SIGTERM in that time would end the
program without a vmcore, and the service manager would take that for a clean exit.
"""

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def block_stop_signals() -> None:
    """Block the stop signals until the service handles them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def unblock_stop_signals() -> None:
    """Deliver the pending and later stop signals; threads and programs started from now on inherit no block."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
