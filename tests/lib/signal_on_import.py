# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program of ours that gets a signal when it imports a module: `signal_on_import SIGNAL START MODULE [OPTIONS]`.

START is how it is started: `vmcoredd_daemon` or `vmcoredd_daemon.cli`, as by `python -m`, or `program`, as the
installed daemon.
"""

import os
import runpy
import signal
import sys
from typing import Any


def signal_at(number: int, module: str) -> None:
    """Send this process a signal when it begins to import *module*."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import" and arguments[0] == module:
            os.kill(os.getpid(), number)

    sys.addaudithook(hook)


if __name__ == "__main__":
    _, name, start, module, *options = sys.argv
    number = signal.Signals[name]
    sys.argv[1:] = options
    if start == "program":
        from vmcoredd_daemon.__main__ import main

        signal_at(number, module)
        sys.exit(main())
    signal_at(number, module)
    runpy.run_module(start, run_name="__main__")
