"""What the book's own extensions make of pages, and how pages are built, served and printed."""

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from threading import Thread

import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from superpos import pages, pdf
from superpos.cli import main
from superpos.source import Source

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import launch  # noqa: E402
import sources  # noqa: E402

GLOSSARY = """
Glossary
========

.. glossary::

   effective features
      How many codes, used equally, would give the same entropy.

   dictionary size
      Number of codes.

   expansion
      :term:`dictionary size` over neurons.

   code
      What an autoencoder computes.
"""
PAGE = """
Effective features in a title
=============================

The dictionary sizes of a code. Then ``effective features`` as a literal, and two words of
effective features, and effective features again. By hand: :term:`expansion`; then expansion.

.. raw:: html

   {figure}
"""
FIGURE = (
    "<figure><img src='data:image/png;base64,aW1hZ2U='/>{}: {} <a download='x'></a>"
    '<a download="figure.csv" href="data:text/csv;base64,eCx5CjEsMgo=">Data</a></figure>'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A small book built with the extensions, from a folder of results."""
    root = tmp_path_factory.mktemp("book")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUPERPOS_RESULTS", str(root / "results"))
        from test_chapter import record

        record(root / "results" / "quick", 1.0)
        known = Source("calibration", "quick", "quick", 1, "cpu.").html()
        missing = Source("dropout", "quick", "quick", 1, "cpu.").html()
        (root / "book").mkdir()
        (root / "index.rst").write_text("Start\n=====\n\n.. toctree::\n   :glob:\n\n   book/*\n")
        (root / "book" / "glossary.rst").write_text(GLOSSARY)
        (root / "book" / "page.rst").write_text(
            PAGE.format(figure=FIGURE.format(known, missing).replace("'", '"'))
        )
        options = {"extensions": ["figures", "first_use", "sources"], "html_theme": "basic"}
        with docutils_namespace():
            app = Sphinx(
                str(root), None, str(root / "html"), str(root / "trees"), "html",
                confoverrides=options, status=None, warning=None, warningiserror=True,
            )  # fmt: skip
            app.build()
    return root / "html"


@pytest.fixture(scope="module")
def page(site):
    return BeautifulSoup((site / "book" / "page.html").read_text(), "html.parser")


def test_a_term_is_linked_where_it_is_first_used_with_its_meaning_at_hand(page):
    links = page.find_all("a", class_="glossary-term")
    assert [link.text for link in links] == ["dictionary sizes", "effective features"]
    assert links[0]["href"] == "glossary.html#term-dictionary-size"
    assert links[1]["title"] == "How many codes, used equally, would give the same entropy."
    assert links[1].parent.text.index("two words") < links[1].parent.text.index("again")


def test_words_with_everyday_meanings_titles_and_literals_are_left_alone(page):
    assert not page.find("h1").find("a", class_="glossary-term")
    assert all(link.text != "code" for link in page.find_all("a"))
    assert not page.find("code").find("a")


def test_a_figure_links_its_code_its_records_and_its_data(page, site):
    links = {link.text: link["href"] for link in page.find("figure").find_all("a", href=True)}
    assert links["calibration"] == "../source/superpos/experiments/calibration.html"
    assert links["Data"] == "../figures/page-2.csv"
    assert page.find("figure").find("img")["src"] == "../figures/page-1.png"
    assert (site / "figures" / "page-1.png").read_bytes() == b"image"
    for address in links.values():
        assert (site / "book" / address).resolve().is_file()
    assert (site / "figures" / "page-2.csv").read_text() == "x,y\n1,2\n"
    (record,) = json.loads((site / "book" / links["1 record"]).read_text())
    assert record["section"] == "calibration" and record["provenance"]["seconds"] == 1


def test_records_that_are_not_there_are_named_without_a_link(page):
    assert page.find("figure").text.count("1 record") == 2
    assert len(page.find("figure").find_all("a", string="1 record")) == 1


def test_every_module_has_a_page_of_its_source(site):
    for module in ("superpos/entropy.py", "superpos/data/toy.py", "superpos/__init__.py"):
        shown = BeautifulSoup(
            (site / "source" / module).with_suffix(".html").read_text(), "html.parser"
        )
        assert shown.find("pre").text.strip() == (ROOT / module).read_text().strip()


def test_a_description_links_the_line_where_the_source_begins():
    link = sources._resolve("py", {"module": "superpos.entropy", "fullname": "hill_number"})
    path, line = link.split("#L-")
    assert path == "../../source/superpos/entropy.html"
    text = (ROOT / "superpos" / "entropy.py").read_text().splitlines()
    assert text[int(line) - 1].startswith("def hill_number(")
    assert sources._resolve("py", {"module": "torch", "fullname": "Tensor"}) is None
    package = sources._resolve("py", {"module": "superpos.data", "fullname": "nothing"})
    assert package == "../../source/superpos/data/__init__.html"


@pytest.mark.parametrize(
    ("address", "known"),
    [
        ("git@github.com:some/where.git", "some/where"),
        ("https://github.com/some/where", "some/where"),
        ("https://example.org/some/where.git", None),
        ("/a/folder", None),
    ],
)
def test_the_repository_is_where_origin_points(address, known, tmp_path, monkeypatch):
    monkeypatch.delenv("SUPERPOS_REPOSITORY", raising=False)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert launch.repository(tmp_path) is None
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", address], check=True)
    assert launch.repository(tmp_path) == known
    monkeypatch.setenv("SUPERPOS_REPOSITORY", "an/other")
    assert launch.repository(tmp_path) == "an/other"


def test_a_chapter_launches_on_both_services_where_the_repository_is_known():
    here, binder, colab = launch.launchers("book/executed/dropout", "some/where")
    assert here["url"] == "../rerun.html#in-a-kernel"
    assert binder["url"] == (
        "https://mybinder.org/v2/gh/some/where/HEAD?labpath=notebooks/dropout.ipynb"
    )
    assert colab["url"] == (
        "https://colab.research.google.com/github/some/where/blob/HEAD/notebooks/dropout.ipynb"
    )
    assert launch.launchers("book/executed/dropout", None) == [here]


def test_pages_that_fail_to_build_show_their_last_lines(tmp_path):
    (tmp_path / "_config.yml").write_text("title: x\nunknown: [")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    with pytest.raises(pages.BuildFailed, match="failed with status 1"):
        pages.build_pages(tmp_path)
    assert pages.tail("a\nb\nc", 2) == "b\nc"


@pytest.fixture
def built(tmp_path):
    (tmp_path / "index.html").write_text("<title>The book</title>")
    return tmp_path


def test_the_book_is_served_to_this_machine(built):
    server = pages.serve(built, 0)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as answer:
            assert b"The book" in answer.read()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_port_in_use_and_a_missing_book_are_named(built, tmp_path_factory, monkeypatch):
    with pages.serve(built, 0) as server:
        monkeypatch.setattr(pages, "pages_folder", lambda root: built)
        result = CliRunner().invoke(main, ["book", "--serve", "--port", str(server.server_port)])
    assert result.exit_code == 1
    assert f"port {server.server_port} cannot be used" in result.output
    with pytest.raises(FileNotFoundError, match="build it first"):
        pages.serve(tmp_path_factory.mktemp("empty"), 0)


def test_no_build_leaves_nothing_to_serve_or_print():
    for option in ("--serve", "--pdf"):
        result = CliRunner().invoke(main, ["book", "--no-build", option])
        assert result.exit_code == 2 and "makes no pages" in result.output


def test_the_pdf_holds_the_pages_in_order_without_the_lists_of_functions():
    found = pdf.chapters(ROOT / "_toc.yml")
    assert found[0] == "book/index" and found[-1] == "book/bibliography"
    assert "book/executed/toy_models" in found
    assert not any(page.startswith("book/api/") for page in found)


def test_a_missing_browser_and_a_missing_page_are_named(built, monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"other\.html is not in"):
        if not any(map(shutil.which, pdf.BROWSERS)):
            monkeypatch.setattr(shutil, "which", lambda _: "/bin/true")
        pdf.print_book(built, ["other"], tmp_path / "x.pdf", progress=False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(pdf.NoBrowser, match="Chromium was not found"):
        pdf.print_book(built, ["index"], tmp_path / "x.pdf", progress=False)


def test_a_browser_that_prints_nothing_is_named(built, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/false")
    with pytest.raises(pdf.NoBrowser, match=r"could not print index\.html"):
        pdf.print_book(built, ["index"], tmp_path / "x.pdf", progress=False)
