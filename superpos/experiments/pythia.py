"""Language models (paper section 6.4, figure 6a): features at every site of every layer.

Three roads share this code: Pythia-70M with the dictionaries of Marks et al. on the Pile, any
causal language model of transformers with dictionaries fitted here, and small networks of Pythia's
architecture that are trained here first.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..data.text import EMBEDDED, PILE, Tokens, read_text, tokenized
from ..device import DEVICES
from ..hub import fetch_dictionaries, fetch_model, fetch_pile
from ..language_models import Training, folder_of, losses, split, train
from ..language_sites import language_sites, load_model
from ..language_tables import claimed, main, sites
from ..ledger import Estimate
from ..magnitudes import PRECISIONS
from ..pretrained import load_dictionaries
from ..sae import ARCHITECTURES, SAE
from ..settings import PROFILES, data_root, setting
from ..shards import Fitting, fit_sites, measured, save_sites
from ..stock import stocked
from ..sweep import ENGINES

SECTION = "pythia"
VERSION = 1
TITLE = "Language models"

SMALL = "small"
"""The model's name that stands for networks trained here."""
FITTED = "fitted"
"""What `dictionaries` is when they are fitted here."""
PYTHIA = "EleutherAI/pythia-70m-deduped"
PAPER_FEATURES = {
    "mlp_out": (6300, 10_500, 5500, 6100, 5400, 3200),
    "resid_out": (4500, 6900, 5150, 3800, 5450, 3300),
    "attn_out": (2100, 2950, 3400, 2400, 3500, 2700),
}
"""F of Pythia-70M by layer, read off figure 6a; the embedding has about 4,200."""
PAPER_CURVE = {
    1: 191, 2: 225, 5: 496, 10: 831, 20: 1421, 50: 2413, 100: 3253, 200: 4193, 500: 5024,
    1000: 5598, 2000: 5914, 5000: 6149, 10_000: 6268, 20_000: 6320, 50_000: 6328,
}  # fmt: skip
"""F of the first MLP over documents."""
PROBE = ("input_ids", "attention_mask")
TOKENS_A_DOCUMENT = 10  # drawn on average, for fitting


@dataclass(frozen=True)
class Settings:
    """Parameters of the notebook."""

    profile: str = setting("quick", "which profile's values these are", choices=PROFILES)
    model: str = setting(SMALL, "small: trained here; else a folder, or a name on the hub")
    dictionaries: str = setting(
        FITTED, "fitted: here; else a folder as in Marks et al., or saelens:<releases>"
    )
    texts: tuple[str, ...] = setting(
        (EMBEDDED,), "embedded, pile, or files and folders; a small network is trained on its own"
    )
    seeds: int = setting(1, "small networks of each text; else draws of documents", low=1, high=100)
    documents: int = setting(800, "documents measured on, of each seed", low=2)
    shard: int = setting(200, "documents in a record", low=1)
    characters: int = setting(512, "characters read of each document", low=1)
    precision: str = setting("float32", "what codes are computed in", choices=PRECISIONS)
    samples: int = setting(2000, "tokens of a shard for dimension and variance", low=100)
    layers: int = setting(4, "layers of a small network", low=1, high=100)
    width: int = setting(64, "its neurons N at every site", low=2)
    heads: int = setting(2, "its attention heads", low=1)
    vocabulary: int = setting(1024, "tokens of its byte-pair tokenizer", low=257)
    context: int = setting(128, "tokens of a training sequence", low=2)
    steps: int = setting(500, "training steps", low=1)
    batch: int = setting(16, "sequences per step", low=1)
    rate: float = setting(3e-3, "AdamW's learning rate", low=1e-8)
    course: tuple[int, ...] = setting((), "earlier steps at which F is measured too", low=0)
    architecture: str = setting("untied", "of dictionaries fitted here", choices=ARCHITECTURES)
    expansion: float = setting(8.0, "their size over neurons", low=1.0, high=1024.0)
    l1: float = setting(3.0, "their penalty, on activations of unit size", low=0.0)
    sae_steps: int = setting(1000, "steps of a round of the SAE solver", low=1)
    sae_rounds: int = setting(1, "rounds, at most", low=1)
    sae_samples: int = setting(10_000, "tokens that dictionaries are fitted to", low=100)
    other_l1: tuple[float, ...] = setting((), "penalties to compare with", low=0.0)
    other_sae_steps: tuple[int, ...] = setting((), "steps of a round to compare with", low=1)
    other_architectures: tuple[str, ...] = setting(
        (), "architectures to compare with", choices=ARCHITECTURES
    )
    engine: str = setting("serial", "how conditions are run", choices=ENGINES)
    device: str = setting("auto", "where to compute", choices=DEVICES)

    def __post_init__(self) -> None:
        """What is trained or fitted must be possible, and a course needs networks trained here."""
        if not self.texts:
            raise ValueError("texts is empty; give at least one.")
        if self.model != SMALL and self.course:
            raise ValueError(f"course is of networks trained here: set model to {SMALL!r}.")
        others = self.other_l1 or self.other_sae_steps or self.other_architectures
        if self.dictionaries != FITTED and (self.model == SMALL or others):
            raise ValueError(
                "dictionaries made elsewhere suit neither networks trained here nor a comparison "
                f"of ways of fitting: set dictionaries to {FITTED!r}."
            )
        for text in self.texts if self.model == SMALL else ():
            _training(self, text, 0)
        for name in ("l1", "sae_steps"):
            if getattr(self, name) in getattr(self, f"other_{name}"):
                raise ValueError(f"other_{name} repeats {name}, which is {getattr(self, name)}.")
        if self.architecture in self.other_architectures or self.steps in self.course:
            raise ValueError(
                "other_architectures and course must not repeat what is measured anyway."
            )


