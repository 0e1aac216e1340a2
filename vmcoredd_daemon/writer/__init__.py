# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes a vmcore of the dump list, and falls back rather than lose."""
