# SPDX-License-Identifier: LGPL-2.1-or-later
"""The first lines of ``vmcoredd-daemon``: a signal that arrives while modules are imported must not be lost.

They block the stop signals before anything large is imported; :meth:`.service.daemon.Daemon.run` unblocks them.
"""

import gc
import sys

from .files import open_standard_descriptors
from .service.signals import block_stop_signals


def main() -> int:
    """Run the daemon; return its exit status."""
    block_stop_signals()
    open_standard_descriptors()
    # Until the service is up: importing makes little garbage, but many objects that would be scanned each time.
    gc.disable()
    # Imported late: the signals are blocked now.
    from .service import program

    return program.main()


if __name__ == "__main__":
    sys.exit(main())
