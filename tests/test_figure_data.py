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
    assert "x_low" not in found
    assert found[["label", "x", "y", "low", "high"]].values.tolist() == [
        ["slope", 1, 3, 2, 5], ["slope", 2, 4, 3, 7]
    ]  # fmt: skip


def test_error_bars_along_x_are_told_from_those_along_y():
    figure, ax = plots.figure()
    ax.errorbar([1.0, 2.0], [0, 1], xerr=[[0, 1], [0, 2]], fmt="o", label="forest")
    ax.set_yticks([0, 1], ["tied", "recipe"])
    found = rows(figure_data(figure), "interval")
    assert found[["x", "y", "x_low", "x_high"]].values.tolist() == [
        [1, "tied", 1, 1], [2, "recipe", 1, 4]
    ]  # fmt: skip
    assert "low" not in found


def test_error_bars_along_both_keep_all_four_ends():
    figure, ax = plots.figure()
    ax.errorbar([1.0], [5.0], xerr=[0.5], yerr=[[1], [2]], fmt="o")
    found = rows(figure_data(figure), "interval")
    assert found[["x_low", "x_high", "low", "high"]].values.tolist() == [[0.5, 1.5, 4, 7]]


def test_a_point_whose_interval_is_not_known_is_still_there():
    figure, ax = plots.figure()
    ax.errorbar([1, 2, 3], [3.0, 4.0, 5.0], [1, np.nan, 1])
    found = rows(figure_data(figure), "interval")
    assert found["y"].tolist() == [3, 4, 5]
    assert found["low"].isna().tolist() == [False, True, False]


def test_error_bars_without_points_stand_where_they_are():
    figure, ax = plots.figure()
    ax.errorbar([1, 2], [3.0, 4.0], [1, 1], fmt="none")
    found = rows(figure_data(figure), "interval")
    assert found[["x", "low", "high"]].values.tolist() == [[1, 2, 4], [2, 3, 5]]


def test_points_drawn_as_error_bars_without_errors_are_points():
    figure, ax = plots.figure()
    ax.errorbar([1, 2], [3.0, 4.0], fmt="o")
    assert rows(figure_data(figure), "points")["y"].tolist() == [3, 4]


def test_upright_lines_with_gaps_are_read():
    figure, ax = plots.figure()
    ax.vlines([1, 2], [0, np.nan], [1, 1])
    assert rows(figure_data(figure), "interval")["x"].tolist() == [1]


def test_a_band_has_the_label_of_its_own_line_when_two_share_a_color():
    figure, ax = plots.figure()
    plots.band(ax, [1], [2], [1], [3], label="ours", color="C0")
    ax.plot([1], [4], label="paper", color="C0")
    ax.fill_between([1, 2], [0, 0], [1, 1], color="C0")
    assert rows(figure_data(figure), "band")["label"].fillna("?").tolist() == ["ours", "?", "?"]


def test_bars_beside_their_tick_have_its_word_and_their_own_interval():
    figure, ax = plots.figure()
    ax.bar([-0.2, 0.8], [1.0, 2.0], 0.4, yerr=[0.5, 0.25], label="before")
    ax.bar([0.2, 1.2], [3.0, 4.0], 0.4, label="after")
    ax.set_xticks([0, 1], ["site 2", "site 4"])
    table = figure_data(figure)
    assert table["x"].tolist() == ["site 2", "site 4"] * 2
    assert (
        table["low"].tolist()[:2] == [0.5, 1.75] and table["low"].isna().tolist()[2:] == [True] * 2
    )
    assert set(table["kind"]) == {"bar"}


def test_numbers_at_chosen_ticks_stay_numbers():
    figure, (left, right) = plots.figure(1, 2)
    left.plot([-1, 1_000_000], [0, 1])
    left.set_xticks([-1, 1_000_000])
    right.plot([1, 100], [1, 2])
    right.set_xscale("log")
    plots.ticks(right, x=[1, 100])
    assert figure_data(figure)["x"].tolist() == [-1, 1_000_000, 1, 100]


def test_a_labeled_line_across_a_panel_is_a_level():
    figure, ax = plots.figure()
    ax.axhline(3.5, label="by the weights")
    ax.axvline(2, label="the paper stops")
    found = rows(figure_data(figure), "level")
    assert found["y"].tolist()[0] == 3.5 and found["x"].tolist()[1] == 2


def test_an_image_lies_where_it_was_put():
    figure, ax = plots.figure()
    ax.imshow([[1.0, 2.0]], extent=(10, 30, 0, 4), origin="lower")
    assert figure_data(figure)[["x", "y", "value"]].values.tolist() == [[15, 2, 1], [25, 2, 2]]


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
