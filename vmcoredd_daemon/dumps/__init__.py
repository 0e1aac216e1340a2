# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device dumps: the list, and the spool that makes them durable. Acknowledged means durable."""
