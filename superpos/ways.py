"""The ways in which chapters fit sparse autoencoders to one layer, and what they keep of each.

The paper's text describes a tied autoencoder on activations; the numbers of its figure 4 come from
an untied one on pre-activations, fitted to about 1,000 samples for 300 epochs. Here is either, the
second one also fitted until it converges, and dictionaries that keep a fixed number of codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .dictionary import codes, directions, nearest_cosines, neurons_per_direction
from .entropy import effective_features, participation_ratio
from .recipe import fit_for_epochs
from .sae import SAE, SAEConfig
from .solver import fit

PRE, POST = "pre", "post"
"""Sites of a hidden layer: its pre-activations, and its activations."""


class Way(NamedTuple):
    """One way of fitting."""

    architecture: str
    """Of `superpos.sae.ARCHITECTURES`."""
    site: str
    """Where activations are read, `PRE` or `POST`."""
    converges: bool
    """Whether the fit goes on until the loss stands still, or for a number of epochs."""
    label: str
    """For figures and tables."""


WAYS = {
    "tied": Way("tied", POST, True, "tied, fitted on"),
    "untied": Way("untied", PRE, True, "untied, fitted on"),
    "recipe": Way("untied", PRE, False, "untied, stopped early"),
    "topk": Way("topk", POST, True, "TopK"),
    "batchtopk": Way("batchtopk", POST, True, "BatchTopK"),
}
"""`tied` is the paper's text, `recipe` its figure 4; there the decoder's rows are free, while
`untied` holds them at length one, without which its loss has no minimum."""

RECIPE_SAMPLES = 1000  # what the paper's figure 4 is fitted to
RECIPE_BATCH = 64
DECILES = tuple(i / 10 for i in range(11))


class Fitted(NamedTuple):
    """Autoencoders, one per member, and what they were fitted to."""

    sae: SAE
    """The autoencoders."""
    x: Tensor
    """Activations, `[members, samples, neurons]`."""
    epochs: int | None
    """Passes over the samples; None where the fit went on until it converged."""
    converged: list[bool | None]
    """Per member; None where that was not the aim."""


def check_dictionary(expansion: float, neurons: int) -> None:
    """Refuse a dictionary of less than one code.

    Raises:
        ValueError: the expansion is too small for so many neurons.
    """
    if expansion * neurons < 1:
        raise ValueError(
            f"an expansion of {expansion} leaves {neurons} neurons a dictionary of less than one "
            f"code; give at least {1 / neurons:g}."
        )


def fitted(
    way: str,
    activations: dict[str, Tensor],
    config: SAEConfig,
    *,
    seeds: Sequence[int],
    epochs: Sequence[int] = (300,),
) -> list[Fitted]:
    """Fit autoencoders in one of the `WAYS`.

    Args:
        way: its name.
        activations: by site, `[members, samples, neurons]`.
        config: dictionary, l1 or k, and limits; the architecture is the way's own.
        seeds: one per member.
        epochs: for a way that does not converge, when to keep a copy.

    Returns:
        One entry, or one for each number of epochs.

    Raises:
        ValueError: no such way, or as in `fit` and `fit_for_epochs`.
    """
    if way not in WAYS:
        raise ValueError(f"way is {way!r}; allowed are {', '.join(WAYS)}.")
    chosen = WAYS[way]
    config = replace(config, architecture=chosen.architecture)
    x = activations[chosen.site]
    if chosen.converges:
        result = fit(x, config, seeds=seeds)
        return [Fitted(result.sae, x, None, result.converged.tolist())]
    x = x[:, :RECIPE_SAMPLES]
    saes = fit_for_epochs(x, config, epochs=epochs, seeds=seeds, batch=RECIPE_BATCH)
    unknown = [None] * len(x)
    return [Fitted(sae, x, count, unknown) for sae, count in zip(saes, epochs, strict=True)]


def described(entry: Fitted) -> list[dict[str, Any]]:
    """One row of plain values per member.

    `features` is None where every code is zero. `neurons_per_code` averages the number of neurons
    that carry a direction over the codes by their shares; `carried` has its deciles over living
    codes, `nearest` those of each living direction's cosine with its nearest neighbor.
    `dimension` is the participation ratio of the activations themselves, None if they are constant.
    """
    found, rows = codes(entry.sae, entry.x), directions(entry.sae)
    nearest = nearest_cosines(rows, found.living)
    centered = (entry.x - entry.x.mean(1, keepdim=True)).double()
    covariance = centered.mT @ centered
    table = []
    for member, sums in enumerate(found.sums):
        alive = found.living[member]
        explained = found.explained[member].item()
        row = {
            "epochs": entry.epochs,
            "converged": entry.converged[member],
            "features": None,
            "living": int(alive.sum()),
            "active": found.active[member].item(),
            "explained": explained if math.isfinite(explained) else None,
            "dimension": None,
            "neurons_per_code": None,
            "carried": None,
            "nearest": None,
        }
        if bool(covariance[member].any()):
            row["dimension"] = participation_ratio(covariance[member]).item()
        if bool(alive.any()):
            carried = neurons_per_direction(rows[member][alive])
            row["features"] = effective_features(sums).item()
            row["neurons_per_code"] = (carried @ sums[alive] / sums.sum()).item()
            row["carried"] = _deciles(carried)
        if len(nearest[member]) > 1:
            row["nearest"] = _deciles(nearest[member])
        table.append(row)
    return table


def _deciles(values: Tensor) -> list[float]:
    """Least value, deciles and largest value, rounded to four digits after the point."""
    at = torch.tensor(DECILES, dtype=torch.float64, device=values.device)
    return values.double().quantile(at).cpu().numpy().round(4).tolist()
