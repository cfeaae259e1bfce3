"""The paper's hypotheses on adversarial training, tested on a table of cells (section 7).

H1: adversarial training lowers F everywhere. H2: the more classes, the more it does. H3: the wider
the network, the less it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from .image_networks import RESNET, SINGLE, STANDARD
from .ledger import Estimate
from .meta_analysis import (
    Combined,
    Paired,
    Reduction,
    combined,
    paired_difference,
    trend,
    universal_reduction,
)
from .robustness import CELL, USUAL, humps, ratios, slopes
from .slope import Slope, pooled_errors


def with_errors(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells with `error`, shared by those that differ in their classes only, and its `freedom`.

    Three seeds alone would hardly ever tell a cell from zero, and are a poor guide to its weight.
    Seeds are therefore taken to vary equally, whatever the number of classes, which is only
    roughly so.
    """
    found = cells.assign(error=np.nan, freedom=0)
    for _, own in cells.groupby(["dataset", "network", "width"]):
        errors = pooled_errors([Slope(r.slope, r.se, r.df, (), ()) for r in own.itertuples()])
        found.loc[own.index, "error"] = errors
        found.loc[own.index, "freedom"] = own["df"].sum()
    return found


def lines(cells: pd.DataFrame, by: Sequence[str], x: pd.Series) -> pd.DataFrame:
    """Straight lines through the slopes of groups of cells.

    Cells are weighted by their errors, which are shared as in `with_errors`.

    Args:
        cells: what `slopes` returns.
        by: columns that a group shares.
        x: of every cell.

    Returns:
        One row per group of two cells or more: `value`, `se` (from the seeds alone),
        `residual_se`, `r2`; `half`, half the width of the line's own 95% interval, by the seeds'
        t or by that of the cells' distance from the line if that is wider; and `paper`,
        `paper_se`: value and error with every cell weighted by its own standard error, as in the
        paper.
    """
    rows = []
    for group, own in with_errors(cells).groupby(list(by)):
        place = x[own.index].to_numpy(dtype=float)
        if len(set(place)) < 2 or not (own["se"] > 0).all():
            continue
        shared, single = (trend(place, own["slope"], own[error]) for error in ("error", "se"))
        half = scipy.stats.t.ppf(0.975, own["freedom"].min()) * shared.se
        if shared.df:
            half = max(half, scipy.stats.t.ppf(0.975, shared.df) * shared.residual_se)
        rows.append(
            {
                **dict(zip(by, group, strict=True)), "cells": len(own), "value": shared.value,
                "se": shared.se, "residual_se": shared.residual_se, "r2": shared.r2, "half": half,
                "paper": single.value, "paper_se": single.se,
            }
        )  # fmt: skip
    names = ["cells", "value", "se", "residual_se", "r2", "half", "paper", "paper_se"]
    return pd.DataFrame(rows, columns=[*by, *names])


def complexity(cells: pd.DataFrame, networks: Sequence[str] = STANDARD) -> pd.DataFrame:
    """Lines of slopes over the rank of the number of classes (H2), per data set and width."""
    rank = cells["classes"].rank(method="dense")
    return lines(cells[cells["network"].isin(networks)], ["dataset", "network", "width"], rank)


def capacity(cells: pd.DataFrame, networks: Sequence[str] = SINGLE) -> pd.DataFrame:
    """Lines of slopes over ln width (H3), per data set and number of classes."""
    chosen = cells[cells["network"].isin(networks)]
    return lines(chosen, ["dataset", "network", "classes"], np.log(cells["width"].astype(float)))


def together(groups: pd.DataFrame, value: str = "value", se: str = "se") -> Combined | None:
    """Meta-analysis of the groups' lines; None if there are none, its own interval of one line."""
    if groups.empty:
        return None
    found = combined(groups[value], groups[se])
    if len(groups) == 1 and value == "value":
        half = float(groups["half"].iloc[0])
        found = found._replace(hk_low=found.value - half, hk_high=found.value + half)
    return found


def reduction(cells: pd.DataFrame, shared: bool = True) -> Reduction | None:
    """Test of H1 over all cells; None if there are none.

    Args:
        cells: what `superpos.robustness.slopes` returns.
        shared: whether errors are shared as in `with_errors`. Then a cell is told from zero by
            more than its three seeds, but where seeds scatter more for some numbers of classes,
            more than 5% of families of flat cells have one that is called rising. Each cell's own
            error is safe, and blunt.
    """
    error, freedom = ("error", "freedom") if shared else ("se", "df")
    known = with_errors(cells)
    known = known[known[error] > 0]
    if known.empty:
        return None
    return universal_reduction(
        *(known[name] for name in ("slope", error, "df")), freedom=known[freedom]
    )


