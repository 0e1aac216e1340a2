# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is made of the documentation and of the argument parsers: manual pages and completion."""
