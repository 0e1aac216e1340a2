# SPDX-License-Identifier: LGPL-2.1-or-later
"""The argument VMCORE of the subcommands that read one."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InvalidVmcore


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Open the file or block device at *path*. Raises InvalidVmcore, also for what can be no vmcore."""
    try:
        # A pipe must not keep us waiting only to be refused.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidVmcore(f"{path}: {error.strerror}") from error
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise InvalidVmcore(f"{path}: is a directory, not a vmcore")
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise InvalidVmcore(f"{path}: is neither a regular file nor a block device")
        yield fd
    finally:
        os.close(fd)
