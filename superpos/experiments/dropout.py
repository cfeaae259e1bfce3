"""Dropout (paper section 6.1, figures 4b and 4c): fewer features where neurons drop out.

Networks of several widths learn multi-task sparse parity under several dropout rates. Besides F
and accuracy, this chapter measures what the paper only argues: how many neurons carry a feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from ..data import sparse_parity
from ..device import DEVICES
from ..ledger import Estimate
from ..parity_networks import Networks, trained
from ..sae import SAEConfig
from ..settings import PROFILES, setting
from ..stats import mean_interval
from ..sweep import ENGINES
from ..ways import check_dictionary, described, fitted

SECTION = "dropout"
VERSION = 1
TITLE = "Dropout"

BATCH, RATE = 64, 1e-3  # of the networks' training (paper section 6.1)
PAPER_RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PAPER_FEATURES = {
    16: (36, 24, 21, 22, 20, 18, 19, 18, 18, 16),
    32: (52, 27, 24, 25, 23, 22, 23, 22, 21, 21),
    64: (47, 35, 32, 30, 31, 30, 32, 29, 33, 29),
    128: (50, 45, 43, 38, 42, 41, 45, 42, 42, 40),
}
"""F per width, read off figure 4b."""
PAPER_ACCURACY = {
    16: (0.90, 0.84, 0.82, 0.84, 0.83, 0.79, 0.77, 0.76, 0.76, 0.66),
    32: (1.0, 0.98, 0.975, 0.93, 0.91, 0.90, 0.88, 0.83, 0.80, 0.78),
    64: (1.0, 1.0, 1.0, 1.0, 1.0, 0.99, 0.97, 0.97, 0.92, 0.85),
    128: (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.99, 0.955),
}
"""Accuracy per width, read off figure 4c."""
CLAIMED = ("tied", "recipe")  # what the claims are put to: the text's way and the figure's
WIDTH_OF_FALL = 32  # where the paper's fall is largest
EARLY = 0.2  # rate before which, says the paper, most of the fall happens


@dataclass(frozen=True)
class Settings:
    """Parameters of the notebook."""

    profile: str = setting("quick", "which profile's values these are", choices=PROFILES)
    tasks: int = setting(3, "tasks of the parity data", low=1)
    bits: int = setting(4, "bits of each task", low=1)
    hidden: tuple[int, ...] = setting((16, 32), "widths h of the hidden layer", low=2, high=4096)
    rates: tuple[float, ...] = setting(
        (0.0, 0.2, 0.5, 0.9), "dropout rates; 0 must be among them", low=0.0, high=0.99
    )
    seeds: int = setting(3, "networks per width and rate, seeds 0, 1, ...", low=2, high=100)
    train_epochs: int = setting(60, "epochs of the networks' training; the paper has 300", low=1)
    ways: tuple[str, ...] = setting(
        ("tied", "recipe"), "ways of fitting", choices=("tied", "untied", "recipe")
    )
    compared: tuple[str, ...] = setting(
        (), "further ways, at some rates", choices=("tied", "untied", "recipe")
    )
    compared_rates: tuple[float, ...] = setting(
        (0.0, 0.2, 0.5, 0.9), "these rates, as far as they are among the others", low=0.0
    )
    expansion: float = setting(4.0, "SAE dictionary over neurons", low=1e-6, high=1024.0)
    l1: float = setting(0.1, "SAE penalty", low=0.0)
    sae_epochs: int = setting(300, "epochs of the recipe", low=1)
    engine: str = setting("serial", "how conditions are run", choices=ENGINES)
    device: str = setting("auto", "where to compute", choices=DEVICES)

    def __post_init__(self) -> None:
        """Falls need a base and another rate; grids need a point."""
        if 0.0 not in self.rates or len(self.rates) < 2:
            raise ValueError(f"rates are {self.rates}; give 0 and at least one other below 1.")
        for name in ("hidden", "ways"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one.")
        check_dictionary(self.expansion, min(self.hidden))


@dataclass(frozen=True)
class Condition:
    """One width and rate. All rates of the width are trained together, one is measured."""

    tasks: int
    bits: int
    hidden: int
    rates: tuple[float, ...]
    rate: float
    seeds: int
    train_epochs: int
    ways: tuple[str, ...]
    expansion: float
    l1: float
    sae_epochs: int


def conditions(settings: Settings) -> list[Condition]:
    """Every width with every rate, wide networks first."""
    names = Condition.__dataclass_fields__.keys() - {"hidden", "rate", "ways"}
    common = {name: getattr(settings, name) for name in names}

    def ways(rate: float) -> tuple[str, ...]:
        more = settings.compared if rate in settings.compared_rates else ()
        return tuple(dict.fromkeys((*settings.ways, *more)))

    return [
        Condition(hidden=hidden, rate=rate, ways=ways(rate), **common)
        for hidden in sorted(settings.hidden, reverse=True)
        for rate in sorted(settings.rates)
    ]


def run(condition: Condition, *, device: str) -> list[dict[str, Any]]:
    """Fit the networks of one rate in every way and describe their dictionaries."""
    networks = _networks(
        condition.tasks, condition.bits, condition.hidden, condition.rates, condition.seeds,
        condition.train_epochs, device,
    )  # fmt: skip
    first = condition.rates.index(condition.rate) * condition.seeds
    own = slice(first, first + condition.seeds)
    activations = {site: x[own] for site, x in networks.activations.items()}
    seeds = range(condition.seeds)
    rows = []
    for way in condition.ways:
        config = SAEConfig(expansion=condition.expansion, l1=condition.l1, starts=1)
        (entry,) = fitted(way, activations, config, seeds=seeds, epochs=(condition.sae_epochs,))
        for seed, row in zip(seeds, described(entry), strict=True):
            accuracy = networks.accuracy[own][seed].item()
            train_accuracy = networks.train_accuracy[own][seed].item()
            about = {"way": way, "seed": seed, "accuracy": accuracy}
            rows.append({**about, "train_accuracy": train_accuracy, **row})
    return rows


@lru_cache(maxsize=1)
def _networks(
    tasks: int, bits: int, hidden: int, rates: tuple[float, ...], seeds: int, epochs: int,
    device: str,
) -> Networks:  # fmt: skip
    """The networks of one width, trained once per process for all of its conditions."""
    members = [(rate, seed) for rate in rates for seed in range(seeds)]
    data = sparse_parity(tasks, bits, device=device)
    return trained(data, hidden, members, epochs=epochs, batch=BATCH, rate=RATE)


def rows_of(frame: pd.DataFrame, way: str) -> pd.DataFrame:
    """One row per network for one way of fitting, F zero where every code is dead."""
    rows = frame[frame["way"] == way]
    features = rows["features"].astype(float).fillna(0.0)
    carried = rows["neurons_per_code"].astype(float)
    return rows.assign(features=features, share=carried / rows["hidden"])


def means(frame: pd.DataFrame, way: str, column: str) -> pd.DataFrame:
    """Mean of one column over seeds with its 95% interval, per width and rate.

    Returns:
        Columns `hidden`, `rate`, `mean`, `low`, `high`.
    """
    points = []
    for (hidden, rate), group in rows_of(frame, way).groupby(["hidden", "rate"]):
        value, low, high, _ = mean_interval(group[column])[:4]
        points.append({"hidden": hidden, "rate": rate, "mean": value, "low": low, "high": high})
    return pd.DataFrame(points)


def falls(frame: pd.DataFrame, way: str, column: str = "features") -> pd.DataFrame:
    """Relative fall of a column from rate 0 to the largest rate, `[seeds, widths]`."""
    rows = rows_of(frame, way)
    table = rows.pivot_table(index=["hidden", "seed"], columns="rate", values=column)
    return (1 - table.iloc[:, -1] / table[0.0]).unstack("hidden")


def rank_correlation(frame: pd.DataFrame, way: str, hidden: int) -> Estimate | None:
    """Spearman's correlation of F with the rate, per seed, with a t interval over the seeds."""
    rows = rows_of(frame, way)
    rows = rows[rows["hidden"] == hidden]
    values = [_spearman(g["rate"], g["features"]) for _, g in rows.groupby("seed")]
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    found = mean_interval(values)
    return found._replace(low=max(-1.0, found.low), high=min(1.0, found.high))


