# SPDX-License-Identifier: LGPL-2.1-or-later
"""Scripts that throw hostile files at a module: ``python -m tests.fuzz.NAME N``."""
