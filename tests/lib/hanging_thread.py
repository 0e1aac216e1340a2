# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon on a file system that never frees a file: `python -m tests.lib.hanging_thread [OPTIONS]`."""

import sys
import time

from vmcoredd_daemon.dumps import dump_list
from vmcoredd_daemon.service import program

if __name__ == "__main__":
    dump_list.close_removed = lambda fd: time.sleep(1000)
    dump_list.CUT_OFF_TIMEOUT = program.THREADS_TIMEOUT = 0.5
    sys.exit(program.main())
