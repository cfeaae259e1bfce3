"""Pages that load nothing from elsewhere."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_SCRIPTS = ("vendor/require.js", "vendor/embed-amd.js", "vnd.jupyter.widget-state+json")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx; the settings of widgets come before their scripts."""
    app.add_js_file("widgets.js", priority=200)
    app.connect("html-page-context", _needed, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _needed(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Leave out scripts that a page has no use for.

    Thebe runs cells on a server, and the theme adds its script twice, an error. The widgets' are
    the largest of all, and needed only where a widget is shown rather than what stands in for it.
    """
    idle = ["thebe"] if WIDGET in context.get("body", "") else ["thebe", *WIDGET_SCRIPTS]
    for kind in ("script_files", "css_files"):
        context[kind] = [
            file for file in context.get(kind, []) if not any(name in _about(file) for name in idle)
        ]


def _about(file: Any) -> str:
    """What is known of a script: its name and its own text."""
    attributes = getattr(file, "attributes", {})
    known = (getattr(file, "filename", file), attributes.get("type"), attributes.get("body"))
    return " ".join(map(str, known)).lower()
