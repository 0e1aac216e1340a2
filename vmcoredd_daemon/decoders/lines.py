# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lines of a device dump that is text, such as ``grep -r`` prints files."""

from collections.abc import Iterator
from typing import BinaryIO

MAX_LINE = 4096
"""Bytes of a line; a longer one is several."""

MAX_LINES = 1 << 20


def read_lines(data: BinaryIO) -> Iterator[str]:
    """Yield the lines of *data* from its start, without their ends and the zeros that may follow the text.

    At most MAX_LINES, of MAX_LINE bytes: the rest of a hostile device dump costs nothing.
    """
    data.seek(0)
    for _ in range(MAX_LINES):
        line = data.readline(MAX_LINE)
        if not line:
            return
        yield line.rstrip(b"\n\0").decode("utf-8", "backslashreplace")
