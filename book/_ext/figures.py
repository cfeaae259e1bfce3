"""Figures as files beside the pages, their data too, and links to the code and the records.

`superpos.picture` marks the places; in a notebook they are plain words, and images and data lie in
it.
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
import os
import posixpath
import re
import uuid
from pathlib import Path
from typing import Any

from docutils import nodes
from sources import address
from sphinx.application import Sphinx

from superpos.store import Store, result_roots

FIGURES, RECORDS = "figures", "records"
"""Folders of the book: figures with their tables, and records by profile and experiment."""

MODULE_MARK = re.compile(r'<code data-module="([\w.]+)">(.*?)</code>')
RECORDS_MARK = re.compile(r'<span data-records="(\w+)/(\w+)">(.*?)</span>')
IMAGE_MARK = re.compile(r'src="data:image/png;base64,([^"]*)"')
TABLE_MARK = re.compile(r'download="figure\.csv" href="data:text/csv;base64,([^"]*)"')


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("doctree-read", _link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _link(app: Sphinx, tree: nodes.document) -> None:
    """Take images and tables out of a page and turn its marks into links, before it is kept."""
    if app.builder.format != "html":
        return
    page = app.env.docname
    taken = itertools.count(1)

    def file(found: re.Match[str], kind: str) -> str:
        name = f"{FIGURES}/{posixpath.basename(page)}-{next(taken)}.{kind}"
        _write(Path(app.outdir, name), base64.b64decode(found[1]))
        return name

    def image(found: re.Match[str]) -> str:
        return f'src="{_seen_from(page, file(found, "png"))}"'

    def table(found: re.Match[str]) -> str:
        name = file(found, "csv")
        return f'download="{posixpath.basename(name)}" href="{_seen_from(page, name)}"'

    def records(found: re.Match[str]) -> str:
        profile, section, words = found.groups()
        name = f"{RECORDS}/{profile}/{section}.json"
        if not _write_records(Path(app.outdir, name), profile, section):
            return words
        return f'<a href="{_seen_from(page, name)}">{words}</a>'

    def module(found: re.Match[str]) -> str:
        return f'<a href="{address(found[1], page)}"><code>{found[2]}</code></a>'

    marks = {IMAGE_MARK: image, TABLE_MARK: table, RECORDS_MARK: records, MODULE_MARK: module}
    for raw in tree.findall(nodes.raw):
        if "html" in raw["format"] and "<figure" in (text := raw.astext()):
            for mark, replace in marks.items():
                text = mark.sub(replace, text)
            raw.children = [nodes.Text(text)]
            raw.rawsource = text


def _seen_from(page: str, target: str) -> str:
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


@functools.cache
def _write_records(path: Path, profile: str, section: str) -> bool:
    """Gather an experiment's records in one file; say whether there are any."""
    records = Store(result_roots()[profile]).records(section)
    if records:
        _write(path, json.dumps(list(map(vars, records))).encode())
    return bool(records)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole; several pages may write the same one at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    own.write_bytes(content)
    os.replace(own, path)
