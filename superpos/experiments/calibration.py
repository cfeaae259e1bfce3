"""Calibration: does the measure count what was planted?

Activations are made from K known directions in N neurons, so that the true number of features is
known. This is not in the paper; it says where F may be read as a count and where it may not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from ..data import nonempty_toy_features
from ..engines import Computing
from ..entropy import effective_features
from ..ledger import Estimate
from ..sae import ARCHITECTURES, SAEConfig
from ..settings import PROFILES, setting
from ..solver import fit
from ..stats import mean_interval

SECTION = "calibration"
VERSION = 1
TITLE = "Calibration on planted features"

DIRECTIONS = ("orthogonal", "signed", "correlated")
"""`orthogonal`: axes, at most N of them. `signed`: random directions of either sign.
`correlated`: random directions with no negative entry, all close to each other."""
ONE = "one"  # exactly one feature per sample


@dataclass(frozen=True)
class Settings(Computing):
    """Parameters of the notebook."""

    profile: str = setting("quick", "which profile's values these are", choices=PROFILES)
    neurons: int = setting(8, "neurons N of the planted layer", low=2, high=512)
    ratios: tuple[float, ...] = setting((0.25, 0.5, 1.0, 2.0, 4.0), "planted K / N", low=0.01)
    directions: tuple[str, ...] = setting(DIRECTIONS, "kinds of directions", choices=DIRECTIONS)
    sparsities: tuple[float, ...] = setting(
        (0.9,), "probability that a feature is off; one-hot is always added", low=0.0, high=0.999
    )
    architectures: tuple[str, ...] = setting(
        ("tied", "untied", "topk"),
        "SAEs compared on one-hot signed features",
        choices=ARCHITECTURES,
    )
    samples: int = setting(4000, "samples", low=100)
    expansion: float = setting(8.0, "SAE dictionary over neurons", low=0.1, high=1024.0)
    l1: float = setting(0.1, "SAE penalty", low=0.0)
    seeds: int = setting(3, "SAE seeds per point", low=2, high=100)
    starts: int = setting(2, "SAE starts per seed, the best of which counts", low=1, high=64)


@dataclass(frozen=True)
class Condition:
    """One kind of directions at one sparsity; all K and all SAE seeds are its members."""

    directions: str
    sparsity: float | None
    """None for one-hot samples."""
    neurons: int
    planted: tuple[int, ...]
    samples: int
    expansion: float
    l1: float
    seeds: int
    starts: int | None
    architecture: str = "tied"
    """Those that keep codes by rank keep one, the right number for one-hot samples."""


def conditions(settings: Settings) -> list[Condition]:
    """The recovery test with the SAE's default settings, then the grid."""
    n = settings.neurons
    common = {"neurons": n, "samples": settings.samples, "l1": settings.l1, "seeds": settings.seeds}
    planted = tuple(sorted({max(2, round(ratio * n)) for ratio in settings.ratios}))
    grid = [
        Condition(
            directions=kind,
            sparsity=sparsity,
            planted=tuple(k for k in planted if kind != "orthogonal" or k <= n),
            expansion=settings.expansion,
            starts=settings.starts,
            **common,
        )
        for kind in settings.directions
        for sparsity in (None, *settings.sparsities)
    ]
    default = Condition("orthogonal", None, planted=(n,), expansion=4.0, starts=None, **common)
    one_hot = Condition(
        "signed",
        None,
        planted=planted,
        expansion=settings.expansion,
        starts=settings.starts,
        **common,
    )
    compared = [replace(one_hot, architecture=name) for name in settings.architectures]
    planned = [default, *(condition for condition in grid if condition.planted), *compared]
    return list(dict.fromkeys(planned))


