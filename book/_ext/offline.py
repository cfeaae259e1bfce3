"""Pages that load nothing from elsewhere."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx; the settings of widgets come before their scripts."""
    app.add_js_file("widgets.js", priority=200)
    app.connect("html-page-context", _without_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _without_thebe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any
) -> None:
    """Leave out Thebe, which runs cells on a server; the theme adds its script twice, an error."""
    for kind in ("script_files", "css_files"):
        context[kind] = [own for own in context.get(kind, []) if not _of_thebe(own)]


def _of_thebe(file: Any) -> bool:
    about = f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', {}).get('body', '')}"
    return "thebe" in about.lower()
