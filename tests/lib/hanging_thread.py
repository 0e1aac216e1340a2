# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon on a disk that never answers fsync(2): `python -m tests.lib.hanging_thread [OPTIONS]`."""

import sys
import time

from vmcoredd_daemon.dumps import commit, dump_list
from vmcoredd_daemon.service import program

DURABLE = 1
"""Device dumps that are made durable before; for each, its file and the directory are synced."""


def main() -> int:
    """Run the daemon; return its exit status."""
    sync, calls = commit.sync, iter(range(2 * DURABLE))
    commit.sync = lambda fd: time.sleep(1000) if next(calls, None) is None else sync(fd)
    dump_list.CUT_OFF_TIMEOUT = program.THREADS_TIMEOUT = 0.5
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
