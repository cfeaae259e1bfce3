"""The book's pages: built from executed notebooks, and served for local reading."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import joblib

_BUILD = """
import gc, sys
from jupyter_book.sphinx import build_sphinx

gc.disable()  # a fifth of the time, for trees that are all kept to the end
root, pages, jobs = sys.argv[1:]
failed = build_sphinx(
    root, pages, path_config=f"{root}/_config.yml", noconfig=True, warningiserror=True,
    keep_going=True, jobs=int(jobs), confoverrides={"latex_individualpages": False},
    freshenv=True,  # what lies beside pages is written as they are read
)
sys.exit(1 if failed else 0)
"""
"""Jupyter Book's own command has no option for several processes."""


BESIDE = ("figures", "records", "source")
"""Folders of the book that its own extensions fill."""


class BuildFailed(RuntimeError):
    """The pages could not be built; says why."""


def pages_folder(root: Path) -> Path:
    """Return the folder of the built pages."""
    return root / "_build" / "html"


def build_pages(root: Path, environment: Mapping[str, str] | None = None) -> Path:
    """Build the pages from prose and executed notebooks; a warning is an error.

    Args:
        root: The project's folder, with `_config.yml`, `_toc.yml` and `book/executed`.
        environment: Environment variables of the build, by default this process's.

    Returns:
        The first page.

    Raises:
        BuildFailed: With the end of what the build said.
    """
    folder = pages_folder(root)
    for beside in BESIDE:
        shutil.rmtree(folder / beside, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, str(root), str(folder), str(joblib.cpu_count())],
        cwd=root,
        env=dict(environment or os.environ),
        text=True,
        encoding="utf-8",
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        raise BuildFailed(
            f"{tail(done.stdout)}\nthe pages' build failed with status {done.returncode}"
        )
    return folder / "index.html"


def serve(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of the built pages for this machine alone; `serve_forever` runs it.

    Args:
        folder: Folder of the pages.
        port: Its port; 0 takes a free one.

    Raises:
        FileNotFoundError: There are no pages in the folder.
        OSError: The port is taken or not allowed.
    """
    if not (folder / "index.html").is_file():
        raise FileNotFoundError(f"no book in {folder}: build it first with `superpos book`")
    handler = functools.partial(_Quiet, directory=str(folder))
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


def tail(text: str, lines: int = 40) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing of single requests."""
