# SPDX-License-Identifier: LGPL-2.1-or-later
"""HTML made so that text of others stays text: what is not :class:`Html` is escaped, wherever it is put.

"Text", HTML Standard, 13.1.4. Characters that are not printable are shown as escapes, among them those that change
the direction of text.
"""

from collections.abc import Iterable
from html import escape

from ...text import printable

LONGEST = 500
"""Characters of a name or a message that are shown."""

Attribute = str | bool | None
"""True is an attribute without a value; one that is False or None is left out."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


class _Escaped(dict[int, str]):
    """What stands for a character, by its code: made when it is first looked up, because there are a million."""

    def __missing__(self, code: int) -> str:
        self[code] = escaped = escape(printable(chr(code)))
        return escaped


_ESCAPED = _Escaped()
_IN_LINES = _Escaped({ord("\n"): "\n", ord("\t"): "\t"})


def text(value: str) -> Html:
    """Return *value* as it stands in an element or an attribute, on one line."""
    return value if isinstance(value, Html) else Html(value.translate(_ESCAPED))


def short(value: str, longest: int = LONGEST) -> Html:
    """Do as :func:`text`, with an ellipsis after *longest* characters."""
    if isinstance(value, Html):
        return value
    shown = printable(value[: longest + 1])
    return text(shown if len(shown) <= longest else f"{shown[:longest]}…")


def lines(value: str) -> Html:
    """Return *value* with its lines and tabs, for a ``pre`` element."""
    # A line feed directly after the start tag is not shown: the parser drops it.
    return Html("\n" + value.replace("\r\n", "\n").translate(_IN_LINES))


def start(name: str, /, **attributes: Attribute) -> Html:
    """Return a start tag. In the names of *attributes*, ``_`` is a hyphen; one at the end avoids a keyword."""
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{given}>")


def end(name: str) -> Html:
    """Return an end tag."""
    return Html(f"</{name}>")


def element(name: str, /, *content: str, **attributes: Attribute) -> Html:
    """Return an element with *content*; attributes are those of :func:`start`."""
    return Html(f"{start(name, **attributes)}{''.join(map(text, content))}{end(name)}")


def joined(content: Iterable[str], between: str = "") -> Html:
    """Return *content* with the text *between* its parts."""
    return Html(text(between).join(map(text, content)))
