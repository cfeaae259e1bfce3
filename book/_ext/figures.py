"""What stands beside a figure: its data as a file, and links to the code and the records.

`superpos.picture` marks the places; in a notebook they are plain words.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import posixpath
import re
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from docutils import nodes
from sources import address
from sphinx.application import Sphinx

from superpos.store import Store, result_roots

DATA, RECORDS = "data", "records"
"""Folders of the book: tables of figures, and records by profile and experiment."""

MODULE_MARK = re.compile(r'<code data-module="([\w.]+)">(.*?)</code>')
RECORDS_MARK = re.compile(r'<span data-records="(\w+)/(\w+)">(.*?)</span>')
TABLE_MARK = re.compile(r'download="figure\.csv" href="data:text/csv;base64,([^"]*)"')


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("doctree-resolved", _link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _link(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Turn the marks of a page into links, and write what they lead to."""
    if app.builder.format != "html":
        return
    number = 0

    def table(found: re.Match[str]) -> str:
        nonlocal number
        number += 1
        name = f"{posixpath.basename(page)}-{number}.csv"
        _write(Path(app.outdir, DATA, name), base64.b64decode(found[1]))
        return f'download="{name}" href="{_seen_from(page, f"{DATA}/{name}")}"'

    def records(found: re.Match[str]) -> str:
        profile, section, words = found.groups()
        name = f"{RECORDS}/{profile}/{section}.json"
        if not _write_records(Path(app.outdir, name), profile, section):
            return words
        return f'<a href="{_seen_from(page, name)}">{words}</a>'

    def module(found: re.Match[str]) -> str:
        return f'<a href="{address(found[1], page)}"><code>{found[2]}</code></a>'

    for raw in tree.findall(nodes.raw):
        if "html" in raw["format"] and "<figure" in (text := raw.astext()):
            for mark, replace in (
                (MODULE_MARK, module),
                (RECORDS_MARK, records),
                (TABLE_MARK, table),
            ):
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
        _write(path, json.dumps([asdict(record) for record in records]).encode())
    return bool(records)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole; several pages may write the same one at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    own.write_bytes(content)
    os.replace(own, path)
