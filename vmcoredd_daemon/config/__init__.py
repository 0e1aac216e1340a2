# SPDX-License-Identifier: LGPL-2.1-or-later
"""Configuration: its keys, how it is read, and the parts that the rooms above are handed."""
