"""Features of a language model on a shard of documents, and shards put together."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .dictionary import codes
from .dimension import two_nn
from .entropy import effective_features
from .files import write_json
from .language_models import SHOWN
from .language_sites import token_activations
from .magnitudes import Magnitudes, features_or_nan, packed, points, unpacked
from .record import plain
from .sae import ARCHITECTURES, SAE, SAEConfig
from .solver import Fit, fit


@dataclass(frozen=True)
class Fitting:
    """How dictionaries are fitted here, the same at every site.

    Activations are divided by their root mean square first, since sites differ in scale by two
    orders of magnitude and one l1 is to mean the same everywhere.
    """

    architecture: str
    expansion: float
    l1: float
    steps: int
    """Of one round of the solver."""
    rounds: int
    """At most."""
    samples: int
    """Tokens that dictionaries are fitted to."""

    def __post_init__(self) -> None:
        """Refuse architectures that do not exist."""
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture is {self.architecture!r}; allowed are {', '.join(ARCHITECTURES)}."
            )

    @property
    def config(self) -> SAEConfig:
        """As the solver takes it."""
        return SAEConfig(
            architecture=self.architecture, expansion=self.expansion, l1=self.l1, normalize=True,
            starts=1, steps=self.steps, rounds=self.rounds,
        )  # fmt: skip


def fit_sites(
    model: nn.Module,
    ids: Sequence[Sequence[int]],
    fitting: Fitting,
    *,
    seed: int = 0,
    progress: bool = False,
) -> tuple[list[str], Fit]:
    """Fit a dictionary to every site of a language model, all in one batched computation.

    Args:
        model: of transformers.
        ids: token ids of documents.
        fitting: what is fitted.
        seed: of the tokens drawn and of the dictionaries.
        progress: show a bar.

    Returns:
        Names of the sites, and the fit, with one member for each.
    """
    options = {"desc": "reading", "disable": not progress, "leave": False, "mininterval": SHOWN}
    passes = tqdm(token_activations(model, ids), **options)
    drawn = _drawn(passes, _places(ids, fitting.samples, seed))
    x = torch.stack(list(drawn.values()))
    return list(drawn), fit(x, fitting.config, seeds=[seed], progress=progress)


def save_sites(folder: Path, sites: Sequence[str], found: Fit) -> None:
    """Write dictionaries in the layout that `superpos.pretrained` reads, and how the fit went.

    Args:
        folder: made if it is not there; `fit.json` in it holds, by site, the `loss` per element
            over the tokens fitted to, F over them, and the rounds used.
        sites: names of the members of the fit.
        found: what `fit_sites` returned.
    """
    values = (found.loss.tolist(), found.features.tolist(), found.rounds.tolist())
    about = {}
    for place, (site, loss, features, rounds) in enumerate(zip(sites, *values, strict=True)):
        own = folder / site / f"fitted_{found.sae.dictionary}"
        own.mkdir(parents=True)
        found.sae.select([place]).save(own / "sae.safetensors")
        about[site] = {"loss": loss, "features": plain(features), "rounds": rounds}
    write_json(folder / "fit.json", about)


def measured(
    model: nn.Module,
    ids: Sequence[Sequence[int]],
    saes: Mapping[str, SAE],
    *,
    precision: str = "float32",
    samples: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Summed codes at every site over documents, read in one pass.

    Args:
        model: of transformers.
        ids: token ids of documents.
        saes: dictionaries by site, of one member.
        precision: of `superpos.magnitudes`.
        samples: tokens drawn for what needs them at once.
        seed: of that draw.
        progress: show a bar.

    Returns:
        One row of plain values per site: `site`, `kind`, `layer` (from one; 0 for the embedding),
        `neurons`, `dictionary`, its `weights` as a digest, `documents`, `tokens`; `codes`, the
        sums as text (`superpos.magnitudes.packed`); `features`; F after so many documents, `curve`
        at `points`; and on the sample `active` codes per token, share of variance `explained`, and
        intrinsic `dimension` (TwoNN). None stands for what is not defined.
    """
    at = points(len(ids))
    sums = {site: Magnitudes(sae, at, precision) for site, sae in saes.items()}
    passes = token_activations(model, ids, list(saes))
    options = {"desc": "documents", "disable": not progress, "leave": False, "mininterval": SHOWN}
    with tqdm(total=len(ids), **options) as bar:
        drawn = _drawn(_added(passes, sums, bar), _places(ids, samples, seed))
    rows = []
    for site, own in sums.items():
        about = codes(own.sae, drawn[site])
        kind, _, layer = site.partition("_layer")
        rows.append(
            {
                "site": site, "kind": kind, "layer": int(layer) + 1 if layer else 0,
                "neurons": own.sae.neurons, "dictionary": own.sae.dictionary,
                "weights": _digest(own.sae),
                "documents": own.documents, "tokens": own.tokens, "codes": packed(own.codes),
                "features": plain(own.curve[at[-1]]), "points": at,
                "curve": [plain(own.curve[point]) for point in at],
                "active": plain(about.active.item()), "explained": plain(about.explained.item()),
                "dimension": plain(two_nn(drawn[site])),
            }
        )  # fmt: skip
    return rows


