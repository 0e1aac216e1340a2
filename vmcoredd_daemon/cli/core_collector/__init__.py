# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcoredd core-collector``: makedumpfile, with device dumps in what it writes."""
