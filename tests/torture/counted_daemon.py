# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon, which on SIGUSR2 writes how many asyncio tasks it has into the file $VMCOREDD_WATCHED."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from vmcoredd_daemon.service.program import main


def _write(*_: object) -> None:
    path = Path(os.environ["VMCOREDD_WATCHED"])
    temporary = path.with_suffix(".new")
    temporary.write_text(str(len(asyncio.all_tasks())))
    temporary.rename(path)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, _write)
    sys.exit(main())
