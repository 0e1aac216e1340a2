# SPDX-License-Identifier: LGPL-2.1-or-later
"""A new file in the place of an old one, at once and durably."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from .copy import sync, sync_directory

_T = TypeVar("_T")


def replace_file(fd: int, path: str, write: Callable[[int], _T], committing: Callable[[], None]) -> _T:
    """Put a new file in the place of that at *path*, which is open at *fd*; return what *write* returned.

    *write* is given the descriptor of the new file. That gets the old one's owner, mode and extended attributes;
    *committing* is called when it is on disk, right before it takes the name. Raises OSError, and what the two
    raise; the old file is then as it was.
    """
    # A rename must not replace a symbolic link, but what it leads to.
    target = Path(os.path.realpath(path))
    out, temporary = tempfile.mkstemp(prefix=".vmcoredd-", dir=target.parent)
    try:
        result = write(out)
        _take_metadata(fd, out)
        sync(out)
        committing()
        os.rename(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(out)
    sync_directory(target.parent)
    return result


def _take_metadata(fd: int, out: int) -> None:
    state = os.fstat(fd)
    os.fchown(out, state.st_uid, state.st_gid)
    os.fchmod(out, state.st_mode & 0o7777)
    for name in os.listxattr(fd):
        # Not every attribute is for everybody to set; the label of SELinux is the one that matters.
        with suppress(OSError):
            os.setxattr(out, name, os.getxattr(fd, name))
