# SPDX-License-Identifier: LGPL-2.1-or-later
"""An HTML page as a parser sees it that forgives nothing."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta"})
"""Elements without an end tag, of those that our pages have."""


@dataclass
class Page:
    """The elements in the order of their start tags, and the text."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""
    style: str = ""

    def named(self, name: str) -> list[dict[str, str | None]]:
        """Return the attributes of the elements of that name."""
        return [attributes for element, attributes in self.elements if element == name]

    @property
    def names(self) -> list[str]:
        """The names of all elements."""
        return [name for name, _ in self.elements]


def parse(html: str) -> Page:
    """Parse a page; an AssertionError says what is not well-formed."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser.page


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self.open: list[str] = []
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"{tag} has an attribute twice: {attrs}"
        self.page.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raise AssertionError(f"<{tag}/>")

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.page.style += data
        else:
            self._text.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"a processing instruction: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")

    def close(self) -> None:
        super().close()
        self.page.text = "".join(self._text)
