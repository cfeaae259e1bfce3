"""Buttons that open a chapter's notebook in a kernel: on Binder, on Colab, or at home."""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

EXECUTED = "book/executed/"
HOW = "book/rerun.html#in-a-kernel"
"""Where the book says how to open a notebook without either service."""
BINDER = "https://mybinder.org/v2/gh/{repository}/HEAD?labpath=notebooks/{name}.ipynb"
COLAB = "https://colab.research.google.com/github/{repository}/blob/HEAD/notebooks/{name}.ipynb"
GITHUB = re.compile(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx, after the theme has made its own buttons."""
    app.connect("builder-inited", _find)
    app.connect("html-page-context", _add, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def repository(folder: Path) -> str | None:
    """The project's place on GitHub as `owner/name`.

    That is what the variable SUPERPOS_REPOSITORY says, else where `origin` points, if to GitHub.
    """
    if named := os.environ.get("SUPERPOS_REPOSITORY"):
        return named
    command = ["git", "-C", str(folder), "remote", "get-url", "origin"]
    try:
        address = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git
        return None
    found = GITHUB.search(address)
    return found[1] if found else None


def launchers(page: str, known: str | None) -> list[dict[str, str]]:
    """The buttons of a chapter: words, address and icon of each."""
    name = page.removeprefix(EXECUTED)
    services = [("Binder", BINDER, "fas fa-rocket"), ("Colab", COLAB, "fas fa-cloud")]
    here = {
        "type": "link",
        "text": "In a kernel of your own",
        "tooltip": "How to open this notebook on your machine",
        "icon": "fas fa-laptop-code",
        "url": posixpath.relpath(HOW, posixpath.dirname(page)),
    }
    return [here] + [
        {
            "type": "link",
            "text": service,
            "tooltip": f"Open this notebook on {service}",
            "icon": icon,
            "url": address.format(repository=known, name=name),
        }
        for service, address, icon in services
        if known
    ]


def _find(app: Sphinx) -> None:
    app.env.superpos_repository = repository(Path(app.srcdir))


def _add(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    if page.startswith(EXECUTED) and "header_buttons" in context:
        group = {
            "type": "group",
            "tooltip": "Run this notebook",
            "icon": "fas fa-rocket",
            "buttons": launchers(page, app.env.superpos_repository),
            "label": "launch-buttons",
        }
        context["header_buttons"].insert(0, group)
