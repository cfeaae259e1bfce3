"""Figures of the adversarial chapter (paper figures 7 to 9), each with its robust accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import plots
from .image_networks import SINGLE
from .robustness import above_chance

NAMES = {
    "mlp": "single-layer MLP", "cnn": "single-layer CNN", "standard_mlp": "standard MLP",
    "standard_cnn": "standard CNN", "resnet18": "ResNet-18", "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "digits": "digits",
}  # fmt: skip
"""How data sets and networks are called in figures."""

WIDTH = 6.8
"""Of most figures, in inches."""

_MARKERS, _STYLES = "os^Dv<>p", ("-", "--", ":", "-.")
_ENTRIES = 7  # of a legend's row above curves


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
    figure, axes = plots.figure(
        2, len(numbers), width=WIDTH, height=3.8, sharex=True, sharey="row", squeeze=False
    )
    share = min(1.0, (0.6 + 1.55 * len(numbers)) / WIDTH)  # few panels are no larger than many
    above = -(-(len(choices) + 2) // _ENTRIES)
    figure.get_layout_engine().set(rect=((1 - share) / 2, 0, share, 1 - 0.06 * above))
    for column, k in enumerate(numbers):
        own = points[points["classes"] == k]
        upper, lower = axes[:, column]
        for (choice, kind), rows in own.groupby([lines, "inputs"], sort=False):
            rows, name = rows.sort_values("epsilon"), _label(lines, choice)
            look = _look(choices.index(choice))
            style = "-" if kind == "clean" else "--"
            _band(upper, rows, ("ratio", "low", "high"), f"{name}, {kind}", ls=style, **look)
            if kind == "clean" and (lines == "width" or choice == choices[0]):
                if lines != "width":
                    name, look = "network", {"color": "black", "marker": "o"}
                columns = ("robust", "robust_low", "robust_high")
                _band(lower, rows, columns, f"{name}, under attack", **look)
                x, y = rows["epsilon"], rows["accuracy"]
                lower.plot(x, y, ":", color=look["color"], label=f"{name}, clean")
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


def _look(place: int) -> dict[str, str]:
    """Color and marker of a line; where colors come round again the marker is another one."""
    times, color = divmod(place, len(plots.COLORS))
    return {"color": plots.COLORS[color], "marker": _MARKERS[times % len(_MARKERS)]}


def _band(
    axes: Axes, rows: pd.DataFrame, columns: Sequence[str], label: str, marker: str, **line: str
) -> None:
    """A line against epsilon with its interval, both of which have the label."""
    values = (rows[name] for name in columns)
    plots.band(axes, rows["epsilon"], *values, label=label, **line).set_marker(marker)
    axes.collections[-1].set_label(label)


def _legend(axes: Axes, choices: Sequence[object], lines: str) -> None:
    """Above all panels."""
    handles = [
        *(
            Line2D([], [], ms=4, label=_label(lines, choice), **_look(place))
            for place, choice in enumerate(choices)
        ),
        Line2D([], [], ls="-", color="black", label="clean"),
        Line2D([], [], ls="--", color="black", label="attacked"),
    ]
    legend = axes.legend(
        handles=handles, ncols=min(len(handles), _ENTRIES), fontsize=8, loc="upper center",
        bbox_to_anchor=(0.5, 1), bbox_transform=axes.figure.transFigure, borderaxespad=0,
    )  # fmt: skip
    legend.set_in_layout(False)


def slope_lines(
    cells: pd.DataFrame, x: str, lines: Sequence[str], *, axes: Sequence[Axes] | None = None
) -> Figure:
    """Normalized slopes with 95% intervals against classes or width (figure 9).

    Lines join neighbors on the axis, and stop at a cell that is not there.

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
    places = pd.DataFrame({x: sorted(cells[x].unique())})
    shift = np.linspace(-0.03, 0.03, max(2, len(groups)))
    for place, (group, own) in enumerate(groups):
        own, label = own.sort_values(x), ", ".join(map(_label, lines, group))
        whole, move = own.merge(places, on=x, how="right"), np.exp(shift[place])
        look, style = _look(place), _STYLES[place // len(plots.COLORS) % len(_STYLES)]
        errors = (own["slope"] - own["low"], own["high"] - own["slope"])
        upper.errorbar(
            own[x] * move, own["slope"], errors, ls="none", ms=4, capsize=2, lw=1.3, label=label,
            **look,
        )  # fmt: skip
        upper.plot(whole[x] * move, whole["slope"], style, lw=1.3, color=look["color"])
        lower.plot(whole[x] * move, whole["robust"], ls=style, ms=4, lw=1.3, label=label, **look)
    upper.axhline(0, color="gray", lw=0.8)
    upper.set(xscale="log", ylabel="normalized slope of $F$")
    lower.set(xscale="log", xlabel=x, ylabel="robust accuracy", ylim=(0, 1.03))
    if groups:
        low, high = upper.get_ylim()
        upper.set_ylim(low, high + 0.3 * (high - low))  # room for the legend
        upper.legend(fontsize=7.5, labelspacing=0.3)
        for ax in (upper, lower):
            plots.ticks(ax, x=places[x])
    return upper.figure


def _label(column: str, value: object) -> str:
    if column == "classes":
        return f"{value} classes"
    return f"width {value}" if column == "width" else named(str(value))


def heat_map(cells: pd.DataFrame, *, change: bool = False, limit: float | None = None) -> Figure:
    """Slopes, robust accuracy and psi at epsilon 0 over classes and width: regimes at a glance.

    Rows are data sets and networks, in the order of the cells.

    Args:
        cells: what `superpos.robustness.slopes` returns, of single-layer networks.
        change: show slopes times the largest epsilon, comparable between ranges of epsilon.
        limit: of the colors of slopes, so that figures share them; default their own largest.
    """
    first = cells["slope"] * cells["reach"] if change else cells["slope"]
    title = "slope times largest $\\epsilon$" if change else "normalized slope"
    groups = [*cells.assign(first=first).groupby(["dataset", "network"], sort=False)]
    limit = limit or max([1.0, *first.abs()])
    looks = (
        ("first", title, {"cmap": "RdBu_r", "norm": TwoSlopeNorm(0, -limit, limit)}),
        ("robust", "robust accuracy", {"cmap": "viridis", "vmin": 0, "vmax": 1}),
        (
            "psi", "$\\psi$ at $\\epsilon = 0$",
            {"cmap": "viridis", "vmin": 0, "vmax": max([1.0, *cells["psi"]])},
        ),
    )  # fmt: skip
    figure, axes = plots.figure(
        max(1, len(groups)), 3, width=7.2, height=0.5 + 1.75 * len(groups), squeeze=False
    )
    for column, (name, title, look) in zip(axes.T, looks, strict=True):
        for ax, ((dataset, network), own) in zip(column, groups, strict=False):
            grid = own.pivot_table(index="width", columns="classes", values=name)
            ax.grid(False)
            ax.imshow(grid, origin="lower", aspect="auto", **look)
            for (i, j), value in np.ndenumerate(grid.to_numpy()):
                if np.isfinite(value):
                    dark = abs(value) > 0.6 * limit if name == "first" else value < 0.5
                    ax.text(j, i, f"{round(value, 2) + 0:.2f}", ha="center", va="center",
                            fontsize=8.5, color="white" if dark else "black")  # fmt: skip
            ax.set_xticks(range(len(grid.columns)), grid.columns)
            ax.set_yticks(range(len(grid.index)), grid.index)
            ax.set_title(f"{title}\n{named(network)}, {named(dataset)}", fontsize=8)
        column[-1].set_xlabel("classes")
    for ax in axes[:, 0]:
        ax.set_ylabel("width")
    return figure


def robust_scatter(cells: pd.DataFrame, *, among: pd.DataFrame | None = None) -> Figure:
    """Change of F up to the largest epsilon against robust accuracy there, one point per cell.

    Colors are data sets, shapes numbers of classes; standard networks are open.

    Args:
        cells: what `superpos.robustness.slopes` returns.
        among: cells that set colors, shapes and axes, so that figures share them; default `cells`.
    """
    among = cells if among is None else among
    figure, ax = plots.figure(width=WIDTH, height=3.6)
    numbers, names = sorted(among["classes"].unique()), list(among["dataset"].unique())
    markers = {k: _MARKERS[place % len(_MARKERS)] for place, k in enumerate(numbers)}
    colors = {name: plots.COLORS[place % len(plots.COLORS)] for place, name in enumerate(names)}
    for own in cells.itertuples():
        color, error = colors[own.dataset], (own.high - own.low) / 2 * own.reach
        place = (above_chance(own.robust, own.classes), own.slope * own.reach)
        columns = ("dataset", "network", "width", "classes")
        ax.errorbar(
            *place, error, fmt=markers[own.classes], color=color, ms=6,
            mfc=color if own.network in SINGLE else "white", ecolor=to_rgba(color, 0.3),
            elinewidth=1, label=", ".join(_label(name, getattr(own, name)) for name in columns),
        )  # fmt: skip
    handles = [
        *(Line2D([], [], ls="", marker="o", color=colors[name], label=named(name))
          for name in names),
        *(Line2D([], [], ls="", marker=markers[k], color="gray", label=f"{k} classes")
          for k in numbers),
        Line2D([], [], ls="", marker="o", color="gray", mfc="white", label="standard network"),
    ]  # fmt: skip
    ax.axhline(0, color="gray", lw=0.8)
    spread = 1.4 * (among["slope"] * among["reach"]).abs().max() if len(among) else 1.0
    least = min([0.0, *above_chance(among["robust"], among["classes"])])
    ax.set(
        xlabel="$r$, robust accuracy at the largest $\\epsilon$ above chance",
        ylabel="slope of $F$ times largest $\\epsilon$",
        xlim=(least - 0.05, 1.02), ylim=(-spread, spread),
    )  # fmt: skip
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    return figure
