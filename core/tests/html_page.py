"""Whether a page is well-formed and needs nothing but itself."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.fetched, self.ids, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if "id" in values:
            self.ids.append(values["id"])
        for name in ("src", "href", "xlink:href", "action", "data"):
            if name in values:
                self.fetched.append(values[name])
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "link", "br", "img"):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def stands_alone(text: str) -> Page:
    """Check that a page is well-formed, fetches nothing and runs nothing; return what was found in it."""
    page = Page(text)
    assert page.open == []
    assert all(found.startswith(("#", "data:")) for found in page.fetched), page.fetched
    assert len(page.ids) == len(set(page.ids)), "ids of different charts must not collide"
    for link in [f[1:] for f in page.fetched if f.startswith("#")] + re.findall(r"url\(#([^)]+)\)", text):
        assert link in page.ids
    assert "<script" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"#0a0[bc]", text), "a stand-in colour was not replaced by its variable"
    return page
