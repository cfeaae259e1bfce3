"""Tables of the language models' chapter: F of every site, its profile over layers (section 6)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from .entropy import hill_number
from .language_sites import KINDS
from .ledger import Estimate
from .power_law import power_law
from .shards import Merged, merged
from .stats import mean_interval

LAYERED = KINDS[1:]  # kinds of sites that every layer has
AT = ("text", "seed", "step", "architecture", "l1", "sae_steps")
"""What a measured network and its dictionaries are known by."""
ROOM = 25  # codes per neuron without which no 20 features per neuron can be found
OF_SHARDS = ("cut to", "fewer than")  # reasons that are counted shard by shard
NEAR_HALF = 0.05  # how near to half of the documents a shard must end, as a share of all
FEWEST_LAYERS = 3  # for a profile over layers


def networks(frame: pd.DataFrame) -> pd.DataFrame:
    """The records with what their networks are known by as columns.

    Returns:
        The frame with `architecture`, `l1` and `sae_steps` (nan for dictionaries made elsewhere)
        and `shard`, the place of its first document; without the nested columns.
    """
    fitting = [own if isinstance(own, dict) else {} for own in frame["fitting"]]
    names = {"architecture": "architecture", "l1": "l1", "sae_steps": "steps"}
    columns = {name: [own.get(key, math.nan) for own in fitting] for name, key in names.items()}
    return frame.drop(columns=["fitting", "training"]).assign(shard=frame["first"], **columns)


def sites(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per site of every network, its shards put together.

    Returns:
        The columns `AT`, `site`, `kind`, `layer`, `neurons`, `dictionary`, `documents`, `tokens`;
        `F` with `low` and `high` over documents, `psi`; Hill numbers `hill0` (the codes that fire)
        and `hill2`; `growth`, the share by which F grew when the documents were doubled at last;
        means over shards of `active`, `explained` and `dimension`; `loss` and `bigram`; and
        `merged`, from which curves follow.
    """
    rows = []
    for keys, own in networks(frame).groupby([*AT, "layer", "site"], dropna=False, sort=False):
        whole = merged(own.sort_values("shard").to_dict("records"))
        about = dict(zip([*AT, "layer", "site"], keys, strict=True))
        about |= {name: own[name].iloc[0] for name in ("kind", "neurons", "dictionary")}
        about |= {"documents": whole.documents, "tokens": whole.tokens, "F": whole.features}
        about |= {"low": whole.low, "high": whole.high, "psi": whole.features / about["neurons"]}
        alive = bool((whole.codes > 0).any())
        for q in (0, 2):
            about[f"hill{q}"] = hill_number(whole.codes, q).item() if alive else math.nan
        about["growth"] = growth(whole)
        for name in ("active", "explained", "dimension", "loss", "bigram"):
            about[name] = own[name].astype(float).mean()
        rows.append({**about, "merged": whole})
    return pd.DataFrame(rows)


def left_out(frame: pd.DataFrame) -> pd.DataFrame:
    """What the networks' documents were read without: counts by text (rows) and reason.

    Counts of shards add up over shards and networks; what the reading of a whole text leaves out is
    the same for all of them.
    """
    rows = []
    for (text, seed, first), own in frame.groupby(["text", "seed", "first"]):
        for reason, count in own["skipped"].iloc[0].items():
            rows.append({"text": text, "seed": seed, "first": first, reason: count})
    found = pd.DataFrame(rows, columns=["text"]) if not rows else pd.DataFrame(rows)
    ways = {
        reason: "sum" if reason.startswith(OF_SHARDS) else "max"
        for reason in found.columns.drop(["text", "seed", "first"], errors="ignore")
    }
    return found.groupby("text").agg(ways).fillna(0).astype(int) if ways else pd.DataFrame()


def growth(whole: Merged) -> float:
    """Share by which F grew when the documents were doubled at last; nan if no shard ends there."""
    nearest = min(range(len(whole.ends)), key=lambda at: abs(whole.ends[at] - whole.documents / 2))
    if abs(whole.ends[nearest] / whole.documents - 0.5) > NEAR_HALF:
        return math.nan
    return whole.features / whole.curve[nearest] - 1


def main(table: pd.DataFrame, settings: Any, **other: Any) -> pd.DataFrame:
    """Rows of the networks as they are at last, fitted as the settings say.

    Args:
        table: rows with the columns `AT`.
        settings: the run's, with `architecture`, `l1`, `sae_steps` and `steps`.
        other: values of `step`, `architecture`, `l1` or `sae_steps` wanted instead; None for any.
    """
    values = {name: getattr(settings, name) for name in ("architecture", "l1", "sae_steps")}
    values |= {"step": settings.steps} | other
    wanted = {name: value for name, value in values.items() if value is not None}
    usual = [table[name].isna() | (table[name] == value) for name, value in wanted.items()]
    return table[np.logical_and.reduce(usual)]


def compared(frame: pd.DataFrame, settings: Any, **other: Any) -> pd.DataFrame:
    """`sites` of each text's first network on its first shard, which is what other ways of fitting
    and earlier steps are measured on; arguments as for `main`."""
    shard = frame[(frame["first"] == 0) & (frame["seed"] == 0)]
    return main(sites(shard), settings, **other)