def _spearman(x: pd.Series, y: pd.Series) -> float:
    return float(scipy.stats.spearmanr(x, y).statistic) if y.nunique() > 1 else float("nan")


def estimates(frame: pd.DataFrame, settings: Settings) -> dict[str, Estimate]:
    """Values for the claims. What a run does not hold has no value."""
    values: dict[str, Estimate | None] = {}
    for way in [way for way in CLAIMED if way in set(frame["way"])]:
        for hidden in settings.hidden:
            if hidden in PAPER_FEATURES:
                values[f"monotone_h{hidden}_{way}"] = rank_correlation(frame, way, hidden)
        table = falls(frame, way).dropna(axis=1)
        if table.empty:
            continue
        if WIDTH_OF_FALL in table:
            values[f"fall_{way}"] = mean_interval(table[WIDTH_OF_FALL])
        values[f"early_{way}"] = _early(frame, way)
        values[f"width_{way}"] = _slope(table)
    values["accuracy_width"] = _slope(falls(frame, frame["way"].iloc[0], "accuracy").dropna(axis=1))
    for way in [way for way in ("tied", "untied") if way in set(frame["way"])]:
        values[f"redundancy_{way}"] = _redundancy(frame, way)
    return {name: value for name, value in values.items() if value is not None}


def _slope(table: pd.DataFrame) -> Estimate | None:
    """Slope of a table `[seeds, widths]` over the logarithm of the width, t over seeds."""
    if table.shape[1] < 2:
        return None
    return mean_interval(np.polyfit(np.log(table.columns.astype(float)), table.to_numpy().T, 1)[0])


def _early(frame: pd.DataFrame, way: str) -> Estimate | None:
    """Share of the fall of the mean over widths that has happened at rate 0.2, t over seeds.

    None where there is no fall to share out: its own interval holds zero.
    """
    rows = rows_of(frame, way)
    table = rows.pivot_table(index=["hidden", "seed"], columns="rate", values="features")
    table = table.dropna().groupby("seed").mean()
    if EARLY not in table.columns or len(table) < 2:
        return None
    fall = table[0.0] - table.iloc[:, -1]
    if mean_interval(fall).low <= 0:
        return None
    return mean_interval((table[0.0] - table[EARLY]) / fall)


def _redundancy(frame: pd.DataFrame, way: str) -> Estimate | None:
    """Neurons per direction at the rate nearest to 0.5 over those at 0, t over widths and seeds."""
    rows = rows_of(frame, way).dropna(subset=["share"])
    table = rows.pivot_table(index=["hidden", "seed"], columns="rate", values="share")
    middle = min(table.columns, key=lambda rate: abs(rate - 0.5))
    ratio = (table[middle] / table[0.0]).dropna()
    return mean_interval(ratio)._replace(note=f"rate {middle:g}") if len(ratio) > 1 else None
