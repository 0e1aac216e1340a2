# SPDX-License-Identifier: LGPL-2.1-or-later
"""What both programs print, parse and exit with."""
