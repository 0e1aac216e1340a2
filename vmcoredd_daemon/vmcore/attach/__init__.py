# SPDX-License-Identifier: LGPL-2.1-or-later
"""Put device dumps into a vmcore that is finished."""
