# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests share begins with the bus: dbus-next is imported there, with what this Python lacks."""

import vmcoredd_daemon.bus  # noqa: F401
