"""Algorithmic tasks: the grid, its refusals, and what is read off a table of networks."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from superpos.experiments import algorithmic_tasks as algorithmic
from superpos.settings import SettingsError, from_values, load_profile
from superpos.solver import fit

SETTINGS = algorithmic.Settings(
    length=4, neurons=(4, 8, 16, 50), empty=(0.0, 0.9), empty_neurons=(4, 8)
)
DIRECTIONS = 35  # of reversal over three tokens at length 4 (a known size)


def network(seed, neurons, psi, solves=True, kind="compressed", empty=None, task="reversal"):
    """Rows of one network, one per layer."""
    return [
        {"task": task, "kind": kind, "neurons": neurons, "empty": empty or 0.0, "seed": seed,
         "by_frequency": empty is not None, "accuracy": 1.0 if solves else 0.9, "layer": layer,
         "features": None if own is None else own * neurons}
        for layer, own in enumerate(psi, start=1)
    ]  # fmt: skip


def table(*networks):
    return pd.DataFrame([row for rows in networks for row in rows])


def whole(narrow_psi=(0.9, 1.3), kind="compressed"):
    """Two seeds that solve at 8, 16 and all neurons, and fail at 4."""
    return [
        rows
        for seed in (0, 1)
        for rows in (
            network(seed, 4, (2.0, 2.0), solves=False, kind=kind),
            network(seed, 8, [p + 0.02 * seed for p in narrow_psi], kind=kind),
            network(seed, 16, (0.5, 0.6), kind=kind),
            network(seed, DIRECTIONS, (0.3, 0.4 + 0.02 * seed), kind=kind),
        )
    ]


def test_widths_beyond_the_uncompressed_one_become_it():
    widths = {own.neurons for own in algorithmic.conditions(SETTINGS)}
    assert max(widths) == DIRECTIONS
    assert len(algorithmic.program("reversal", 3, 4).directions) == DIRECTIONS


def test_conditions_of_a_larger_profile_hold_every_kind_and_share():
    values = {**load_profile(algorithmic.SECTION, "workstation"), "profile": "workstation"}
    settings = from_values(algorithmic.Settings, values)
    found = algorithmic.conditions(settings)
    assert len(set(found)) == len(found)
    for name in algorithmic.TASKS:
        own = [each for each in found if each.task == name]
        assert {each.kind for each in own} == set(algorithmic.KINDS)
        for kind in settings.kinds:
            plain = [e for e in own if e.kind == kind and not e.by_frequency]
            assert len({e.neurons for e in plain}) >= 12
        assert {e.empty for e in own if e.by_frequency} == set(settings.empty)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"tasks": ()}, "tasks is empty"),
        ({"kinds": ()}, "kinds is empty"),
        ({"neurons": ()}, "neurons is empty"),
        ({"vocabulary": 10, "length": 8}, "fewer tokens"),
    ],
)
def test_grids_without_a_point_or_with_too_many_inputs_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        algorithmic.Settings(**changes)


def test_an_unknown_kind_is_refused_with_what_is_allowed():
    with pytest.raises(SettingsError, match="compressed"):
        from_values(algorithmic.Settings, {"kinds": ["squeezed"]})


def test_the_narrowest_network_solves_as_all_wider_ones_do():
    frame = table(
        network(0, 4, (1.0,)), network(0, 8, (1.0,), solves=False), network(0, 16, (1.0,)),
        network(1, 4, (1.0,)), network(1, 8, (1.0,)), network(1, 16, (1.0,)),
        network(2, 4, (1.0,)), network(2, 8, (1.0,)), network(2, 16, (1.0,), solves=False),
    )  # fmt: skip
    edge = algorithmic.narrowest(algorithmic.networks(frame))
    assert dict(zip(edge["seed"], edge["neurons"], strict=True)) == {0: 16, 1: 4}


def test_psi_is_read_where_a_network_is_narrowest():
    values = algorithmic.estimates(table(*whole()), SETTINGS)
    assert values["approach_compressed"].value == pytest.approx(1.11)
    assert values["beyond_compressed"].value == pytest.approx(1.31)
    assert values["uncompressed_compressed"].value == pytest.approx(0.355)
    assert values["rise_compressed"].value == pytest.approx(1.11 - 0.355)
    shares = [DIRECTIONS * 0.35 / (8 * 1.1), DIRECTIONS * 0.36 / (8 * 1.12)]
    assert values["intrinsic_compressed"].value == pytest.approx(np.mean(shares))
    assert values["width_compressed"].value == 8
    assert values["width_compressed"].note == "the same for all seeds"
    assert values["reversal_early"].value == pytest.approx(8 * 0.91)
    assert values["reversal_last"].value == pytest.approx(8 * 1.31)
    assert "approach_scratch" not in values
    assert "sparse_gain" not in values


def test_layers_without_living_codes_have_no_share_in_psi():
    frame = table(network(0, 8, (None, 1.0)), network(1, 8, (None, None)))
    psi = algorithmic.networks(frame)["psi"]
    assert psi[0] == 1
    assert math.isnan(psi[1])


def test_a_seed_that_never_solves_leaves_its_claims_without_a_value():
    frame = table(*whole())
    frame.loc[frame["seed"] == 1, "accuracy"] = 0.5
    values = algorithmic.estimates(frame, SETTINGS)
    assert "approach_compressed" not in values
    assert "width_compressed" not in values
    assert "uncompressed_compressed" in values  # no matter whether it solves


def test_a_grid_that_stays_below_the_whole_width_says_nothing_about_it():
    settings = algorithmic.Settings(length=4, neurons=(4, 8, 16))
    frame = table(*whole())
    frame = frame[frame["neurons"] < DIRECTIONS]
    assert "uncompressed_compressed" not in algorithmic.estimates(frame, settings)


def test_sparse_inputs_are_compared_with_dense_ones_seed_by_seed():
    frame = table(
        *whole(),
        *(network(seed, 8, (1.0, 1.1), empty=share) for seed in (0, 1) for share in (0.0, 0.9)),
        *(network(seed, 4, (1.5, 1.6), empty=0.9) for seed in (0, 1)),
        *(network(seed, 4, (1.9, 1.9), empty=0.0, solves=False) for seed in (0, 1)),
    )
    values = algorithmic.estimates(frame, SETTINGS)
    assert values["sparse_gain"].value == pytest.approx(0.5)
    assert values["sparse_width"].value == 4
    assert values["approach_compressed"].value == pytest.approx(1.11)  # the test stays apart


def test_sparse_inputs_that_are_never_handled_count_as_needing_more_than_was_tried():
    frame = table(
        *(network(seed, 8, (1.0, 1.1), empty=0.0) for seed in (0, 1)),
        *(network(seed, 8, (None,), solves=False, empty=0.9) for seed in (0, 1)),
    )
    values = algorithmic.estimates(frame, SETTINGS)
    assert values["sparse_width"].value == 8 - 9
    assert "sparse_gain" not in values


def test_an_unknown_task_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="reversal, sorting"):
        algorithmic.program("reverse", 3, 4)


def test_a_layer_carries_what_later_ones_still_read():
    last = algorithmic.counted("reversal", 3, 4, needed=True)
    assert len(last) == 4
    assert last[-1] == pytest.approx(3)  # three tokens in the output, each as often
    everything = algorithmic.counted("reversal", 3, 4, needed=False)
    assert everything == sorted(everything)  # nothing is ever erased
    assert everything[-1] > last[-1]
    # One by one: layer 3 hands on tokens, indices, bos, one and mirror to attention.
    frequency, total = {}, 0.0
    for length in range(1, 5):
        weight = 1 / 4
        add = {"bos": weight, "one": weight * (length + 1)}
        for place in range(length):
            add[f"index{place}"] = add.get(f"index{place}", 0) + weight
            add[f"mirror{length - place - 1}"] = weight
        for token in range(3):
            add[f"token{token}"] = weight * length / 3
        for name, value in add.items():
            frequency[name] = frequency.get(name, 0) + value
            total += value
    shares = np.array(list(frequency.values())) / total
    expected = math.exp(-(shares * np.log(shares)).sum())
    assert last[2] == pytest.approx(expected, rel=1e-3)


def test_the_same_condition_gives_the_same_rows_and_one_matrix_to_show(monkeypatch):
    def brief(x, config, **options):
        return fit(x, replace(config, steps=60, rounds=2), **options)

    monkeypatch.setattr(algorithmic, "fit", brief)
    settings = algorithmic.Settings(
        length=2, neurons=(4,), expansion=1.0, compared=(), empty=(), empty_neurons=(),
        fit_steps=50, train_steps=20, samples=200,
    )  # fmt: skip
    kinds = [condition.kind for condition in algorithmic.conditions(settings)]
    assert sorted(kinds) == ["compressed", "scratch"]
    for condition in algorithmic.conditions(settings):
        rows = pd.DataFrame(algorithmic.run(condition, device="cpu"))
        assert rows["seed"].nunique() == 2
        assert (rows["matrix"].notna().any()) == (condition.kind == "compressed")
        again = pd.DataFrame(algorithmic.run(condition, device="cpu"))
        pd.testing.assert_frame_equal(rows, again)


def test_compared_networks_that_fail_have_one_row_without_f(monkeypatch):
    settings = algorithmic.Settings(
        length=2, neurons=(50,), compared=("end_to_end",), compared_neurons=(4,), empty=(),
        empty_neurons=(), fit_steps=1, train_steps=1, end_to_end_steps=1, samples=100,
    )  # fmt: skip
    monkeypatch.setattr(
        algorithmic, "fit", lambda x, config, **o: fit(x, replace(config, steps=5, rounds=1), **o)
    )
    grid = {own.kind: own for own in algorithmic.conditions(settings)}
    failed = pd.DataFrame(algorithmic.run(grid["end_to_end"], device="cpu"))
    assert failed["layer"].tolist() == [0, 0] and failed["seed"].tolist() == [0, 1]
    assert failed["features"].isna().all() and (failed["accuracy"] < 0.999).all()
    whole = pd.DataFrame(algorithmic.run(grid["compiled"], device="cpu"))
    assert (whole["accuracy"] == 1).all() and whole["layer"].min() == 1
