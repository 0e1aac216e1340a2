# SPDX-License-Identifier: LGPL-2.1-or-later
"""The first lines of ``vmcoredd-daemon``: a signal that arrives while modules are imported must not be lost.

They block the stop signals before anything large is imported; :meth:`.service.daemon.Daemon.run` unblocks them.
"""

import sys

from .service.signals import block_stop_signals


def main() -> int:
    """Run the daemon; return its exit status."""
    block_stop_signals()
    # Imported late: the signals are blocked now.
    from .service.program import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
