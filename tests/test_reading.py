"""The built book printed and served, without a browser, and what is said where that fails."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DecodedStreamObject, NameObject

from superpos import book, pages, pdf
from superpos.cli import main as command_line
from superpos.ledger import ClaimError


def printed(path, title, words):
    """A file as the browser prints it: a page for each text, an empty one for none."""
    with PdfWriter() as file:
        for text in words:
            page = file.add_blank_page(200, 200)
            if text:
                stream = DecodedStreamObject()
                stream.set_data(f"BT /F1 12 Tf 9 9 Td ({text}) Tj ET".encode())
                page[NameObject("/Contents")] = file._add_object(stream)
        if title:
            file.add_metadata({"/Title": title})
        file.write(path)


@pytest.fixture
def browser(tmp_path, monkeypatch):
    """A browser that prints two pages a chapter, the second of which is empty; what it was told."""
    commands = []

    def run(command, **_):
        commands.append(command)
        (output,) = (part.split("=", 1)[1] for part in command if part.startswith("--print-to-pdf"))
        name = Path(command[-1]).stem
        printed(output, f"{name.title()} — Book" if name != "bare" else None, [name, ""])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(pdf, "shutil", SimpleNamespace(which=lambda name: f"/bin/{name}"))
    monkeypatch.setattr(pdf.subprocess, "run", run)
    for name in ("one", "two", "bare"):
        (tmp_path / f"{name}.html").write_text("")
    return commands


def test_pages_are_joined_in_order_without_empty_ends_under_their_titles(tmp_path, browser):
    pages = ["two", "one", "bare"]
    assert pdf.print_book(tmp_path, pages, tmp_path / "out" / "book.pdf", progress=False) == 3
    reader = PdfReader(tmp_path / "out" / "book.pdf")
    assert [entry.title for entry in reader.outline] == ["Two", "One", "2"]  # or its number
    assert [reader.get_destination_page_number(entry) for entry in reader.outline] == [0, 1, 2]
    texts = [page.get_contents().get_data() for page in reader.pages]
    assert [name.encode() in text for name, text in zip(pages, texts, strict=True)] == [True] * 3
    assert len({part for c in browser for part in c if part.startswith("--user-data-dir")}) == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["book.pdf"]


def test_a_page_that_is_not_there_is_named(tmp_path, browser):
    with pytest.raises(FileNotFoundError, match=r"three.html is not in .*: run `superpos book`"):
        pdf.print_book(tmp_path, ["one", "three"], tmp_path / "book.pdf", progress=False)
    assert not browser


def test_without_a_browser_it_is_said_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(pdf, "shutil", SimpleNamespace(which=lambda _: None))
    with pytest.raises(pdf.NoBrowser, match="install it"):
        pdf.print_book(tmp_path, [], tmp_path / "book.pdf")


def test_a_browser_that_fails_or_hangs_is_told_with_the_page(tmp_path, browser, monkeypatch):
    def fails(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "first\nno display\n")

    def hangs(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    for run, words in ((fails, "could not print one.html: no display"), (hangs, "in 180 s")):
        monkeypatch.setattr(pdf.subprocess, "run", run)
        with pytest.raises(pdf.NoBrowser, match=words):
            pdf.print_book(tmp_path, ["one"], tmp_path / "book.pdf", progress=False)
    assert not (tmp_path / "book.pdf").exists()


# Commands


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A project whose book is built."""
    folder = pages.pages_folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<p>the book</p>")
    (tmp_path / "_toc.yml").write_text("root: index\nparts: []\n")
    monkeypatch.setattr("superpos.settings.project_root", lambda: tmp_path)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(command_line, ["book", *arguments])


def test_the_pdf_command_prints_the_pages_of_the_table_of_contents(built, monkeypatch):
    (built / "_toc.yml").write_text(
        "root: index\nparts: [{chapters: [{file: one}, {file: book/api/x}]}]\n"
    )
    asked = []
    monkeypatch.setattr(pdf, "print_book", lambda *given: asked.append(given) or 7)
    result = call("--pdf")
    output = built / "_build" / "superpos.pdf"
    assert result.exit_code == 0 and result.output == f"{output}: 7 pages\n"
    assert asked == [(pages.pages_folder(built), ["index", "one"], output)]


def test_the_pdf_command_says_what_is_missing(built, monkeypatch):
    monkeypatch.setattr(pdf, "shutil", SimpleNamespace(which=lambda _: None))
    result = call("--pdf")
    assert result.exit_code == 1 and "Chromium was not found; install it" in result.output
    monkeypatch.setitem(sys.modules, "superpos.pdf", None)
    result = call("--pdf")
    assert result.exit_code == 1 and "pip install -e '.[book]'" in result.output


def test_a_built_book_is_not_built_again_with_another_profile(built):
    result = call("--serve", "--profile", "quick")
    assert result.exit_code == 2 and "build it first" in result.output


def test_serving_says_where_and_ends_without_a_trace(built, monkeypatch):
    def interrupted(server):
        assert server.server_address[0] == "127.0.0.1"
        raise KeyboardInterrupt

    monkeypatch.setattr(pages.ThreadingHTTPServer, "serve_forever", interrupted)
    result = call("--serve", "--port", "0")
    assert result.exit_code == 0 and result.output.startswith("http://127.0.0.1:")
    assert "Traceback" not in result.output


def test_a_port_that_is_taken_is_named_with_what_to_do(built):
    with pages.serve(pages.pages_folder(built), 0) as taken:
        result = call("--serve", "--port", str(taken.server_port))
    assert result.exit_code == 1
    assert f"port {taken.server_port} cannot be used" in result.output and "--port" in result.output


@pytest.mark.parametrize("where", ["pages", "claims"])
def test_a_book_whose_pages_or_claims_fail_ends_with_status_1_and_the_reason(
    built, monkeypatch, capsys, where
):
    (built / "notebooks").mkdir()
    (built / "notebooks" / "one.ipynb").write_text("{}")

    def fails(*_):
        raise pages.BuildFailed("no page") if where == "pages" else ClaimError("no claim")

    monkeypatch.setattr(book, "project_root", lambda: built)
    monkeypatch.setattr(book, "_execute_all", lambda *_: ({"one": 1.0}, []))
    monkeypatch.setattr(book, "build_pages", fails if where == "pages" else lambda *_: built)
    monkeypatch.setattr(book, "scorecard", fails)
    assert book.build() == 1
    assert capsys.readouterr().out.strip().endswith("no page" if where == "pages" else "no claim")


EMPTY = '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'


@pytest.mark.parametrize("content", ["", "{", EMPTY, EMPTY.replace("{}", '{"papermill": null}')])
def test_a_notebook_that_cannot_be_read_has_no_time_and_no_error(tmp_path, content):
    (tmp_path / "x.ipynb").write_text(content)
    for path in (tmp_path / "x.ipynb", tmp_path / "absent.ipynb"):
        assert book._last_seconds(path) == float("inf")
        assert book._cell_error(path) is None
