"""Tables of planted F: slopes, ratios and humps worked by hand, and what is left out."""

from dataclasses import asdict

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from superpos.experiments.adversarial import Condition
from superpos.record import Record
from superpos.robust_features import Fitting
from superpos.robust_group import Training
from superpos.robustness import CELL, humps, layer_slopes, ratios, slopes, strong, tidy
from superpos.robustness_figures import curves, heat_map, named, robust_scatter, slope_lines
from superpos.store import frame

pytestmark = pytest.mark.filterwarnings("error")

EPSILONS = (0.0, 0.1, 0.2, 0.3)
SEEDS = (0, 1, 2)
ONE, TWO = (("relu1", 100),), (("relu1", 300), ("relu2", 100))
T = 4.302653  # 97.5% of Student's t with two degrees of freedom
WAY = Fitting("tied", 4.0, 0.1, False, None, None, 6, None, 10_000)


def record(
    features, *, dataset="mnist", network="mlp", width=8, classes=2, epsilons=EPSILONS,
    seeds=SEEDS, layers=ONE, way=WAY, robust=lambda epsilon, seed: 0.5,
):  # fmt: skip
    """A record; `features` gives F of an epsilon, a seed, a kind of inputs and a layer from 1."""
    training = Training(
        dataset, network, width, classes, tuple(epsilons), tuple(seeds), None, 100, 400, None,
        128, 0.1, 1e-4, 7, None, 10, 10, "float32",
    )  # fmt: skip
    condition = Condition(training, None, 40, 1000, 0, way)
    rows = [
        {
            "site": site, "layer": layer, "neurons": width, "parameters": parameters,
            "epsilon": epsilon, "seed": seed, "inputs": kind,
            "features": features(epsilon, seed, kind, layer), "fit_loss": 0.1, "converged": True,
            "accuracy": 0.9, "robust_accuracy": robust(epsilon, seed), "best_step": 400,
            "auto_accuracy": None, "auto_pgd_accuracy": None,
        }
        for layer, (site, parameters) in enumerate(layers, start=1)
        for kind in ("clean", "adversarial")
        for epsilon in epsilons
        for seed in seeds
    ]  # fmt: skip
    return Record("adversarial", 2, f"{network}{width}{classes}", asdict(condition), rows, {})


def table(*records):
    return tidy(frame(records))


def lines(*by_seed):
    """F along straight lines, one slope per seed, from another base for each."""
    return lambda epsilon, seed, kind, layer: 10 * (seed + 1) * (1 + by_seed[seed] * epsilon)


def without(features, dead):
    """The same F, None where `dead` says so."""
    return lambda *where: None if dead(*where) else features(*where)


def shuffled(records, seed=0):
    return tidy(frame(records).sample(frac=1, random_state=seed))


def same(found, expected):
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), expected.reset_index(drop=True), check_dtype=False
    )


def other(**changes):
    return Fitting(**{**asdict(WAY), **changes})


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


# Tidy tables


def test_a_cell_becomes_columns_and_all_else_stays():
    raw = frame([record(lines(1, 2, 3), dataset="digits", network="cnn", width=4, classes=5)])
    found = tidy(raw)
    assert (found[CELL] == ["digits", "cnn", 4, 5]).all(axis=None)
    assert (found["fitting"] == "usual").all()
    assert "training" not in found
    kept = [name for name in raw if name not in ("training", "fitting")]
    pd.testing.assert_frame_equal(found[kept], raw[kept])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"l1": 0.03}, "l1 0.03"), ({"expansion": 8.0}, "expansion 8"),
        ({"architecture": "topk"}, "architecture topk"), ({"normalize": True}, "normalize True"),
        ({"epochs": 100}, "epochs 100"), ({"starts": 3}, "starts 3"),
    ],
)  # fmt: skip
def test_other_ways_of_fitting_are_named_by_what_differs(changes, name):
    found = table(
        record(lines(1, 2, 3)), record(lines(4, 5, 6), way=other(**changes)),
        record(lines(1, 2, 3), width=32),
    )  # fmt: skip
    assert set(found["fitting"]) == {"usual", name}
    assert (found.loc[found["fitting"] == name, "width"] == 8).all()
    assert slopes(found[found["fitting"] == name])["slope"].tolist() == pytest.approx([5])


