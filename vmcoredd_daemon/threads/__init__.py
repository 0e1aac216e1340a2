# SPDX-License-Identifier: LGPL-2.1-or-later
"""Three ways to run what may block: on its own, in batches, and watched."""
