# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes a vmcore of the dump list; if one way fails, another is tried."""
