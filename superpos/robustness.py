"""Tables of the adversarial chapter: ratios and slopes of F (paper section 7).

A *cell* is a data set, a network, its width and a number of classes. Tables hold what one way of
fitting autoencoders found unless their names say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.stats

from .slope import Slope, seed_slopes, weighted_layers
from .stats import mean_interval

CELL = ["dataset", "network", "width", "classes"]
USUAL = "usual"


def tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """Records with their cell and their way of fitting, `fitting`, as plain columns.

    The way that most records share is called "usual"; others are named by what differs from it.
    """
    if frame.empty:
        return frame
    ways = pd.DataFrame(list(frame["fitting"]), index=frame.index)
    usual = ways.groupby(list(ways), dropna=False, sort=False).size().idxmax()
    names = pd.Series("", index=frame.index)
    for column, value in zip(ways, usual, strict=True):
        other = (ways[column] != value) & ~(ways[column].isna() & pd.isna(value))
        names[other & (names != "")] += ", "
        names[other] += (
            column + " " + ways[column].map(lambda v: f"{v:g}" if _number(v) else str(v))
        )
    tasks = pd.DataFrame(list(frame["training"]), index=frame.index)[CELL]
    named = names.where(names != "", USUAL)
    return pd.concat([frame.drop(columns=["training", "fitting"]), tasks], axis=1).assign(
        fitting=named
    )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def above_chance(accuracy: float | pd.Series, classes: int | pd.Series) -> float | pd.Series:
    """Accuracies on a scale where guessing among equally frequent classes is 0 and perfect is 1."""
    return (accuracy - 1 / classes) / (1 - 1 / classes)


def only_accurate(
    table: pd.DataFrame, least: float = 0.5, column: str = "robust_accuracy"
) -> pd.DataFrame:
    """Leave out networks that are not accurate enough, whole epsilons of a cell at a time.

    Args:
        table: what `tidy` returns.
        least: accuracy above chance, mean over seeds, that a cell's epsilon needs.
        column: "robust_accuracy", under the attack of training, or "accuracy", on clean inputs.
    """
    if table.empty:
        return table
    mean = table.groupby([*CELL, "epsilon"])[column].transform("mean")
    return table[above_chance(mean, table["classes"]) >= least]


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """F of each layer over F of the same seed's network at epsilon 0, mean and interval.

    Returns:
        One row per cell, layer, kind of inputs and epsilon: `ratio` with `low` and `high` over
        seeds; `features`, the mean F; `robust` with `robust_low` and `robust_high`, `accuracy`.
    """
    both = _relative(table)
    by = [*CELL, "site", "layer", "inputs", "epsilon"]
    rows = []
    for point, group in both.dropna(subset=["ratio"]).groupby(by):
        if len(group) < 2:
            continue
        ratio, robust = mean_interval(group["ratio"]), mean_interval(group["robust_accuracy"])
        rows.append(
            {
                **dict(zip(by, point, strict=True)),
                "ratio": ratio.value, "low": ratio.low, "high": ratio.high,
                "robust": robust.value, "robust_low": max(0.0, robust.low),
                "robust_high": min(1.0, robust.high), "accuracy": group["accuracy"].mean(),
                "features": group["features"].mean(), "parameters": group["parameters"].iloc[0],
            }
        )  # fmt: skip
    names = ["ratio", "low", "high", "robust", "robust_low", "robust_high", "accuracy"]
    return pd.DataFrame(rows, columns=[*by, *names, "features", "parameters"])


def _relative(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `ratio`: F over the same layer's and seed's on clean inputs at epsilon 0."""
    keys = [*CELL, "site", "layer", "seed"]
    base = table[(table["epsilon"] == 0) & (table["inputs"] == "clean")]
    both = table.merge(base[[*keys, "features"]], on=keys, suffixes=("", "_base"))
    return both.assign(ratio=both["features"] / both["features_base"])


def slopes(table: pd.DataFrame) -> pd.DataFrame:
    """Normalized slope of every cell, layers weighted by their parameters (paper section 7).

    Returns:
        One row per cell: `slope` with its standard error `se`, `low` and `high` over seeds,
        `df`, `seeds` with one slope each (a dict), `reach`, the largest epsilon, `robust` and
        `clean`, the accuracies there, and `psi`, F over neurons at epsilon 0, mean over layers.
    """
    rows = []
    for cell, group in table.groupby(CELL) if len(table) else ():
        if (found := _weighted(group)) is None:
            continue
        strongest = group[group["epsilon"] == group["epsilon"].max()]
        rows.append(
            {
                **dict(zip(CELL, cell, strict=True)), **_described(found), "df": found.df,
                "seeds": dict(zip(found.seeds, found.values, strict=True)),
                "reach": group["epsilon"].max(), "robust": strongest["robust_accuracy"].mean(),
                "clean": strongest["accuracy"].mean(), "psi": _psi(group),
            }
        )  # fmt: skip
    names = ["slope", "se", "low", "high", "df", "seeds", "reach", "robust", "clean", "psi"]
    return pd.DataFrame(rows, columns=[*CELL, *names])


