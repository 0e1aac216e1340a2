# SPDX-License-Identifier: LGPL-2.1-or-later
"""Say what is in a vmcore, and what its readers do with it."""