def test_a_way_that_differs_twice_has_both_in_its_name():
    found = table(
        record(lines(1, 2, 3)), record(lines(1, 2, 3), way=other(expansion=8.0, l1=0.3)),
        record(lines(1, 2, 3), width=32),
    )  # fmt: skip
    (name,) = set(found["fitting"]) - {"usual"}
    assert name.replace(",", " ").split() == ["expansion", "8", "l1", "0.3"]


def test_of_ways_that_equally_many_records_share_the_first_is_usual():
    found = table(record(lines(1, 2, 3)), record(lines(1, 2, 3), way=other(l1=0.03)))
    assert list(found["fitting"].unique()) == ["usual", "l1 0.03"]


def test_an_empty_table_is_tidy():
    assert tidy(pd.DataFrame()).empty


# Ratios


def test_ratios_worked_by_hand():
    # 11 / 10, 24 / 20 and 52 / 40 are 1.1, 1.2 and 1.3: mean 1.2, standard deviation 0.1.
    known = {0: (10, 11), 1: (20, 24), 2: (40, 52)}
    found = ratios(
        table(
            record(
                lambda epsilon, seed, *_: known[seed][epsilon > 0],
                epsilons=(0.0, 0.1),
                robust=lambda epsilon, seed: 0.5 + 0.1 * seed,
            )
        )
    )
    assert len(found) == 4
    row = found[(found["epsilon"] == 0.1) & (found["inputs"] == "clean")].iloc[0]
    half = T * 0.1 / np.sqrt(3)
    assert (row["ratio"], row["low"], row["high"]) == pytest.approx((1.2, 1.2 - half, 1.2 + half))
    assert row["features"] == pytest.approx(29)
    robust = (row["robust"], row["robust_low"], row["robust_high"])
    assert robust == pytest.approx((0.6, 0.6 - half, 0.6 + half))
    assert (row["accuracy"], row["parameters"]) == (0.9, 100)
    assert (found.loc[found["epsilon"] == 0, ["ratio", "low", "high"]] == 1).all(axis=None)


def test_attacked_inputs_are_compared_with_clean_ones_at_epsilon_zero():
    base = {"clean": 10, "adversarial": 12}
    found = ratios(table(record(lambda e, seed, kind, _: base[kind] * (1 + 5 * e))))
    by = found.set_index(["inputs", "epsilon"])["ratio"]
    assert by["clean"].tolist() == pytest.approx([1, 1.5, 2, 2.5])
    assert by["adversarial"].tolist() == pytest.approx([1.2, 1.8, 2.4, 3])


def test_every_layer_is_compared_with_itself():
    found = ratios(
        table(
            record(
                lambda epsilon, seed, kind, layer: 5 * layer * (1 + (layer - 2) * epsilon),
                network="standard_mlp", layers=(("relu1", 30), ("relu2", 20), ("relu3", 10)),
            )
        )
    )  # fmt: skip
    last = found[(found["epsilon"] == 0.3) & (found["inputs"] == "clean")].set_index("site")
    assert last["ratio"].to_dict() == pytest.approx({"relu1": 0.7, "relu2": 1.0, "relu3": 1.3})
    assert last["parameters"].to_dict() == {"relu1": 30, "relu2": 20, "relu3": 10}


def test_robust_accuracy_stays_between_zero_and_one():
    accuracies = {0.0: (0.9, 0.95, 1.0), 0.1: (0.0, 0.05, 0.1)}
    found = ratios(
        table(
            record(lines(1, 2, 3), epsilons=(0.0, 0.1), robust=lambda e, seed: accuracies[e][seed])
        )
    ).set_index("epsilon")
    half = T * 0.05 / np.sqrt(3)
    assert found.loc[0.0, "robust_high"].tolist() == [1, 1]
    assert found.loc[0.0, "robust_low"].tolist() == pytest.approx([0.95 - half] * 2)
    assert found.loc[0.1, "robust_low"].tolist() == [0, 0]
    assert found.loc[0.1, "robust_high"].tolist() == pytest.approx([0.05 + half] * 2)


