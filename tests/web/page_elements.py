"""The elements of a page, and what no page may hold."""

from __future__ import annotations

from html.parser import HTMLParser

from sleepd.text.display import is_shown

VOID = {"meta", "link", "input", "br", "img"}
TAGS = frozenset(
    (
        *("html", "head", "meta", "title", "link", "script", "body", "header", "main", "nav", "footer", "section"),
        *("article", "h1", "h2", "h3", "p", "span", "b", "a", "code", "del", "ins", "time", "br", "details", "summary"),
        *("form", "button", "label", "input", "select", "option", "ul", "li", "dl", "dt", "dd", "div"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption"),
        *("svg", "symbol", "circle", "path", "rect", "use", "line", "text", "g", "polyline"),
    )
)


class Elements(HTMLParser):
    """Names and attributes of every element; fails where one is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it, and that it is open."""
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """It must be the one that was opened last."""
        assert self._open.pop() == tag


def assert_harmless(text: str) -> None:
    """No element, attribute, address or character that no template writes."""
    for tag, attributes in Elements(text).found:
        assert tag in TAGS, tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style"
            if name in ("src", "href", "action"):
                assert value is not None
                assert value.startswith(("/", "#")), value
                assert not value.startswith(("//", "/\\"))
        assert tag != "script" or attributes == {"src": "/static/live.js", "defer": None}
    hidden = {character for character in text if character != "\n" and not is_shown(character)}
    assert hidden == set()
