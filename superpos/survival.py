"""Which conclusions on adversarial training survive other choices, and failed training.

The choices are ways of fitting autoencoders, ranges of epsilon and kinds of inputs. Failed training
is adversarial training after which the network resists no attack: its F describes a network that
has learned little, whatever the epsilon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from statsmodels.formula.api import ols

from .hypotheses import capacity, complexity, difficulty, reduction, together
from .image_networks import SINGLE
from .ledger import Estimate
from .robust_features import KINDS
from .robustness import CELL, USUAL, above_chance, robust_only, slopes
from .stats import bootstrap

TASK = "C(dataset) + C(network) + rank + log_width"
ROBUST = "above_chance"


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
    ranges = sorted(usual["epsilon"].unique())[1:-1]
    variants = {
        USUAL: usual,
        **{f"epsilon up to {e:g}": usual[usual["epsilon"] <= e] for e in ranges},
        **{f"{kind} inputs only": usual[usual["inputs"] == kind] for kind in KINDS},
        **{name: own for name, own in table.groupby("fitting") if name != USUAL},
    }
    return pd.DataFrame([{"variant": name, **_conclusions(own)} for name, own in variants.items()])


def robust_survival(table: pd.DataFrame, levels: Sequence[float] = (0.3, 0.5, 0.7)) -> pd.DataFrame:
    """What becomes of H1 to H3 if networks that did not become robust are left out.

    Args:
        table: rows of one way of fitting.
        levels: robust accuracies above chance that an epsilon of a cell needs, as in
            `superpos.robustness.robust_only`.

    Returns:
        Rows as of `survival`, over all cells, with `difficulty` beside them.
    """
    if table.empty:
        return pd.DataFrame()
    variants = {"all networks": table}
    variants |= {f"r >= {level:g}": robust_only(table, level) for level in levels}
    rows = []
    for name, own in variants.items():
        harder = difficulty(slopes(own))
        interval = (harder.mean, harder.low, harder.high) if harder else None
        rows.append({"variant": name, **_conclusions(own), **_columns("difficulty", interval)})
    return pd.DataFrame(rows)


def _conclusions(own: pd.DataFrame) -> dict[str, Any]:
    cells = slopes(own)
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
    """Rank correlation of slopes and robust accuracy above chance, by bootstrap over cells.

    None with fewer than four cells, or if one of the two does not vary.

    Args:
        cells: what `superpos.robustness.slopes` returns; robust accuracy is that at the largest
            epsilon.
    """
    robust = above_chance(cells["robust"], cells["classes"])
    if len(cells) < 4 or robust.nunique() < 2 or cells["slope"].nunique() < 2:
        return None

    def ranked(x: np.ndarray, y: np.ndarray) -> float:
        varies = np.ptp(x) > 0 and np.ptp(y) > 0
        return float(scipy.stats.spearmanr(x, y).statistic) if varies else np.nan

    return bootstrap([cells["slope"].to_numpy(), robust.to_numpy()], ranked)


def explained(cells: pd.DataFrame) -> pd.DataFrame:
    """How much of the slopes' variance between cells the task explains, and how much robustness.

    Least squares over cells: on the data set, the network, the rank of the number of classes and
    the logarithm of the width; on robust accuracy above chance at the largest epsilon; on both.

    Returns:
        One row per model: `r2`; `left_out`, the same of cells predicted from all others (one less
        the sum of squared errors of prediction over that of squares); `terms`. Empty with fewer
        than ten cells; data sets and networks of a single cell, which nothing else could predict,
        are left out.
    """
    for kind in ("dataset", "network"):
        cells = cells[cells.groupby(kind)[kind].transform("size") > 1]
    if len(cells) < 10:
        return pd.DataFrame(columns=["model", "r2", "left_out", "terms"])
    data = cells.assign(
        rank=cells["classes"].rank(method="dense"), log_width=np.log(cells["width"].astype(float)),
        above_chance=above_chance(cells["robust"], cells["classes"]),
    )  # fmt: skip
    models = {"task": TASK, "robust accuracy": ROBUST, "both": f"{TASK} + {ROBUST}"}
    rows = []
    for name, terms in models.items():
        fit = ols(f"slope ~ {terms}", data).fit()
        press = (fit.get_influence().resid_press ** 2).sum()
        left_out = 1 - press / fit.centered_tss
        rows.append(
            {"model": name, "r2": fit.rsquared, "left_out": left_out, "terms": int(fit.df_model)}
        )
    return pd.DataFrame(rows)