def test_dead_networks_leave_their_points_out_of_ratios():
    dead = {(0.1, 0), (0.2, 0), (0.2, 1)}
    found = ratios(
        table(record(without(lines(1, 2, 3), lambda epsilon, seed, *_: (epsilon, seed) in dead)))
    )
    clean = found[found["inputs"] == "clean"].set_index("epsilon")["ratio"]
    assert clean.to_dict() == pytest.approx({0.0: 1, 0.1: 1.25, 0.3: 1.6})  # no 0.2: one seed


def test_a_seed_that_is_dead_at_epsilon_zero_has_no_ratio():
    found = ratios(
        table(record(without(lines(1, 2, 9), lambda epsilon, seed, *_: epsilon == 0 and seed == 2)))
    )
    last = found[(found["epsilon"] == 0.3) & (found["inputs"] == "clean")]
    assert last["ratio"].tolist() == pytest.approx([1.45])


NOTHING = {
    "one seed": record(lines(1), seeds=(0,)),
    "all dead": record(lambda *_: None),
    "one seed alive": record(without(lines(1, 2, 3), lambda e, seed, *_: seed > 0)),
    "dead at epsilon 0": record(without(lines(1, 2, 3), lambda e, *_: e == 0)),
    "no epsilon 0": record(lines(1, 2, 3), epsilons=(0.1, 0.2)),
}
"""Records of which no ratio and no slope is known."""


@pytest.mark.parametrize("case", NOTHING)
@pytest.mark.parametrize(
    ("made", "column"),
    [(ratios, "ratio"), (slopes, "slope"), (layer_slopes, "slope"), (humps, "hump")],
)
def test_tables_without_values_are_empty_and_keep_their_columns(case, made, column):
    found = made(table(NOTHING[case]))
    assert len(found) == 0
    assert {*CELL, column, "low", "high"} <= set(found.columns)


# Slopes


def test_layers_are_weighted_by_their_parameters():
    # Per seed (3 * first + 1 * second) / 4: 2, 1 and 2. Mean 5 / 3, variance 1 / 3, error 1 / 3.
    first, second = lines(1, 2, 3), lines(5, -2, -1)
    found = slopes(
        table(
            record(
                lambda *where: (first if where[-1] == 1 else second)(*where),
                layers=TWO,
                robust=lambda epsilon, seed: 1 - epsilon - 0.1 * seed,
            )
        )
    )
    (row,) = found.to_dict("records")
    assert [row[name] for name in CELL] == ["mnist", "mlp", 8, 2]
    assert (row["slope"], row["se"], row["df"]) == pytest.approx((5 / 3, 1 / 3, 2))
    assert (row["low"], row["high"]) == pytest.approx(((5 - T) / 3, (5 + T) / 3))
    assert row["seeds"] == pytest.approx({0: 2, 1: 1, 2: 2})
    assert row["robust"] == pytest.approx(0.6)


def test_clean_and_attacked_inputs_enter_one_slope():
    found = slopes(
        table(record(lambda e, seed, kind, _: 8 * (1 + (seed + (1 if kind == "clean" else 4)) * e)))
    )
    assert found["seeds"].iloc[0] == pytest.approx({0: 2.5, 1: 3.5, 2: 4.5})


@settings(max_examples=12)
@given(
    planted=st.lists(st.tuples(*[st.floats(-3, 3)] * 3), min_size=1, max_size=4),
    counts=st.lists(st.integers(1, 10_000), min_size=4, max_size=4),
    base=st.floats(1, 500),
)
def test_planted_slopes_come_out_whatever_the_weights(planted, counts, base):
    layers = [(f"relu{i}", count) for i, count in zip(range(1, 5), counts, strict=True)]
    own = table(
        record(
            lambda epsilon, seed, kind, layer: base * (1 + planted[layer - 1][seed] * epsilon),
            layers=layers[: len(planted)],
        )
    )
    expected = np.average(planted, axis=0, weights=counts[: len(planted)])
    found = slopes(own).iloc[0]
    assert list(found["seeds"].values()) == pytest.approx(expected, abs=1e-9)
    assert found["slope"] == pytest.approx(expected.mean(), abs=1e-9)
    by_layer = layer_slopes(own)
    assert by_layer["site"].tolist() == [site for site, _ in layers[: len(planted)]]
    assert by_layer["slope"].tolist() == pytest.approx(np.mean(planted, axis=1), abs=1e-9)
    assert by_layer["se"].tolist() == pytest.approx(scipy.stats.sem(planted, axis=1), abs=1e-9)


