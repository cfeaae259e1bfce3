"""Signatures of classes whose base is mocked, and which would show those of the mock."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.util.inspect import signature, stringify_signature


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("autodoc-process-signature", _own)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _own(
    app: Sphinx, what: str, name: str, described: Any, options: Any, shown: str, returned: str
) -> tuple[str, str] | None:
    """Take the signature of a class from its own way of being made."""
    if (
        what != "class"
        or not (shown or "").startswith("(*args")
        or "__init__" not in vars(described)
    ):
        return None
    own = signature(described.__init__, bound_method=True)
    own = own.replace(return_annotation=own.empty)
    return stringify_signature(own, unqualified_typehints=True), returned
