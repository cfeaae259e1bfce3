"""Figures of the scorecard show the ledger's verdicts and numbers, and nothing else."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml

from superpos import scorecard_figures
from superpos.figure_data import figure_data
from superpos.ledger import LEDGER, Claim, Estimate, Verdict, load_ledger
from superpos.scorecard import Run, Scorecard


@pytest.fixture(autouse=True)
def closed():
    """Closes what a test draws."""
    yield
    plt.close("all")


def claim(name, paper="0.9 ± 0.1", low=0.5, high=None, profile="quick"):
    return Claim(
        f"toy_models.{name}", "toy_models", f"The {name} is high.", "section 1", paper, low, high,
        profile, "It is the rule.",
    )  # fmt: skip


def run(profile, date="2025-02-03T04:05:06+00:00", **estimates):
    about = {"devices": [f"{profile} device"], "date": date}
    return Run(profile, profile, about, {f"toy_models.{k}": v for k, v in estimates.items()})


@pytest.fixture
def card():
    """Five claims of one section, one of each standing, and one of another section."""
    other = Claim("grokking.r", "grokking", "It goes on.", "s", "0.9", 0.5, None, "quick", "why")
    claims = [
        claim("mean", low=0.5, high=2.0), claim("order", "-3 (per step)", low=None, high=0.0),
        claim("size"), claim("toy"), claim("late", profile="paper"), other,
        claim("words", "about 0.9, read off the plot"),
    ]  # fmt: skip
    quick = run(
        "quick", mean=Estimate(0.2, 0.1, 0.3), order=Estimate(1.0, -1.0, 2.0),
        size=Estimate(0.3, 0.2, 0.4),
    )  # fmt: skip
    workstation = run(
        "workstation", "2025-02-04T00:00:00+00:00", mean=Estimate(0.8, 0.7, 1.0),
        size=Estimate(0.1, 0.0, 0.2), toy=Estimate(0.8, 0.7, 0.9, "", "a toy"),
        late=Estimate(0.8, 0.7, 0.9), words=Estimate(0.8, 0.7, 0.9),
    )  # fmt: skip
    runs = {("toy_models", "quick"): quick, ("toy_models", "workstation"): workstation}
    return Scorecard(claims, runs)


def test_the_papers_number_is_the_one_in_the_ledgers_file_and_none_where_it_has_only_words():
    ledger = load_ledger()
    entries = yaml.safe_load(LEDGER.read_text(encoding="utf-8"))
    assert any("value" in entry["paper"] for entry in entries)
    for entry in entries:
        paper = entry["paper"]
        expected = (paper["value"], paper.get("pm", 0)) if "value" in paper else None
        assert scorecard_figures.paper_value(ledger[entry["id"]]) == expected, entry["id"]


@pytest.mark.parametrize("words", ["0.1 to 0.7 where it is 1", "15 to 18 neurons", "about 48"])
def test_a_range_or_an_about_is_no_number(words):
    assert scorecard_figures.paper_value(claim("x", words)) is None


def test_every_claim_stands_in_one_bar_of_its_section(card):
    table = scorecard_figures.standings(card)
    assert table.loc["toy_models"].to_dict() == {
        Verdict.REPRODUCED: 2, Verdict.PARTLY: 1, Verdict.NOT_REPRODUCED: 1, Verdict.STAND_IN: 1,
        Verdict.NOT_TESTED: 1,
    }  # fmt: skip
    bars = figure_data(scorecard_figures.overview(card))
    bars = bars[bars["x"] > 0].set_index(["y", "label"])["x"]
    assert bars.to_dict() == {
        ("Toy models", "✔ reproduced"): 2, ("Toy models", "◐ partly"): 1,
        ("Toy models", "✘ not reproduced"): 1, ("Toy models", "≈ tested on a stand-in"): 1,
        ("Toy models", "– not tested at this scale"): 1,
        ("Grokking", "– not tested at this scale"): 1,
    }  # fmt: skip


def test_the_bars_of_a_section_lie_end_to_end(card):
    (axes,) = scorecard_figures.overview(card).axes
    upper = [bar for bar in axes.patches if bar.get_y() < 0 and bar.get_width()]
    spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in upper)
    assert spans == [(0, 2), (2, 3), (3, 4), (4, 5), (5, 6)]
    bottom, top = axes.get_ylim()
    assert top < 0 < bottom  # the first section is at the top


def test_only_numbers_of_the_same_quantity_are_compared_from_the_largest_profile_that_tested(card):
    rows = scorecard_figures.comparable(card).set_index("text")
    assert list(rows.index) == ["The mean is high.", "The order is high.", "The size is high."]
    mean, order, size = (row for _, row in rows.iterrows())
    assert (mean["paper"], mean["spread"]) == (0.9, 0.1)
    assert (mean["value"], mean["low"], mean["high"]) == (0.8, 0.7, 1.0)  # the workstation's
    assert (size["value"], size["verdict"]) == (0.1, Verdict.NOT_REPRODUCED)  # quick says so too
    assert (mean["least"], mean["most"]) == (0.5, 2.0)
    assert (order["paper"], order["value"], order["verdict"]) == (-3, 1.0, Verdict.PARTLY)
    assert (order["least"], order["most"]) == (-np.inf, 0.0)


def test_a_row_shows_both_values_their_intervals_and_the_region(card):
    rows = scorecard_figures.comparable(card)
    figure = scorecard_figures.beside(rows)
    points = figure_data(figure).groupby("label")["x"].apply(list)
    for name, paper, spread, ours, interval in (
        ("mean", 0.9, [0.8, 1.0], 0.8, [0.7, 1.0]),
        ("order", -3, [-3, -3], 1.0, [-1.0, 2.0]),
        ("size", 0.9, [0.8, 1.0], 0.1, [0.0, 0.2]),
    ):
        assert points[f"toy_models.{name}, paper"] == [paper]
        assert points[f"toy_models.{name}, paper, ±"] == pytest.approx(spread)
        assert points[f"toy_models.{name}, ours"] == [ours]
        assert points[f"toy_models.{name}, ours, 95% interval"] == interval
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    regions = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    np.testing.assert_allclose(regions, [(0.5, 2.0), (low, 0.0), (0.5, high)])
    assert low < -3 and high > 2.0


def test_frames_of_a_slider_have_their_axes_in_one_place(card):
    rows = scorecard_figures.comparable(card)
    boxes = []
    for part in (rows, rows[:1].assign(text="A claim of many more words than the others have.")):
        figure = scorecard_figures.beside(part)
        figure.canvas.draw()
        boxes.append((*figure.get_size_inches(), *figure.axes[0].get_position().bounds))
    assert boxes[0] == boxes[1]


def test_a_section_without_comparable_numbers_is_refused(card):
    rows = scorecard_figures.comparable(Scorecard(card.claims, {}))
    assert rows.empty
    with pytest.raises(ValueError, match="leave this section out"):
        scorecard_figures.beside(rows)


def test_the_source_names_profiles_devices_and_days(card):
    assert scorecard_figures.described(card) == (
        "Values that the chapters last reported, profiles: quick, workstation; quick device, "
        "workstation device, 2025-02-03 to 2025-02-04."
    )
    assert scorecard_figures.described(Scorecard(card.claims, {})).startswith("No chapter")
