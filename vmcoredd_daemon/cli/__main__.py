# SPDX-License-Identifier: LGPL-2.1-or-later
"""``python -m vmcoredd_daemon.cli`` is the program ``vmcoredd``."""

import sys

from .main import main

sys.exit(main())
