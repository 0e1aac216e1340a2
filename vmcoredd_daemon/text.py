# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names and messages of others as text: a file name may have any bytes, of which a terminal may take commands."""

import re
from typing import Any

_NO_UTF8 = re.compile("[\udc80-\udcff]")
"""What Python makes of bytes that are not UTF-8 (PEP 383)."""

MAX_SHOWN = 200
"""Characters of a name or a reason of others that are logged."""


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