def pairs(cells: pd.DataFrame, first: str = "fashion_mnist", second: str = "mnist") -> pd.DataFrame:
    """Cells that two data sets share, with `slope_first`, `se_first`, and those of the second."""
    keys = ["network", "width", "classes"]
    one, two = (
        cells.loc[cells["dataset"] == name, [*keys, "slope", "se"]] for name in (first, second)
    )
    return one.merge(two, on=keys, suffixes=("_first", "_second"))


def difficulty(cells: pd.DataFrame) -> Paired | None:
    """Fashion-MNIST's slopes minus MNIST's over shared cells; None with fewer than three."""
    shared = pairs(cells)
    if len(shared) < 3 or np.ptp(shared["slope_first"] - shared["slope_second"]) == 0:
        return None
    errors = [shared["se_first"], shared["se_second"]]
    known = (np.hypot(*errors) > 0).all()
    slopes = (shared["slope_first"], shared["slope_second"])
    return paired_difference(*slopes, *errors) if known else paired_difference(*slopes)


def summary(cells: pd.DataFrame) -> pd.DataFrame:
    """H1 to H3 and the data sets' difference in words: in the paper, and here in two ways.

    H2 is per rank of the number of classes, H3 per logarithm of the width; the last rows are slopes
    of Fashion-MNIST minus those of MNIST.

    Args:
        cells: what `superpos.robustness.slopes` returns.
    """
    rows = []
    if found := reduction(cells):
        count, alone = len(found.cohens_d), reduction(cells, shared=False)
        rows.append(
            {
                "hypothesis": "H1, rising / falling", "paper": "rejected",
                "here": f"{found.rising} / {found.falling} of {count}",
                "test": f"p = {found.smallest_p:.1g}",
                "paper's rules": f"{alone.rising} / {alone.falling} of {count}" if alone else "",
            }
        )  # fmt: skip
    for name, paper, groups in (
        ("H2, standard", "-0.745 +- 0.122", complexity(cells)),
        ("H2, single-layer", "", complexity(cells, SINGLE)),
        ("H3", "+0.220 +- 0.037", capacity(cells)),
    ):
        if len(groups):
            one, theirs = together(groups), together(groups, "paper", "paper_se")
            rows.append(
                {
                    "hypothesis": name, "paper": paper,
                    "here": f"{one.random:+.2f} [{one.hk_low:+.2f}, {one.hk_high:+.2f}]",
                    "test": f"Q({one.df}) = {one.q:.1f}",
                    "paper's rules": f"{theirs.value:+.2f} +- {theirs.se:.2f}",
                }
            )  # fmt: skip
    for name, paper, networks in (
        ("Fashion, standard", "-1.467 +- 0.156", STANDARD),
        ("Fashion, single-layer", "", SINGLE),
    ):
        if found := difficulty(cells[cells["network"].isin(networks)]):
            rows.append(
                {
                    "hypothesis": name, "paper": paper,
                    "here": f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]",
                    "test": f"t({found.df}) = {found.t:.1f}, d = {found.cohens_d:.1f}",
                    "paper's rules": f"{found.weighted:+.2f} +- {found.weighted_se:.2f}",
                }
            )  # fmt: skip
    names = ["hypothesis", "paper", "paper's rules", "here", "test"]
    return pd.DataFrame(rows, columns=names)


def filled(conditions: Sequence[Any], frame: pd.DataFrame) -> pd.DataFrame:
    """Cells computed of those that a grid has, per data set, network and width.

    Args:
        conditions: of the grid, each with a `training`.
        frame: the records' table.

    Returns:
        Text such as "4 of 4", rows data set and network, columns width.
    """
    wanted = pd.DataFrame(
        [{name: getattr(c.training, name) for name in CELL} for c in conditions]
    ).drop_duplicates()
    done = pd.DataFrame(list(frame["training"]))[CELL].drop_duplicates()
    both = wanted.merge(done.assign(done=1), on=CELL, how="left").fillna({"done": 0})
    groups = both.groupby(["dataset", "network", "width"])["done"]
    texts = groups.agg(lambda own: f"{int(own.sum())} of {len(own)}")
    return texts.unstack(fill_value="")


