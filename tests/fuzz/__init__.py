# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that try many broken files; a test runs a few rounds of each."""
