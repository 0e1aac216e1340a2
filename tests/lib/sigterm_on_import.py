# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon that gets SIGTERM when it imports a module: `python -m tests.lib.sigterm_on_import START MODULE ...`.

START is how it is started: `module`, as by `python -m vmcoredd_daemon`, or `program`, as the installed one.
"""

import os
import runpy
import signal
import sys
from typing import Any


def stop_at(module: str) -> None:
    """Send this process SIGTERM when it begins to import *module*."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import" and arguments[0] == module:
            os.kill(os.getpid(), signal.SIGTERM)

    sys.addaudithook(hook)


if __name__ == "__main__":
    _, start, module, *options = sys.argv
    sys.argv[1:] = options
    if start == "program":
        from vmcoredd_daemon.__main__ import main

        stop_at(module)
        sys.exit(main())
    stop_at(module)
    runpy.run_module("vmcoredd_daemon", run_name="__main__")
