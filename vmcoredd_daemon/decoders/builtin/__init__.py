# SPDX-License-Identifier: LGPL-2.1-or-later
"""Decoders of what the built-in collectors write: modules with a function ``decode``, and their tables."""
