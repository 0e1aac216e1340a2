# SPDX-License-Identifier: LGPL-2.1-or-later
"""The signals that stop the service, kept from the first line of the program until the service listens to them.

SIGTERM would end it immediately, and without a vmcore, for as long as its modules are imported: seconds, where the
capture kernel is emulated or its disk is slow. The service manager takes such an end for a clean one.
"""

import gc
import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def begin() -> None:
    """Keep signals to stop until somebody takes them, and garbage until somebody has time to look for it."""
    # Importing makes little garbage, and many objects to look at again and again.
    gc.disable()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def take_stop_signals() -> None:
    """Take what was kept, and what comes; threads and programs that are started later have nothing blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
