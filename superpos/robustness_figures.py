"""Figures of the adversarial chapter (paper figures 7 to 9), each with its robust accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from . import plots
from .image_networks import SINGLE
from .robustness import above_chance

NAMES = {
    "mlp": "single-layer MLP", "cnn": "single-layer CNN", "standard_mlp": "standard MLP",
    "standard_cnn": "standard CNN", "resnet18": "ResNet-18", "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "digits": "digits",
}  # fmt: skip
"""How data sets and networks are called in figures."""


def named(name: str) -> str:
    """What a data set or network is called; itself if it has no other name."""
    return NAMES.get(name, name)


def curves(points: pd.DataFrame, lines: str) -> Figure:
    """F over F at epsilon 0 against epsilon, and under it robust accuracy (figures 7 and 8).

    Args:
        points: what `superpos.robustness.ratios` returns, of one data set and network.
        lines: "width" or "site", the column that tells lines apart; numbers of classes are panels.
    """
    numbers, choices = sorted(points["classes"].unique()), list(points[lines].unique())
    width = min(9.4, 1.6 + 2.4 * len(numbers))
    figure, axes = plots.figure(
        2, len(numbers), width=width, height=4.9, sharex=True, sharey="row", squeeze=False
    )
    for column, k in enumerate(numbers):
        own = points[points["classes"] == k]
        upper, lower = axes[:, column]
        for (choice, kind), rows in own.groupby([lines, "inputs"], sort=False):
            rows = rows.sort_values("epsilon")
            color = plots.COLORS[choices.index(choice) % len(plots.COLORS)]
            style = {"color": color, "ls": "-" if kind == "clean" else "--"}
            x = rows["epsilon"].to_numpy()
            plots.band(upper, x, rows["ratio"], rows["low"], rows["high"], **style)
            if kind == "clean" and (lines == "width" or choice == choices[0]):
                color = color if lines == "width" else "black"
                values = (rows["robust"], rows["robust_low"], rows["robust_high"])
                plots.band(lower, x, *values, color=color)
                lower.plot(x, rows["accuracy"], ":", color=color)
        upper.axhline(1, color="gray", lw=0.8)
        lower.axhline(1 / k, color="gray", lw=0.8)
        upper.set(title=f"{k} classes")
        lower.set(xlabel="training $\\epsilon$", ylim=(0, 1.03))
        plots.ticks(lower, x=sorted(own["epsilon"].unique()))
    axes[0, 0].set_ylabel("$F$ / $F$ at $\\epsilon = 0$")
    axes[1, 0].set_ylabel("test accuracy")
    largest = points["ratio"].max()  # wide intervals may be cut off, points may not
    axes[0, 0].set_ylim(0, 1.05 * max(1.5, largest, min(points["high"].max(), 1.6 * largest)))
    _legend(axes[0, -1], choices, lines)
    return figure


def _legend(axes: Axes, choices: Sequence[object], lines: str) -> None:
    for place, choice in enumerate(choices):
        label = f"width {choice}" if lines == "width" else str(choice)
        axes.plot([], [], "-", color=plots.COLORS[place % len(plots.COLORS)], label=label)
    axes.plot([], [], "-", color="black", label="clean")
    axes.plot([], [], "--", color="black", label="attacked")
    axes.legend(fontsize=7.5)


def slope_lines(
    cells: pd.DataFrame, x: str, lines: Sequence[str], *, axes: Sequence[Axes] | None = None
) -> Figure:
    """Normalized slopes with 95% intervals against classes or width (figure 9).

    Args:
        cells: what `superpos.robustness.slopes` returns.
        x: "classes" or "width", on a logarithmic axis.
        lines: columns whose values together tell lines apart.
        axes: where to draw slopes and, under them, robust accuracy at the largest epsilon;
            default a figure of its own.
    """
    if axes is None:
        _, axes = plots.figure(2, 1, width=5.6, height=5, sharex=True, height_ratios=(2, 1))
    upper, lower = axes
    groups = [*cells.groupby(list(lines))]
    shift = np.linspace(-0.03, 0.03, max(2, len(groups)))
    for place, (group, own) in enumerate(groups):
        own, label = own.sort_values(x), ", ".join(map(_label, lines, group))
        errors = (own["slope"] - own["low"], own["high"] - own["slope"])
        at = own[x] * np.exp(shift[place])
        upper.errorbar(at, own["slope"], errors, fmt="o-", ms=4, capsize=2, lw=1.3, label=label)
        lower.plot(at, own["robust"], "o-", ms=4, lw=1.3)
    upper.axhline(0, color="gray", lw=0.8)
    upper.set(xscale="log", ylabel="normalized slope of $F$")
    lower.set(xscale="log", xlabel=x, ylabel="robust accuracy", ylim=(0, 1.03))
    if groups:
        upper.legend(fontsize=8)
        for ax in (upper, lower):
            plots.ticks(ax, x=sorted(cells[x].unique()))
    return upper.figure


def _label(column: str, value: object) -> str:
    if column == "classes":
        return f"{value} classes"
    return f"width {value}" if column == "width" else named(str(value))


def heat_map(cells: pd.DataFrame) -> Figure:
    """Slopes, robust accuracy and psi at epsilon 0 over classes and width: regimes at a glance.

    Args:
        cells: what `superpos.robustness.slopes` returns, of single-layer networks.
    """
    groups = [*cells.groupby(["dataset", "network"])]
    size = max([1.0, *cells["slope"].abs()])
    figure, axes = plots.figure(
        max(1, len(groups)), 3, width=9.4, height=0.7 + 2.1 * len(groups), squeeze=False
    )
    for row, ((dataset, network), own) in zip(axes, groups, strict=False):
        for ax, column, title in (
            (row[0], "slope", "normalized slope"),
            (row[1], "robust", "robust accuracy"),
            (row[2], "psi", "$\\psi$ at $\\epsilon = 0$"),
        ):
            grid = own.pivot_table(index="width", columns="classes", values=column)
            if column == "slope":
                look = {"cmap": "RdBu_r", "norm": TwoSlopeNorm(0, -size, size)}
            else:
                top = 1 if column == "robust" else max(1.0, cells["psi"].max())
                look = {"cmap": "viridis", "vmin": 0, "vmax": top}
            ax.grid(False)
            drawn = ax.imshow(grid, origin="lower", aspect="auto", **look)
            for (i, j), value in np.ndenumerate(grid.to_numpy()):
                if np.isfinite(value):
                    dark = abs(value) > 0.6 * size if column == "slope" else value < 0.5
                    ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8.5,
                            color="white" if dark else "black")  # fmt: skip
            ax.set_xticks(range(len(grid.columns)), grid.columns)
            ax.set_yticks(range(len(grid.index)), grid.index)
            ax.set(xlabel="classes", ylabel="width")
            ax.set_title(f"{title}\n{named(network)}, {named(dataset)}", fontsize=9)
            figure.colorbar(drawn, ax=ax)
    return figure


def robust_scatter(cells: pd.DataFrame) -> Figure:
    """Change of F up to the largest epsilon against robust accuracy there, one point per cell.

    Colors are data sets, shapes numbers of classes; standard networks are open.

    Args:
        cells: what `superpos.robustness.slopes` returns.
    """
    figure, ax = plots.figure(width=7.6, height=4.2)
    numbers, names = sorted(cells["classes"].unique()), list(cells["dataset"].unique())
    markers = {k: "os^Dv<>p"[place % 8] for place, k in enumerate(numbers)}
    colors = {name: plots.COLORS[place % len(plots.COLORS)] for place, name in enumerate(names)}
    for own in cells.itertuples():
        x = above_chance(own.robust, own.classes)
        color, error = colors[own.dataset], (own.high - own.low) / 2 * own.reach
        face = color if own.network in SINGLE else "white"
        ax.errorbar(x, own.slope * own.reach, error, color=color, alpha=0.3, lw=1)
        ax.plot(x, own.slope * own.reach, markers[own.classes], color=color, mfc=face, ms=6)
    for name, color in colors.items():
        ax.plot([], [], "o", color=color, label=named(name))
    for k, marker in markers.items():
        ax.plot([], [], marker, color="gray", label=f"{k} classes")
    ax.plot([], [], "o", color="gray", mfc="white", label="standard network")
    ax.axhline(0, color="gray", lw=0.8)
    spread = 1.4 * (cells["slope"] * cells["reach"]).abs().max() if len(cells) else 1.0
    ax.set(
        xlabel="robust accuracy at the largest $\\epsilon$, above chance",
        ylabel="slope of $F$ times largest $\\epsilon$", ylim=(-spread, spread),
    )  # fmt: skip
    figure.legend(loc="outside right upper", fontsize=8)
    return figure
