# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon with short timeouts for its source: `python -m tests.lib.short_timeouts [OPTIONS]`."""

import sys
from functools import partial

from vmcoredd_daemon.service.program import main
from vmcoredd_daemon.vmcore.copy.source import TimedCalls
from vmcoredd_daemon.writer import kernel_log, makedumpfile, writer

if __name__ == "__main__":
    writer.TimedCalls = partial(TimedCalls, timeout=1.5, retry_timeout=1.0, max_blocked=3)  # type: ignore[misc, assignment]
    kernel_log.TIMEOUT = makedumpfile.STALL_TIMEOUT = 1.0
    sys.exit(main())
