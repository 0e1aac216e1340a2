# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon with short timeouts for its source: `python -m tests.lib.short_timeouts [OPTIONS]`."""

import sys

from vmcoredd_daemon.service.program import main
from vmcoredd_daemon.vmcore.copy import source as timed
from vmcoredd_daemon.writer import kernel_log, makedumpfile

if __name__ == "__main__":
    timed.TIMEOUT, timed.RETRY_TIMEOUT, timed.MAX_BLOCKED = 1.5, 1.0, 3
    kernel_log.TIMEOUT = makedumpfile.STALL_TIMEOUT = 1.0
    sys.exit(main())
