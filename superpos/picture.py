"""Figures as they enter a page: images, their caption, where their numbers are from."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from .source import Source


class Picture:
    """A figure as it enters a page: an image with alternative text, and its caption."""

    def __init__(
        self,
        png: bytes,
        alt: str,
        caption: str,
        sources: Sequence[Source | str],
        data: pd.DataFrame,
    ) -> None:
        """Hold what is shown."""
        self.png, self.alt, self.caption = png, alt, caption
        self.sources, self.data = list(sources), data

    def _repr_html_(self) -> str:
        return _framed(_image(self.png, self.alt), self.caption, self.sources, self.data)

    def __repr__(self) -> str:
        """The caption, where images cannot be shown."""
        return f"Figure: {self.caption}"


class Frames:
    """Figures of one size with a slider that chooses among them, and their caption.

    The page needs no kernel and loads nothing: the images lie in it, and the slider is the
    browser's own. On paper and without scripts the first choice stays, without the slider.
    """

    def __init__(
        self,
        pngs: Sequence[bytes],
        labels: Sequence[str],
        name: str,
        start: int,
        alt: str,
        caption: str,
        sources: Sequence[Source | str],
        data: pd.DataFrame,
    ) -> None:
        """Hold what is shown."""
        self.pngs, self.labels, self.name, self.start = list(pngs), list(labels), name, start
        self.alt, self.caption, self.sources, self.data = alt, caption, list(sources), data

    def _repr_html_(self) -> str:
        images = "".join(
            _image(png, f"{self.alt} {self.name} = {label}.", hidden=number != self.start)
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
        slider = (
            f'{name} = <span class="frame">{label}</span><br>'
            f'<input type="range" min="0" max="{len(self.pngs) - 1}" value="{self.start}" '
            f'aria-label="{name}" aria-valuetext="{label}" data-labels="{labels}" '
            f'style="width:min(24em,90%)" autocomplete="off" '
            f'oninput="{html.escape(script, quote=True)}"/><br>'
        )
        return _framed(slider + images, self.caption, self.sources, self.data)

    def __repr__(self) -> str:
        """The caption, where images cannot be shown."""
        return f"Figure: {self.caption}"


def png(figure: Figure, *, dpi: int) -> bytes:
    """Draw a figure, and close it; a palette of 256 colors makes it a third of the size."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    plt.close(figure)
    image = Image.open(drawn).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(packed, format="PNG", optimize=True)
    return packed.getvalue()


def _image(png: bytes, alt: str, *, hidden: bool = False) -> str:
    return (
        f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" '
        f'alt="{html.escape(alt, quote=True)}" '
        'style="max-width:100%;background:white;border-radius:4px;'
        f'display:{"none" if hidden else "inline"}"/>'
    )


def _framed(images: str, caption: str, sources: Sequence[Source | str], data: pd.DataFrame) -> str:
    """What is shown, with its caption and, smaller, the line on where its numbers are from."""
    lines = [each.html() if isinstance(each, Source) else html.escape(each) for each in sources]
    table = data.to_csv(index=False, float_format="%.6g").encode()
    link = f"data:text/csv;base64,{base64.b64encode(table).decode()}"
    data_link = f'<a download="figure.csv" href="{link}">Data (CSV)</a>' if len(data) else ""
    return (
        f'<figure style="margin:1em 0;text-align:center">{images}'
        f"<figcaption><p><em>{caption}</em></p>"
        f'<p class="source" style="font-size:0.8em">{" ".join(lines)} {data_link}</p>'
        "</figcaption></figure>"
    )
