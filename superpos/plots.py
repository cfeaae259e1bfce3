"""One style for all figures, and the way they enter a page."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

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
    axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.18, linewidth=0)
    return drawn


def ticks(axes: Axes, *, x: Iterable[float] = (), y: Iterable[float] = ()) -> None:
    """Label an axis, such as a logarithmic one, at just these values, in plain numbers."""
    if x := list(x):
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.xaxis.set_minor_locator(NullLocator())
    if y := list(y):
        axes.set_yticks(y, [f"{value:g}" for value in y])
        axes.yaxis.set_minor_locator(NullLocator())


class Picture:
    """A figure as it enters a page: an image with alternative text, and its caption."""

    def __init__(self, png: bytes, alt: str, caption: str) -> None:
        """Hold what is shown."""
        self.png, self.alt, self.caption = png, alt, caption

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png).decode()
        alt = html.escape(self.alt, quote=True)
        return (
            '<figure style="margin:1em 0;text-align:center">'
            f'<img src="data:image/png;base64,{data}" alt="{alt}" '
            'style="max-width:100%;background:white;border-radius:4px"/>'
            f"<figcaption><p><em>{self.caption}</em></p></figcaption></figure>"
        )

    def __repr__(self) -> str:
        """The caption, where images cannot be shown."""
        return f"Figure: {self.caption}"


def show(figure: Figure, *, alt: str, caption: str) -> Picture:
    """Close a figure and make it the value of a notebook cell.

    Args:
        figure: what was drawn.
        alt: what the image shows, for readers who cannot see it.
        caption: the sentence under it; simple HTML is allowed.
    """
    return Picture(_png(figure, dpi=150), alt, caption)


class Frames:
    """Figures of one size with a slider that chooses among them, and their caption.

    The page needs no kernel and loads nothing: the images lie in it, and the slider is the
    browser's own. Without scripts the first choice stays.
    """

    def __init__(
        self, pngs: Sequence[bytes], labels: Sequence[str], name: str, start: int, alt: str,
        caption: str,
    ) -> None:  # fmt: skip
        """Hold what is shown."""
        self.pngs, self.labels, self.name, self.start = list(pngs), list(labels), name, start
        self.alt, self.caption = alt, caption

    def _repr_html_(self) -> str:
        images = "".join(
            f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" '
            f'alt="{html.escape(f"{self.alt} {self.name} = {label}.", quote=True)}" '
            'style="max-width:100%;background:white;border-radius:4px;'
            f'display:{"inline" if number == self.start else "none"}"/>'
            for number, (png, label) in enumerate(zip(self.pngs, self.labels, strict=True))
        )
        labels = html.escape(json.dumps(self.labels), quote=True)
        script = (
            "const f=this.closest('figure');"
            "f.querySelectorAll('img').forEach((image,i)=>{image.style.display=i==this.value?'inline':'none'});"
            "const text=JSON.parse(this.dataset.labels)[this.value];"
            "f.querySelector('.frame').textContent=text;"
            "this.setAttribute('aria-valuetext',text)"
        )
        name, label = (
            html.escape(text, quote=True) for text in (self.name, self.labels[self.start])
        )
        return (
            '<figure style="margin:1em 0;text-align:center">'
            f'{name} = <span class="frame">{label}</span><br>'
            f'<input type="range" min="0" max="{len(self.pngs) - 1}" value="{self.start}" '
            f'aria-label="{name}" aria-valuetext="{label}" data-labels="{labels}" '
            f'style="width:min(24em,90%)" autocomplete="off" '
            f'oninput="{html.escape(script, quote=True)}"/><br>{images}'
            f"<figcaption><p><em>{self.caption}</em></p></figcaption></figure>"
        )

    def __repr__(self) -> str:
        """The caption, where images cannot be shown."""
        return f"Figure: {self.caption}"


def slider(
    frames: Mapping[str, Figure], *, name: str, start: str, alt: str, caption: str
) -> Frames:
    """Close figures and make them the value of a notebook cell, one at a time behind a slider.

    Args:
        frames: figures of one size by their labels, in order.
        name: what the slider changes.
        start: the label shown first.
        alt: what the images show; name and label are added.
        caption: the sentence under them; simple HTML is allowed.

    Raises:
        ValueError: no frame has the label `start`.
    """
    labels = list(frames)
    if start not in labels:
        raise ValueError(f"start is {start!r}; the frames are {', '.join(labels) or 'none'}.")
    pngs = [_png(figure, dpi=110) for figure in frames.values()]
    return Frames(pngs, labels, name, labels.index(start), alt, caption)


def _png(figure: Figure, *, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    return buffer.getvalue()
