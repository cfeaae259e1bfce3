"""Every link of the built book that stays inside it leads somewhere, anchors included."""

import functools
import re
import urllib.parse
from html.parser import HTMLParser

import pytest

OUTSIDE = ("http:", "https:", "mailto:", "data:", "javascript:")


class Names(HTMLParser):
    """What a page links to, and what it can be linked at."""

    def __init__(self, page):
        super().__init__()
        self.links, self.anchors = set(), set()
        self.feed(re.sub(r"base64,[^\"]*", "", page.read_text("utf-8")))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src"):
                self.links.add(value)
            elif name in ("id", "name"):
                self.anchors.add(value)


names = functools.cache(Names)


def broken(page, book):
    """Yield the links of a page that lead nowhere."""
    for link in names(page).links:
        if link.startswith(OUTSIDE) or not link:
            continue
        path, _, anchor = link.partition("#")
        path = urllib.parse.unquote(path.partition("?")[0])
        target = (page.parent / path).resolve() if path else page
        if target.is_dir():
            target = target / "index.html"
        inside = target.is_file() and book.resolve() in target.parents
        if not inside or (anchor and urllib.parse.unquote(anchor) not in names(target).anchors):
            yield link


def test_every_link_inside_the_book_leads_somewhere(book):
    pages = [page for page in sorted(book.rglob("*.html")) if "_static" not in page.parts]
    wrong = {str(page.relative_to(book)): sorted(broken(page.resolve(), book)) for page in pages}
    assert len(pages) > 80
    assert not {page: links for page, links in wrong.items() if links}


@pytest.mark.parametrize("page", ["book/executed/toy_models", "book/executed/dropout"])
def test_the_executed_notebook_can_be_downloaded(page, book):
    text = (book / f"{page}.html").read_text("utf-8")
    assert f'_sources/{page}.ipynb"' in text
    assert '"outputs": [\n' in (book / "_sources" / f"{page}.ipynb").read_text("utf-8")
