# SPDX-License-Identifier: LGPL-2.1-or-later
"""``make bench``: time and memory, side by side with what users would take instead, in one run."""
