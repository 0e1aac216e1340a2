# SPDX-License-Identifier: LGPL-2.1-or-later
"""The subcommand report: a vmcore as one page for a support ticket."""
