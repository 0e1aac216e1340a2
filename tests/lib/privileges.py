# SPDX-License-Identifier: LGPL-2.1-or-later
"""What root's rights hide: without them, a directory may be one that cannot be read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

NOBODY = 65534


@contextmanager
def without_privileges() -> Iterator[None]:
    """Be another user while the context lasts, if this process is root's."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)
