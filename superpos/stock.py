"""What many conditions share and one makes: trained networks and their dictionaries, in folders.

A folder is there whole or not at all. Of several processes that want the same one, one makes it
while the others wait.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from .files import is_remote, write_json
from .provenance import provenance
from .settings import project_root
from .store import results_root

LIBRARIES = ("torch", "transformers", "tokenizers")
"""Whose versions belong to what a folder holds."""


def stocked(
    kind: str, what: dict[str, Any], make: Callable[[Path], None], *, resumable: bool = False
) -> Path:
    """The folder with some content, made first if it is not there.

    Args:
        kind: names the folder of such folders, below `stock` in the folder of results, or where
            that is a URL, in the project's.
        what: plain values that decide the content. Versions of the libraries are added.
        make: fills a new, empty folder.
        resumable: a folder that was not finished stays, and the next one to make it goes on with
            what lies in it. Default: it goes.

    Returns:
        The folder; in it, `what.json` says what it holds and `provenance.json` how it was made.
    """
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    text = json.dumps({**what, **versions}, sort_keys=True, indent=1)
    root = results_root()
    if is_remote(root):  # what is stocked is read as folders of files
        root = project_root() / "results"
    place = root / "stock" / kind / hashlib.sha256(text.encode()).hexdigest()[:16]
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock")):
        if place.is_dir():  # another process made it meanwhile
            return place
        unique = "unfinished" if resumable else uuid.uuid4().hex[:8]
        partial = place.with_name(f".{place.name}.{unique}")
        partial.mkdir(exist_ok=resumable)
        try:
            began = time.perf_counter()
            make(partial)
            about = provenance(
                device=what.get("device", "cpu"), seconds=time.perf_counter() - began
            )
            write_json(partial / "provenance.json", about)
            (partial / "what.json").write_text(text, encoding="utf-8")
            os.replace(partial, place)
        finally:
            if not resumable:
                shutil.rmtree(partial, ignore_errors=True)
    return place
