# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/lib/helper_process.py with a device that does not answer: `stuck_helper ADDRESS NAME SIZE`.

A dump name that begins with "killed" kills the helper in the middle of collecting; any other makes it hang.
"""

import asyncio
import os
import signal
import sys
import time

import helper_process
from dbus_next.service import ServiceInterface, method


class Stuck(ServiceInterface):
    def __init__(self) -> None:
        super().__init__("org.vmcoredd1.Collector")

    @method()
    def Collect(self, dump_name: "s", buffer: "h", offset: "t", size: "u") -> "u":
        os.pwrite(buffer, b"half", offset)
        if dump_name.startswith("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        while True:
            time.sleep(1)


if __name__ == "__main__":
    helper_process.Collector = Stuck
    sys.exit(asyncio.run(helper_process.main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
