# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which files there are. A disk that fails, or a directory that may not be read, is an error, and no empty answer.

``Path.glob()`` swallows every OSError since Python 3.13, and ``Path.exists()`` since 3.14.
"""

import fnmatch
import os
from pathlib import Path


def matching(directory: Path, pattern: str) -> list[Path]:
    """Return the paths in *directory* whose names match *pattern*, sorted; none if it does not exist.

    Blocks. Raises OSError.
    """
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [directory / name for name in sorted(fnmatch.filter(names, pattern))]


def exists(path: Path) -> bool:
    """Tell whether there is a file *path*, through links. Blocks. Raises OSError if that cannot be known."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
