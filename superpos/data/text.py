"""Text: Python's own standard library, local files, and the Pile."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import os
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from ..given import MOST, whole
from ..settings import data_root
from .images import DataNotFound

EMBEDDED = "embedded"
"""Functions, docstrings of classes and of modules of Python's standard library."""
PILE = "pile"
"""The Pile without its copyrighted parts (Gao et al. 2020), as the paper uses it."""
PILE_SOURCE = "monology/pile-uncopyrighted"
_BUFFER = 10_000  # documents of the Pile that are shuffled among each other
_NOT_READ = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "__pycache__"}


class Text(NamedTuple):
    """Documents, and what was left out on the way to them."""

    documents: list[str]
    """In the shuffled order of the seed."""
    skipped: dict[str, int]
    """Reasons, and how many files or documents were left out for each."""
    digest: str
    """Equal where the documents come from the same text: 16 hexadecimal digits, or what is
    streamed."""


def read_text(
    name: str,
    *,
    seed: int = 0,
    first: int = 0,
    count: int | None = None,
    directory: str | Path | None = None,
) -> Text:
    """Documents of a text, in an order shuffled by a seed.

    Args:
        name: `"embedded"`; `"pile"`, which is streamed unless `directory` holds
            `pile_seed<seed>.jsonl`; or a file or folder: of a `.jsonl` file every line's `text` is
            a document, of any other file every paragraph (blank lines stand between them), of a
            folder every `.txt` file in it.
        seed: fixes the order.
        first: place of the first document in that order.
        count: how many documents; all that follow if None, which `"pile"` does not allow.
        directory: where a relative path is looked for besides the current folder; the environment
            variable SUPERPOS_DATA if None.

    Returns:
        The documents, and counts of what was skipped: files that cannot be read, and empty
        documents, which have no place in the order.

    Raises:
        DataNotFound: there is no such file or folder, or the Pile cannot be reached.
        ValueError: the text holds fewer documents than asked for, no number is given for the
            Pile, or a number is none.
    """
    seed, first = whole("seed", seed, -MOST), whole("first", first, 0)
    count = count if count is None else whole("count", count)
    root = data_root(directory)
    if name == PILE and not (local := root / f"pile_seed{seed}.jsonl").is_file():
        if count is None:
            raise ValueError("The Pile does not end within reason: give the number of documents.")
        found = Text(*_pile(seed, first, count), f"pile {seed}")
        return _enough(found, name, first, count, total=first + len(found.documents))
    if name == EMBEDDED:
        documents, skipped = _embedded()
    else:
        path = local if name == PILE else _found(name, root)
        documents, skipped = _local(path)
    digest = hashlib.sha256("\0".join(documents).encode()).hexdigest()[:16]
    if name != PILE:  # whose file is in the order of its seed
        order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed))
        documents = [documents[place] for place in order.tolist()]
    last = None if count is None else first + count
    found = Text(documents[first:last], skipped, digest)
    return _enough(found, name, first, count, total=len(documents))


