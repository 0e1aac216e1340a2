# SPDX-License-Identifier: LGPL-2.1-or-later
"""Numbers, times, and names of others as text: a file name may have any bytes, also commands of a terminal."""

import re
import time
from typing import Any

_NO_UTF8 = re.compile("[\udc80-\udcff]")
"""What Python makes of bytes that are not UTF-8 (PEP 383)."""

MAX_SHOWN = 200
"""Characters of a name or a reason of others that are logged."""


def counted(number: int, one: str, many: str = "") -> str:
    """Return ``1 error`` or ``3 errors``; *many* is the plural if it has no such end."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def utc(usec: int) -> str | None:
    """Return a time, in microseconds since the epoch, in UTC; None for 0 and if it is out of range."""
    if not 0 < usec < 253402300800 * 10**6:
        return None
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(usec // 10**6))


def printable_lines(text: str) -> str:
    """Return *text* as lines that :func:`printable` has escaped, each with its end; tabs are spaces."""
    return "".join(f"{printable(line.expandtabs())}\n" for line in text.splitlines())


def valid(text: str) -> str:
    r"""Return *text* as valid UTF-8, as D-Bus requires: other bytes are escaped as systemd does it, ``\xff``."""
    if text.isascii():
        return text
    escaped = _NO_UTF8.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return escaped.encode("utf-8", "backslashreplace").decode()


def valid_json(value: Any) -> Any:
    """Return *value*, of dicts, lists and texts, with :func:`valid` texts."""
    match value:
        case str():
            return valid(value)
        case dict():
            return {key: valid_json(each) for key, each in value.items()}
        case list() | tuple():
            return [valid_json(each) for each in value]
    return value


def shortened(text: str) -> str:
    """Return the beginning of *text* as :func:`printable` does: it may be as long as a message."""
    return printable(text[:MAX_SHOWN])


def printable(text: str) -> str:
    """Return *text* on one line: unprintable characters are escaped as in Python, a backslash is not."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in valid(text)
    )
