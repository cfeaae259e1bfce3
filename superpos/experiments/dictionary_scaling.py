"""Dictionary scaling (paper section 5.2, figure 4a): F as the dictionary grows.

Networks learn multi-task sparse parity; autoencoders with ever larger dictionaries are fitted to
their hidden layer, at several penalties and in several ways (`superpos.ways`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data import sparse_parity
from ..dictionary import nearest_cosines
from ..engines import Computing
from ..ledger import Estimate
from ..parity_networks import Networks, trained
from ..sae import BY_RANK, SAEConfig
from ..settings import PROFILES, setting
from ..stats import mean_interval
from ..ways import WAYS, check_dictionary, described, fitted

SECTION = "dictionary_scaling"
VERSION = 1
TITLE = "Dictionary scaling"

BATCH, RATE = 64, 1e-3  # of the networks' training (paper section 5.2)
BAND = (16, 48)  # F that the paper calls semi-stable
PAPER_HIDDEN, PAPER_DICTIONARIES = 64, (32, 64, 128, 256, 512, 1024)
PAPER = {
    0.01: (28, 48, 80, 165, 360, 700),
    0.1: (21, 27, 33, 38, 45, 60),
    1.0: (18, 24, 25, 28, 31, 33),
    10.0: (math.nan, math.nan, 6, 20, 24, 27),
}
"""F per penalty, read off figure 4a; nan where it shows none."""


@dataclass(frozen=True)
class Settings(Computing):
    """Parameters of the notebook."""

    profile: str = setting("quick", "which profile's values these are", choices=PROFILES)
    tasks: int = setting(3, "tasks of the parity data", low=1)
    bits: int = setting(4, "bits of each task", low=1)
    hidden: int = setting(32, "neurons N of the hidden layer; the paper has 64", low=2, high=4096)
    models: int = setting(3, "networks, seeds 0, 1, ...", low=2, high=100)
    train_epochs: int = setting(60, "epochs of the networks' training", low=1)
    expansions: tuple[float, ...] = setting(
        (1.0, 4.0, 16.0), "dictionary sizes over neurons", low=1e-6, high=1024.0
    )
    l1s: tuple[float, ...] = setting((0.01, 0.1), "SAE penalties", low=0.0)
    ways: tuple[str, ...] = setting(
        ("tied", "recipe"),
        "ways of fitting on the whole grid",
        choices=("tied", "untied", "recipe"),
    )
    sae_seeds: int = setting(1, "SAE seeds per network on the whole grid", low=1, high=100)
    compared: tuple[str, ...] = setting(
        (), "further ways, with one SAE seed per network", choices=tuple(WAYS)
    )
    compared_expansions: tuple[float, ...] = setting(
        (1.0, 4.0, 16.0), "dictionary sizes over neurons for those", low=1e-6, high=1024.0
    )
    k: tuple[int, ...] = setting((8,), "codes kept per sample by topk and batchtopk", low=1)
    sae_epochs: tuple[int, ...] = setting(
        (100, 300), "epochs after which the recipe is read", low=1
    )
    long_epochs: tuple[int, ...] = setting((1000,), "the same where the recipe goes on", low=1)
    long_expansions: tuple[float, ...] = setting(
        (4.0,), "dictionaries where it does", low=1e-6, high=1024.0
    )
    long_l1s: tuple[float, ...] = setting((0.01,), "penalties where it does", low=0.0)

    def __post_init__(self) -> None:
        """Refuse empty grids, dictionaries without a code, and ways on both lists."""
        for name in ("expansions", "l1s", "ways", "sae_epochs"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one.")
        marks = (*self.sae_epochs, *self.long_epochs)
        if list(marks) != sorted(set(marks)) or not self.long_epochs:
            raise ValueError(
                f"sae_epochs {self.sae_epochs} and then long_epochs {self.long_epochs} must rise; "
                "give both in rising order, long_epochs beyond sae_epochs."
            )
        for expansion in (*self.expansions, *self.compared_expansions, *self.long_expansions):
            check_dictionary(expansion, self.hidden)
        least = min(self.compared_expansions, default=1.0)
        smallest = SAEConfig(expansion=least).dictionary(self.hidden)
        if set(self.compared) & set(BY_RANK) and max(self.k) > smallest:
            raise ValueError(
                f"k is {max(self.k)}, but the smallest dictionary has only {smallest} codes; "
                "lower k or raise the smallest expansion."
            )
        if both := set(self.ways) & set(self.compared):
            raise ValueError(f"{', '.join(both)} is in ways and compared; name it in one of them.")


@dataclass(frozen=True)
class Condition:
    """One way, dictionary size and penalty; every network and SAE seed is a member."""

    tasks: int
    bits: int
    hidden: int
    models: int
    train_epochs: int
    way: str
    expansion: float
    l1: float | None
    k: int | None
    sae_seeds: int
    sae_epochs: tuple[int, ...] | None


def conditions(settings: Settings) -> list[Condition]:
    """The grid of every way, small dictionaries first; then the recipe that goes on."""

    def condition(way: str, expansion: float, seeds: int, **values: Any) -> Condition:
        base = {"l1": None, "k": None, "sae_epochs": None}
        if not WAYS[way].converges:
            base["sae_epochs"] = settings.sae_epochs
        return Condition(
            settings.tasks, settings.bits, settings.hidden, settings.models, settings.train_epochs,
            way, expansion, sae_seeds=seeds, **{**base, **values},
        )  # fmt: skip

    def grid(ways: Sequence[str], expansions: Sequence[float], seeds: int) -> list[Condition]:
        return [
            condition(way, expansion, seeds, **{name: value})
            for way in ways
            for expansion in expansions
            for name, values in [("k", settings.k) if way in BY_RANK else ("l1", settings.l1s)]
            for value in values
        ]

    longer = (*settings.sae_epochs, *settings.long_epochs)
    return [
        *grid(settings.ways, settings.expansions, settings.sae_seeds),
        *grid(settings.compared, settings.compared_expansions, 1),
        *(
            condition("recipe", expansion, 1, l1=l1, sae_epochs=longer)
            for expansion in settings.long_expansions
            for l1 in settings.long_l1s
        ),
    ]


def run(condition: Condition, *, device: str) -> list[dict[str, Any]]:
    """Fit every member and describe its dictionary."""
    networks = _networks(
        condition.tasks, condition.bits, condition.hidden, condition.models,
        condition.train_epochs, device,
    )  # fmt: skip
    members = [(m, s) for m in range(condition.models) for s in range(condition.sae_seeds)]
    index = torch.tensor([model for model, _ in members])
    options = {"expansion": condition.expansion, "starts": 1, "k": condition.k}
    if condition.l1 is not None:
        options["l1"] = condition.l1
    entries = fitted(
        condition.way,
        {site: x[index] for site, x in networks.activations.items()},
        SAEConfig(**options),
        seeds=[condition.sae_seeds * model + seed for model, seed in members],
        epochs=condition.sae_epochs or (),
    )
    return [
        {"model": model, "seed": seed, "accuracy": networks.accuracy[model].item(), **row}
        for entry in entries
        for (model, seed), row in zip(members, described(entry), strict=True)
    ]


@lru_cache(maxsize=2)
def _networks(
    tasks: int, bits: int, hidden: int, models: int, epochs: int, device: str
) -> Networks:
    """The networks that all conditions share, trained once per process."""
    members = [(0.0, seed) for seed in range(models)]
    data = sparse_parity(tasks, bits, device=device)
    return trained(data, hidden, members, epochs=epochs, batch=BATCH, rate=RATE)


def curves(frame: pd.DataFrame, settings: Settings, way: str) -> pd.DataFrame:
    """F of one way against the dictionary, as figure 4a has it.

    Args:
        frame: all rows.
        settings: the notebook's settings.
        way: of `WAYS`.

    Returns:
        One row per dictionary and penalty (or k) with `dictionary`, `features`, `low`, `high`
        (95% over networks, SAE seeds averaged first), `explained`, and `dead`, the share of
        autoencoders without a living code. F is nan where all are dead, and only the living ones
        enter it; bounds are nan where fewer than two networks have a living one.
    """
    rows = final(frame, settings, way)
    points = []
    name = "k" if way in BY_RANK else "l1"
    for (expansion, value), group in rows.groupby(["expansion", name]):
        means = group.dropna(subset=["features"]).groupby("model")["features"].mean()
        features = mean_interval(means) if len(means) > 1 else Estimate(*3 * [math.nan])
        points.append(
            {
                "expansion": expansion,
                "dictionary": SAEConfig(expansion=expansion).dictionary(settings.hidden),
                name: value,
                "features": means.mean() if len(means) else math.nan,
                "low": features.low,
                "high": features.high,
                "dead": group["features"].isna().mean(),
                "explained": group["explained"].mean(),
                "converged": group["converged"].astype("boolean").mean(),
            }
        )
    return pd.DataFrame(points)


def final(frame: pd.DataFrame, settings: Settings, way: str) -> pd.DataFrame:
    """The rows of one way on its grid, of the recipe after the last of its epochs."""
    rows = frame[frame["way"] == way]
    rows = rows.assign(features=rows["features"].astype(float))  # None becomes nan
    if WAYS[way].converges or rows.empty:
        return rows
    grid = rows["sae_epochs"].map(tuple) == tuple(settings.sae_epochs)
    return rows[grid & (rows["epochs"] == settings.sae_epochs[-1])]


def training(frame: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """F of the recipe along its training where it goes on: one row per SAE and epoch."""
    rows = frame[frame["way"] == "recipe"]
    longer = (*settings.sae_epochs, *settings.long_epochs)
    return rows[rows["sae_epochs"].map(tuple) == longer]


def growth(frame: pd.DataFrame, settings: Settings, way: str, l1: float) -> Estimate | None:
    """Exponent of F's growth with the dictionary, from one code per neuron on.

    The slope of ln F over ln D within each network (SAE seeds averaged), with a t interval over
    networks. Below one code per neuron the dictionary itself bounds F.

    Returns:
        None where fewer than two dictionaries have only living autoencoders.
    """
    rows = final(frame, settings, way)
    rows = rows[(rows["l1"] == l1) & (rows["expansion"] >= 1)]
    dead = rows.loc[rows["features"].isna(), "expansion"]
    rows = rows[~rows["expansion"].isin(dead)]
    table = rows.pivot_table(index="model", columns="expansion", values="features")
    if table.shape[1] < 2 or len(table) < 2:
        return None
    slopes = np.polyfit(np.log(table.columns.astype(float)), np.log(table.to_numpy().T), 1)[0]
    estimate = mean_interval(slopes)
    sizes = f"{table.columns.min():g}x to {table.columns.max():g}x"
    return estimate._replace(note=f"dictionaries {sizes}")


def paper_growth(l1: float) -> float:
    """The same exponent of the points read off figure 4a; nan where the paper shows too few."""
    points = [
        (size, features)
        for size, features in zip(PAPER_DICTIONARIES, PAPER.get(l1, ()), strict=False)
        if size >= PAPER_HIDDEN and not math.isnan(features)
    ]
    if len(points) < 5:
        return math.nan
    return float(np.polyfit(*np.log(points).T, 1)[0])


def splitting(frame: pd.DataFrame, settings: Settings, way: str, l1: float) -> pd.DataFrame:
    """How near living codes lie to each other: cosines with the nearest, per dictionary size.

    Returns:
        One row per dictionary with `dictionary` and, each averaged over autoencoders, the
        `median` over living codes and the first and ninth decile, `low` and `high`.
    """
    rows = final(frame, settings, way)
    rows = rows[rows["l1"] == l1].dropna(subset=["nearest"])
    points = []
    for expansion, group in rows.groupby("expansion"):
        deciles = np.mean(group["nearest"].tolist(), axis=0)
        size = SAEConfig(expansion=expansion).dictionary(settings.hidden)
        low, median, high = deciles[[1, 5, 9]]
        points.append({"dictionary": size, "median": median, "low": low, "high": high})
    return pd.DataFrame(points)


def chance(neurons: int, counts: Sequence[int]) -> pd.DataFrame:
    """The same median for so many random directions, drawn with a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    points = []
    for count in counts:
        rows = torch.nn.functional.normalize(
            torch.randn(1, count, neurons, generator=generator), dim=-1
        )
        (cosines,) = nearest_cosines(rows, torch.ones(1, count, dtype=torch.bool))
        points.append({"dictionary": count, "median": cosines.median().item()})
    return pd.DataFrame(points)


def collapse(frame: pd.DataFrame, settings: Settings, way: str) -> Estimate | None:
    """F at the strongest penalty over F at 0.1 in the smallest dictionary; dead counts as zero."""
    rows = final(frame, settings, way)
    rows = rows[rows["expansion"] == rows["expansion"].min()].fillna({"features": 0.0})
    by_l1 = {l1: g.groupby("model")["features"].mean() for l1, g in rows.groupby("l1")}
    if 0.1 not in by_l1 or 10.0 not in by_l1 or not (by_l1[0.1] > 0).all():
        return None
    return mean_interval(by_l1[10.0] / by_l1[0.1])


def estimates(frame: pd.DataFrame, settings: Settings) -> dict[str, Estimate]:
    """Values for the claims, for each way that a run holds."""
    values = {}
    for way in ("tied", "untied", "recipe"):
        if final(frame, settings, way).empty:
            continue
        values |= {
            f"growth_{way}": growth(frame, settings, way, 0.01),
            f"plateau_{way}": growth(frame, settings, way, 0.1),
            f"plateau_strong_{way}": growth(frame, settings, way, 1.0),
            f"collapse_{way}": collapse(frame, settings, way),
        }
    return {name: value for name, value in values.items() if value is not None}