def test_a_layers_interval_is_that_of_its_seeds():
    found = layer_slopes(table(record(lines(1, 2, 3))))
    half = T / np.sqrt(3)
    row = found[["slope", "se", "low", "high"]].iloc[0].tolist()
    assert row == pytest.approx([2, 1 / np.sqrt(3), 2 - half, 2 + half])
    assert found[[*CELL, "site", "layer"]].iloc[0].tolist() == ["mnist", "mlp", 8, 2, "relu1", 1]


def test_a_seed_that_lacks_a_layer_is_left_out_of_the_cell():
    own = table(
        record(
            without(lines(1, 5, 2), lambda e, seed, kind, layer: (seed, layer) == (1, 2)),
            layers=TWO,
        )
    )
    found = slopes(own).iloc[0]
    assert found["seeds"] == pytest.approx({0: 1, 2: 2})
    assert (found["slope"], found["se"], found["df"]) == pytest.approx((1.5, 0.5, 1))
    half = scipy.stats.t.ppf(0.975, 1) * 0.5
    assert (found["low"], found["high"]) == pytest.approx((1.5 - half, 1.5 + half))
    assert layer_slopes(own)["slope"].tolist() == pytest.approx([8 / 3, 1.5])


def test_a_seed_that_was_not_run_leaves_one_degree_of_freedom():
    found = slopes(table(record(lines(1, 2, 4), seeds=(0, 2))))
    assert found["seeds"].iloc[0] == pytest.approx({0: 1, 2: 4})
    assert found["df"].tolist() == [1]


def test_a_layer_without_two_seeds_leaves_its_cell_out():
    own = table(
        record(
            without(lines(1, 5, 2), lambda e, seed, kind, layer: seed > 0 and layer == 2),
            layers=TWO,
        ),
        record(lines(1, 2, 3), width=32),
    )
    assert slopes(own)["width"].tolist() == [32]
    assert layer_slopes(own)[["width", "layer"]].to_numpy().tolist() == [[8, 1], [32, 1]]


def test_layers_that_share_fewer_than_two_seeds_leave_their_cell_out():
    gone = {(2, 1), (0, 2)}  # seeds 0 and 1 of the first layer, 1 and 2 of the second
    own = table(
        record(
            without(lines(1, 5, 2), lambda e, seed, kind, layer: (seed, layer) in gone),
            layers=TWO,
        )
    )
    assert slopes(own).empty
    assert len(layer_slopes(own)) == 2


def test_a_network_dead_at_one_epsilon_leaves_the_other_points_of_its_line():
    found = slopes(table(record(without(lines(1, 2, 3), lambda e, seed, *_: e == 0.3 and seed))))
    assert found["seeds"].iloc[0] == pytest.approx({0: 1, 1: 2, 2: 3})


@pytest.mark.parametrize("slope", [0.5, 0.1, -0.2, 1 / 3])
def test_seeds_that_agree_have_no_error(slope):
    own = table(record(lambda epsilon, *_: 10 * (1 + slope * epsilon)))
    for found in (slopes(own), layer_slopes(own)):
        assert found["se"].tolist() == [0]
        assert found["low"].tolist() == found["high"].tolist() == found["slope"].tolist()
        assert found["slope"].tolist() == pytest.approx([slope])


def test_cells_do_not_mix():
    chosen = {
        ("mnist", "mlp", 8, 2): 1.0, ("mnist", "mlp", 8, 3): 2.0, ("mnist", "mlp", 32, 2): 3.0,
        ("mnist", "cnn", 8, 2): 4.0, ("digits", "mlp", 8, 2): 5.0,
    }  # fmt: skip
    own = table(
        *(
            record(lines(slope - 1, slope, slope + 1), **dict(zip(CELL, cell, strict=True)))
            for cell, slope in chosen.items()
        )
    )
    for found in (slopes(own), layer_slopes(own)):
        by_cell = found.set_index(CELL)["slope"].to_dict()
        assert by_cell == pytest.approx(chosen)