def run(condition: Condition, *, device: str) -> list[dict[str, Any]]:
    """Plant features, fit SAEs with several seeds, and count."""
    rows = []
    for planted in condition.planted:
        x, magnitudes = planted_activations(
            condition.directions, planted, condition.neurons, condition.sparsity, condition.samples
        )
        config = SAEConfig(
            architecture=condition.architecture,
            expansion=condition.expansion,
            l1=condition.l1,
            k=1,
            starts=condition.starts,
        )
        fitted = fit(x.to(device), config, seeds=range(condition.seeds))
        truth = effective_features(magnitudes).item()
        for seed in range(condition.seeds):
            features = fitted.features[seed].item()
            rows.append(
                {
                    "k": planted,
                    "truth": truth,
                    "seed": seed,
                    "features": None if math.isnan(features) else features,
                    "loss": fitted.loss[seed].item(),
                    "converged": bool(fitted.converged[seed]),
                }
            )
    return rows


def planted_activations(
    directions: str, planted: int, neurons: int, sparsity: float | None, samples: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations with known features.

    Args:
        directions: one of `DIRECTIONS`; every direction has unit length.
        planted: number K of features.
        neurons: number N of neurons.
        sparsity: probability that a feature is off, given that not all are; None for exactly
            one feature per sample. Magnitudes are uniform on [0, 1].
        samples: number of samples.
        seed: of directions and samples.

    Returns:
        Activations `[samples, neurons]` and the summed magnitudes of the features `[planted]`.

    Raises:
        ValueError: more orthogonal directions than neurons, or an unknown kind.
    """
    generator = torch.Generator().manual_seed(seed)
    if directions == "orthogonal":
        if planted > neurons:
            raise ValueError(f"{planted} directions cannot be orthogonal in {neurons} neurons.")
        rows = torch.eye(neurons)[:planted]
    elif directions in DIRECTIONS:
        rows = torch.randn(planted, neurons, generator=generator)
        rows = rows.abs() if directions == "correlated" else rows
        rows = rows / rows.norm(dim=1, keepdim=True)
    else:
        raise ValueError(f"unknown directions {directions!r}; allowed are {', '.join(DIRECTIONS)}.")
    if sparsity is None:
        which = torch.randint(planted, (samples, 1), generator=generator)
        values = torch.rand(samples, 1, generator=generator)
        f = torch.zeros(samples, planted).scatter_(1, which, values)
    else:
        f = nonempty_toy_features(samples, planted, sparsity, generator=generator)
    return f @ rows, f.sum(0)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean F, its spread over seeds and its ratio to the truth at every point of the grid."""
    frame = frame.assign(sparsity=frame["sparsity"].astype(object).fillna(ONE))
    points = ["architecture", "directions", "sparsity", "expansion", "neurons", "k"]
    groups = frame.groupby(points)
    table = groups.agg(
        truth=("truth", "first"),
        features=("features", "mean"),
        low=("features", "min"),
        high=("features", "max"),
        converged=("converged", "mean"),
    ).reset_index()
    return table.assign(ratio=table["features"] / table["truth"])


def estimates(frame: pd.DataFrame, settings: Settings) -> dict[str, Estimate]:
    """Values for the claims."""
    default = frame[frame["starts"].isna()]  # the SAE's own settings
    recovery = default["features"] / default["k"]
    spread = summary(default)
    widest = ((spread["high"] - spread["low"]) / spread["features"]).max()
    grid = summary(frame[frame["starts"].notna()]).dropna(subset=["features"])
    signed = grid[(grid["directions"] == "signed") & (grid["sparsity"] == ONE)]
    by = signed.pivot(index="k", columns="architecture", values="features")
    values = {
        "orthogonal_recovery": mean_interval(recovery),
        "seed_spread": _largest(widest, "all seeds"),
    }
    crowded = by[by.index >= 4 * settings.neurons]
    if len(crowded) and "tied" in by:
        values["overcomplete_ceiling"] = _largest(
            crowded["tied"].max() / settings.neurons, "all K of at least 4 N"
        )
    if {"tied", "topk"} <= set(by):
        values["architecture_gap"] = _largest((by["topk"] / by["tied"] - 1).abs().max(), "all K")
    return values


def _largest(value: float, over: str) -> Estimate:
    return Estimate(float(value), float(value), float(value), f"a largest value over {over}")
