"""Toy models of superposition (paper section 5.1, figures 2b, 3a and 3b).

A toy model squeezes M sparse features through N < M neurons: x = W f, f' = ReLU(W^T x + b). Its
weights show how much superposition there is, so that the measure on activations can be checked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data import toy_features
from ..engines import Computing
from ..entropy import frobenius_superposition, superposition, weight_features
from ..ledger import Estimate
from ..sae import SAEConfig
from ..settings import PROFILES, setting
from ..solver import fit
from ..stats import bootstrap, correlation
from ..toy_networks import ToyModels, train_toy_models

SECTION = "toy_models"
VERSION = 1
TITLE = "Toy models of superposition"


@dataclass(frozen=True)
class Settings(Computing):
    """Parameters of the notebook."""

    profile: str = setting("quick", "which profile's values these are", choices=PROFILES)
    models: int = setting(100, "toy models of the panels, sparsity spread evenly", low=4, high=1000)
    models_per_point: int = setting(16, "toy models per point of a sweep", low=4, high=1000)
    features: int = setting(20, "features M of a toy model", low=2, high=1000)
    neurons: int = setting(5, "neurons N of a toy model", low=1, high=100)
    decay: float = setting(0.7, "importance of feature i is decay ** i", low=0.01, high=1.0)
    toy_steps: int = setting(4000, "training steps of a toy model", low=1)
    samples: int = setting(10_000, "activation samples per model for the SAE", low=100)
    l1: float = setting(0.1, "SAE penalty outside the l1 sweep", low=0.0)
    expansion: float = setting(
        8.0, "SAE dictionary over neurons outside its sweep", low=0.1, high=1024.0
    )
    l1s: tuple[float, ...] = setting(
        (0.001, 0.01, 0.1, 1.0, 10.0), "penalties of the l1 sweep", low=0.0
    )
    expansions: tuple[float, ...] = setting(
        (1.0, 2.0, 4.0, 16.0, 32.0), "expansions of the sweep", low=0.1, high=1024.0
    )
    sizes: tuple[int, ...] = setting((2, 8, 16), "neurons of the size sweep (M = 4 N)", low=1)
    starts: int = setting(2, "SAE starts per model, the best of which counts", low=1, high=64)
    seed: int = setting(0, "seed of models, samples and SAEs", low=0)


@dataclass(frozen=True)
class Condition:
    """One point of a sweep: an ensemble over sparsity, and one SAE configuration."""

    models: int
    features: int
    neurons: int
    decay: float
    toy_steps: int
    samples: int
    l1: float
    expansion: float
    starts: int
    seed: int
    keep_weights: bool
    """Whether records hold W and psi along training, for the figures of the panel."""


def conditions(settings: Settings) -> list[Condition]:
    """The panel first, then the three sweeps of figure 3b around it."""

    def condition(**changes: Any) -> Condition:
        names = Condition.__dataclass_fields__.keys() - {"models", "keep_weights"}
        values = {name: getattr(settings, name) for name in names}
        values |= {"models": settings.models_per_point, "keep_weights": False}
        return Condition(**{**values, **changes})

    return [
        condition(models=settings.models, keep_weights=True),
        condition(),
        *(condition(l1=l1) for l1 in settings.l1s if l1 != settings.l1),
        *(condition(expansion=e) for e in settings.expansions if e != settings.expansion),
        *(
            condition(
                neurons=n, features=4 * n, decay=settings.decay ** (settings.features / 4 / n)
            )
            for n in settings.sizes
            if n != settings.neurons
        ),
    ]


def run(condition: Condition, *, device: str) -> list[dict[str, Any]]:
    """Train the ensemble, fit an SAE to each model's activations, and compare four measures."""
    sparsities = sparsity_grid(condition.models)
    models = _trained(
        condition.features, condition.neurons, sparsities, condition.decay,
        condition.toy_steps, condition.seed, device,
    )  # fmt: skip
    generator = torch.Generator(device).manual_seed(condition.seed + 1)
    f = toy_features(
        condition.samples, condition.features, torch.tensor(sparsities), generator=generator
    )
    activations = torch.bmm(f, models.weights.mT)
    config = SAEConfig(l1=condition.l1, expansion=condition.expansion, starts=condition.starts)
    fitted = fit(activations, config, seeds=[condition.seed])
    neurons = condition.neurons
    rows_of_all = weight_features(fitted.sae.encoder.mT)
    living = fitted.sae.losses(activations)[1] > 0  # codes that any sample activates
    columns = {
        "psi_weights": superposition(weight_features(models.weights), neurons),
        "frobenius_weights": frobenius_superposition(models.weights),
        "psi_codes": fitted.features / neurons,
        "psi_sae_weights": superposition(rows_of_all, neurons),
        "frobenius_sae_weights": rows_of_all.sum(-1) / neurons,
        "psi_living_weights": _psi_of_living(rows_of_all, living, neurons),
        "frobenius_living_weights": (rows_of_all * living).sum(-1) / neurons,
        "living": living.sum(-1),
        "loss": fitted.loss,
        "converged": fitted.converged,
    }
    values = {name: column.tolist() for name, column in columns.items()}
    rows = []
    for model, sparsity in enumerate(sparsities):
        row = {"model": model, "sparsity": sparsity}
        row |= {name: _known(column[model]) for name, column in values.items()}
        if condition.keep_weights:
            row["weights"] = models.weights[model].double().cpu().numpy().round(4).tolist()
            row["psi_path"] = [[step, psi[model]] for step, psi in models.path]
        rows.append(row)
    return rows


