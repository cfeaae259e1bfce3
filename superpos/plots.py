"""One style for all figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from .figure_data import figure_data
from .picture import Frames, Picture, png
from .source import Source

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""Colors that color-blind readers can tell apart (Okabe and Ito)."""

STYLE = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": plt.cycler(color=COLORS),
    "grid.color": "#E5E5E5",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def figure(
    rows: int = 1, columns: int = 1, *, width: float = 7.2, height: float = 3.2, **options: Any
) -> tuple[Figure, Any]:
    """A figure with its axes, sized in inches; the book's style holds from here on."""
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=(width, height), **options)


def band(
    axes: Axes, x: ArrayLike, middle: ArrayLike, low: ArrayLike, high: ArrayLike, **line: Any
) -> Line2D:
    """A line with markers and its interval as a band; returns the line."""
    (drawn,) = axes.plot(x, middle, marker="o", markersize=4, **line)
    filled = axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.18, linewidth=0)
    filled.set_gid(line.get("label"))  # no second entry in the legend
    return drawn


def ticks(axes: Axes, *, x: Iterable[float] = (), y: Iterable[float] = ()) -> None:
    """Label an axis, such as a logarithmic one, at just these values, in plain numbers."""
    if x := list(x):
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.xaxis.set_minor_locator(NullLocator())
    if y := list(y):
        axes.set_yticks(y, [f"{value:g}" for value in y])
        axes.yaxis.set_minor_locator(NullLocator())


def show(
    figure: Figure, *, alt: str, caption: str, source: Source | Iterable[Source] | str
) -> Picture:
    """Close a figure and make it the value of a notebook cell.

    Args:
        figure: what was drawn.
        alt: what the image shows, for readers who cannot see it.
        caption: the sentence under it, which says what the figure shows; simple HTML is allowed.
        source: the records that the numbers come from, or a sentence if there are none.
    """
    data = figure_data(figure)
    return Picture(png(figure, dpi=150), alt, caption, _sources(source), data)


def slider(
    frames: Mapping[str, Figure],
    *,
    name: str,
    start: str,
    alt: str,
    caption: str,
    source: Source | Iterable[Source] | str,
) -> Frames:
    """Close figures and make them the value of a notebook cell, one at a time behind a slider.

    Args:
        frames: figures of one size by their labels, in order.
        name: what the slider changes.
        start: the label shown first.
        alt: what the images show; name and label are added.
        caption: the sentence under them; simple HTML is allowed.
        source: the records that the numbers come from, or a sentence if there are none.

    Raises:
        ValueError: no frame has the label `start`.
    """
    labels = list(frames)
    if start not in labels:
        raise ValueError(f"start is {start!r}; the frames are {', '.join(labels) or 'none'}.")
    tables = [figure_data(figure).assign(**{name: label}) for label, figure in frames.items()]
    pngs = [png(figure, dpi=110) for figure in frames.values()]
    data = pd.concat(tables, ignore_index=True)
    return Frames(pngs, labels, name, labels.index(start), alt, caption, _sources(source), data)


def _sources(source: Source | Iterable[Source] | str) -> list[Source | str]:
    return [source] if isinstance(source, str | Source) else list(source)