class Merged(NamedTuple):
    """Shards of one site put together."""

    codes: Tensor
    """Sums over all documents, `[dictionary]`, double."""
    documents: int
    tokens: int
    features: float
    """Effective features F; nan if every code is zero."""
    low: float
    high: float
    """Interval of F over documents, from a jackknife over shards; nan with fewer than three."""
    ends: list[int]
    """Documents in the first shard, in the first two, and so on."""
    curve: list[float]
    """F after each of these numbers."""


def merged(shards: Iterable[Mapping[str, Any]]) -> Merged:
    """Put the shards of one site together: F is that of one pass over all of them.

    Args:
        shards: rows of `measured` in the order of the documents.

    Raises:
        ValueError: no shard, or shards of different sites, dictionaries (`dictionary`, `weights`)
            or texts (`digest`).
    """
    shards = list(shards)
    if not shards:
        raise ValueError("there is no shard to merge.")
    for name in ("site", "dictionary", "weights", "digest"):
        if len(found := {shard.get(name) for shard in shards}) > 1:
            raise ValueError(f"shards differ in their {name}: {', '.join(map(str, found))}.")
    each = torch.stack([unpacked(shard["codes"]) for shard in shards])
    totals = each.cumsum(0)
    curve = [features_or_nan(total) for total in totals]
    features, half = curve[-1], math.nan
    left_out = (totals[-1] - each).clamp_min(0)
    if len(shards) > 2 and bool((left_out > 0).any(1).all()):
        left_out = effective_features(left_out)
        half = scipy.stats.t.ppf(0.975, len(shards) - 1) * math.sqrt(
            (len(shards) - 1) * left_out.var(correction=0).item()
        )
    documents = torch.tensor([shard["documents"] for shard in shards]).cumsum(0).tolist()
    return Merged(
        totals[-1], documents[-1], sum(shard["tokens"] for shard in shards), features,
        *_bounded(features, half, each.shape[1]), documents, curve,
    )  # fmt: skip


def _digest(sae: SAE) -> str:
    """16 hexadecimal digits that tell dictionaries apart."""
    parts = (value.cpu().contiguous().numpy().tobytes() for value in (sae.encoder, sae.bias))
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _bounded(features: float, half: float, dictionary: int) -> tuple[float, float]:
    """An interval cut to 1 <= F <= D; nan stays nan."""
    low, high = np.clip([features - half, features + half], 1.0, dictionary).tolist()
    return low, high


def _places(ids: Sequence[Sequence[int]], samples: int, seed: int) -> Tensor:
    """Places of a uniform sample of all documents' tokens, rising."""
    tokens = sum(len(own) for own in ids)
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))
    return order[:samples].sort().values


def _drawn(
    passes: Iterable[tuple[Mapping[str, Tensor], Sequence[int]]], places: Tensor
) -> dict[str, Tensor]:
    """Activations of the tokens at some places, the same at all sites."""
    parts: dict[str, list[Tensor]] = {}
    first = 0
    for found, lengths in passes:
        last = first + sum(lengths)
        own = places[(places >= first) & (places < last)] - first
        for site, x in found.items():
            parts.setdefault(site, []).append(x[own.to(x.device)])
        first = last
    return {site: torch.cat(rows) for site, rows in parts.items()}


def _added(
    passes: Iterable[tuple[dict[str, Tensor], list[int]]], sums: Mapping[str, Magnitudes], bar: tqdm
) -> Iterable[tuple[dict[str, Tensor], list[int]]]:
    """The same passes, each added to the sums on its way."""
    for found, lengths in passes:
        for site, x in found.items():
            sums[site].add(x, lengths)
        bar.update(len(lengths))
        yield found, lengths