@dataclass(frozen=True)
class Condition:
    """One shard of documents through one network with one set of dictionaries."""

    model: str
    training: Training | None
    """Of a small network, else None."""
    step: int | None
    """Of its training."""
    dictionaries: str
    fitting: Fitting | None
    """Of dictionaries fitted here, else None."""
    text: str
    seed: int
    after: int | None
    """Of a model that is not trained here, and dictionaries that are fitted here: place from which
    on the documents stand that they are fitted to."""
    first: int
    """Place of the shard's first document."""
    count: int
    """Its documents."""
    characters: int
    precision: str
    samples: int


def conditions(settings: Settings) -> list[Condition]:
    """All shards of every network, and one shard of what they are compared with.

    That is the course of training, and other ways of fitting dictionaries, of each text's first
    network (or draw). Networks alternate, so that processes that share a sweep train different
    ones.
    """
    networks = list(itertools.product(settings.texts, range(settings.seeds)))
    starts = range(0, settings.documents, settings.shard)
    compared = [
        *({"step": step} for step in settings.course),
        *({"l1": l1} for l1 in settings.other_l1),
        *({"steps": steps} for steps in settings.other_sae_steps),
        *({"architecture": name} for name in settings.other_architectures),
    ]
    return [
        *(_condition(settings, text, seed, 0) for text, seed in networks),
        *(_condition(settings, text, 0, 0, **own) for own in compared for text in settings.texts),
        *(_condition(settings, *network, first) for network in networks for first in starts[1:]),
    ]


def _condition(
    settings: Settings, text: str, seed: int, first: int, step: int | None = None, **fitting: Any
) -> Condition:
    """A shard's condition; what is not given is as in the settings."""
    small, fitted = settings.model == SMALL, settings.dictionaries == FITTED
    usual = Fitting(
        settings.architecture, settings.expansion, settings.l1, settings.sae_steps,
        settings.sae_rounds, settings.sae_samples,
    )  # fmt: skip
    return Condition(
        model=settings.model,
        training=_training(settings, text, seed) if small else None,
        step=(settings.steps if step is None else step) if small else None,
        dictionaries=settings.dictionaries,
        fitting=replace(usual, **fitting) if fitted else None,
        text=text,
        seed=seed,
        after=settings.documents if fitted and not small else None,
        first=first,
        count=min(settings.shard, settings.documents - first),
        characters=settings.characters,
        precision=settings.precision,
        samples=settings.samples,
    )


