"""Every page links a term of the glossary where it first uses it."""

from __future__ import annotations

import functools
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

GLOSSARY = "book/glossary"
WITHOUT = (GLOSSARY, "book/bibliography", "book/api")
"""Pages that are left as they are."""
EVERYDAY = frozenset(
    {"active", "cell", "claim", "code", "compression", "condition", "converged", "feature",
     "member", "recipe", "record", "sample", "site"}
)  # fmt: skip
"""Words that also have an everyday meaning: these are linked by hand, where the term is meant."""
ELSEWHERE = (nodes.reference, nodes.title, nodes.literal, nodes.literal_block, nodes.raw,
             nodes.math, nodes.math_block, nodes.caption, nodes.term)  # fmt: skip
"""What no link may stand in."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("doctree-resolved", _link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _link(app: Sphinx, tree: nodes.document, page: str) -> None:
    if app.builder.format != "html" or page.startswith(WITHOUT):
        return
    terms = _terms(app.env)
    if not terms:
        return
    address = app.builder.get_relative_uri(page, GLOSSARY)
    left = dict(terms)
    by_label = {label: term for term, (label, _) in terms.items()}
    words = re.compile(
        rf"\b({'|'.join(map(re.escape, sorted(terms, key=len, reverse=True)))})s?\b", re.I
    )
    for text in list(tree.findall(nodes.Text)):
        label = _linked_label(text)
        if label:
            left.pop(by_label.get(label, ""), None)
        elif not _stands_in(text, ELSEWHERE) and _stands_in(text, (nodes.paragraph,)):
            _replace(text, words, left, address)


def _replace(
    text: nodes.Text, words: re.Pattern[str], left: dict[str, tuple[str, str]], address: str
) -> None:
    """Put links in the place of the terms of one text that are still to be linked."""
    pieces: list[nodes.Node] = []
    end = 0
    plain = text.astext()
    for found in words.finditer(plain):
        term = found[1].lower()
        if term not in left:
            continue
        label, meaning = left.pop(term)
        pieces.append(nodes.Text(plain[end : found.start()]))
        link = nodes.reference(
            "", found[0], internal=True, refuri=f"{address}#{label}", reftitle=meaning
        )
        link["classes"].append("glossary-term")
        pieces.append(link)
        end = found.end()
    if pieces:
        pieces.append(nodes.Text(plain[end:]))
        text.parent.replace(text, [piece for piece in pieces if piece.astext()])


def _linked_label(text: nodes.Text) -> str | None:
    """The place in the glossary that a text is linked to by hand, if it is."""
    node: nodes.Node | None = text
    while node is not None and not isinstance(node, nodes.paragraph):
        if isinstance(node, nodes.reference):
            _, _, label = node.get("refuri", "").partition("#")
            return label or None
        node = node.parent
    return None


def _stands_in(node: nodes.Node, kinds: tuple[type[nodes.Node], ...]) -> bool:
    above = node.parent
    while above is not None:
        if isinstance(above, kinds):
            return True
        above = above.parent
    return False


@functools.cache
def _terms(env: BuildEnvironment) -> dict[str, tuple[str, str]]:
    """Place and meaning of each term, by its name in small letters."""
    found = {}
    for item in env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        meaning = " ".join(item.children[-1].astext().split())
        for term in item.findall(nodes.term):
            name = term.astext().lower()
            if name not in EVERYDAY and term["ids"]:
                found[name] = (term["ids"][0], meaning)
    return found
