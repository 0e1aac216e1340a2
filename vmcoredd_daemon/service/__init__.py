# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program ``vmcoredd-daemon``: what it serves on the bus, and its life from start to stop."""
