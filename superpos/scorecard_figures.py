"""Figures of the scorecard: where all claims stand, and the paper's numbers beside ours."""

from __future__ import annotations

import math
import re
import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from . import plots
from .claims import MARKS
from .ledger import Claim, Verdict
from .scorecard import Scorecard

COLORS = {
    Verdict.REPRODUCED: plots.COLORS[2],
    Verdict.PARTLY: plots.COLORS[4],
    Verdict.NOT_REPRODUCED: plots.COLORS[1],
    Verdict.STAND_IN: plots.COLORS[5],
    Verdict.NOT_TESTED: plots.COLORS[6],
}
"""Each verdict's color in figures."""

COLUMNS = (
    "section", "id", "text", "paper", "spread", "value", "low", "high", "least", "most", "verdict",
)  # fmt: skip
"""Columns of `comparable`."""

_NUMBER = re.compile(r"(?P<value>-?[\d.]+)( ± (?P<pm>[\d.]+))?( \(.*\))?")


def titled(section: str) -> str:
    """What a section is called in figures."""
    return section.replace("_", " ").capitalize()


def marked(verdict: Verdict) -> str:
    """A verdict as its sign and its words."""
    return f"{MARKS[verdict][0]} {verdict.value}"


def standings(card: Scorecard) -> pd.DataFrame:
    """Count the claims by section and standing.

    Args:
        card: the scorecard.

    Returns:
        One row per section in the ledger's order, one column per `Verdict`, numbers of claims.
    """
    table = pd.DataFrame(
        0, index=list(dict.fromkeys(claim.section for claim in card.claims)), columns=list(Verdict)
    )
    for claim in card.claims:
        table.loc[claim.section, card.standing(claim)] += 1
    return table


def overview(card: Scorecard) -> Figure:
    """Bars of the numbers of claims, one per section, cut by what became of the claims.

    Args:
        card: the scorecard.
    """
    table = standings(card)
    figure, ax = plots.figure(width=7.2, height=0.9 + 0.36 * len(table))
    places, left = np.arange(len(table)), np.zeros(len(table))
    for verdict, counts in table.items():
        bars = ax.barh(places, counts, left=left, color=COLORS[verdict], label=marked(verdict))
        signs = [f"{MARKS[verdict][0]} {count}" if count else "" for count in counts]
        ax.bar_label(bars, signs, label_type="center", fontsize=8)
        left += counts.to_numpy()
    ax.set_yticks(places, [titled(section) for section in table.index])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("claims")
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure


def paper_value(claim: Claim) -> tuple[float, float] | None:
    """The paper's value as a number.

    Args:
        claim: a claim of the ledger.

    Returns:
        The value and what the paper gives after ± (0 if nothing), in the claim's unit; None where
        the paper has words, a range, or a value that was read off a plot as "about".
    """
    found = _NUMBER.fullmatch(claim.paper)
    return (float(found["value"]), float(found["pm"] or 0)) if found else None


def comparable(card: Scorecard) -> pd.DataFrame:
    """Claims for which the paper has a number, and we have one of the same quantity.

    Values from stand-ins are left out: they are numbers of something else.

    Args:
        card: the scorecard.

    Returns:
        One row per claim in the ledger's order, with `COLUMNS`: the paper's value `paper` and its
        `spread`; our `value` with its 95% interval `low` to `high`, from the largest profile that
        tested the claim; the edges `least` and `most` of the region in which a value counts as
        reproduced, infinite where open; all in the claim's unit. `verdict` is a `Verdict`.
    """
    rows = []
    for claim in card.claims:
        number, verdict = paper_value(claim), card.standing(claim)
        if number is None or verdict in (Verdict.STAND_IN, Verdict.NOT_TESTED):
            continue
        decided = [name for name in card.profiles if card.verdict(claim, name) is verdict]
        ours = card.runs[claim.section, decided[-1]].estimates[claim.id]
        least = -math.inf if claim.low is None else claim.low
        most = math.inf if claim.high is None else claim.high
        about = (claim.section, claim.id, claim.text)
        rows.append((*about, *number, *ours[:3], least, most, verdict))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def beside(rows: pd.DataFrame, *, height: float = 5.0) -> Figure:
    """The paper's values beside ours, one row per claim.

    Args:
        rows: what `comparable` returns, of one section.
        height: inches; frames of a slider share it.

    Raises:
        ValueError: there is no claim to draw.
    """
    if rows.empty:
        raise ValueError("no claim has comparable numbers; leave this section out.")
    figure, ax = plots.figure(width=7.4, height=height, layout="none")  # so that frames agree
    figure.subplots_adjust(left=0.45, right=0.98, bottom=0.1, top=0.85)
    inside = rows[["paper", "value", "low", "high", "least", "most"]].to_numpy()
    ends = np.array([inside[np.isfinite(inside)].min(), inside[np.isfinite(inside)].max()])
    ends += np.array([-0.06, 0.06]) * (ends[1] - ends[0])
    for place, row in enumerate(rows.itertuples()):
        low, high = np.clip((row.least, row.most), *ends)
        ax.add_patch(Rectangle((low, place - 0.4), high - low, 0.8, color="0.92"))
        spread = np.array([-row.spread, row.spread])
        paper = {"color": "black", "mfc": "white", "ms": 5}
        ax.plot(row.paper + spread, [place - 0.15] * 2, label=f"{row.id}, paper, ±", **paper)
        ax.plot(row.paper, place - 0.15, "D", label=f"{row.id}, paper", **paper)
        ours, heights = {"color": COLORS[row.verdict], "ms": 5}, [place + 0.15] * 2
        ax.plot([row.low, row.high], heights, label=f"{row.id}, ours, 95% interval", **ours)
        ax.plot(row.value, place + 0.15, "o", label=f"{row.id}, ours", **ours)
    texts = [textwrap.fill(text, 52) for text in rows["text"]]
    ax.set_yticks(range(len(rows)), texts, fontsize=7.5)
    ax.set(xlim=ends, ylim=(len(rows) - 0.5, -0.5), xlabel="value, in the unit of the claim")
    ax.locator_params(axis="x", nbins=6)
    ax.grid(axis="y", visible=False)
    _legend(figure, list(rows["verdict"]))
    return figure


def _legend(figure: Figure, verdicts: list[Verdict]) -> None:
    shown = [
        Line2D([], [], marker="D", color="black", mfc="white", label="paper, with its ±"),
        Patch(color="0.92", label="counts as reproduced"),
    ]
    for verdict in COLORS:
        if verdict in verdicts:
            label = f"ours, 95% interval: {marked(verdict)}"
            shown.append(Line2D([], [], marker="o", color=COLORS[verdict], label=label))
    figure.legend(handles=shown, loc="upper center", ncols=2, fontsize=8)


def described(card: Scorecard) -> str:
    """Where the values of a scorecard come from, for the line under a figure.

    Args:
        card: the scorecard.
    """
    if not card.runs:
        return "No chapter has reported values yet."
    about = [run.provenance for run in card.runs.values()]
    devices = sorted({device for each in about for device in each["devices"]})
    days = sorted({each["date"][:10] for each in about})
    profiles = ", ".join(card.profiles)
    return (
        f"Values that the chapters last reported, profiles: {profiles}; {', '.join(devices)}, "
        + (days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")
        + "."
    )