@pytest.mark.parametrize("made", [ratios, slopes, layer_slopes, humps])
def test_the_order_of_rows_does_not_matter(made):
    draw = np.random.default_rng(0)

    def features(*_):
        return draw.uniform(5, 20)

    records = [
        record(
            features, width=width, classes=classes, network="standard_mlp",
            layers=TWO,
        )
        for width in (8, 32) for classes in (2, 3)
    ]  # fmt: skip
    expected = made(table(*records))
    assert len(expected) >= 4
    for seed in range(3):
        same(made(shuffled(records, seed)), expected)


# Humps


def curve(*values, base=10):
    """F over F at epsilon 0 by epsilon, the same for all."""
    return lambda epsilon, *_: base * values[EPSILONS.index(epsilon)]


def test_humps_worked_by_hand():
    # Clean and attacked averaged, layers weighted 3 to 1. First layer: clean 1, 1.5, 2, 1 and
    # attacked 1, 1.5, 1, 1 make 1, 1.5, 1.5, 1; second: 1, 3, 1, 1.4 for both. Together
    # 1, 1.875, 1.375, 1.1; a seed adds 0, 0.2 or 0.4 to its end: 1.1, 1.3, 1.5. The humps are
    # 0.775, 0.575 and 0.375: mean 0.575, standard deviation 0.2.
    first = {"clean": (1, 1.5, 2, 1), "adversarial": (1, 1.5, 1, 1)}

    def features(epsilon, seed, kind, layer):
        place = EPSILONS.index(epsilon)
        ratio = first[kind][place] if layer == 1 else (1, 3, 1, 1.4)[place]
        return 10 * (seed + 1) * (ratio + (0.2 * seed if place == 3 else 0))

    found = humps(
        table(
            record(
                features, network="standard_mlp", classes=3,
                layers=TWO,
            )
        )
    )  # fmt: skip
    half = T * 0.2 / np.sqrt(3)
    (row,) = found[["peak", "hump", "low", "high"]].to_numpy().tolist()
    assert row == pytest.approx([0.1, 0.575, 0.575 - half, 0.575 + half])
    assert found[CELL].iloc[0].tolist() == ["mnist", "standard_mlp", 8, 3]


@pytest.mark.parametrize(
    ("values", "peak", "hump"),
    [
        ((1, 1.2, 1.5, 1.1), 0.2, 0.4), ((1, 0.8, 0.6, 0.5), 0.1, -0.2),
        ((1, 1.5, 2, 3), 0.2, -1), ((1, 0.5, 0.7, 1.2), 0.2, -0.5), ((1, 2, 2.5, 2.2), 0.2, 0.3),
    ],
)  # fmt: skip
def test_only_a_curve_with_its_peak_in_the_middle_has_a_hump(values, peak, hump):
    found = humps(table(record(curve(*values), layers=(("relu1", 30), ("relu2", 10)))))
    assert found[["peak", "hump"]].iloc[0].tolist() == pytest.approx([peak, hump])


def test_the_larger_end_is_each_seeds_own():
    # The mean curve is 1, 2, 2: a hump of 0. Seeds end at 3 and 1: 2 - 3 and 2 - 1.
    ends = {0: 3, 1: 1}
    found = humps(
        table(
            record(
                lambda e, seed, *_: {0.0: 1, 0.1: 2, 0.2: ends[seed]}[e],
                epsilons=(0.0, 0.1, 0.2), seeds=(0, 1),
            )
        )
    )  # fmt: skip
    assert found["hump"].tolist() == pytest.approx([0])
    half = scipy.stats.t.ppf(0.975, 1) * 1
    assert found["high"].tolist() == pytest.approx([half])


@pytest.mark.parametrize("changes", [{"epsilons": (0.0, 0.1)}, {"seeds": (0,)}])
def test_two_epsilons_or_one_seed_have_no_hump(changes):
    assert humps(table(record(lines(1, 2, 3), **changes))).empty


