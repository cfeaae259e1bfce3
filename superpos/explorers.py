"""Figures to play with: in a notebook with a kernel, widgets that compute at every move.

Where there is no kernel, as on a page of the book, each shows what was computed beforehand.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure

from . import playground, plots
from .entropy import DeadCodesError
from .matrix_file import SUFFIXES, read_matrix
from .measurement import measure
from .picture import png
from .sae import SAEConfig

COMPUTED_HERE = "Computed in this notebook; no records."

_HTML, _VIEW = "text/html", "application/vnd.jupyter.widget-view+json"


class Explorer:
    """Widgets for a kernel, and what stands in their place without one."""

    def __init__(self, controls: Mapping[str, widgets.Widget], shown: Any, still: Any) -> None:
        """Hold the controls by name, what they change, and the substitute."""
        self.controls, self.shown, self.still = dict(controls), shown, still
        self.widget = widgets.VBox([*self.controls.values(), *shown])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle = self.widget._repr_mimebundle_()
        still = self.still if isinstance(self.still, str) else self.still._repr_html_()
        return {_VIEW: bundle[_VIEW], _HTML: still, "text/plain": "An explorer; it needs a kernel."}


def toy_models(
    *, sparsity: float = 0.9, features: int = 20, neurons: int = 5, importance: float = 0.7
) -> Explorer:
    """Toy models: sparsity, features, neurons and importance to W^T W and psi (paper section 5.1).

    A move of any control but sparsity trains models of all sparsities as one batch.

    Args:
        sparsity: where the slider starts, one of `SPARSITIES`.
        features: M at the start, from 2 to 20.
        neurons: N at the start, from 1 to 6.
        importance: feature i matters as much as this to the power of i, from 0.3 to 1.

    Raises:
        ValueError: the sparsity is none of those.
    """
    _refuse("sparsity", sparsity, playground.SPARSITIES)
    controls = {
        "sparsity": _choice("sparsity S", sparsity, playground.SPARSITIES),
        "features": _whole("features M", features, 2, 20),
        "neurons": _whole("neurons N", neurons, 1, 6),
        "importance": widgets.FloatSlider(
            value=importance, min=0.3, max=1.0, step=0.05, **_named("importance")
        ),
    }

    def draw(sparsity: float, features: int, neurons: int, importance: float) -> Figure:
        models = playground.trained_models(features, neurons, importance)
        return playground.toy_figure(models, playground.SPARSITIES.index(sparsity), neurons)

    still = plots.slider(
        {f"{each:g}": draw(each, features, neurons, importance) for each in playground.SPARSITIES},
        name="sparsity S",
        start=f"{sparsity:g}",
        alt="Left the overlaps of features as a heat map, right psi against sparsity.",
        caption="The sparser the features, the more of them share the neurons. Left, overlaps of "
        f"the features of one model (M = {features}, N = {neurons}, importance "
        f"{importance:g} to the power of the feature's number); right, ψ of all eleven. One "
        "model each, so no interval.",
        source=COMPUTED_HERE,
    )
    return _drawing(controls, draw, still)


def autoencoders(*, l1: float = 0.1, expansion: float = 4.0) -> Explorer:
    """Autoencoders on a toy model's activations: penalty and dictionary size to F.

    The toy model's weights say what F should be.

    Args:
        l1: where its slider starts, one of `L1S`.
        expansion: the same for the dictionary's size over the neurons, one of `EXPANSIONS`.

    Raises:
        ValueError: a start that is none of those.
    """
    _refuse("l1", l1, playground.L1S)
    _refuse("expansion", expansion, playground.EXPANSIONS)
    controls = {
        "l1": _choice("l1", l1, playground.L1S),
        "expansion": _choice("D / N", expansion, playground.EXPANSIONS),
        "fitted": widgets.Dropdown(
            options=playground.FITS, value=playground.FITS[0], description="fitted"
        ),
    }
    draw = playground.autoencoder_figure
    low, high = playground.converged_range()
    still = plots.slider(
        {f"{each:g}": draw(each, expansion, playground.FITS[0]) for each in playground.L1S},
        name="l1",
        start=f"{l1:g}",
        alt="Left shares of codes by rank, right F against dictionary size for two ways of "
        "fitting.",
        caption="Fitted until nothing changes, F is that of the weights (dashed): "
        f"{low:.1f} to {high:.1f} at penalties up to 1 and room for two codes per neuron. Stopped "
        f"after {playground.EPOCHS} epochs, it goes with the dictionary. "
        f"Left, shares of the codes at D / N = {expansion:g}; right, means of three seeds, "
        "bars from the lowest to the highest.",
        source=COMPUTED_HERE,
    )
    return _drawing(controls, draw, still)


def activations() -> Explorer:
    """Your own activations: a matrix from a file, to a report."""
    upload = widgets.FileUpload(accept=",".join(SUFFIXES), description="Matrix")
    path = widgets.Text(
        placeholder="or the path of a large file on the kernel's machine", description="path",
        layout={"width": "32em"},
    )  # fmt: skip
    controls = {
        "upload": upload,
        "path": path,
        "l1": widgets.FloatLogSlider(value=0.1, min=-3, max=1, step=0.5, description="l1"),
        "expansion": _choice("D / N", 4.0, playground.EXPANSIONS),
        "button": widgets.Button(description="Measure", button_style="primary"),
    }
    answer = widgets.HTML("Choose a .npy or .csv file: a row for each sample, a column per neuron.")

    def chosen() -> tuple[str, bytes | None]:
        if path.value.strip() or not upload.value:
            return path.value.strip(), None
        return upload.value[0]["name"], bytes(upload.value[0]["content"])

    def run(_: Any) -> None:
        name, content = chosen()
        if not name:
            answer.value = _message("Choose a file first.")
            return
        answer.value = f"Measuring {html.escape(name)} ..."
        config = SAEConfig(l1=controls["l1"].value, expansion=controls["expansion"].value)
        try:
            x = read_matrix(name, content)
            report = measure(torch.nn.Sequential(torch.nn.Identity()), x, "0", sae=config)
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            answer.value = _message(str(error))
            return
        turned = "" if len(x) >= x.shape[1] else _message(
            f"{len(x)} samples of {x.shape[1]} neurons: few samples, or a matrix on its side?"
        )  # fmt: skip
        answer.value = turned + report._repr_html_()

    controls["button"].on_click(run)
    still = (
        "<p><em>In a notebook with a kernel, a button stands here that takes a .npy or .csv file "
        "and answers with the report.</em></p>"
    )
    return Explorer(controls, [answer], still)


def _drawing(
    controls: Mapping[str, widgets.Widget], draw: Callable[..., Figure], still: Any
) -> Explorer:
    """An explorer whose controls draw a figure anew."""
    image, words = widgets.Image(format="png"), widgets.HTML()

    def move(_: Any = None) -> None:
        try:
            image.value = png(draw(**{name: c.value for name, c in controls.items()}), dpi=110)
            words.value = ""
        except (ValueError, DeadCodesError) as error:
            words.value = _message(str(error))

    for control in controls.values():
        control.observe(move, names="value")
    move()
    return Explorer(controls, [image, words], still)


def _refuse(name: str, value: float, allowed: Sequence[float]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value}; allowed are {', '.join(map(str, allowed))}.")


def _named(name: str) -> dict[str, Any]:
    """What all sliders share: a name, and no computing before they are let go."""
    return {"description": name, "continuous_update": False}


def _choice(name: str, value: float, options: Sequence[float]) -> widgets.SelectionSlider:
    return widgets.SelectionSlider(options=options, value=value, **_named(name))


def _whole(name: str, value: int, low: int, high: int) -> widgets.IntSlider:
    return widgets.IntSlider(value=value, min=low, max=high, **_named(name))


def _message(text: str) -> str:
    return f'<p style="color:#B00020">{html.escape(text)}</p>'
