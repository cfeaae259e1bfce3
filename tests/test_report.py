"""The report: a mapping, a table, a frame."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from superpos import Report, Superposition

GOOD = Superposition(
    site="relu1",
    features=12.0,
    neurons=8,
    interval=(10.0, 14.0),
    by_seed=(11.5, 12.5),
    hill={0: 20.0, 1: 12.0, 2: 9.0, math.inf: 4.0},
    explained_variance=0.9,
    mean_active=3.25,
    dead_share=0.25,
    samples=12_345,
    converged=True,
    half_change=0.001,
)
BAD = replace(GOOD, site="relu2", converged=False, half_change=-0.05)


@pytest.fixture
def report():
    return Report({"relu1": GOOD, "relu2": BAD})


def test_superposition_is_features_per_neuron():
    assert GOOD.psi == 1.5
    assert GOOD.psi_interval == (1.25, 1.75)


@pytest.mark.parametrize(
    ("change", "settled"), [(0.019, True), (-0.019, True), (0.021, False), (math.nan, False)]
)
def test_a_site_is_settled_when_half_the_data_say_the_same(change, settled):
    assert replace(GOOD, half_change=change).settled is settled


def test_a_report_is_a_mapping_in_the_order_given(report):
    assert list(report) == ["relu1", "relu2"]
    assert len(report) == 2
    assert report["relu2"] is BAD
    assert dict(report.items())["relu1"] is GOOD
    assert "relu3" not in report


def test_a_site_that_is_not_there_is_answered_with_those_that_are(report):
    with pytest.raises(KeyError, match="it has relu1, relu2"):
        report["relu3"]


def test_the_frame_has_a_row_a_site_and_a_column_a_figure(report):
    frame = report.to_frame()
    assert list(frame.index) == ["relu1", "relu2"]
    assert frame.index.name == "site"
    assert list(frame.columns) == [
        *("neurons", "features", "features_low", "features_high", "psi"),
        *("hill_0", "hill_1", "hill_2", "hill_inf"),
        *("explained_variance", "mean_active", "dead_share", "samples"),
        *("converged", "half_change"),
    ]
    row = frame.loc["relu1"]
    assert (row["features_low"], row["features_high"], row["psi"]) == (10.0, 14.0, 1.5)
    assert (row["hill_0"], row["hill_inf"], row["samples"]) == (20.0, 4.0, 12_345)
    assert frame["converged"].tolist() == [True, False]
    assert pd.api.types.is_float_dtype(frame["features"])


def test_the_table_shows_every_site_and_its_warnings(report):
    text = str(report)
    lines = text.splitlines()
    assert repr(report) == text
    assert "relu1" in lines[1]
    assert "12.0" in lines[1] and "10.0 to 14.0" in lines[1] and "1.500" in lines[1]
    assert "converged" in lines[1] and "not converged" not in lines[1]
    assert "not converged" in lines[2] and "F moves -5%" in lines[2]
    assert lines[3].startswith("Not converged at relu2")
    assert lines[4] == "F still depends on the number of samples at relu2."


def test_nothing_to_warn_of_gives_no_warning():
    assert len(str(Report({"relu1": GOOD})).splitlines()) == 2


def test_the_notebook_table_shows_the_same_and_escapes_names(report):
    html = report._repr_html_()
    assert "<table" in html and "relu1" in html and "10.0 to 14.0" in html
    assert "<p>Not converged at relu2" in html
    odd = Report({"<b>": replace(BAD, site="<b>")})._repr_html_()
    assert "<b>" not in odd