@pytest.mark.parametrize("layers_dead", [(1, 2), (2,)])
def test_a_network_that_died_is_left_out_of_humps(layers_dead):
    planted = curve(1, 2, 3, 4)
    features = without(
        planted, lambda e, seed, kind, layer: (e, seed) == (0.3, 2) and layer in layers_dead
    )
    found = humps(table(record(features, layers=(("relu1", 30), ("relu2", 10)))))
    row = found[["peak", "hump", "low", "high"]].iloc[0].tolist()
    assert row == pytest.approx([0.2, -1, -1, -1])


def test_a_seed_without_a_base_has_no_hump():
    features = without(curve(1, 2, 3, 4), lambda e, seed, *_: (e, seed) == (0.0, 1))
    found = humps(table(record(features)))
    assert found[["hump", "low", "high"]].iloc[0].tolist() == pytest.approx([-1, -1, -1])


def test_data_sets_keep_their_own_epsilons():
    own = table(
        record(curve(1, 2, 1.5, 1)),
        record(
            lambda epsilon, *_: {0.0: 1, 0.01: 1.1, 0.02: 1.3, 0.03: 1.2}[epsilon],
            dataset="cifar10", epsilons=(0.0, 0.01, 0.02, 0.03),
        ),
    )  # fmt: skip
    found = humps(own).set_index("dataset")
    assert found.loc["mnist", ["peak", "hump"]].tolist() == pytest.approx([0.1, 1])
    assert found.loc["cifar10", ["peak", "hump"]].tolist() == pytest.approx([0.02, 0.1])
    last = ratios(own).groupby("dataset")["epsilon"].max()
    assert last.to_dict() == {"mnist": 0.3, "cifar10": 0.03}


# The ensemble of attacks


def test_the_ensemble_of_attacks_stands_beside_pgd_once_per_cell_and_epsilon():
    def judged(classes, way=WAY):
        own = record(lines(1, 2, 3), classes=classes, network="standard_mlp", layers=TWO, way=way)
        for row in own.rows:
            row["auto_pgd_accuracy"] = 0.9 - row["epsilon"] - 0.01 * row["seed"]
            if row["epsilon"] > 0 and row["seed"] == 0:
                row["auto_accuracy"] = 0.8 - row["epsilon"] - 0.01 * classes
        return own

    raw = frame([judged(2), judged(3), judged(2, other(l1=0.3)), record(lines(1, 2, 3))])
    found = strong(raw)
    assert list(found) == [*CELL, "epsilon", "PGD", "AutoAttack"]
    assert found[["classes", "epsilon"]].to_numpy().tolist() == [
        [classes, epsilon] for classes in (2, 3) for epsilon in EPSILONS[1:]
    ]
    assert found["PGD"].tolist() == pytest.approx([0.8, 0.7, 0.6] * 2)
    assert found["AutoAttack"].tolist() == pytest.approx([0.68, 0.58, 0.48, 0.67, 0.57, 0.47])
    assert strong(frame([record(lines(1, 2, 3))])).empty
    assert strong(pd.DataFrame()).empty


# Figures


def grid(widths=(8, 32), numbers=(2, 3, 5), networks=("mlp",), without=(), **changes):
    def features(slope):
        return lambda epsilon, seed, kind, _: (
            10 * (1 + (slope + 0.1 * seed + 0.5 * (kind != "clean")) * epsilon)
        )

    return table(
        *(
            record(
                features(np.log(width) - classes), network=network, width=width, classes=classes,
                robust=lambda e, seed: 0.9 - e + 0.01 * seed, **changes,
            )
            for network in networks for width in widths for classes in numbers
            if (width, classes) not in without
        )
    )  # fmt: skip


def drawn(axes, style):
    """Lines that have points and a style."""
    return [own for own in axes.lines if len(own.get_xdata()) > 2 and own.get_linestyle() == style]


