# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether a panic now would give a vmcore with device dumps: a file for each part of the machine."""
