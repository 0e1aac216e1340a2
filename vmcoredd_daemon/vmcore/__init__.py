# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that hold a vmcore: read their headers, plan a new layout, write it. No asyncio, no D-Bus, no systemd."""
