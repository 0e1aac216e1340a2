# SPDX-License-Identifier: LGPL-2.1-or-later
"""Decoders of what the built-in collectors write. Each is a module with a function ``decode``."""
