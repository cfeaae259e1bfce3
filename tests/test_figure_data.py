"""The table of a figure holds the numbers it was drawn from."""

import numpy as np
import pandas as pd
import pytest

from superpos import plots
from superpos.figure_data import figure_data


def rows(table, kind):
    return table[table["kind"] == kind].dropna(axis="columns", how="all").drop(columns="kind")


def test_lines_and_bands_come_back_with_the_label_of_their_legend():
    figure, ax = plots.figure()
    plots.band(ax, [1, 2, 4], [5, 6, 7], [4, 5, 5], [9, 8, 8], label="tied")
    ax.set(title="one\nway", ylabel="F", xlabel="D")
    table = figure_data(figure)
    assert set(table["panel"]) == {"1: one way, F, D"}
    assert rows(table, "line")[["label", "x", "y"]].values.tolist() == [
        ["tied", 1, 5], ["tied", 2, 6], ["tied", 4, 7]
    ]  # fmt: skip
    assert rows(table, "band")[["label", "x", "low", "high"]].values.tolist() == [
        ["tied", 1, 4, 9], ["tied", 2, 5, 8], ["tied", 4, 5, 8]
    ]  # fmt: skip


def test_points_come_back_with_the_values_of_their_colors():
    figure, ax = plots.figure()
    dots = ax.scatter([1, 2], [3, 4], c=[0.5, 0.7])
    figure.colorbar(dots, ax=ax)
    table = figure_data(figure)
    assert table[["x", "y", "value"]].values.tolist() == [[1, 3, 0.5], [2, 4, 0.7]]


def test_error_bars_come_back_with_both_ends():
    figure, ax = plots.figure()
    ax.errorbar([1, 2], [3.0, 4.0], [[1, 1], [2, 3]], fmt="o", label="slope")
    found = rows(figure_data(figure), "interval")
    assert found[["label", "x", "y", "low", "high"]].values.tolist() == [
        ["slope", 1, 3, 2, 5], ["slope", 2, 4, 3, 7]
    ]  # fmt: skip


def test_an_error_bar_without_a_value_is_left_out():
    figure, ax = plots.figure()
    ax.errorbar([1, 2], [np.nan, 4.0], [1, 1])
    assert rows(figure_data(figure), "interval")["x"].tolist() == [2]


@pytest.mark.parametrize("draw", ["bar", "barh"])
def test_bars_come_back_with_the_words_at_their_ticks(draw):
    figure, ax = plots.figure()
    getattr(ax, draw)(["before", "after"], [1.5, 2.5])
    table = figure_data(figure)
    words, lengths = ("x", "y") if draw == "bar" else ("y", "x")
    assert table[words].tolist() == ["before", "after"]
    assert table[lengths].tolist() == [1.5, 2.5]


def test_images_come_back_cell_by_cell_without_their_color_bar():
    figure, ax = plots.figure()
    image = np.arange(6.0).reshape(2, 3)
    image[0, 1] = np.nan
    figure.colorbar(ax.imshow(image), ax=ax)
    ax.set_xticks(range(3), ["2 classes", "3 classes", "5 classes"])
    table = figure_data(figure).pivot(index="y", columns="x", values="value")
    assert list(table.columns) == ["2 classes", "3 classes", "5 classes"]
    np.testing.assert_array_equal(table.to_numpy(), image)


def test_a_mesh_comes_back_like_an_image():
    figure, ax = plots.figure()
    mesh = ax.pcolormesh([0, 1, 2, 3], [0, 2, 4], np.arange(6.0).reshape(2, 3))
    figure.colorbar(mesh, ax=ax)
    table = figure_data(figure).pivot(index="y", columns="x", values="value")
    assert list(table.columns) == [0.5, 1.5, 2.5] and list(table.index) == [1, 3]
    np.testing.assert_array_equal(table.to_numpy(), np.arange(6).reshape(2, 3))


def test_lines_across_a_panel_and_empty_panels_are_no_data():
    figure, (left, right) = plots.figure(1, 2)
    left.axhline(1)
    left.axvspan(0, 1)
    right.axis("off")
    right.plot([1], [1])
    assert figure_data(figure).empty


def test_masked_values_are_missing():
    figure, ax = plots.figure()
    ax.plot([1, 2], np.ma.masked_greater([1.0, 9.0], 5))
    assert pd.isna(figure_data(figure)["y"].iloc[1])
