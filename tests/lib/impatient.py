# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon with short timeouts for its spool: `python -m tests.lib.impatient [OPTIONS]`."""

import sys

from vmcoredd_daemon.dumps import buffer, dump_list, spool
from vmcoredd_daemon.service import daemon
from vmcoredd_daemon.service.program import main

if __name__ == "__main__":
    buffer.WRITER_TIMEOUT = dump_list.FREE_TIMEOUT = 3.0
    dump_list.CUT_OFF_TIMEOUT = spool.REMOVE_TIMEOUT = daemon.SPOOL_TIMEOUT = 5.0
    sys.exit(main())
