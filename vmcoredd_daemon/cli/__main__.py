# SPDX-License-Identifier: LGPL-2.1-or-later
"""``python -m vmcoredd_daemon.cli`` is the program ``vmcoredd``: its first lines."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until main() can clean up, an interrupt ends the program, and without the traceback of an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys

from ..files import open_standard_descriptors


def main() -> int:
    """Run the program; return its exit status."""
    open_standard_descriptors()
    # Imported late: the standard descriptors are open now.
    from .main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
