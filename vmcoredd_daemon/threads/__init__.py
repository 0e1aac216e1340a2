# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ways to run what may block: in a thread of its own, in batches, and watched; and closing descriptors."""