def _training(settings: Settings, text: str, seed: int) -> Training:
    names = set(Training.__dataclass_fields__) - {"text", "seed", "checkpoints"}
    kept = tuple(sorted({*settings.course, settings.steps}))
    values = {name: getattr(settings, name) for name in names}
    return Training(text=text, seed=seed, checkpoints=kept, **values)


def run(condition: Condition, *, device: str) -> list[dict[str, Any]]:
    """Summed codes of one shard: one row per site, as `superpos.shards.measured` gives them.

    Every row also has the text's `digest`, what was `skipped` and why, the hub's commit of the
    model, and of a small network its `loss` at this step and that of a `bigram` model, in nats a
    token on held-out text; of dictionaries fitted here the `fit_loss`.
    """
    model, tokenizer = _model(condition.model, condition.training, condition.step, device)
    documents, digest, skipped = _documents(condition)
    tokens = _tokenized(documents, tokenizer, _context(condition, model), condition.characters)
    rows = measured(
        model, tokens.ids, _dictionaries(_for_all_shards(condition), device),
        precision=condition.precision, samples=condition.samples, seed=condition.seed,
        progress=True,
    )  # fmt: skip
    about: dict[str, Any] = {"loss": None, "bigram": None}
    about["model_commit"] = getattr(model.config, "_commit_hash", None)
    if condition.training is not None:
        found = losses(_trained(condition.training, device))
        about |= {"loss": found["losses"][condition.step], "bigram": found["bigram"]}
    about |= {"digest": digest, "skipped": {**skipped, **tokens.skipped}}
    fits = _fit_losses(_for_all_shards(condition), device)
    return [{**row, **about, "fit_loss": fits.get(row["site"])} for row in rows]


def _documents(condition: Condition) -> tuple[list[str], str, dict[str, int]]:
    """A shard's documents: of text that a small network has never seen, or of the whole text."""
    first, count = condition.first, condition.count
    if condition.training is None:
        text = read_text(condition.text, seed=condition.seed, first=first, count=count)
        return text.documents, text.digest, text.skipped
    parts = split(condition.text, condition.seed)
    found = parts.held_out[first : first + count]
    if len(found) < count:
        raise ValueError(
            f"the text {condition.text!r} holds {len(parts.held_out)} documents out for measuring: "
            f"set documents to at most that, not to {first + count} or more."
        )
    return found, parts.digest, parts.skipped


def _context(condition: Condition, model: Any) -> int:
    """Tokens of a document that are read: as many as the network was trained on at once."""
    if condition.training is not None:
        return condition.training.context
    return getattr(model.config, "max_position_embeddings", 2048)


def _tokenized(documents: list[str], tokenizer: Any, context: int, characters: int) -> Tokens:
    found = tokenized(documents, tokenizer, characters=characters, context=context)
    if not found.ids:
        raise ValueError(f"no document has two tokens: {found.skipped}.")
    return found


@lru_cache(maxsize=1)
def _model(name: str, training: Training | None, step: int | None, device: str) -> tuple[Any, Any]:
    """Network and tokenizer."""
    if training is None:
        return load_model(name, device=device)
    return load_model(str(folder_of(_trained(training, device), step)), device=device)


@lru_cache(maxsize=8)
def _trained(training: Training, device: str) -> Path:
    """The folder of a small network, trained when it is first asked for."""
    digest = split(training.text, training.seed).digest
    return stocked(
        "networks",
        {
            "version": VERSION,
            "digest": digest,
            "device": torch.device(device).type,
            **asdict(training),
        },
        lambda folder: train(training, folder, device=device, progress=True),
    )