def curves(frame: pd.DataFrame) -> pd.DataFrame:
    """F over numbers of documents for every network and site.

    Up to the size of a shard, every shard is a curve of its own, of which this is the mean; beyond
    that, shards are put together.

    Returns:
        The columns `AT`, `layer`, `site`, `documents` and `F`.
    """
    rows = []
    for keys, own in networks(frame).groupby([*AT, "layer", "site"], dropna=False, sort=False):
        shards = own.sort_values("shard").to_dict("records")
        inside = pd.DataFrame(
            [(n, value) for shard in shards
             for n, value in zip(shard["points"], shard["curve"], strict=True)],
            columns=["documents", "F"],
        ).dropna()  # fmt: skip
        whole = merged(shards)
        shortest = min(shard["documents"] for shard in shards)
        inside = inside[inside["documents"] < shortest].groupby("documents")["F"].mean()
        beyond = pd.Series(whole.curve, index=whole.ends)
        both = pd.concat([inside, beyond])
        about = dict(zip([*AT, "layer", "site"], keys, strict=True))
        rows += [{**about, "documents": n, "F": value} for n, value in both.items()]
    return pd.DataFrame(rows)


def reversal(values: np.ndarray) -> float:
    """How far a course is from monotone: the smaller of its largest rise and its largest fall,
    as a share of its largest value; zero for a course that only rises or only falls."""
    rise = max(values[j] - values[i] for i, j in itertools.combinations(range(len(values)), 2))
    fall = max(values[i] - values[j] for i, j in itertools.combinations(range(len(values)), 2))
    return max(0.0, min(rise, fall)) / values.max()


def claimed(table: pd.DataFrame) -> dict[str, Estimate]:
    """Values for the claims, intervals over networks (or over draws of documents).

    Args:
        table: rows of `main`.
    """
    table = table.assign(law=[power_law(own.codes) for own in table["merged"]])
    found: dict[str, Estimate | None] = {
        "saturation": _over(table, lambda own: own["growth"].abs().mean()),
        "power_law_line": _over(table, lambda own: _laws(own, "straightness")),
        "power_law_ratio": _over(table, lambda own: _laws(own, "ratio")),
        "living_share": _over(table, _living_share),
    }
    if set(LAYERED) <= set(table["kind"]) and table["layer"].max() >= FEWEST_LAYERS:
        found |= {
            "mlp_over_residual": _over(table, lambda own: _ratio(own, "mlp_out", "resid_out")),
            "residual_over_attention": _over(
                table, lambda own: _ratio(own, "resid_out", "attn_out")
            ),
            "early_mlp_peak": _over(table, _peak),
            "non_monotone": _over(table, _least_reversal),
            "hunchback": _over(table, _hunchback),
        }
        if (table["dictionary"] / table["neurons"]).min() >= ROOM:
            found["peak_per_neuron"] = _over(
                table, lambda own: own.loc[own["kind"] == "mlp_out", "psi"].max()
            )
    return {name: own for name, own in found.items() if own is not None}


def _over(table: pd.DataFrame, value: Callable[[pd.DataFrame], float]) -> Estimate | None:
    """Mean over seeds of a value of each network's sites, texts averaged first."""
    each = pd.Series({keys: value(own) for keys, own in table.groupby(["text", "seed"])})
    cells = each.unstack(0).replace([math.inf, -math.inf], math.nan).dropna()
    if cells.empty:
        return None
    texts = ", ".join(f"{text} {mean:.3g}" for text, mean in cells.mean().items())
    if len(cells) == 1:
        only = float(cells.iloc[0].mean())
        return Estimate(only, only, only, f"one seed, no interval; {texts}")
    found = mean_interval(cells.mean(axis=1))
    return found._replace(note=f"over {len(cells)} seeds; {texts}")


def _ratio(own: pd.DataFrame, first: str, second: str) -> float:
    """Mean F over layers of one kind of site over that of another."""
    mean = own.groupby("kind")["F"].mean()
    return mean[first] / mean[second]


def _profile(own: pd.DataFrame, kind: str, value: str = "F") -> np.ndarray:
    """A value of one kind of site by layers, the first one first."""
    return own[own["kind"] == kind].sort_values("layer")[value].to_numpy(float)


def _peak(own: pd.DataFrame) -> float:
    """Place of the largest F among the MLPs, as a share of depth."""
    course = _profile(own, "mlp_out")
    return (course.argmax() + 1) / len(course)


def _least_reversal(own: pd.DataFrame) -> float:
    """The smallest reversal among the three profiles."""
    return min(reversal(_profile(own, kind)) for kind in LAYERED)


def _hunchback(own: pd.DataFrame) -> float:
    """Correlation over layers of F and intrinsic dimension of the residual stream."""
    features, dimension = (_profile(own, "resid_out", name) for name in ("F", "dimension"))
    if not np.isfinite(dimension).all() or np.ptp(dimension) == 0 or np.ptp(features) == 0:
        return math.nan
    return float(np.corrcoef(features, dimension)[0, 1])


def _living_share(own: pd.DataFrame) -> float:
    """F of the first MLP over the number of its codes that fire."""
    first = own[own["site"] == "mlp_out_layer0"]
    return (first["F"] / first["hill0"]).mean()


def _laws(own: pd.DataFrame, name: str) -> float:
    """Mean over sites of a part of their power laws."""
    values = [getattr(law, name) for law in own["law"] if law is not None]
    return float(np.mean(values)) if values else math.nan
