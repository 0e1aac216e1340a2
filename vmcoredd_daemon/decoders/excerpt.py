# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bytes of an unknown format: as text if they are that, else the first of them in hexadecimal."""

import codecs

from ..text import printable_lines
from .decoded import Text
from .structure import hexadecimal

MAX_TEXT = 1 << 20
"""Bytes of text that are shown."""

MAX_SHOWN = 4 << 20
"""Characters that a decoder shows of all members of an archive."""

MAX_BYTES = 4096
"""Bytes that are shown in hexadecimal."""

MOSTLY = 0.95
"""Printable characters of a text, of all of them."""

BLANKS = frozenset("\n\t\r\f")


def is_text(data: bytes) -> bool:
    """Return whether *data*, which may end anywhere, are mostly printable UTF-8; zeros may follow the lines."""
    start = data.rstrip(b"\0")
    is_padded = len(start) < len(data)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start, final=is_padded)
    except UnicodeDecodeError:
        return False
    # A few letters, and then zeros, are the magic number of something else.
    if "\0" in text or (is_padded and "\n" not in text):
        return False
    return sum(letter.isprintable() or letter in BLANKS for letter in text) >= MOSTLY * len(text) > 0


def lines_of(data: bytes) -> str:
    """Return text as lines in which only printable characters are left: others are escaped."""
    return printable_lines(data.rstrip(b"\0").decode("utf-8", "surrogateescape"))


def excerpt(name: str, data: bytes, size: int, limit: int = MAX_BYTES) -> Text:
    """Return *data*, the start of *size* bytes, as a text: all that is text, else *limit* bytes in hexadecimal."""
    if is_text(data[:MAX_TEXT]):
        return Text(_named(name, min(len(data), MAX_TEXT), size), lines_of(data[:MAX_TEXT]))
    return first_bytes(name, data[:limit], size)


def first_bytes(name: str, data: bytes, size: int, offset: int = 0) -> Text:
    """Return *data*, the start of *size* bytes, in hexadecimal; they are at *offset*."""
    return Text(_named(name, len(data), size), hexadecimal(data, offset))


def _named(name: str, shown: int, size: int) -> str:
    return ", ".join(filter(None, (name, f"first {shown} of {size} bytes" if shown < size else "")))
