"""Figures enter pages as images with alternative text and a caption."""

import base64
import io
import re

import pandas as pd
import pytest

from superpos import plots
from superpos.source import Source

QUICK = Source("toy_models", "quick", "quick, changed: seed=1", 3, "cpu, today, 4 s of computing.")


def test_a_picture_carries_escaped_alternative_text_and_its_caption():
    figure, ax = plots.figure()
    plots.band(ax, [1, 2], [1, 2], [0, 1], [2, 3])
    picture = plots.show(figure, alt='a "rising" line', caption="It rises.", source=QUICK)
    html = picture._repr_html_()
    assert 'alt="a &quot;rising&quot; line"' in html
    assert "It rises." in html
    assert picture.png.startswith(b"\x89PNG")
    assert repr(picture) == "Figure: It rises."


def frames(*labels):
    return {label: plots.figure()[0] for label in labels}


def test_a_slider_shows_one_frame_and_needs_nothing_from_outside():
    shown = plots.slider(
        frames("4", "8", "16"),
        name="N",
        start="8",
        alt="bars of F.",
        caption="Move it.",
        source="No records.",
    )
    html = shown._repr_html_()
    assert html.count("<img") == 3
    assert html.count("display:inline") == 1
    assert 'max="2" value="1"' in html
    assert 'alt="bars of F. N = 16."' in html
    assert "http" not in html
    assert repr(shown) == "Figure: Move it."


def test_a_slider_that_starts_nowhere_is_refused():
    with pytest.raises(ValueError, match="the frames are 4, 8"):
        plots.slider(
            frames("4", "8"), name="N", start="6", alt="bars", caption="Move it.", source=QUICK
        )


def table_of(shown):
    (content,) = re.findall(r'href="data:text/csv;base64,([^"]*)"', shown._repr_html_())
    return pd.read_csv(io.BytesIO(base64.b64decode(content)))


def test_under_a_figure_stand_experiment_profile_records_and_its_data():
    figure, ax = plots.figure()
    ax.plot([1, 2], [3, 4.5], label="F")
    shown = plots.show(figure, alt="a rising line", caption="It rises.", source=[QUICK])
    html = shown._repr_html_()
    assert 'data-module="superpos.experiments.toy_models"' in html
    assert 'data-records="quick/toy_models">3 records<' in html
    assert "profile quick, changed: seed=1" in html
    assert table_of(shown).to_dict("list") == {
        "panel": [1, 1], "kind": ["line", "line"], "label": ["F", "F"], "x": [1, 2], "y": [3, 4.5],
    }  # fmt: skip


def test_a_figure_that_draws_no_numbers_offers_none():
    shown = plots.show(plots.figure()[0], alt="nothing", caption="Empty.", source="No <records>.")
    assert "No &lt;records&gt;." in shown._repr_html_()
    assert "csv" not in shown._repr_html_()


def test_the_data_of_a_slider_say_which_frame_they_are_of():
    drawn = {}
    for label in ("4", "8"):
        drawn[label], ax = plots.figure()
        ax.bar([0], [int(label)])
    shown = plots.slider(drawn, name="N", start="4", alt="a bar", caption="It grows.", source=QUICK)
    assert table_of(shown)[["y", "N"]].values.tolist() == [[4, 4], [8, 8]]