def _psi(group: pd.DataFrame) -> float:
    """F over neurons at epsilon 0, layers weighted by their parameters."""
    own = group[group["epsilon"] == 0]
    means = own.assign(psi=own["features"].astype(float) / own["neurons"]).groupby("layer")
    return float(weighted_layers(means["psi"].mean(), means["parameters"].first()))


def layer_slopes(table: pd.DataFrame) -> pd.DataFrame:
    """Normalized slope of every layer of every cell: `slope`, `se` and `low`, `high`."""
    rows = []
    for (*cell, site, layer), group in table.groupby([*CELL, "site", "layer"]):
        if (found := _slope(group)) is not None:
            rows.append(
                {
                    **dict(zip(CELL, cell, strict=True)), "site": site, "layer": layer,
                    **_described(found), }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=[*CELL, "site", "layer", "slope", "se", "low", "high"])


def _described(found: Slope) -> dict[str, float]:
    """A slope with its 95% interval over seeds, as columns."""
    half = scipy.stats.t.ppf(0.975, found.df) * found.se
    return {
        "slope": found.value, "se": found.se, "low": found.value - half, "high": found.value + half
    }  # fmt: skip


def _slope(group: pd.DataFrame) -> Slope | None:
    """Of one layer of one cell; None where fewer than two seeds have one."""
    try:
        found = seed_slopes(group["epsilon"], group["features"].astype(float), group["seed"])
    except ValueError:
        return None
    return found._replace(se=_error(found.values))


def _weighted(group: pd.DataFrame) -> Slope | None:
    """Of a cell: per seed, the layers' slopes weighted by their parameters."""
    layers = [(own["parameters"].iloc[0], _slope(own)) for _, own in group.groupby("layer")]
    if any(found is None for _, found in layers):
        return None
    shared = sorted(set.intersection(*(set(found.seeds) for _, found in layers)))
    if len(shared) < 2:
        return None
    by_seed = [dict(zip(found.seeds, found.values, strict=True)) for _, found in layers]
    values = weighted_layers(
        [[own[seed] for seed in shared] for own in by_seed], [count for count, _ in layers]
    )
    se = _error(values)
    return Slope(float(values.mean()), se, len(shared) - 1, tuple(values.tolist()), tuple(shared))


def _error(values: Sequence[float]) -> float:
    """Standard error of the mean; 0 where values agree but for rounding."""
    agree = np.ptp(values) <= 1e-12 * np.abs(values).max()
    return 0.0 if agree else float(scipy.stats.sem(values))


def humps(table: pd.DataFrame) -> pd.DataFrame:
    """How far the middle of F over epsilon stands above its two ends, per cell.

    F over F at epsilon 0, clean and adversarial averaged, layers weighted by their parameters.
    An inverted U has its largest value at neither end: then `hump`, the largest mean in between
    minus the larger end, is above zero. Mean and interval over seeds.
    """
    rows = []
    for cell, group in _relative(table).groupby(CELL):
        layers = group.drop_duplicates("layer").set_index("layer")["parameters"]
        means = group.pivot_table(index=["seed", "epsilon"], columns="layer", values="ratio")
        whole = means.reindex(columns=layers.index).dropna()  # every layer, or none
        own = (whole @ layers / layers.sum()).unstack("epsilon").dropna()
        if own.shape[1] < 3 or len(own) < 2:
            continue
        peak = own.iloc[:, 1:-1].mean().idxmax()
        ends = own.iloc[:, [0, -1]].max(axis=1)
        found = mean_interval(own[peak] - ends)
        rows.append(
            {
                **dict(zip(CELL, cell, strict=True)), "peak": peak, "hump": found.value,
                "low": found.low, "high": found.high,
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=[*CELL, "peak", "hump", "low", "high"])


def strong(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy under AutoAttack beside that under PGD, on the same images of each first seed.

    Returns:
        One row per attacked cell and epsilon; empty if AutoAttack was not run.
    """
    table = tidy(frame)
    if table.empty or table["auto_accuracy"].isna().all():
        return pd.DataFrame()
    chosen = table.dropna(subset=["auto_accuracy"]).drop_duplicates([*CELL, "epsilon", "seed"])
    names = {"auto_pgd_accuracy": "PGD", "auto_accuracy": "AutoAttack"}
    return chosen[[*CELL, "epsilon", *names]].rename(columns=names)
