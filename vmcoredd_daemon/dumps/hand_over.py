# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the service leaves in the spool if kdump writes the vmcore: besides the device dumps, those that failed.

The file also says that the collectors have run, so that core-collector does not run them again.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict

from ..errors import WriteFailed
from ..files import close, open_new, pread, sync, write_all
from ..manifest import Failure
from .spool_directory import HANDED_OVER

_MAX_SIZE = 1 << 20


def hand_over(directory: int, failures: Sequence[Failure]) -> None:
    """Write *failures* into the directory of this boot. Blocks. Raises WriteFailed."""
    incomplete = f"{HANDED_OVER}.incomplete"
    try:
        fd = open_new(directory, incomplete)
        try:
            write_all(fd, json.dumps([asdict(failure) for failure in failures]).encode("ascii"))
            sync(fd)
        finally:
            close(fd)
        os.rename(incomplete, HANDED_OVER, src_dir_fd=directory, dst_dir_fd=directory)
        sync(directory)
    except OSError as error:
        raise WriteFailed(f"cannot write {HANDED_OVER} into the spool: {error.strerror}") from error


def handed_over(directory: int) -> list[Failure] | None:
    """Return what :func:`hand_over` has written; None if it was not called. Blocks."""
    try:
        fd = os.open(HANDED_OVER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        return [Failure(**failure) for failure in json.loads(pread(fd, _MAX_SIZE, 0))]
    except (OSError, ValueError, TypeError):
        # The disk has changed it; the collectors have run anyway.
        return []
    finally:
        close(fd)
