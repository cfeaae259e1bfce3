"""Grokking: the networks, the refusals, and what is read off planted transitions."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from superpos.experiments import grokking
from superpos.ledger import load_ledger
from superpos.modular_networks import checkpoint_steps
from superpos.settings import SettingsError, from_values, load_profile
from superpos.trends import series_correlation, without_trend

SETTINGS = grokking.Settings()
STEPS = np.arange(0, 10_001, 100)
WAYS, SAMPLERS = ("recipe", "starts", "relay"), ("local", "wide")
FALLS = {"recipe": 0.25, "starts": 0.5, "relay": 0.1}
NAMES = {
    *(f"{name}_{way}" for name in ("fall", "lag", "control") for way in WAYS),
    *(f"{name}_{way}" for name in ("before", "rise") for way in ("recipe", "relay")),
    *(f"{name}_{own}" for name in ("peak", "early", "order") for own in SAMPLERS),
    *(f"r_{way}_{own}" for way in ("recipe", "relay") for own in SAMPLERS),
}
PICTURES = ("power", "plane", "trace_local", "trace_wide")
TINY = {
    "prime": 7, "hidden": 8, "embedding": 4, "steps": 300, "checkpoints": 25, "seeds": 2,
    "control_seeds": 2, "control_checkpoints": 25, "controls": ["shuffled", "no_decay"],
    "decay": 0.01, "sae_steps": 30, "passes": 1, "sae_epochs": 2, "chains": 2, "burn_in": 2,
    "draws": 4,
}  # fmt: skip


def network(seed=0, *, falls=FALLS, at=5500, shift=0, top=1.0, noise=0.0, kind="grokking"):
    """A network with all its checkpoints evenly spaced.

    Train accuracy rises to 1 at step 1000. Test accuracy rises from 0 to `top` between 5000 and
    6000, so that the transition is from 5100 through 5500 to 5900; `shift` is added to all of
    these. F rises from 80 to 100 at step 1000, and falls by its share behind step `at`. The local
    coefficient rises from 0 to 50 at step 1000, falls by 1 per checkpoint to 9 at step 5100, and
    on to 4 at step 5900; the wide one falls from 60 by half a unit per checkpoint.
    """
    generator = np.random.default_rng(seed)
    memorizing = np.interp(STEPS, [0, 1000], [80, 100])
    return pd.DataFrame(
        {
            "kind": kind, "seed": seed, "step": STEPS, "even": True,
            "train_accuracy": np.interp(STEPS, [0, 1000], [0, 1]),
            "test_accuracy": np.interp(STEPS, [5000 + shift, 6000 + shift], [0, top]),
            **{
                f"features_{way}": memorizing * np.where(at < STEPS, 1 - falls[way], 1)
                + noise * generator.normal(size=len(STEPS))
                for way in WAYS
            },
            "llc_local": np.interp(STEPS, [0, 1000, 5100, 5900], [0, 50, 9, 4]),
            "llc_wide": 60 - STEPS / 200,
        }
    )  # fmt: skip


def control(seed, slope, kind="shuffled"):
    """A network that only memorizes; F falls from 100 by `slope` per thousand steps."""
    line = {f"features_{way}": 100 - slope * STEPS / 1000 for way in WAYS}
    return network(seed, top=0.1, kind=kind).assign(**line)


def equal_falls(share):
    return dict.fromkeys(WAYS, share)


def whole():
    """Three networks and five controls, every one with a different F."""
    return pd.concat(
        [
            *(network(s, falls=equal_falls(0.2 + 0.1 * s), at=5500 + 100 * s) for s in range(3)),
            *(control(seed, 1 + seed) for seed in range(3)),
            *(control(seed, 2 + seed, kind="no_decay") for seed in range(2)),
        ]
    )


@pytest.fixture(scope="module")
def table():
    return grokking.networks(whole())


@pytest.fixture(scope="module")
def values():
    return grokking.estimates(whole(), SETTINGS)


def with_early(frame):
    """The same networks with checkpoints between the first two that would change everything."""
    wild = {
        "even": False, "train_accuracy": 1.0, "test_accuracy": 1.0,
        **dict.fromkeys((f"features_{way}" for way in WAYS), 1e6),
        **dict.fromkeys((f"llc_{name}" for name in SAMPLERS), 1e6),
    }  # fmt: skip
    first = frame[frame["step"] == 0]
    return pd.concat([frame, *(first.assign(step=step, **wild) for step in (10, 40))])


def t_interval(values):
    return scipy.stats.t.interval(
        0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values)
    )  # fmt: skip


def test_a_planted_transition_is_read_off():
    (row,) = grokking.networks(network()).to_dict("records")
    assert (row["kind"], row["seed"], row["accuracy"]) == ("grokking", 0, 1)
    times = [row[name] for name in ("memorized", "begin", "middle", "end")]
    assert times == pytest.approx([990, 5100, 5500, 5900])


@pytest.mark.parametrize("way", WAYS)
def test_planted_falls_are_read_off_for_every_way(way):
    (row,) = grokking.networks(network()).to_dict("records")
    assert row[f"before_{way}"] == pytest.approx(100)
    assert row[f"after_{way}"] == pytest.approx(100 * (1 - FALLS[way]))
    assert row[f"fall_{way}"] == pytest.approx(FALLS[way])
    assert row[f"rise_{way}"] == pytest.approx(99.8 / 80 - 1)  # at step 990


@pytest.mark.parametrize("at", [4000, 5500, 7000])
def test_a_lag_is_in_lengths_of_the_transition_behind_its_middle(at):
    (row,) = grokking.networks(network(at=at)).to_dict("records")
    lags = [row[f"lag{ending}_relay"] for ending in ("", "_low", "_high")]
    # the step lies between two checkpoints, the transition is 800 steps long
    assert lags == pytest.approx([(at + way - 5500) / 800 for way in (50, 0, 100)])


def test_the_step_of_memorizing_is_no_lag():
    frame = network(falls=equal_falls(0.05))
    jump = np.where(frame["step"] < 500, 500, frame["features_relay"])
    (row,) = grokking.networks(frame.assign(features_relay=jump)).to_dict("records")
    assert row["lag_relay"] == pytest.approx(50 / 800)


def test_a_planted_decay_of_the_coefficient_is_read_off():
    (row,) = grokking.networks(network()).to_dict("records")
    assert row["peak_local"] == pytest.approx(49)  # mean of 50, 49 and 48
    # 10, 9 and 8.375 when the transition begins
    assert row["early_local"] == pytest.approx((49 - 9.125) / (49 - 4))
    assert row["order_local"] == pytest.approx(-1)
    assert row["peak_wide"] == pytest.approx(59.5)
    assert row["early_wide"] == pytest.approx((59.5 - 34.5) / (59.5 - 28))
    assert row["order_wide"] == pytest.approx(-1)


def test_where_f_rises_at_the_transition_there_is_no_lag():
    rising, falling = network(0, falls=equal_falls(-0.5)), network(1)
    (row,) = grokking.networks(rising).to_dict("records")
    assert row["fall_relay"] == pytest.approx(-0.5)
    assert np.isnan(row["lag_relay"])
    values = grokking.estimates(pd.concat([rising, falling, network(2)]), SETTINGS)
    assert values["lag_relay"].value == pytest.approx(50 / 800)
    assert values["lag_relay"].note.startswith("2 of 3 networks")
    assert values["fall_relay"].value == pytest.approx((-0.5 + 0.1 + 0.1) / 3)
    assert values["fall_relay"].note == ""


@pytest.mark.parametrize("change", ["early", "order", "both"])
def test_early_checkpoints_and_the_order_of_rows_do_not_matter(table, values, change):
    frame = whole() if change == "order" else with_early(whole())
    mixed = frame if change == "early" else frame.sample(frac=1, random_state=0)
    if change == "both":
        assert grokking.estimates(mixed, SETTINGS) == values
    else:
        pd.testing.assert_frame_equal(grokking.networks(mixed), table)


def test_correlations_are_pearsons_with_the_interval_of_series():
    frame = pd.concat([network(seed, noise=5.0) for seed in range(2)])
    found = grokking.correlations(frame, "recipe", "local")
    assert list(found["seed"]) == [0, 1]
    for seed, row in enumerate(found.to_dict("records")):
        own = frame[frame["seed"] == seed]
        x, y = own["features_recipe"], own["llc_local"]
        assert row["r"] == pytest.approx(np.corrcoef(x, y)[0, 1])
        assert (row["low"], row["high"]) == pytest.approx(series_correlation(x, y)[1:3])
        x, y = without_trend(x), without_trend(y)
        assert row["r_detrended"] == pytest.approx(np.corrcoef(x, y)[0, 1])
        expected = series_correlation(x, y)[1:3]
        assert (row["low_detrended"], row["high_detrended"]) == pytest.approx(expected)
        assert row["pairs"] < row["pairs_detrended"] <= len(STEPS)


def test_a_correlation_that_is_all_trend_is_gone_without_it():
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(2, len(STEPS)))
    frame = network().assign(
        features_relay=100 - STEPS / 200 + noise[0], llc_wide=50 - STEPS / 500 + noise[1]
    )
    (row,) = grokking.correlations(frame, "relay", "wide").to_dict("records")
    assert row["r"] > 0.95
    assert abs(row["r_detrended"]) < 0.3


def test_correlations_leave_out_checkpoints_without_a_feature():
    frame = network(noise=5.0)
    gone = frame.assign(features_relay=frame["features_relay"].where(frame["step"] > 300))
    expected = grokking.correlations(frame[frame["step"] > 300], "relay", "local")
    assert expected["r"][0] != grokking.correlations(frame, "relay", "local")["r"][0]
    found = grokking.correlations(gone.astype({"features_relay": object}), "relay", "local")
    pd.testing.assert_frame_equal(found, expected)


def test_controls_fall_at_the_times_of_the_others_transitions():
    frame = pd.concat([network(0), network(1, shift=2000), control(0, 5), control(1, 2)])
    # means over 4100-5100 and 5900-6900 are those at 4600 and 6400, then at 6600 and 8400
    expected = [
        np.mean([(before - after) / (100 - before) for before, after in own])
        for own in ([(23, 32), (33, 42)], [(9.2, 12.8), (13.2, 16.8)])
    ]
    assert grokking.control_falls(frame, "relay") == pytest.approx([-own for own in expected])


def test_controls_beside_networks_without_a_transition_have_no_fall():
    assert grokking.control_falls(pd.concat([network(top=0.5), control(0, 5)]), "relay") == []


def test_a_control_that_generalizes_after_all_is_none():
    late = network(1).assign(kind="no_decay")
    frame = pd.concat([network(), control(0, 5), late])
    assert len(grokking.control_falls(frame, "relay")) == 1


def test_estimates_are_means_over_the_networks_of_the_task(values):
    assert values.keys() == NAMES
    for name, own in {
        "fall_relay": [0.2, 0.3, 0.4],
        "lag_starts": [50 / 800, 150 / 800, 250 / 800],
    }.items():
        assert values[name].value == pytest.approx(np.mean(own))
        assert (values[name].low, values[name].high) == pytest.approx(t_interval(own))
        assert values[name].note == ""
    assert values["order_local"].note == "all repeats agree"
    for name, expected in {
        "before_recipe": 100, "rise_relay": 99.8 / 80 - 1, "peak_local": 49, "peak_wide": 59.5,
        "early_local": (49 - 9.125) / 45, "early_wide": 25 / 31.5, "order_local": -1,
    }.items():  # fmt: skip
        assert values[name][:3] == pytest.approx((expected, expected, expected))


@pytest.mark.parametrize("way", WAYS)
def test_the_claim_of_controls_is_the_difference_of_falls(values, way):
    found = values[f"control_{way}"]
    slopes = (2, 3, 1, 2, 3)
    falls = [0.2, 0.3, 0.4], [1.8 * own / (100 - 4.6 * own) for own in slopes]
    assert found.value == pytest.approx(0.3 - np.mean(falls[1]))
    expected = scipy.stats.ttest_ind(*falls, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_without_two_controls_nothing_is_said_about_them():
    task = pd.concat([network(0), network(1)])
    assert grokking.estimates(task, SETTINGS).keys() == {n for n in NAMES if "control" not in n}
    frame = pd.concat([task, control(0, 5)])
    assert not [name for name in grokking.estimates(frame, SETTINGS) if "control" in name]


def test_a_network_that_never_generalizes_is_counted_but_has_no_values():
    falls = [0.1, 0.2, 0.3, 0.4, 0.5]
    tops = [1, 1, 0.5, 1, 1]
    frame = pd.concat(
        network(seed, falls=equal_falls(falls[seed]), top=tops[seed], noise=1.0)
        for seed in range(5)
    )
    table = grokking.networks(frame)
    assert list(table["seed"]) == [0, 1, 2, 3, 4]
    missing = table[table["seed"] == 2].iloc[0]
    assert missing["accuracy"] == 0.5
    assert missing["memorized"] == pytest.approx(990)
    assert missing[["begin", "middle", "end", "fall_relay", "lag_relay", "peak_wide"]].isna().all()
    values = grokking.estimates(frame, SETTINGS)
    others = {name for name in values if not name.startswith("r_")}
    assert others == {name for name in NAMES if not name.startswith(("r_", "control_"))}
    assert all(values[name].note.startswith("4 of 5 networks") for name in others)
    assert values["fall_starts"].value == pytest.approx(0.3, abs=0.02)
    r = grokking.correlations(frame, "relay", "wide")["r"]
    assert values["r_relay_wide"].value == pytest.approx(np.tanh(np.arctanh(r).mean()))
    assert values["r_relay_wide"].note.count("without the trend") == len(r) == 5


@pytest.mark.parametrize("seeds", [1, 3])
def test_where_no_network_generalizes_only_correlations_are_left(seeds):
    networks = [network(seed, top=0.5) for seed in range(seeds)]
    frame = pd.concat([*networks, control(0, 1), control(1, 2)])
    table = grokking.networks(frame)
    assert len(table) == seeds + 2
    assert table[["begin", "middle", "end"]].isna().all(axis=None)
    values = grokking.estimates(frame, SETTINGS)
    assert values.keys() == {name for name in NAMES if name.startswith("r_")}
    assert all(math.isfinite(value) for own in values.values() for value in own[:3])


def test_a_network_that_never_memorizes_has_neither_rise_nor_lag():
    frame = network().assign(train_accuracy=0.9)
    (row,) = grokking.networks(frame).to_dict("records")
    assert math.isnan(row["memorized"])
    assert row["fall_relay"] == pytest.approx(FALLS["relay"])
    values = grokking.estimates(frame, SETTINGS)
    assert not [name for name in values if name.startswith(("rise", "lag"))]


def test_a_network_that_memorizes_late_has_no_lag():
    frame = network().assign(train_accuracy=np.interp(STEPS, [0, 8200], [0, 1]))
    values = grokking.estimates(frame, SETTINGS)
    assert values["fall_relay"].value == pytest.approx(FALLS["relay"])
    assert not [name for name in values if name.startswith("lag")]


def test_a_checkpoint_without_a_feature_spoils_nothing():
    frame = network()
    frame.loc[frame["step"] == 3000, "features_recipe"] = None
    values = grokking.estimates(frame, SETTINGS)
    assert values["fall_recipe"].value == pytest.approx(FALLS["recipe"])


def test_one_network_has_no_interval_but_for_its_correlation():
    frame = network(noise=5.0)
    values = grokking.estimates(frame, SETTINGS)
    for name in ("fall_relay", "lag_relay", "before_recipe", "peak_wide"):
        value, low, high, note = values[name][:4]
        assert value == low == high
        assert note == "one network, no interval"
    for way in ("recipe", "relay"):
        x, y = frame[f"features_{way}"], frame["llc_local"]
        found = values[f"r_{way}_local"]
        assert found[:3] == pytest.approx(series_correlation(x, y)[:3])
        assert found.low < found.value < found.high
        flat = np.corrcoef(without_trend(x), without_trend(y))[0, 1]
        assert found.note == f"one network: {found.value:.2f} ({flat:.2f} without the trend)"


def test_notes_list_every_networks_correlation_with_and_without_its_trend():
    frame = pd.concat([network(seed, noise=3.0 + 5 * seed) for seed in range(3)])
    values = grokking.estimates(pd.concat([frame, control(0, 3)]), SETTINGS)
    for way, sampler in itertools.product(("recipe", "relay"), SAMPLERS):
        told, r = [], []
        for seed in range(3):
            own = frame[frame["seed"] == seed]
            x, y = own[f"features_{way}"], own[f"llc_{sampler}"]
            r.append(np.corrcoef(x, y)[0, 1])
            flat = np.corrcoef(without_trend(x), without_trend(y))[0, 1]
            told.append(f"{r[-1]:.2f} ({flat:.2f} without the trend)")
        found = values[f"r_{way}_{sampler}"]
        assert found.note == "by seed " + ", ".join(told)
        assert len(set(told)) == 3
        assert found.value == pytest.approx(np.tanh(np.mean(np.arctanh(r))))
        assert (found.low, found.high) == pytest.approx(np.tanh(t_interval(np.arctanh(r))))


def test_estimates_and_claims_have_the_same_names(values):
    claims = {
        claim.id.split(".")[1] for claim in load_ledger().values() if claim.section == "grokking"
    }
    assert values.keys() == claims


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prime": 51}, "51, which is not a prime number; the nearest is 47 or 53"),
        ({"prime": 4}, "prime.*5 to 499"),
        ({"prime": 503}, "prime.*5 to 499"),
        ({"train_fraction": 0.0}, "train_fraction is 0.0; give a number between 0 and 1"),
        ({"train_fraction": 1.0}, "train_fraction is 1.0; give a number between 0 and 1"),
        ({"train_fraction": -0.2}, "train_fraction is -0.2; give a number between 0 and 1"),
        ({"train_fraction": 1.4}, "train_fraction is 1.4; give a number between 0 and 1"),
        ({"train_fraction": 1e-4}, "less than one of 2809 pairs; give at least"),
        ({"steps": 1990, "checkpoints": 200}, "1990 for 200 checkpoints.*at least ten steps"),
        (
            {"steps": 1990, "controls": ["shuffled"], "control_checkpoints": 200},
            "1990 for 200 checkpoints",
        ),
        ({"operation": "divide"}, "operation.*divide.*allowed: add, subtract, multiply"),
        ({"controls": ["frozen"]}, "controls.*frozen.*allowed: shuffled, no_decay"),
        ({"controls": ["grokking"]}, "controls.*grokking.*allowed: shuffled, no_decay"),
        ({"controls": ["shuffled", "shuffled"]}, "controls.*repeats"),
        ({"profile": "laptop"}, "profile.*laptop.*allowed: quick, workstation, paper"),
        ({"control_seeds": 1}, "control_seeds.*2 to 100"),
    ],
)
def test_parameters_that_mean_nothing_are_refused_in_one_sentence(values, words):
    with pytest.raises(SettingsError, match=words) as error:
        from_values(grokking.Settings, values)
    assert len(str(error.value)) < 200


def test_a_profile_that_does_not_exist_is_refused():
    with pytest.raises(SettingsError, match=r"laptop.*allowed: quick, workstation, paper"):
        load_profile(grokking.SECTION, "laptop")


def test_ten_steps_for_every_checkpoint_are_enough():
    assert from_values(grokking.Settings, {"steps": 2000, "checkpoints": 200}).steps == 2000


@pytest.mark.parametrize(
    ("profile", "seeds", "controls"), [("quick", 1, 0), ("workstation", 5, 2), ("paper", 10, 10)]
)
def test_every_profile_has_its_networks_and_then_its_controls(profile, seeds, controls):
    values = {**load_profile(grokking.SECTION, profile), "profile": profile}
    settings = from_values(grokking.Settings, values)
    found = grokking.conditions(settings)
    assert len(set(found)) == len(found)
    order = [("grokking", seed) for seed in range(seeds)]
    order += [(kind, seed) for kind in ("shuffled", "no_decay") for seed in range(controls)]
    assert [(own.kind, own.seed) for own in found] == order
    for own in found:
        of_task = own.kind == "grokking"
        assert own.seeds == (seeds if of_task else controls)
        count = settings.checkpoints if of_task else settings.control_checkpoints
        assert own.checkpoints == count
        assert own.decay == (0 if own.kind == "no_decay" else settings.decay)
        assert (own.prime, own.steps, own.draws) == (53, settings.steps, settings.draws)


def test_a_condition_does_not_depend_on_which_others_there_are():
    both = tiny_conditions()
    for controls in ([], ["no_decay"], ["no_decay", "shuffled"]):
        own = tiny_conditions(controls=controls)
        assert set(own) == {each for each in both if each.kind in ("grokking", *controls)}
    more = tiny_conditions(control_seeds=3)
    assert [own for own in more if own.kind == "grokking"] == both[:2]


def tiny_conditions(**changes):
    return grokking.conditions(from_values(grokking.Settings, {**TINY, **changes}))


def tiny(kind="grokking", seed=0, **changes):
    """Rows of one small network."""
    (condition,) = [
        own for own in tiny_conditions(**changes) if (own.kind, own.seed) == (kind, seed)
    ]  # fmt: skip
    return grokking.run(condition, device="cpu")


@pytest.fixture(scope="module")
def rows():
    return tiny()


@pytest.fixture
def light(monkeypatch):
    """Measure no more than the embedding; holds the places that were kept, run by run."""
    kept = []

    def noted(*arguments, **options):
        kept.append({*options["kept"]})
        return {}

    monkeypatch.setattr(grokking, "dictionaries", lambda *arguments, **options: {})
    monkeypatch.setattr(grokking, "coefficients", noted)
    return kept


def test_there_is_a_row_for_every_checkpoint(rows):
    steps, even = checkpoint_steps(300, 25)
    assert [row["step"] for row in rows] == steps
    assert (steps[0], steps[-1]) == (0, 300)
    assert [row["step"] for row in rows if row["even"]] == even
    assert (len(even), len(steps)) == (20, 25)


def test_rows_are_records_of_the_same_names(rows):
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert len({tuple(row) for row in rows}) == 1
    estimated = {f"features_{way}" for way in WAYS} | {f"llc_{name}" for name in SAMPLERS}
    assert {"train_loss", "test_loss", "train_accuracy", "test_accuracy"} | estimated <= {*rows[0]}


def test_pictures_are_kept_at_some_checkpoints_alone(rows):
    pictures = [[row[name] for name in PICTURES] for row in rows]
    kept = [own[0] is not None for own in pictures]
    for own, shown in zip(pictures, kept, strict=True):
        assert all((picture is not None) == shown for picture in own)
    assert kept[0] and kept[-1]
    even = [shown for shown, row in zip(kept, rows, strict=True) if row["even"]]
    early = [shown for shown, row in zip(kept, rows, strict=True) if not row["even"]]
    assert 8 <= sum(even) <= 17
    assert 2 <= sum(early) < len(early)


@pytest.mark.parametrize("half", [3, 8, 12])
def test_the_checkpoint_nearest_to_half_accuracy_is_kept(monkeypatch, light, half):
    accuracy = torch.where(torch.arange(25) < half, 0.1, 0.95)
    accuracy[half] = 0.3
    planted, trajectory = torch.stack([torch.ones(25), accuracy], 1), grokking._trajectory
    monkeypatch.setattr(
        grokking, "_trajectory", lambda *own: trajectory(*own)._replace(test_accuracy=planted)
    )
    first, second = (
        {place for place, row in enumerate(tiny(seed=s)) if row["plane"]} for s in (0, 1)
    )
    assert half not in first
    assert second == first | {half}
    assert light == [first, second]


def test_pictures_have_one_point_per_residue_and_one_line_per_chain(rows):
    last = rows[-1]
    assert np.shape(last["plane"]) == (7, 2)
    assert np.shape(last["power"]) == (3,)
    assert np.shape(last["trace_wide"]) == (2, 6)
    assert sum(last["power"]) == pytest.approx(1, abs=1e-3)


def test_the_same_network_has_the_same_rows(rows):
    grokking._trajectory.cache_clear()
    assert tiny() == rows


@pytest.mark.parametrize(("kind", "seed"), [("grokking", 1), ("shuffled", 0), ("no_decay", 0)])
def test_other_networks_train_otherwise(rows, light, kind, seed):
    other = tiny(kind, seed)
    assert [row["step"] for row in other] == [row["step"] for row in rows]
    assert other[-1]["train_loss"] != rows[-1]["train_loss"]
    assert (other[0]["weight_norm"] == rows[0]["weight_norm"]) == (seed == 0)
    assert (other[0]["train_loss"] == rows[0]["train_loss"]) == (kind == "no_decay")
    assert (other[0]["test_loss"] == rows[0]["test_loss"]) == (seed == 0)
    if kind == "no_decay":
        assert other[-1]["weight_norm"] > rows[-1]["weight_norm"]


def test_a_control_is_measured_otherwise_too(rows):
    other = tiny("shuffled")
    assert other[-1]["features_relay"] != rows[-1]["features_relay"]
    assert other[-1]["llc_local"] != rows[-1]["llc_local"]


def test_networks_of_a_kind_are_trained_once_and_measured_on_their_own_pairs(monkeypatch, light):
    split, train, seen, called = grokking.modular, grokking.trained, [], []

    def counted(*arguments, **options):
        called.append(options["seeds"])
        return train(*arguments, **options)

    def noted(*arguments, **options):
        seen.append((options["seed"], options["shuffled"]))
        return split(*arguments, **options)

    monkeypatch.setattr(grokking, "trained", counted)
    monkeypatch.setattr(grokking, "modular", noted)
    grokking._trajectory.cache_clear()
    for seed in range(2):
        tiny("shuffled", seed)
    assert called == [range(2)]
    assert seen == [(0, True), (1, True), (0, True), (1, True)]  # trained, then measured


@pytest.mark.parametrize(("operation", "residues"), [("subtract", 7), ("multiply", 6)])
def test_other_operations_are_learned_and_measured_too(rows, operation, residues):
    other = tiny(operation=operation, seeds=1)
    assert len(other) == len(rows)
    assert np.shape(other[-1]["plane"]) == (residues, 2)
    assert other[-1]["train_loss"] != rows[-1]["train_loss"]
    assert json.dumps(other, allow_nan=False)


def test_estimates_read_what_a_run_writes(rows):
    frame = pd.DataFrame(rows).assign(kind="grokking", seed=0)
    values = grokking.estimates(frame, SETTINGS)
    assert {name for name in NAMES if name.startswith("r_")} <= values.keys() <= NAMES
    assert list(grokking.networks(frame)["accuracy"]) == [rows[-1]["test_accuracy"]]
