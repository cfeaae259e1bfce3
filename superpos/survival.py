"""Which conclusions on adversarial training survive other choices, and what goes with the slopes.

The choices are ways of fitting autoencoders, ranges of epsilon, kinds of inputs, and whether
networks count that became neither robust nor accurate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from .hypotheses import capacity, complexity, difficulty, reduction, together
from .image_networks import SINGLE
from .ledger import Estimate
from .robust_features import KINDS
from .robustness import CELL, USUAL, above_chance, only_accurate, slopes
from .stats import bootstrap


def survival(table: pd.DataFrame) -> pd.DataFrame:
    """What becomes of H1 to H3 under other ways of fitting, ranges of epsilon and kinds of inputs.

    Args:
        table: what `superpos.robustness.tidy` returns, with other ways of fitting in it.

    Returns:
        One row per variant, all on the single-layer cells that every way of fitting has:
        `rising` and `falling` of `cells` do so significantly (by themselves, Holm); `complexity`
        and `capacity`, combined over groups, with their intervals. Empty where nothing was varied.
    """
    if table.empty or table["fitting"].nunique() < 2:
        return pd.DataFrame()
    ways = table.groupby(CELL)["fitting"].nunique()
    shared = ways[ways == table["fitting"].nunique()].index.to_frame(index=False)
    table = table.merge(shared, on=CELL)
    if table.empty:
        return pd.DataFrame()
    usual = table[table["fitting"] == USUAL]
    variants = {
        USUAL: usual,
        **_parts(usual, "epsilon up to {:g}", "{} inputs only"),
        **{name: own for name, own in table.groupby("fitting") if name != USUAL},
    }
    return pd.DataFrame(
        [{"variant": name, **_conclusions(slopes(own))} for name, own in variants.items()]
    )


def robust_survival(table: pd.DataFrame, levels: Sequence[float] = (0.3, 0.5, 0.7)) -> pd.DataFrame:
    """What becomes of H1 to H3 without networks that did not become robust, or not even accurate.

    Epsilons are left out whole, so that cells differ in the range that is left; rows with one range
    for all cells stand beside them.

    Args:
        table: rows of one way of fitting.
        levels: robust accuracies above chance that an epsilon of a cell needs, as in
            `superpos.robustness.only_accurate`; the middle one also for clean accuracy.

    Returns:
        Rows as of `survival`, over all cells, with `difficulty` beside them.
    """
    variants = {"all": table}
    if not table.empty:
        middle = sorted(levels)[len(levels) // 2 : len(levels) // 2 + 1]
        variants |= {
            **_parts(table, "epsilon <= {:g}", "{} inputs"),
            **{f"clean >= {level:g}": only_accurate(table, level, "accuracy") for level in middle},
            **{f"robust >= {level:g}": only_accurate(table, level) for level in levels},
        }
    rows = []
    for name, own in variants.items():
        cells = slopes(own)
        harder = difficulty(cells)
        interval = (harder.mean, harder.low, harder.high) if harder else None
        rows.append({"variant": name, **_conclusions(cells), **_columns("difficulty", interval)})
    return pd.DataFrame(rows)


def _parts(table: pd.DataFrame, ranged: str, kind: str) -> dict[str, pd.DataFrame]:
    """Rows up to each epsilon but the largest, and of each kind of inputs, by names to fill in."""
    ranges = sorted(table["epsilon"].unique())[1:-1]
    return {
        **{ranged.format(e): table[table["epsilon"] <= e] for e in ranges},
        **{kind.format(name): table[table["inputs"] == name] for name in KINDS},
    }


def _conclusions(cells: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": len(cells), "rising": None, "falling": None}
    if (found := reduction(cells)) is not None:
        row |= {"rising": found.rising, "falling": found.falling}
    for name, groups in (("complexity", complexity(cells, SINGLE)), ("capacity", capacity(cells))):
        one = together(groups)
        row |= _columns(name, (one.random, one.hk_low, one.hk_high) if one else None)
    return row


def _columns(name: str, interval: tuple[float, float, float] | None) -> dict[str, float]:
    names = (name, f"{name}_low", f"{name}_high")
    return dict(zip(names, interval or (np.nan,) * 3, strict=True))


def shown(variants: pd.DataFrame) -> pd.DataFrame:
    """The table of `survival` or `robust_survival` as text; a star where an interval lacks zero."""

    def text(row: pd.Series, kind: str) -> str:
        if np.isnan(row[kind]):
            return "-"
        low, high = row[f"{kind}_low"], row[f"{kind}_high"]
        star = " *" if low > 0 or high < 0 else ""
        return f"{row[kind]:+.2f} [{low:+.2f}, {high:+.2f}]{star}"

    table = pd.DataFrame({"variant": variants["variant"]})
    table["rise / fall"] = [
        "-" if pd.isna(row.rising) else f"{row.rising:.0f} / {row.falling:.0f} of {row.cells}"
        for row in variants.itertuples()
    ]
    for kind in ("complexity", "capacity", "difficulty"):
        if kind in variants and variants[kind].notna().any():
            table[kind] = [text(row, kind) for _, row in variants.iterrows()]
    return table


def with_robustness(cells: pd.DataFrame) -> Estimate | None:
    """Rank correlation of slopes and robust accuracy above chance, by bootstrap over tasks.

    A task is a data set with a number of classes: its cells share data and are no independent
    evidence. None with fewer than four cells or two tasks, or if one of the two does not vary.

    Args:
        cells: what `superpos.robustness.slopes` returns; both are those up to the largest epsilon.
    """
    data = _prepared(cells)
    if len(cells) < 4 or (data[["change", "robust"]].nunique() < 2).any():
        return None
    tasks = [
        own[["change", "robust"]].to_numpy() for _, own in data.groupby(["dataset", "classes"])
    ]
    if len(tasks) < 2:
        return None

    def ranked(chosen: np.ndarray) -> float:
        x, y = np.concatenate([tasks[place] for place in chosen]).T
        varies = np.ptp(x) > 0 and np.ptp(y) > 0
        return float(scipy.stats.spearmanr(x, y).statistic) if varies else np.nan

    return bootstrap([np.arange(len(tasks))], ranked)


def explained(cells: pd.DataFrame) -> pd.DataFrame:
    """How much of the slopes' differences between cells the task explains, and how much accuracy.

    Least squares over cells: on the data set, the network, the rank of the number of classes and
    the logarithm of the width; on robust accuracy above chance at the largest epsilon, and on clean
    accuracy there; on the task and robust accuracy.

    Returns:
        One row per model: `r2`; `new_task`, the same of cells predicted from those of all other
        tasks (a data set with a number of classes); `terms`. Empty with fewer than ten cells or
        three tasks.
    """
    data = _prepared(cells)
    groups = data.groupby(["dataset", "classes"]).ngroup()
    names = ["model", "r2", "new_task", "terms"]
    if len(cells) < 10 or groups.nunique() < 3 or data["change"].nunique() < 2:
        return pd.DataFrame(columns=names)
    dummies = pd.get_dummies(data[["dataset", "network"]], drop_first=True, dtype=float)
    task, robust, clean = (
        dummies.join(data[["rank", "log_width"]]), data[["robust"]], data[["clean"]]
    )  # fmt: skip
    y, rows = data["change"], []
    spread = ((y - y.mean()) ** 2).sum()
    for name, x in (
        ("task", task), ("robust accuracy", robust), ("clean accuracy", clean),
        ("task and robust accuracy", task.join(robust)),
    ):  # fmt: skip
        fitted = LinearRegression().fit(x, y).predict(x)
        predicted = cross_val_predict(
            LinearRegression(), x, y, groups=groups, cv=LeaveOneGroupOut()
        )
        left, new = (1 - ((y - each) ** 2).sum() / spread for each in (fitted, predicted))
        rows.append(dict(zip(names, (name, left, new, x.shape[1]), strict=True)))
    return pd.DataFrame(rows)


def _prepared(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with what explains them; `change` is the slope times the largest epsilon."""
    return cells.assign(
        change=cells["slope"] * cells["reach"],
        robust=above_chance(cells["robust"], cells["classes"]),
        clean=above_chance(cells["clean"], cells["classes"]),
        rank=cells["classes"].rank(method="dense"),
        log_width=np.log(cells["width"].astype(float)),
    )
