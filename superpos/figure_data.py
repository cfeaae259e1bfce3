"""The numbers behind a figure, read off what was drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.category import StrCategoryFormatter
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedFormatter, FuncFormatter

COLUMNS = ("panel", "kind", "label", "x", "y", "low", "high", "x_low", "x_high", "value")
"""Columns of a figure's table; those that nothing in it uses are left out."""


def figure_data(figure: Figure) -> pd.DataFrame:
    """The numbers that a figure shows.

    Lines, points, bars, bands, error bars, images and labeled lines across a panel count. Other
    shapes, words, and panels without axes are left out.

    Args:
        figure: what was drawn.

    Returns:
        One row per point: the panel it is in (title, or number), its kind, the label of what it
        belongs to (that of the legend; of what has none, that of the one line of its color), `x`
        and `y` in the units of the axes or as the words at their ticks, the ends `low` and `high`
        of bands and error bars along y, `x_low` and `x_high` of error bars along x, and the
        `value` of a cell of an image or of a colored point.
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
        named = {name: _nearest(row.get(name), known) for name, known in words.items()}
        yield {**row, **{name: word for name, word in named.items() if word is not None}}


def _words(axis: Any) -> dict[float, str]:
    """Words at the ticks of an axis, by their places; none if numbers stand there."""
    formatter = axis.get_major_formatter()
    if not isinstance(formatter, FixedFormatter | FuncFormatter | StrCategoryFormatter):
        return {}
    places = axis.get_majorticklocs()
    texts = formatter.format_ticks(places)
    if all(text in ("", f"{place:g}") for place, text in zip(places, texts, strict=True)):
        return {}
    return {float(place): text for place, text in zip(places, texts, strict=True) if text}


def _nearest(place: Any, words: dict[float, str]) -> str | None:
    """The word next to a place, for what is drawn beside its tick; none halfway to the next."""
    if not words or place is None or not np.isfinite(place):
        return None
    known = np.sort(list(words))
    step = np.diff(known).min() if len(known) > 1 else 1.0
    close = known[np.abs(known - place).argmin()]
    return words[close] if abs(close - place) < step / 2 else None


def _rows(axes: Axes) -> Iterator[dict[str, Any]]:
    errors = [each for each in axes.containers if isinstance(each, ErrorbarContainer)]
    bars = [each for each in axes.containers if isinstance(each, BarContainer)]
    taken = {id(part) for each in errors for parts in each.lines for part in _several(parts)}
    of_bars = {id(each.errorbar) for each in bars if each.errorbar}
    lines = [line for line in axes.lines if id(line) not in taken]
    for line in lines:
        if line.get_transform() is axes.transData:
            yield from _points("line", _label(line), *map(_plain, line.get_data()))
        elif _label(line):
            yield from _level(line)
    for each in bars:
        yield from _bars(each)
    legend = _legend([*lines, *(each.lines[0] for each in errors if each.lines[0])], errors)
    for each in errors:
        if id(each) not in of_bars:
            yield from _error_bars(each)
    for collection in axes.collections:
        if id(collection) not in taken:
            label = _label(collection) or collection.get_gid() or _by_color(collection, legend)
            yield from _collection(collection, label)
    for image in axes.images:
        yield from _image(image)


def _legend(lines: Iterable[Any], errors: Iterable[ErrorbarContainer]) -> dict[str, str]:
    """Labels by color, of colors with one label only."""
    by_line = {id(each.lines[0]): _label(each) for each in errors if each.lines[0]}
    found: dict[str, set[str]] = {}
    for line in lines:
        if label := _label(line) or by_line.get(id(line)):
            found.setdefault(to_hex(line.get_color()), set()).add(label)
    return {color: labels.pop() for color, labels in found.items() if len(labels) == 1}


def _level(line: Any) -> Iterator[dict[str, Any]]:
    """A line across the panel, at one x or at one y."""
    x, y = map(_plain, line.get_data())
    across = {"y": y[0]} if y[0] == y[-1] else {"x": x[0]}
    yield {"kind": "level", "label": _label(line), **across}


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
    across = bars.orientation == "horizontal"
    ends = None
    if bars.errorbar:
        ends = _ends(bars.errorbar.lines[2][0], 0 if across else 1)
    for number, bar in enumerate(bars.patches):
        middle = bar.get_y() + bar.get_height() / 2 if across else bar.get_x() + bar.get_width() / 2
        length = bar.get_width() if across else bar.get_height()
        x, y = (length, middle) if across else (middle, length)
        names = ("x_low", "x_high") if across else ("low", "high")
        interval = dict(zip(names, ends[number], strict=True)) if ends else {}
        yield {"kind": "bar", "label": _label(bars), "x": x, "y": y, **interval}


def _error_bars(container: ErrorbarContainer) -> Iterator[dict[str, Any]]:
    """Points with their intervals, also those of which no interval is known."""
    line, _, bars = container.lines
    collections = iter(bars)
    ends = {}
    if container.has_xerr:
        ends["x_low", "x_high"] = _ends(next(collections), 0)
    if container.has_yerr:
        ends["low", "high"] = _ends(next(collections), 1)
    count = len(line.get_xdata()) if line else len(next(iter(ends.values()), []))
    x, y = map(_plain, line.get_data()) if line else (np.full(count, np.nan),) * 2
    if not line and container.has_yerr and not container.has_xerr:
        x = _middles(bars[0])
    for number in range(count):
        intervals = {
            name: value
            for names, found in ends.items()
            for name, value in zip(names, found[number], strict=True)
        }
        row = {"kind": "interval" if ends else "points", "label": _label(container)}
        yield {**row, "x": x[number], "y": y[number], **intervals}


def _ends(collection: LineCollection, axis: int) -> list[tuple[float, float]]:
    """Lowest and highest coordinate of each line; nan where there is none."""
    return [
        (segment[:, axis].min(), segment[:, axis].max()) if len(segment) > 1 else (np.nan, np.nan)
        for segment in collection.get_segments()
    ]


def _middles(collection: LineCollection) -> np.ndarray:
    """Where upright lines stand."""
    return np.array(
        [segment[0, 0] if len(segment) else np.nan for segment in collection.get_segments()]
    )


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
        for segment in collection.get_segments():
            if len(segment) > 1 and segment[0][0] == segment[-1][0]:
                (x, low), (_, high) = segment[0], segment[-1]
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
        rows, columns = np.indices(values.shape) + 0.5
        left, right, bottom, top = image.get_extent()
        first, last = (top, bottom) if image.origin == "upper" else (bottom, top)
        x = left + columns * (right - left) / values.shape[1]
        yield from _cells(x, first + rows * (last - first) / values.shape[0], values)


def _cells(x: np.ndarray, y: np.ndarray, values: np.ndarray) -> Iterable[dict[str, Any]]:
    return _points("cell", None, x.ravel(), y.ravel(), value=values.ravel())
