"""The book as one PDF: every page printed by Chromium, then joined, with an outline."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import yaml
from pypdf import PageObject, PdfReader, PdfWriter
from tqdm.auto import tqdm

BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)  # fmt: skip
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--no-pdf-header-footer", "--virtual-time-budget=20000"),
)
LEFT_OUT = "book/api/"
"""Descriptions of functions, which are for looking up."""
PATIENCE = 180
"""Seconds that a page may take to print."""


class NoBrowser(RuntimeError):
    """There is no Chromium, or it did not print; says what to do."""


def chapters(contents: Path) -> list[str]:
    """Pages in the order of a table of contents, without what is for looking up.

    Args:
        contents: The file `_toc.yml`.
    """
    table = yaml.safe_load(contents.read_text(encoding="utf-8"))
    pages = [table["root"]]
    pages += [chapter["file"] for part in table["parts"] for chapter in part["chapters"]]
    return [page for page in pages if not page.startswith(LEFT_OUT)]


def print_book(folder: Path, pages: list[str], output: Path, *, progress: bool = True) -> int:
    """Print pages of the built book into one PDF.

    Args:
        folder: Folder of the built pages.
        pages: Their names without `.html`, in order.
        output: The PDF.
        progress: Whether to show a bar over pages.

    Returns:
        The number of its pages.

    Raises:
        FileNotFoundError: A page is not there: the book has not been built.
        NoBrowser: Chromium is not installed, or could not print a page.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise NoBrowser("Chromium was not found; install it (Debian: apt install chromium)")
    missing = [page for page in pages if not (folder / f"{page}.html").is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]}.html is not in {folder}: run `superpos book` first")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch, PdfWriter() as book:

        def printed(number: int) -> Path:
            return _print(browser, folder / f"{pages[number]}.html", Path(scratch), number)

        with ThreadPoolExecutor(joblib.cpu_count()) as pool:
            parts = pool.map(printed, range(len(pages)))
            for part in tqdm(parts, total=len(pages), unit="page", disable=not progress):
                reader = PdfReader(part)
                title = (reader.metadata.title if reader.metadata else None) or part.stem
                last = len(reader.pages) - _is_blank(reader.pages[-1])
                book.append(reader, title.split(" — ")[0], (0, last), import_outline=False)
        book.compress_identical_objects()
        book.write(output)
        return len(book.pages)


def _is_blank(page: PageObject) -> bool:
    """Whether nothing is on a page, as after a text that ends with the one before."""
    return not page.extract_text().strip() and not page.images


def _print(browser: str, page: Path, scratch: Path, number: int) -> Path:
    """Print one page, with a profile of its own, since several run at a time."""
    output = scratch / f"{number}.pdf"
    own = (f"--user-data-dir={scratch / str(number)}", f"--print-to-pdf={output}")
    command = [browser, *FLAGS, *own, page.absolute().as_uri()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise NoBrowser(f"{browser} did not print {page.name} in {PATIENCE} s") from None
    if done.returncode or not output.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NoBrowser(f"{browser} could not print {page.name}: {last}")
    return output
