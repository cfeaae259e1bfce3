"""What many conditions share and one makes: trained networks and their dictionaries, in folders.

A folder is there whole or not at all. Of several processes that want the same one, one makes it
while the others wait.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from .store import results_root


def stocked(kind: str, what: dict[str, Any], make: Callable[[Path], None]) -> Path:
    """The folder with some content, made first if it is not there.

    Args:
        kind: names the folder of such folders, below `stock` in the folder of results.
        what: plain values that decide the content. The version of torch is added.
        make: fills a new, empty folder.

    Returns:
        The folder; `what.json` in it says what it holds.
    """
    content = {**what, "torch": torch.__version__}
    text = json.dumps(content, sort_keys=True, indent=1)
    place = results_root() / "stock" / kind / hashlib.sha256(text.encode()).hexdigest()[:16]
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock")):
        if place.is_dir():  # another process made it meanwhile
            return place
        partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
        partial.mkdir()
        try:
            make(partial)
            (partial / "what.json").write_text(text, encoding="utf-8")
            os.replace(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return place
