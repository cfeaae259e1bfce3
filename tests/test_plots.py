"""Figures enter pages as images with alternative text and a caption."""

import pytest

from superpos import plots


def test_a_picture_carries_escaped_alternative_text_and_its_caption():
    figure, ax = plots.figure()
    plots.band(ax, [1, 2], [1, 2], [0, 1], [2, 3])
    picture = plots.show(figure, alt='a "rising" line', caption="Profile quick.")
    html = picture._repr_html_()
    assert 'alt="a &quot;rising&quot; line"' in html
    assert "Profile quick." in html
    assert picture.png.startswith(b"\x89PNG")
    assert repr(picture) == "Figure: Profile quick."


def frames(*labels):
    return {label: plots.figure()[0] for label in labels}


def test_a_slider_shows_one_frame_and_needs_nothing_from_outside():
    shown = plots.slider(
        frames("4", "8", "16"), name="N", start="8", alt="bars of F.", caption="Move it."
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
        plots.slider(frames("4", "8"), name="N", start="6", alt="bars", caption="Move it.")