def claimed(table: pd.DataFrame) -> dict[str, Estimate]:
    """Values for the chapter's claims; those that the cells cannot give are left out."""
    if table.empty:
        return {}
    usual = table[table["fitting"] == USUAL]
    cells, points = slopes(usual), ratios(usual)
    return dict(_claimed(usual, cells, points))


def _claimed(
    usual: pd.DataFrame, cells: pd.DataFrame, points: pd.DataFrame
) -> Iterator[tuple[str, Estimate]]:
    if found := reduction(cells):
        count = len(found.cohens_d)
        share = scipy.stats.binomtest(found.rising, count)
        interval = share.proportion_ci(method="wilson")
        note = f"{found.rising} of {count} cells, smallest p {found.smallest_p:.2g} (Holm)"
        yield (
            "share_rising",
            Estimate(share.statistic, float(interval.low), float(interval.high), note),
        )
    standard, single = complexity(cells), capacity(cells)
    if (found := together(standard)) is not None:
        yield "complexity_slope", _meta(found, len(standard))
    if (found := together(single)) is not None:
        yield "capacity_slope", _meta(found, len(single))
    if (found := difficulty(cells[cells["network"].isin(STANDARD)])) is not None:
        note = f"t({found.df}) = {found.t:.2f}, p = {found.p:.2g}, d = {found.cohens_d:.2f}"
        yield "fashion_minus_mnist", Estimate(found.mean, found.low, found.high, note)
    attacked = points[points["epsilon"] > 0]
    simple = attacked[attacked["network"].isin(SINGLE) & (attacked["classes"] == 2)]
    if len(
        simple := simple[simple["width"] == simple.groupby("network")["width"].transform("max")]
    ):
        yield "two_class_peak", _extreme(simple.loc[simple["ratio"].idxmax()])
    hard = attacked[(attacked["classes"] == 10) & (attacked["network"] != RESNET)]
    if len(hard := hard[hard["epsilon"] == hard.groupby("dataset")["epsilon"].transform("max")]):
        yield "ten_class_fall", _extreme(hard.loc[hard["ratio"].idxmin()])
    middle = humps(usual)
    if len(middle := middle[(middle["classes"] == 3) & middle["network"].isin(STANDARD)]):
        best = middle.loc[middle["hump"].idxmax()]
        note = f"{best['dataset']}, {best['network']}; peak at {best['peak']:g}"
        yield "inverted_u", Estimate(best["hump"], best["low"], best["high"], note)
    yield from _of_resnets(cells, attacked)


def _of_resnets(cells: pd.DataFrame, attacked: pd.DataFrame) -> Iterator[tuple[str, Estimate]]:
    """The capacity line of ResNet-18, and where F falls and rises in it."""
    wide = capacity(cells, (RESNET,))
    if len(wide):
        row = wide[wide["classes"] == wide["classes"].max()].head(1)
        found, note = together(row), f"R^2 = {row['r2'].iloc[0]:.2f}"
        yield "resnet_capacity", Estimate(found.value, found.hk_low, found.hk_high, note)
    own = attacked[(attacked["network"] == RESNET) & (attacked["width"] == 64)]
    own = own[own["epsilon"] == own.groupby("dataset")["epsilon"].transform("max")]
    for name, stages in (("resnet_early", ("stem", "layer1")), ("resnet_late", ("layer4",))):
        if len(part := own[own["site"].str.startswith(stages)]):
            middle = part.sort_values(["ratio", "layer", "inputs"]).iloc[(len(part) - 1) // 2]
            yield name, _extreme(middle)._replace(note=f"the median layer, {middle['site']}")


def _meta(found: Combined, groups: int) -> Estimate:
    note = f"random effects of {groups}; Q = {found.q:.1f}, p = {found.q_p:.2g}"
    note = f"{note}, I^2 = {found.i2:.0%}" if groups > 1 else "one line, its own interval"
    return Estimate(found.random, found.hk_low, found.hk_high, note)


def _extreme(point: pd.Series) -> Estimate:
    note = f"an extreme point's own interval: {point['dataset']}, {point['network']} "
    note += f"{point['width']}, {point['site']}, {point['inputs']}, epsilon {point['epsilon']:g}"
    return Estimate(float(point["ratio"]), float(point["low"]), float(point["high"]), note)
