# SPDX-License-Identifier: LGPL-2.1-or-later
"""The first lines of ``vmcoredd-daemon``: whoever asks it to stop waits until it can write a vmcore.

SIGTERM would end it at once, without one, for as long as its modules are imported: seconds, where the capture
kernel is emulated or its disk is slow. And the service manager takes that end for a clean one. So nothing large is
imported here; :meth:`.daemon.Daemon.run` takes the signals when it listens to them.
"""

import gc
import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Run the daemon; return its exit status."""
    begin()
    from .__main__ import main as run

    return run()


def begin() -> None:
    """Keep signals to stop until somebody takes them, and garbage until somebody has time to look for it."""
    # Importing makes little garbage, and many objects to look at again and again.
    gc.disable()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def take_stop_signals() -> None:
    """Take what was kept, and what comes; threads and programs that are started later have nothing blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
