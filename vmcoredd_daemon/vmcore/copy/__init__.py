# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make a file of a planned vmcore."""
