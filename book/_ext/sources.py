"""A page for the source of every module, and links to it from the descriptions of the API.

Plain pages without the theme: the theme's would be most of the time that the book takes to build.
"""

from __future__ import annotations

import html
import posixpath
from pathlib import Path
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.pycode import ModuleAnalyzer

PACKAGE = "superpos"
FOLDER = "source"
"""Where the pages lie in the book."""
API = "book/api/page"
"""A page of the API: all lie in one folder, so that one relative link serves them."""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>
body {{ font-family: sans-serif; margin: 1em auto; max-width: 62em; padding: 0 1em; }}
pre {{ overflow-x: auto; line-height: 1.35; }}
pre a {{ color: inherit; text-decoration: none; }}
:target {{ background: #fff3bf; }}
{light}
@media (prefers-color-scheme: dark) {{
body {{ background: #121212; color: #ddd; }}
h1 a {{ color: #9cf; }}
:target {{ background: #554d1c; }}
{dark}
}}
</style></head><body><h1><a href="{home}">{name}</a></h1>
{code}</body></html>
"""


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.setup_extension("sphinx.ext.linkcode")
    app.connect("config-inited", _link)
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def address(module: str, page: str) -> str:
    """Where a module's source lies, seen from a page."""
    target = f"{FOLDER}/{module.replace('.', '/')}.html"
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def _link(app: Sphinx, config: Config) -> None:
    config.linkcode_resolve = _resolve


def _resolve(domain: str, info: dict[str, str]) -> str | None:
    """Link a described name to its first line."""
    if domain != "py" or not info["module"].startswith(PACKAGE):
        return None
    tag = ModuleAnalyzer.for_module(info["module"]).find_tags().get(info["fullname"])
    line = f"#L-{tag[1]}" if tag else ""
    return f"{address(_file(info['module']), API)}{line}"


def _file(module: str) -> str:
    """The name of a module's page; a package's is that of its first file."""
    folder = Path(*module.split("."))
    return f"{module}.__init__" if (_root() / folder).is_dir() else module


def _root() -> Path:
    return Path(__file__).parents[2]


def _write(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    light, dark = (
        HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "monokai")
    )
    formatter = HtmlFormatter(lineanchors="L", cssclass="highlight")
    for path in sorted((_root() / PACKAGE).rglob("*.py")):
        place = path.relative_to(_root()).with_suffix(".html")
        page = Path(app.outdir, FOLDER, place)
        page.parent.mkdir(parents=True, exist_ok=True)
        home = posixpath.relpath("index.html", posixpath.dirname(f"{FOLDER}/{place.as_posix()}"))
        code = highlight(path.read_text("utf-8"), PythonLexer(), formatter)
        name = html.escape(path.relative_to(_root()).as_posix())
        page.write_text(
            PAGE.format(name=name, light=light, dark=dark, home=home, code=code), "utf-8"
        )
