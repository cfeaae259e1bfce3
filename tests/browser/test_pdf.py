"""The book on paper: one PDF of all pages, none of them empty."""

import shutil
from pathlib import Path

import pytest

from superpos import pdf

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def printed(book, chromium, tmp_path_factory):
    """The PDF as a reader of pypdf, and the names of its pages."""
    from pypdf import PdfReader

    assert any(map(shutil.which, pdf.BROWSERS))
    output = tmp_path_factory.mktemp("pdf") / "superpos.pdf"
    pages = pdf.chapters(ROOT / "_toc.yml")
    count = pdf.print_book(book, pages, output, progress=False)
    reader = PdfReader(output)
    assert count == len(reader.pages)
    return reader, pages


def test_every_chapter_is_in_the_outline(printed):
    reader, pages = printed
    titles = [entry.title for entry in reader.outline]
    assert len(titles) == len(pages)
    assert titles[0].startswith("Superposition as lossy compression")
    places = [reader.get_destination_page_number(entry) for entry in reader.outline]
    assert places == sorted(set(places)) and places[0] == 0


def test_no_page_is_empty_and_formulas_are_typeset(printed):
    reader, _ = printed
    assert 60 < len(reader.pages) < 250
    texts = [page.extract_text().strip() for page in reader.pages]
    for number, (page, text) in enumerate(zip(reader.pages, texts, strict=True)):
        assert text or page.images, f"page {number + 1} is empty"
    assert not any(r"\frac" in text or r"\sum" in text for text in texts)


def test_figures_are_printed(printed):
    reader, _ = printed
    assert sum(len(page.images) for page in reader.pages) > 40