def pile(seed: int) -> Iterator[str]:
    """Documents of the Pile, streamed from the hub and shuffled by a seed.

    Raises:
        DataNotFound: the hub cannot be reached, or the package `datasets` is missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataNotFound(
            "Streaming the Pile needs the package datasets: `pip install 'superpos[hub]'`."
        ) from error
    try:
        stream = datasets.load_dataset(PILE_SOURCE, split="train", streaming=True)
        for row in stream.shuffle(seed=seed, buffer_size=_BUFFER):
            yield row["text"]
    except Exception as error:  # the hub's client and those below it raise errors of many kinds
        raise DataNotFound(
            f"{PILE_SOURCE} cannot be reached on the hub: run `superpos fetch pythia` where there "
            "is a network, and set SUPERPOS_DATA to the folder that it fills."
        ) from error


def _pile(seed: int, first: int, count: int) -> tuple[list[str], dict[str, int]]:
    """Documents at some places of the stream, empty ones left out before they are counted."""
    empty = 0
    found: list[str] = []
    for text in pile(seed):
        if not text.strip():
            empty += 1
            continue
        found.append(text)
        if len(found) == first + count:
            break
    return found[first:], {"empty": empty} if empty else {}


@lru_cache(maxsize=1)
def _embedded() -> tuple[list[str], dict[str, int]]:
    """Outermost functions with their docstrings, and docstrings of modules and classes."""
    skipped: Counter[str] = Counter()
    documents: dict[str, None] = {}
    root = Path(sysconfig.get_paths()["stdlib"])
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - _NOT_READ)
        for file in sorted(name for name in files if name.endswith(".py")):
            try:
                source = (Path(folder) / file).read_text(encoding="utf-8")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # old escapes in strings
                    tree = ast.parse(source)
            except (OSError, UnicodeDecodeError):
                skipped["file not readable as UTF-8"] += 1
                continue
            except (SyntaxError, ValueError, RecursionError):
                skipped["file that is no Python"] += 1
                continue
            lines = [f"{line}\n" for line in source.split("\n")]  # as the parser counts them
            for text in _parts(tree, lines):
                skipped["repeated"] += text in documents
                documents[text] = None
    return list(documents), {reason: count for reason, count in skipped.items() if count}


def _parts(node: ast.AST, lines: list[str]) -> Iterator[str]:
    """Source of the outermost functions under a node, and docstrings on the way to them."""
    if isinstance(node, (ast.Module, ast.ClassDef)) and (text := ast.get_docstring(node)):
        yield text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield "".join(lines[child.lineno - 1 : child.end_lineno])
        else:
            yield from _parts(child, lines)


def _found(name: str, root: Path) -> Path:
    """A file or folder, in the current folder or in that of the data."""
    for path in (Path(name), root / name) if str(name) else ():
        if path.exists():
            return path
    raise DataNotFound(
        f"There is no text {name!r} in the current folder or in {root}: give 'embedded', 'pile', "
        "or a file or folder; SUPERPOS_DATA names another folder to look in."
    )


def _local(path: Path) -> tuple[list[str], dict[str, int]]:
    """Documents of a file or folder."""
    skipped: Counter[str] = Counter()
    if path.is_dir():
        parts = [_decoded(file, skipped) for file in sorted(path.rglob("*.txt"))]
        parts = [part for part in parts if part is not None]
    elif path.suffix == ".jsonl":
        parts = _lines_of_json(path)
    else:
        whole = _decoded(path, skipped)
        parts = [] if whole is None else re.split(r"\n\s*\n", whole)
    documents = [part for part in parts if part.strip()]
    skipped["empty"] += len(parts) - len(documents)
    if not documents:
        raise ValueError(f"{path} holds no document with any text in it.")
    return documents, {reason: count for reason, count in skipped.items() if count}


def _lines_of_json(path: Path) -> list[str]:
    """The `text` of every line of a file of JSON objects."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # other separators may stand in JSON
        parts = [json.loads(line)["text"] for line in lines if line.strip()]
    except (ValueError, KeyError, TypeError) as error:  # of which bad UTF-8 is one
        raise ValueError(
            f"{path} must hold one JSON object with a key 'text' a line: {error!r}."
        ) from None
    if wrong := [part for part in parts if not isinstance(part, str)]:
        raise ValueError(f"{path} must hold text under the key 'text', not {wrong[0]!r}.")
    return parts


def _decoded(file: Path, skipped: Counter[str]) -> str | None:
    """A file's text, or None, counted, if it is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        skipped["file not readable as UTF-8"] += 1
        return None


def _enough(text: Text, name: str, first: int, count: int | None, total: int) -> Text:
    """The same text, if it holds as many documents as asked for."""
    if not text.documents or (count is not None and len(text.documents) < count):
        asked = "any" if count is None else f"{count}"
        raise ValueError(
            f"The text {name!r} holds {total} documents: too few to take {asked} from place "
            f"{first} on; ask for fewer."
        )
    return text


class Tokens(NamedTuple):
    """Documents as token ids."""

    ids: list[list[int]]
    """One list per document that was kept."""
    skipped: dict[str, int]
    """Reasons, and how many documents were left out (or cut) for each."""


def tokenized(
    documents: list[str], tokenizer: object, *, characters: int | None = None, context: int
) -> Tokens:
    """Token ids of documents.

    Args:
        documents: their texts.
        tokenizer: a fast tokenizer of transformers.
        characters: how many characters of each are read (the paper: 512); all if None.
        context: tokens that the network takes; longer documents are cut, which is counted.

    Returns:
        Ids of all documents with two tokens or more; counts of those with fewer, and of those cut.
    """
    texts = [text[:characters] for text in documents]
    batches = [texts[first : first + 1000] for first in range(0, len(texts), 1000)]
    found = itertools.chain.from_iterable(
        tokenizer(batch, add_special_tokens=False)["input_ids"] for batch in batches
    )
    kept, skipped = [], Counter()
    for ids in found:
        if len(ids) < 2:
            skipped["fewer than two tokens"] += 1
            continue
        skipped[f"cut to {context} tokens"] += len(ids) > context
        kept.append(ids[:context])
    return Tokens(kept, {reason: count for reason, count in skipped.items() if count})
