# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcoredd resolve``: what crashes have left in the spool gets into their vmcores, and leaves the spool."""
