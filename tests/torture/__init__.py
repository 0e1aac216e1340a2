# SPDX-License-Identifier: LGPL-2.1-or-later
"""Campaigns that make the world fail: SIGKILL at random moments, and every system call in turn."""
