"""Fetch models, dictionaries and text beforehand, for machines without a network."""

from __future__ import annotations

import itertools
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from .data.text import pile
from .given import MOST, whole
from .pretrained import MARKS, MARKS_FILE


class HubUnreachable(ConnectionError):
    """The hub cannot be reached, or lacks what was asked for."""


def fetch_model(name: str) -> Path:
    """A model's weights, configuration and tokenizer, into the hub's own cache (HF_HOME).

    Raises:
        HubUnreachable: the hub cannot be reached or has no such model.
    """
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    return _reached(name, lambda: snapshot_download(name, allow_patterns=patterns))


def fetch_dictionaries(root: Path) -> Path:
    """The dictionaries of Marks et al. (2024) for Pythia-70M, 2.4 GB, unpacked below a folder.

    Args:
        root: where `dictionaries/pythia-70m-deduped/<site>/10_32768/ae.pt` go.

    Raises:
        HubUnreachable: the hub cannot be reached.
        ValueError: the archive holds paths that lead out of the folder.
    """
    from huggingface_hub import hf_hub_download

    archive = _reached(MARKS, lambda: hf_hub_download(MARKS, MARKS_FILE))
    unpack(archive, root)
    return root / "dictionaries"


def unpack(archive: Path, root: Path) -> None:
    """Unpack every `ae.pt` of a zip archive that is not there yet, nowhere but inside a folder.

    Raises:
        ValueError: the file is no intact zip archive, or a path leads out of the folder; nothing
            is written then.
    """
    try:
        _unpack(archive, root)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{archive} is no intact zip archive ({error}): remove it and fetch it again."
        ) from None


def _unpack(archive: Path, root: Path) -> None:
    root = root.resolve()
    with zipfile.ZipFile(archive) as file:
        wanted = [own for own in file.infolist() if own.filename.endswith("/ae.pt")]
        for own in wanted:
            if not (root / own.filename).resolve().is_relative_to(root):
                raise ValueError(f"{archive} holds {own.filename!r}, which leads out of {root}.")
        for own in tqdm(wanted, desc="unpacking"):
            target = root / own.filename
            if target.is_file() and target.stat().st_size == own.file_size:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(".partial")
            with file.open(own) as source, partial.open("wb") as sink:
                while block := source.read(2**24):
                    sink.write(block)
            os.replace(partial, target)


def fetch_pile(root: Path, *, seed: int, count: int, characters: int) -> Path:
    """The beginnings of documents of the Pile, in the order that a seed gives them.

    Args:
        root: where `pile_seed<seed>.jsonl` goes, which `superpos.data.text` reads.
        seed: of the shuffled stream.
        count: how many documents.
        characters: how much of each is kept; of one that begins with blanks, up to its first word.

    Raises:
        DataNotFound: the hub cannot be reached.
        ValueError: a number is none.
    """
    seed, count = whole("seed", seed, -MOST), whole("count", count)
    characters = whole("characters", characters)
    target = root / f"pile_seed{seed}.jsonl"
    root.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    found = itertools.islice((text for text in pile(seed) if text.strip()), count)
    with partial.open("w", encoding="utf-8") as file:
        for text in tqdm(found, total=count, desc=f"documents, seed {seed}"):
            blank = len(text) - len(text.lstrip())
            file.write(json.dumps({"text": text[: max(characters, blank + 1)]}) + "\n")
    os.replace(partial, target)
    return target


def _reached(name: str, get: Callable[[], str]) -> Path:
    """What the hub gives, or one sentence."""
    try:
        return Path(get())
    except Exception as error:  # the hub's client and those below it raise errors of many kinds
        raise HubUnreachable(
            f"{name} could not be fetched from the hub ({type(error).__name__}): run this where "
            "there is a network and HF_HUB_OFFLINE is not set, then copy HF_HOME and SUPERPOS_DATA."
        ) from error
