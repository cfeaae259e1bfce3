"""What the explorers compute and draw: toy models of many sparsities, autoencoders on one."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from matplotlib.figure import Figure

from . import plots
from .data import toy_features
from .entropy import effective_features, probabilities
from .recipe import fit_for_epochs
from .sae import SAEConfig
from .solver import fit
from .toy_networks import ToyModels, train_toy_models

SPARSITIES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99, 0.999)
"""All are trained together, so that moving along them only draws."""
STEPS = 1000  # of a toy model; psi stands still by then
EPOCHS = 20  # of the recipe when it is stopped early
SAMPLES = 2000  # of a toy model, for its autoencoders
NEURONS = 5  # of that model
L1S = (0.01, 0.1, 1.0, 3.0, 10.0)
EXPANSIONS = (1.0, 2.0, 4.0, 8.0)
FITS = ("until nothing changes", f"for {EPOCHS} epochs")


@lru_cache(maxsize=64)
def trained_models(features: int, neurons: int, decay: float) -> ToyModels:
    """Train toy models of all sparsities as one batch, or remember them.

    Args:
        features: M.
        neurons: N.
        decay: importance of feature i is decay ** i.
    """
    sparsities = torch.tensor(SPARSITIES)
    return train_toy_models(
        sparsities, features=features, neurons=neurons, decay=decay, steps=STEPS, seed=0
    )


def toy_figure(models: ToyModels, chosen: int, neurons: int) -> Figure:
    """Overlaps of the features of one model, and psi of all.

    Args:
        models: models of all `SPARSITIES`.
        chosen: which of them is shown.
        neurons: N.
    """
    psi = models.path[-1][1]
    figure, (left, right) = plots.figure(1, 2, width=7.2, height=3.2, width_ratios=[1, 1.3])
    weights = models.weights[chosen]
    shown = left.imshow((weights.T @ weights).numpy(), vmin=-1, vmax=1, cmap="RdBu_r")
    figure.colorbar(shown, ax=left, shrink=0.8)
    left.grid(False)
    left.set(title="$W^\\top W$", xticks=[], yticks=[])
    right.plot(range(len(psi)), psi, "o-", ms=4, label="all models")
    right.plot([chosen], [psi[chosen]], "o", ms=9, color=plots.COLORS[1], label="this model")
    right.axhline(1, color="gray", lw=0.8)
    right.set_xticks(range(len(psi)), [f"{s:g}" for s in SPARSITIES], rotation=45, fontsize=8)
    count = psi[chosen] * neurons
    title = f"$\\psi$ = {psi[chosen]:.2f}: {count:.1f} features in {neurons} neurons"
    right.set(title=title, xlabel="sparsity $S$", ylabel="$\\psi(W)$", ylim=(0, max(3.4, *psi)))
    return figure


@lru_cache(maxsize=1)
def toy_activations() -> tuple[torch.Tensor, float]:
    """Return a toy model's activations, `[samples, neurons]`, and F of its weights."""
    models, chosen = trained_models(20, NEURONS, 0.7), SPARSITIES.index(0.9)
    f = toy_features(SAMPLES, 20, 0.9, generator=torch.Generator().manual_seed(1))
    return f @ models.weights[chosen].T, NEURONS * models.path[-1][1][chosen]


@lru_cache(maxsize=256)
def fitted_features(l1: float, expansion: float, fitted: str) -> tuple[np.ndarray, np.ndarray]:
    """Fit autoencoders of three seeds to the toy model's activations.

    Args:
        l1: their penalty.
        expansion: dictionary size over neurons.
        fitted: one of `FITS`.

    Returns:
        F of each seed, `[3]`, with nan last for those whose codes are all silent; and the shares p
        of the codes of the first one that has any, from the largest down, `[D]`.
    """
    x, _ = toy_activations()
    config = SAEConfig(l1=l1, expansion=expansion, starts=2, steps=600, rounds=3)
    seeds = (0, 1, 2)
    sae = (
        fit(x, config, seeds=seeds).sae
        if fitted == FITS[0]
        else fit_for_epochs(x, config, epochs=[EPOCHS], seeds=seeds)[0]
    )
    sums = sae.encode(x.expand(3, -1, -1)).sum(1).double()
    sums = sums[sums.sum(1) > 0]
    features = torch.full((3,), math.nan, dtype=torch.double)
    if len(sums) == 0:
        return features.numpy(), np.zeros(1)
    features[: len(sums)] = effective_features(sums)
    return features.numpy(), probabilities(sums)[0].sort(descending=True).values.numpy()


def converged_range() -> tuple[float, float]:
    """Lowest and highest F of the converged fits that have room and are not silenced."""
    found = [
        fitted_features(l1, expansion, FITS[0])[0]
        for l1 in L1S
        for expansion in EXPANSIONS
        if l1 <= 1 and expansion >= 2
    ]
    return float(np.nanmin(found)), float(np.nanmax(found))


def autoencoder_figure(l1: float, expansion: float, fitted: str) -> Figure:
    """Shares of one fit, and F of all fits with its penalty against the dictionary's size."""
    _, truth = toy_activations()
    found, shares = fitted_features(l1, expansion, fitted)
    figure, (left, right) = plots.figure(1, 2, width=7.2, height=3.2)
    left.bar(range(1, len(shares) + 1), shares, color=plots.COLORS[0], label="first seed")
    left.axvline(truth + 0.5, color="black", ls="--", lw=1)
    count = f"F = {np.nanmean(found):.1f}" if np.isfinite(found).any() else "every code is silent"
    left.set_title(f"l1 = {l1:g}, D = {round(NEURONS * expansion)}: {count}")
    left.set(xlabel="code, by rank", ylabel="share $p$", xlim=(0, 41), ylim=(0, 0.3))
    sizes = [NEURONS * each for each in EXPANSIONS]
    for color, way in zip(plots.COLORS, FITS, strict=False):
        values = np.array([fitted_features(l1, each, way)[0] for each in EXPANSIONS])
        middle = values.mean(1)
        spread = [middle - values.min(1), values.max(1) - middle]
        right.errorbar(sizes, middle, spread, fmt="o-", ms=4, capsize=2, color=color, label=way)
    right.axhline(truth, color="black", ls="--", lw=1, label="by the weights")
    right.set(xlabel="dictionary size $D$", ylabel="$F$", xlim=(0, 42), ylim=(0, 42))
    right.legend(fontsize=8, loc="upper left")
    return figure
