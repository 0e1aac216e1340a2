# SPDX-License-Identifier: LGPL-2.1-or-later
"""The first lines of ``vmcoredd-daemon``: a signal that arrives while modules are imported must not be lost.

So nothing large is imported here; :meth:`.service.daemon.Daemon.run` takes the signals when it listens to them.
"""

import sys

from .service.signals import begin


def main() -> int:
    """Run the daemon; return its exit status."""
    begin()
    from .service.program import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
