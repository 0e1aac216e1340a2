# SPDX-License-Identifier: LGPL-2.1-or-later
"""Elements that several parts of the page have."""

from .limits import MAX_NAME, MAX_VALUE
from .markup import Html, element, end, short, start


def pair(name: str, *value: str, class_: str | None = None) -> Html:
    """Return a term and its value, for a ``dl`` element."""
    return element("div", element("dt", name), element("dd", *value), class_=class_)


def scrolled(content: Html, label: str) -> Html:
    """Return *content* in a box that scrolls if it is too large."""
    return Html(f"{start_scrolled(label)}{content}{end('div')}")


def start_scrolled(label: str) -> Html:
    """Return the start of a box that scrolls; it is a ``div`` element."""
    # What scrolls must take the focus, or the keyboard cannot scroll it.
    return start("div", class_="scrolled", tabindex="0", role="region", aria_label=short(label, MAX_NAME))


def command_line(command: str) -> Html:
    """Return a command line, all of which a click selects."""
    return element("code", short(command, MAX_VALUE), class_="command")
