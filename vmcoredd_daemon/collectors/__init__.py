# SPDX-License-Identifier: LGPL-2.1-or-later
"""What fills the buffer of a device dump: callers on the bus, descriptors, programs, Python functions."""