def test_curves_have_a_column_per_number_of_classes_and_a_line_per_width_and_kind():
    points = ratios(grid())
    figure = curves(points, "width")
    figure.canvas.draw()
    axes = np.array(figure.axes).reshape(2, 3)
    assert [ax.get_title() for ax in axes[0]] == ["2 classes", "3 classes", "5 classes"]
    for (upper, lower), classes in zip(axes.T, (2, 3, 5), strict=True):
        for style, kind in (("-", "clean"), ("--", "adversarial")):
            found = [own.get_ydata().tolist() for own in drawn(upper, style)]
            own = points[(points["classes"] == classes) & (points["inputs"] == kind)]
            assert found == [rows["ratio"].tolist() for _, rows in own.groupby("width")]
        assert len(drawn(lower, "-")) == len(drawn(lower, ":")) == 2
        assert drawn(lower, "-")[0].get_ydata() == pytest.approx([0.91, 0.81, 0.71, 0.61])
        assert drawn(lower, ":")[0].get_ydata() == pytest.approx([0.9] * 4)
        chance = [own.get_ydata()[0] for own in lower.lines if len(own.get_xdata()) == 2]
        assert chance == pytest.approx([1 / classes])
    texts = [text.get_text() for text in axes[0, -1].get_legend().get_texts()]
    assert texts == ["width 8", "width 32", "clean", "attacked"]


def test_curves_of_layers_show_robust_accuracy_once():
    points = ratios(
        grid((32,), (2, 10), ("standard_mlp",), layers=(("relu1", 30), ("relu2", 9), ("relu3", 3)))
    )
    figure = curves(points, "site")
    figure.canvas.draw()
    for upper, lower in np.array(figure.axes).reshape(2, 2).T:
        assert len(drawn(upper, "-")) == len(drawn(upper, "--")) == 3
        assert len(drawn(lower, "-")) == len(drawn(lower, ":")) == 1
    texts = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert texts == ["relu1", "relu2", "relu3", "clean", "attacked"]


def test_curves_may_have_one_panel_one_line_or_gaps():
    figure = curves(ratios(grid((8,), (2,))), "width")
    figure.canvas.draw()
    assert len(figure.axes) == 2
    figure = curves(ratios(grid(without={(8, 2), (32, 5)})), "width")
    figure.canvas.draw()
    counts = [len(drawn(ax, "--")) for ax in figure.axes[:3]]
    assert counts == [1, 2, 1]
    colors = [drawn(ax, "--")[-1].get_color() for ax in figure.axes[:3]]
    assert colors[0] == colors[1] != colors[2]


def test_curves_hide_no_point_of_theirs_however_wide_the_intervals():
    points = ratios(table(record(lines(5, 15), epsilons=(0.0, 0.3), seeds=(0, 1))))
    assert points["ratio"].max() == pytest.approx(4)
    assert points["high"].max() > 12
    assert curves(points, "width").axes[0].get_ylim()[1] >= 4


def test_slope_lines_have_a_line_per_group_above_its_robust_accuracy():
    cells = slopes(grid())
    mixed = cells.sample(frac=1, random_state=0)
    figure = slope_lines(mixed, "classes", ["network", "width"])
    figure.canvas.draw()
    upper, lower = figure.axes
    labels = [text.get_text() for text in upper.get_legend().get_texts()]
    assert labels == ["single-layer MLP, width 8", "single-layer MLP, width 32"]
    assert len(upper.containers) == 2
    below = [line for line in lower.lines if line.get_marker() == "o"]
    groups = [own for _, own in cells.groupby("width")]
    for bars, under, own in zip(upper.containers, below, groups, strict=True):
        line, _, (segments,) = bars
        assert line.get_ydata().tolist() == own["slope"].tolist()
        assert line.get_xdata() == pytest.approx([2, 3, 5], rel=0.04)
        ends = np.array([each[:, 1] for each in segments.get_segments()])
        assert ends == pytest.approx(own[["low", "high"]].to_numpy())
        assert under.get_ydata().tolist() == own["robust"].tolist()
        assert under.get_xdata().tolist() == line.get_xdata().tolist()
        assert under.get_color() == line.get_color()
    assert upper.get_xscale() == lower.get_xscale() == "log"
    assert [text.get_text() for text in lower.get_xticklabels()] == ["2", "3", "5"]