def fetch(settings: Settings) -> Iterator[str]:
    """Get what a run needs from the hub, and say where it went.

    Raises:
        DataNotFound, HubUnreachable: the hub cannot be reached.
    """
    if settings.model != SMALL and not Path(settings.model).is_dir():
        yield f"{settings.model}: {fetch_model(settings.model)}"
    if settings.dictionaries != FITTED and settings.model.endswith(PYTHIA.split("/")[-1]):
        yield f"dictionaries: {fetch_dictionaries(data_root())}"
    for seed in range(settings.seeds) if PILE in settings.texts else ():
        more = settings.sae_samples // TOKENS_A_DOCUMENT if settings.dictionaries == FITTED else 0
        yield "text: " + str(
            fetch_pile(
                data_root(), seed=seed, count=settings.documents + more,
                characters=settings.characters,
            )
        )  # fmt: skip


def _for_all_shards(condition: Condition) -> Condition:
    """What the dictionaries of all shards depend on."""
    return replace(condition, first=0, count=0, precision="float32", samples=0)


@lru_cache(maxsize=1)
def _dictionaries(condition: Condition, device: str) -> dict[str, SAE]:
    """Dictionaries by site, fitted when they are first asked for."""
    model, _ = _model(condition.model, condition.training, condition.step, device)
    name, folder = condition.model, condition.dictionaries
    if condition.fitting is not None:
        name, folder = "fitted", _fitted(condition, device)
    probe = {key: torch.ones(1, 2, dtype=torch.long, device=device) for key in PROBE}
    sites = list(language_sites(model, probe))
    return load_dictionaries(folder, name, sites, model.config.hidden_size, device=device)


def _fit_losses(condition: Condition, device: str) -> dict[str, float]:
    """Loss per element of dictionaries fitted here, by site; empty for others."""
    if condition.fitting is None:
        return {}
    about = json.loads((_fitted(condition, device) / "fitted" / "fit.json").read_text("utf-8"))
    return {site: own["loss"] for site, own in about.items()}


@lru_cache(maxsize=8)
def _fitted(condition: Condition, device: str) -> Path:
    """The folder of dictionaries fitted to documents that are not measured on."""
    model, tokenizer = _model(condition.model, condition.training, condition.step, device)
    fitting, count = condition.fitting, max(1, condition.fitting.samples // TOKENS_A_DOCUMENT)
    if condition.training is None:
        text = read_text(condition.text, seed=condition.seed, first=condition.after, count=count)
        documents, digest = text.documents, text.digest
    else:
        parts = split(condition.text, condition.seed)
        documents, digest = parts.train[:count], parts.digest
    commit = getattr(model.config, "_commit_hash", None)
    what = {"version": VERSION, "digest": digest, "commit": commit, **asdict(condition)}
    what["device"] = torch.device(device).type

    def make(folder: Path) -> None:
        context = _context(condition, model)
        tokens = _tokenized(documents, tokenizer, context, condition.characters)
        sites, found = fit_sites(model, tokens.ids, fitting, seed=condition.seed, progress=True)
        save_sites(folder / "fitted", sites, found)

    return stocked("dictionaries", what, make)


def estimates(frame: pd.DataFrame, settings: Settings) -> dict[str, Estimate]:
    """Values for the claims, intervals over networks (or over draws of documents).

    Of any network but Pythia-70M with the dictionaries of Marks et al. they say so by `stand_in`.
    """
    table = main(sites(frame), settings)
    about = stand_in(table, settings)
    return {name: own._replace(stand_in=about) for name, own in claimed(table).items()}


def stand_in(table: pd.DataFrame, settings: Settings) -> str:
    """What was measured in place of Pythia-70M with the dictionaries of Marks et al., if so."""
    if settings.model == SMALL:
        return f"small networks of {settings.layers} layers and {settings.width} neurons"
    named = settings.model.rstrip("/").split("/")[-1] == PYTHIA.split("/")[-1]
    if not named or set(table["neurons"]) != {512} or table["layer"].max() != 6:
        return f"another model ({settings.model.rstrip('/').split('/')[-1]})"
    if set(table["dictionary"]) != {32_768} or settings.dictionaries == FITTED:
        return "Pythia-70M with other dictionaries"
    return "" if settings.texts == (PILE,) else "Pythia-70M on other text"
