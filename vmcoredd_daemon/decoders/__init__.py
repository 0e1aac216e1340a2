# SPDX-License-Identifier: LGPL-2.1-or-later
"""What device dumps say: decoders make named values, tables and text of their bytes."""