def test_slope_lines_are_drawn_where_they_are_told():
    _, axes = plt.subplots(2, 2)
    cells = slopes(grid())
    assert slope_lines(cells, "width", ["classes"], axes=axes[:, 1]) is axes[0, 1].figure
    assert len(axes[0, 1].containers) == 3 and not axes[0, 0].containers
    labels = [text.get_text() for text in axes[0, 1].get_legend().get_texts()]
    assert labels == ["2 classes", "3 classes", "5 classes"]


@pytest.mark.parametrize(
    ("x", "changes"),
    [
        ("classes", {"widths": (8,), "numbers": (2,)}),
        ("width", {"without": {(8, 2), (32, 5)}}),
        ("classes", {"networks": ("mlp", "cnn"), "without": {(8, 2), (32, 5)}}),
        ("width", {"seeds": (0,)}),
    ],
)
def test_slope_lines_may_have_single_points_gaps_or_no_cell(x, changes):
    cells = slopes(grid(**changes))
    by = ["dataset", "network", "width" if x == "classes" else "classes"]
    figure = slope_lines(cells, x, by)
    figure.canvas.draw()
    points = sum(len(bars[0].get_xdata()) for bars in figure.axes[0].containers)
    assert points == len(cells)
    assert len(figure.axes[0].containers) == cells.groupby(by).ngroups


def test_a_heat_map_has_slopes_and_robust_accuracy_of_every_network():
    cells = slopes(grid(networks=("mlp", "cnn")))
    figure = heat_map(cells)
    figure.canvas.draw()
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in panels] == [
        f"{title}\n{network}, MNIST"
        for network in ("single-layer CNN", "single-layer MLP")
        for title in ("normalized slope", "robust accuracy", "$\\psi$ at $\\epsilon = 0$")
    ]
    wanted = cells[cells["network"] == "cnn"].pivot(
        index="width", columns="classes", values="slope"
    )
    np.testing.assert_allclose(panels[0].images[0].get_array(), wanted.to_numpy())
    assert [text.get_text() for text in panels[0].get_xticklabels()] == ["2", "3", "5"]
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["8", "32"]
    assert [text.get_text() for text in panels[1].texts] == ["0.61"] * 6


def test_a_heat_map_may_have_one_cell_or_gaps():
    for changes, numbers in (
        ({"widths": (8,), "numbers": (2,)}, 1),
        ({"without": {(8, 2), (32, 5)}}, 4),
    ):
        figure = heat_map(slopes(grid(**changes)))
        figure.canvas.draw()
        assert [len(ax.texts) for ax in figure.axes if ax.images] == [numbers] * 3


def test_names_in_figures_are_known_or_their_own():
    assert named("standard_cnn") == "standard CNN"
    assert named("photographs") == "photographs"


def test_a_scatter_has_every_cell_at_its_robustness_and_change():
    cells = slopes(grid(networks=("mlp", "standard_mlp")))
    (ax,) = robust_scatter(cells).axes
    points = [line for line in ax.lines if line.get_marker() in "os^" and len(line.get_xdata())]
    assert len(points) == len(cells)
    expected = {
        (
            round((own.robust - 1 / own.classes) / (1 - 1 / own.classes), 9),
            round(0.3 * own.slope, 9),
        )
        for own in cells.itertuples()
    }
    assert {
        (round(float(x), 9), round(float(y), 9))
        for line in points for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    } == expected  # fmt: skip
    open_ones = [line for line in points if line.get_markerfacecolor() == "white"]
    assert len(open_ones) == (cells["network"] == "standard_mlp").sum()
    robust_scatter(cells.iloc[:0])


def test_psi_is_that_of_networks_trained_without_attacks_layers_weighted():
    # F at epsilon 0 is 10, of 8 neurons in either layer, and 20 in the second one.
    layers = (("relu1", 300), ("relu2", 100))
    own = record(
        lambda epsilon, seed, kind, layer: 10 * layer * (1 + (seed + 1) * epsilon), layers=layers
    )
    (row,) = slopes(table(own)).to_dict("records")
    assert row["psi"] == pytest.approx((300 * 10 / 8 + 100 * 20 / 8) / 400)
    assert (row["reach"], row["robust"]) == (max(EPSILONS), pytest.approx(0.5))
