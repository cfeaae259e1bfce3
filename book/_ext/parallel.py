"""Pages that are read by several processes."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

NUMBERING = "sphinx_multitoc_numbering"
"""Does not say whether it may run beside itself, so Sphinx would read one page at a time.

It numbers sections once all pages have been read; and here none is numbered.
"""


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("builder-inited", _allow)
    app.connect("env-before-read-docs", _share)
    app.connect("env-check-consistency", _end)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _allow(app: Sphinx) -> None:
    if NUMBERING in app.extensions:
        app.extensions[NUMBERING].parallel_read_safe = True


def _share(app: Sphinx, env: BuildEnvironment, pages: list[str]) -> None:
    """Deal the pages out to the processes, which take neighbors."""
    processes = max(1, app.parallel)
    pages[:] = [page for first in range(processes) for page in pages[first::processes]]


def _end(app: Sphinx, env: BuildEnvironment) -> None:
    """Have one process write: each new one would begin as a copy of all that was read."""
    app.parallel = 1
