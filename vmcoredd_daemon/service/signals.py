# SPDX-License-Identifier: LGPL-2.1-or-later
"""The signals that stop the service: blocked from the first line of the program until the service handles them.

Importing takes seconds if the capture kernel is emulated or its disk is slow. SIGTERM in that time would end the
program without a vmcore, and the service manager would take that for a clean exit.
"""

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPWR)
"""SIGHUP is for an ssh session that closes, SIGPWR for a power supply that fails: the vmcore is written anyway."""

IGNORED_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGXCPU)
"""Their default action would end the service without a vmcore."""


def block_stop_signals() -> None:
    """Block the stop signals until the service handles them; ignore those that mean nothing to it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    for number in IGNORED_SIGNALS:
        # Not SIG_IGN, which the programs of collectors would inherit.
        signal.signal(number, lambda *_: None)


def unblock_stop_signals() -> None:
    """Deliver the pending and later stop signals; threads and programs started from now on inherit no block."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
