"""The numbers behind a figure, read off what was drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.category import StrCategoryLocator
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator

COLUMNS = ("panel", "kind", "label", "x", "y", "low", "high", "value")
"""Columns of a figure's table; those that nothing in it uses are left out."""


def figure_data(figure: Figure) -> pd.DataFrame:
    """Every number that a figure shows.

    Args:
        figure: what was drawn, with lines, points, bars, bands, error bars and images.

    Returns:
        One row per point: the panel it is in (title, or number), its kind, the label of what it
        belongs to (that of the legend; of what has none, that of the line of its color), `x` and
        `y` in the units of the axes or as the words at their ticks, the ends `low` and `high` of
        bands and error bars along y, and the `value` of a cell of an image or of a colored point.
    """
    drawn = [axes for axes in figure.axes if axes.axison and not _is_colorbar(axes)]
    rows = [
        {"panel": _panel(axes, number), **row}
        for number, axes in enumerate(drawn, 1)
        for row in _named(axes, _rows(axes))
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.dropna(axis="columns", how="all")


def _panel(axes: Axes, number: int) -> str:
    title = " ".join(axes.get_title().split())
    named = ", ".join(filter(None, (title, axes.get_ylabel(), axes.get_xlabel())))
    return f"{number}: {named}" if named else str(number)


def _is_colorbar(axes: Axes) -> bool:
    return axes.get_label() == "<colorbar>"


def _named(axes: Axes, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Put the words at an axis's ticks in the place of positions."""
    words = {"x": _words(axes.xaxis), "y": _words(axes.yaxis)}
    for row in rows:
        named = {name: known.get(row.get(name)) for name, known in words.items()}
        yield {**row, **{name: word for name, word in named.items() if word is not None}}


def _words(axis: Any) -> dict[float, str]:
    if not isinstance(axis.get_major_locator(), FixedLocator | StrCategoryLocator):
        return {}
    places = axis.get_majorticklocs()
    texts = zip(places, axis.get_major_formatter().format_ticks(places), strict=True)
    return {place: text for place, text in texts if text and text != f"{place:g}"}


def _rows(axes: Axes) -> Iterator[dict[str, Any]]:
    errors = [line for each in axes.containers for line in getattr(each, "lines", ()) or ()]
    of_errors = {id(line) for part in errors for line in _several(part)}
    for line in axes.lines:
        if id(line) not in of_errors and line.get_transform() is axes.transData:
            yield from _points("line", _label(line), *map(_plain, line.get_data()))
    for container in axes.containers:
        if isinstance(container, BarContainer):
            yield from _bars(container)
        else:
            yield from _error_bars(container)
    legend = {to_hex(line.get_color()): _label(line) for line in axes.lines if _label(line)}
    for collection in axes.collections:
        if id(collection) not in of_errors:
            yield from _collection(collection, _label(collection) or _by_color(collection, legend))
    for image in axes.images:
        yield from _image(image)


def _several(part: Any) -> tuple[Any, ...]:
    return tuple(part) if isinstance(part, tuple | list) else (part,)


def _by_color(collection: Any, legend: dict[str, str]) -> str | None:
    colors = collection.get_facecolor()
    return legend.get(to_hex(colors[0])) if len(colors) == 1 else None


def _label(artist: Any) -> str | None:
    label = str(artist.get_label() or "")
    return None if label.startswith("_") or not label else label


def _plain(values: Any) -> np.ndarray:
    return np.ma.filled(np.ma.asarray(values), np.nan)


def _points(kind: str, label: str | None, x: Any, y: Any, **more: Any) -> Iterator[dict[str, Any]]:
    for number, (own_x, own_y) in enumerate(zip(x, y, strict=True)):
        others = {name: values[number] for name, values in more.items()}
        yield {"kind": kind, "label": label, "x": own_x, "y": own_y, **others}


def _bars(bars: BarContainer) -> Iterator[dict[str, Any]]:
    for bar in bars.patches:
        across = bars.orientation == "horizontal"
        middle = bar.get_y() + bar.get_height() / 2 if across else bar.get_x() + bar.get_width() / 2
        length = bar.get_width() if across else bar.get_height()
        x, y = (length, middle) if across else (middle, length)
        yield {"kind": "bar", "label": _label(bars), "x": x, "y": y}


def _error_bars(container: Any) -> Iterator[dict[str, Any]]:
    middle, _, bars = container.lines
    for collection in bars:
        for number, segment in enumerate(collection.get_segments()):
            if len(segment) < 2 or segment[0][0] != segment[-1][0]:  # none, or along x
                continue
            (x, low), (_, high) = segment[0], segment[-1]
            y = middle.get_ydata()[number] if middle is not None else np.nan
            row = {"x": x, "y": y, "low": low, "high": high}
            yield {"kind": "interval", "label": _label(container), **row}


def _collection(collection: Any, label: str | None) -> Iterator[dict[str, Any]]:
    if isinstance(collection, PathCollection):
        places = np.ma.filled(collection.get_offsets(), np.nan)
        colors = collection.get_array()
        more = {} if colors is None else {"value": np.ma.filled(colors, np.nan)}
        yield from _points("points", label, places[:, 0], places[:, 1], **more)
    elif isinstance(collection, QuadMesh):
        values = np.ma.filled(collection.get_array(), np.nan)
        corners = collection.get_coordinates()
        middles = (corners[:-1, :-1] + corners[1:, 1:]) / 2
        yield from _cells(middles[..., 0], middles[..., 1], values.reshape(middles.shape[:2]))
    elif isinstance(collection, LineCollection):
        for (x, low), *_, (other, high) in collection.get_segments():
            if x == other:
                yield {"kind": "interval", "label": label, "x": x, "low": low, "high": high}
    elif isinstance(collection, PolyCollection):
        for path in collection.get_paths():
            yield from _band(label, path.vertices)


def _band(label: str | None, corners: np.ndarray) -> Iterator[dict[str, Any]]:
    """A filled band: its lower edge there and its upper edge back, each with an end point."""
    samples = (len(corners) - 3) // 2
    if samples < 1 or len(corners) != 2 * samples + 3:
        return
    one, other = corners[1 : samples + 1], corners[samples + 2 : 2 * samples + 2][::-1]
    if not np.array_equal(one[:, 0], other[:, 0]):
        return
    for (x, first), (_, second) in zip(one, other, strict=True):
        low, high = sorted((first, second))
        yield {"kind": "band", "label": label, "x": x, "low": low, "high": high}


def _image(image: AxesImage) -> Iterator[dict[str, Any]]:
    values = np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)
    if values.ndim == 2:
        rows, columns = np.indices(values.shape)
        yield from _cells(columns, rows, values)


def _cells(x: np.ndarray, y: np.ndarray, values: np.ndarray) -> Iterable[dict[str, Any]]:
    return _points("cell", None, x.ravel(), y.ravel(), value=values.ravel())
