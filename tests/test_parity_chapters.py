"""Dictionary scaling and dropout: their grids, their refusals, and what they read off a table."""

import math

import numpy as np
import pandas as pd
import pytest

from superpos.experiments import dictionary_scaling as scaling
from superpos.experiments import dropout
from superpos.settings import SettingsError, from_values, load_profile

GRID = scaling.Settings(hidden=64, models=3, expansions=(0.5, 1.0, 2.0, 4.0))


def scaled(exponents, l1=0.1, way="tied", dead=()):
    """A table in which F grows with the dictionary as planted, one exponent per network."""
    return pd.DataFrame(
        [
            {"way": way, "l1": l1, "k": None, "expansion": e, "model": model, "seed": seed,
             "sae_epochs": (100, 300), "epochs": 300, "explained": 0.9, "converged": True,
             "features": None if e in dead else 20 * max(e, 0.1) ** exponent}
            for model, exponent in enumerate(exponents) for seed in (0, 1)
            for e in GRID.expansions
        ]
    )  # fmt: skip


def dropped(slopes, rates=(0.0, 0.2, 0.5, 0.9), seeds=3):
    """A table in which F falls linearly with the rate, at one slope per width."""
    return pd.DataFrame(
        [
            {"way": "tied", "hidden": hidden, "rate": rate, "seed": seed, "accuracy": 1 - rate / 2,
             "features": 40 * (1 - slope * rate) + seed, "neurons_per_code": 2.0 + rate,
             "dimension": 5.0}
            for hidden, slope in slopes.items() for rate in rates for seed in range(seeds)
        ]
    )  # fmt: skip


def test_the_workstation_grid_is_the_papers():
    settings = from_values(scaling.Settings, load_profile("dictionary_scaling", "workstation"))
    grid = scaling.conditions(settings)
    for way in ("tied", "recipe"):
        own = [c for c in grid if c.way == way and c.sae_seeds == 3]
        assert sum(c.models * c.sae_seeds for c in own) == 360
    settings = from_values(dropout.Settings, load_profile("dropout", "workstation"))
    grid = dropout.conditions(settings)
    assert sum(c.seeds for c in grid) == 200
    assert {c.hidden for c in grid} == {16, 32, 64, 128}


@pytest.mark.parametrize(
    ("module", "values", "words"),
    [
        (scaling, {"l1s": [-0.1]}, "l1s"),
        (scaling, {"models": 0}, "models"),
        (scaling, {"sae_seeds": 0}, "sae_seeds"),
        (scaling, {"expansions": [0.01]}, "less than one code"),
        (scaling, {"expansions": []}, "empty"),
        (scaling, {"long_epochs": [200]}, "must rise"),
        (scaling, {"ways": ["tied"], "compared": ["tied"]}, "in ways and compared"),
        (scaling, {"compared": ["topk"], "k": [33]}, "smallest dictionary"),
        (dropout, {"rates": [0.0, 1.0]}, "rates"),
        (dropout, {"rates": [0.1, 0.2]}, "give 0"),
        (dropout, {"l1": -1.0}, "l1"),
        (dropout, {"seeds": 0}, "seeds"),
        (dropout, {"expansion": 0.01}, "less than one code"),
        (dropout, {"hidden": []}, "empty"),
    ],
)
def test_parameters_that_mean_nothing_are_refused_in_one_sentence(module, values, words):
    with pytest.raises((SettingsError, ValueError), match=words) as error:
        from_values(module.Settings, values)
    assert len(str(error.value)) < 300


def test_a_growth_that_was_planted_is_found():
    found = scaling.growth(scaled((0.2, 0.3, 0.4)), GRID, "tied", 0.1)
    assert found.value == pytest.approx(0.3)
    assert found.low < 0.3 < found.high


def test_growth_uses_only_dictionaries_whose_every_autoencoder_lives():
    frame = scaled((0.3, 0.3, 0.3), dead=(1.0,))
    found = scaling.growth(frame, GRID, "tied", 0.1)
    assert found.value == pytest.approx(0.3)
    assert "2x to 4x" in found.note
    assert scaling.growth(scaled((0.3, 0.3), dead=(1.0, 2.0)), GRID, "tied", 0.1) is None


def test_collapse_counts_dead_codes_as_no_feature():
    frame = pd.concat([scaled((0.1, 0.1)), scaled((0.1, 0.1), l1=10.0, dead=GRID.expansions)])
    found = scaling.collapse(frame, GRID, "tied")
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_of_the_recipe_the_grid_and_the_longer_training_are_told_apart():
    short, long = scaled((0.9, 0.9), way="recipe"), scaled((0.1, 0.1), way="recipe")
    long = long.assign(sae_epochs=[(100, 300, 1000)] * len(long))
    frame = pd.concat([short, long, long.assign(epochs=1000)])
    assert len(scaling.final(frame, GRID, "recipe")) == len(short)
    assert scaling.growth(frame, GRID, "recipe", 0.1).value == pytest.approx(0.9)
    assert set(scaling.training(frame, GRID)["epochs"]) == {300, 1000}


