"""Figures enter pages as images with alternative text and a caption."""

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