@lru_cache(maxsize=8)
def _trained(
    features: int, neurons: int, sparsities: tuple[float, ...], decay: float, steps: int,
    seed: int, device: str,
) -> ToyModels:  # fmt: skip
    """Models that several conditions share are trained once per process."""
    return train_toy_models(
        torch.tensor(sparsities, device=device),
        features=features, neurons=neurons, decay=decay, steps=steps, seed=seed,
    )  # fmt: skip


def _psi_of_living(rows: torch.Tensor, living: torch.Tensor, neurons: int) -> torch.Tensor:
    """psi from the squared norms of the rows in use, `[members]`; nan where none is."""
    alive = living.any(-1)
    psi = rows.new_full(alive.shape, math.nan)
    psi[alive] = superposition((rows * living)[alive], neurons).to(psi)
    return psi


def sparsity_grid(models: int) -> tuple[float, ...]:
    """Sparsities from 0.001 to 0.999, evenly spaced (paper section 5.1)."""
    return tuple(np.linspace(0.001, 0.999, models).round(6).tolist())


def panel(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the correlation panels."""
    return frame[frame["keep_weights"]]


def sweep_rows(frame: pd.DataFrame, settings: Settings, varied: str) -> pd.DataFrame:
    """The rows of one stability sweep.

    Args:
        frame: all rows.
        settings: the notebook's settings, whose values hold outside the sweep.
        varied: `l1`, `expansion` or `neurons`.
    """
    fixed = {"l1": settings.l1, "expansion": settings.expansion, "neurons": settings.neurons}
    rows = frame[~frame["keep_weights"]]
    for name, value in fixed.items():
        if name != varied:
            rows = rows[rows[name] == value]
    return rows


MEASURES = {
    "frobenius_weights": "Frobenius norm, toy weights",
    "frobenius_sae_weights": "Frobenius norm, SAE weights",
    "psi_sae_weights": "entropy, SAE weights",
    "psi_codes": "entropy, SAE activations",
}
"""What figure 3a sets against psi(W), in the paper's words."""


def stability(frame: pd.DataFrame, settings: Settings, varied: str) -> pd.DataFrame:
    """Correlation of psi from codes with psi(W) at every point of one sweep (figure 3b).

    Args:
        frame: all rows.
        settings: the notebook's settings, whose values hold outside the sweep.
        varied: `l1`, `expansion` or `neurons`.

    Returns:
        One row per point with `r`, `low`, `high`, and `dead`, the share of models whose codes are
        all zero; r is nan where too few models are alive or psi does not vary.
    """
    points = []
    for value, group in sweep_rows(frame, settings, varied).groupby(varied):
        alive = group.dropna(subset=["psi_codes"])
        try:
            r = correlation(alive["psi_weights"], alive["psi_codes"])
        except ValueError:
            r = Estimate(math.nan, math.nan, math.nan)
        dead = 1 - len(alive) / len(group)
        points.append({varied: value, "r": r.value, "low": r.low, "high": r.high, "dead": dead})
    return pd.DataFrame(points)


def estimates(frame: pd.DataFrame, settings: Settings) -> dict[str, Estimate]:
    """Values for the claims. What a run does not hold (a sweep left out) has no value."""
    rows = panel(frame).dropna(subset=["psi_codes"])
    if len(rows) < 4:
        return {}  # nearly all codes dead
    known = rows["psi_weights"]
    values = {
        "r_weights_frobenius": correlation(known, rows["frobenius_weights"]),
        "r_sae_activations": correlation(known, rows["psi_codes"]),
        "r_sae_weights": correlation(known, rows["psi_sae_weights"]),
        "r_frobenius_sae_weights_gap": bootstrap(
            [known, rows["psi_codes"], rows["frobenius_sae_weights"]],
            lambda w, codes, frobenius: _r(w, codes) - _r(w, frobenius),
        ),
        "psi_max": _exact(rows["psi_weights"].max(), "one model has no spread"),
        "psi_frobenius_sae_max": _exact(
            rows["frobenius_sae_weights"].max(), "a largest value over all models"
        ),
    }
    at_l1 = _pairs(frame, settings, "l1")
    at_expansion = _pairs(frame, settings, "expansion")
    at_size = _pairs(frame, settings, "neurons")
    if settings.l1 in at_l1 and 10.0 in at_l1:
        values["l1_collapse"] = _difference(at_l1[settings.l1], at_l1[10.0])
    if settings.expansion in at_expansion:
        best = at_expansion[settings.expansion]
        for name, value in {"expansion_low": 1.0, "expansion_high": 32.0}.items():
            if value in at_expansion:
                values[name] = _difference(best, at_expansion[value])
    band = {n: pairs for n, pairs in at_size.items() if 8 <= n <= 32}
    if band:
        points = stability(frame, settings, "neurons").set_index("neurons").loc[list(band)].dropna()
        if len(points):
            lowest = points.loc[points["r"].idxmin()]
            values["size_band"] = Estimate(lowest["r"], lowest["low"], lowest["high"])
    return values


def _pairs(frame: pd.DataFrame, settings: Settings, varied: str) -> dict[float, pd.DataFrame]:
    """Per point of a sweep, psi(W) and psi from codes of every model; all-zero codes carry none."""
    columns = ["model", "psi_weights", "psi_codes"]
    groups = sweep_rows(frame, settings, varied).groupby(varied)
    return {value: group[columns].fillna(0.0) for value, group in groups}


def _difference(first: pd.DataFrame, second: pd.DataFrame) -> Estimate:
    """Difference of two correlations over the same models, resampled together."""
    both = first.merge(second, on="model", suffixes=("_a", "_b"))
    columns = [both[f"{name}_{side}"] for side in "ab" for name in ("psi_weights", "psi_codes")]
    return bootstrap(columns, lambda wa, ca, wb, cb: _r(wa, ca) - _r(wb, cb))


def _r(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation; zero where a side does not vary, for then it tells nothing."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _exact(value: float, note: str) -> Estimate:
    return Estimate(float(value), float(value), float(value), note)


def _known(value: Any) -> Any:
    """None in place of nan, which records do not hold."""
    return None if isinstance(value, float) and math.isnan(value) else value