def test_curves_have_intervals_over_networks_and_the_share_of_the_dead():
    curves = scaling.curves(scaled((0.2, 0.3), dead=(0.5,)), GRID, "tied").set_index("dictionary")
    assert curves.loc[32, "dead"] == 1 and math.isnan(curves.loc[32, "features"])
    assert curves.loc[64, "dead"] == 0
    assert curves.loc[256, "low"] < curves.loc[256, "features"] < curves.loc[256, "high"]


def test_the_papers_exponents_follow_from_the_points_read_off_its_figure():
    assert scaling.paper_growth(0.01) == pytest.approx(0.99, abs=0.01)
    assert scaling.paper_growth(0.1) == pytest.approx(0.28, abs=0.01)
    assert math.isnan(scaling.paper_growth(10.0))


def test_neighbors_of_random_directions_come_nearer_as_they_grow_in_number():
    medians = scaling.chance(16, [8, 64, 512])["median"]
    assert medians.is_monotonic_increasing
    assert medians.iloc[-1] < 0.95


def test_falls_that_were_planted_are_found():
    frame = dropped({16: 0.6, 32: 0.5, 128: 0.2})
    settings = dropout.Settings(hidden=(16, 32, 128), rates=(0.0, 0.2, 0.5, 0.9), ways=("tied",))
    values = dropout.estimates(frame, settings)
    np.testing.assert_allclose(dropout.falls(frame, "tied").loc[0], [0.54, 0.45, 0.18])
    assert values["monotone_h16_tied"].value == pytest.approx(-1)
    assert values["fall_tied"].value == pytest.approx(0.45, abs=0.02)
    assert values["early_tied"].value == pytest.approx(0.2 / 0.9, abs=0.01)
    assert values["width_tied"].value < 0
    assert values["accuracy_width"].value == pytest.approx(0, abs=1e-9)
    assert values["redundancy_tied"].value == pytest.approx(1.25)


def test_where_nothing_falls_no_share_of_a_fall_is_reported():
    settings = dropout.Settings(hidden=(16, 32), ways=("tied",))
    assert "early_tied" not in dropout.estimates(dropped({16: 0.0, 32: 0.0}), settings)


def test_dead_autoencoders_have_no_features_and_spoil_nothing():
    frame = dropped({16: 0.5})
    frame.loc[frame["rate"] == 0.9, ["features", "neurons_per_code"]] = np.nan
    assert (dropout.falls(frame, "tied")[16] == 1).all()
    assert dropout.means(frame, "tied", "features")["mean"].iloc[-1] == 0


def test_a_rate_is_measured_in_the_ways_asked_for_there():
    settings = dropout.Settings(compared=("untied",), compared_rates=(0.0, 0.9))
    ways = {c.rate: c.ways for c in dropout.conditions(settings)}
    assert ways[0.0] == ("tied", "recipe", "untied") and ways[0.5] == ("tied", "recipe")


def test_splitting_reads_deciles_of_the_nearest_cosines():
    low, high = np.linspace(0, 0.5, 11), np.linspace(0.2, 0.9, 11)
    frame = scaled((0.1, 0.1))
    frame["nearest"] = [low.tolist() if model == 0 else high.tolist() for model in frame["model"]]
    frame.loc[frame["expansion"] == 4.0, "nearest"] = None
    found = scaling.splitting(frame, GRID, "tied", 0.1)
    assert found["dictionary"].tolist() == [32, 64, 128]
    expected = [(low[at] + high[at]) / 2 for at in (5, 1, 9)]
    for line in found[["median", "low", "high"]].to_numpy():
        assert line.tolist() == pytest.approx(expected)


def test_a_dictionary_chapter_has_values_of_the_ways_and_penalties_it_holds():
    frame = pd.concat(
        [scaled((0.2, 0.4)), scaled((0.9, 1.1), l1=0.01), scaled((0.3, 0.5), way="untied")]
    )
    values = {name: own.value for name, own in scaling.estimates(frame, GRID).items()}
    assert values == pytest.approx({"plateau_tied": 0.3, "growth_tied": 1, "plateau_untied": 0.4})
    assert scaling.collapse(frame, GRID, "tied") is None


def test_a_dropout_chapter_leaves_out_what_it_cannot_say():
    settings = dropout.Settings(hidden=(16,), rates=(0.0, 0.9), ways=("tied",))
    values = dropout.estimates(dropped({16: 0.5}, rates=(0.0, 0.9)), settings)
    assert not {"fall_tied", "width_tied", "early_tied"} & set(values)
    dead = dropped({16: 0.5}).assign(features=None)
    assert set(dropout.estimates(dead, settings)) == {"redundancy_tied"}
