"""H1 to H3 on cells whose slopes are planted: values in closed form, and what is left out."""

import gc

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from test_robustness import EPSILONS, SEEDS, other, record, shuffled, table, without

from superpos.experiments import adversarial
from superpos.hypotheses import (
    capacity,
    claimed,
    complexity,
    difficulty,
    filled,
    lines,
    pairs,
    reduction,
    summary,
    together,
    with_errors,
)
from superpos.image_networks import RESNET
from superpos.ledger import load_ledger
from superpos.robustness import CELL, slopes
from superpos.store import frame

pytestmark = pytest.mark.filterwarnings("error")

Z = scipy.stats.norm.ppf(0.975)
SPREAD = 0.01  # of slopes between seeds: -SPREAD, 0, SPREAD
ERROR = SPREAD / np.sqrt(3)  # of their mean
RANK = {2: 1, 3: 2, 5: 3, 10: 4}
WIDTHS = (8, 32, 128, 512)
LAYERS = (("relu1", 300), ("relu2", 100))


def cells(*rows, df=2):
    """Cells of slopes and errors after (dataset, network, width, classes)."""
    return pd.DataFrame(rows, columns=[*CELL, "slope", "se"]).assign(df=df)


def planted(slope):
    """F along lines whose slopes differ between seeds by as much for every cell."""
    return lambda epsilon, seed, *_: 10 * (1 + (slope + SPREAD * (seed - 1)) * epsilon)


def slope_of(dataset, width, classes):
    """0.5 per ln width, -1 per rank of classes, Fashion-MNIST 0.2 per class below MNIST."""
    harder = -0.2 * classes if dataset == "fashion_mnist" else 0
    return 0.5 * np.log(width) - RANK[classes] + harder


def single(dataset="mnist", widths=(8, 32), **changes):
    return [
        record(
            planted(slope_of(dataset, width, classes)), dataset=dataset, width=width,
            classes=classes, **changes,
        )
        for width in widths for classes in RANK
    ]  # fmt: skip


def standard(datasets=("mnist", "fashion_mnist")):
    return [
        record(
            planted(slope_of(dataset, width, classes)), dataset=dataset, network=network,
            width=width, classes=classes, layers=LAYERS,
        )
        for dataset in datasets for classes in RANK
        for network, width in (("standard_mlp", 32), ("standard_cnn", 16))
    ]  # fmt: skip


SITES = (
    "stem.relu", "layer1.0.relu1", "layer1.1.relu2", "layer2.0.relu1", "layer4.0.relu2",
    "layer4.1.relu1",
)  # fmt: skip
"""Some of ResNet-18's."""


def resnets(ends, widths=(16, 64, 128)):
    """ResNets whose every site has F over F at epsilon 0 by `ends` at epsilon 0.03."""

    def features(width):
        def of(epsilon, seed, kind, layer):
            end = ends(SITES[layer - 1], kind, width) + 0.03 * SPREAD * (seed - 1)
            return 10 * (1 + (end - 1) * epsilon / 0.03)

        return of

    return [
        record(
            features(width), dataset="cifar10", network=RESNET, width=width, classes=10,
            epsilons=(0.0, 0.01, 0.02, 0.03), layers=[(site, 50) for site in SITES],
        )
        for width in widths
    ]  # fmt: skip


def staged(site, kind, width):
    """Falls to 0.7 in front, rises to 2.8 at the end; 31 per ln width on average over layers."""
    if width != 64:
        return 1 + 0.03 * 31 * np.log(width / 64)
    return 0.7 if site.startswith(("stem", "layer1")) else 2.8 if "layer4" in site else 1.0


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """Corrections for many tests collect garbage each time, which is fast without old objects."""
    gc.freeze()
    yield
    gc.unfreeze()


# Lines


def test_a_line_worked_by_hand():
    # Errors pooled: variances 0.03, 0.12 and 0.27 are 0.14 on average; over 3 seeds, its root.
    # Slopes 1, 2, 6 at 0, 1, 2: 2.5, residuals 0.5, -1, 0.5 of one degree of freedom.
    own = cells(
        ("mnist", "mlp", 8, 2, 1.0, 0.1),
        ("mnist", "mlp", 8, 3, 2.0, 0.2),
        ("mnist", "mlp", 8, 5, 6.0, 0.3),
    )
    place = pd.Series([0.0, 1.0, 2.0])
    (row,) = lines(own, ["network", "width"], place).to_dict("records")
    assert (row["network"], row["width"], row["cells"]) == ("mlp", 8, 3)
    error = np.sqrt(0.14 / 3)
    assert (row["value"], row["se"]) == pytest.approx((2.5, error / np.sqrt(2)))
    assert row["residual_se"] == pytest.approx(np.sqrt(1.5 / 2))
    assert row["r2"] == pytest.approx(1 - 1.5 / 14)
    (slope, _), covariance = np.polyfit([0, 1, 2], own["slope"], 1, w=1 / own["se"], cov="unscaled")
    assert (row["paper"], row["paper_se"]) == pytest.approx((slope, covariance[0, 0] ** 0.5))


def test_the_place_of_a_cell_is_its_own_whatever_the_order():
    own = cells(*(("mnist", "mlp", w, k, 3.0 * w + k, 0.1) for w in (1, 2, 4) for k in (2, 3)))
    x = own["width"].astype(float)
    for seed in range(3):
        mixed = own.sample(frac=1, random_state=seed)
        found = lines(mixed, ["network", "classes"], x)
        assert found[["classes", "cells"]].to_numpy().tolist() == [[2, 3], [3, 3]]
        assert found["value"].tolist() == pytest.approx([3, 3])


def test_seeds_that_are_missing_weigh_less_in_pooled_errors():
    # Variances 0.01 * 3 with two degrees of freedom and 0.04 * 2 with one: (0.06 + 0.08) / 3.
    own = cells(("mnist", "mlp", 8, 2, 1.0, 0.1), ("mnist", "mlp", 8, 3, 4.0, 0.2))
    own["df"] = [2, 1]
    variance = 0.14 / 3
    assert with_errors(own)["freedom"].tolist() == [3, 3]
    found = lines(own, ["network", "width"], pd.Series([1.0, 3.0])).iloc[0]
    assert found["value"] == pytest.approx(1.5)
    assert found["se"] == pytest.approx(np.sqrt(variance / 3 + variance / 2) / 2)
    assert np.isnan(found["residual_se"])


@pytest.mark.parametrize(
    ("kept", "change"),
    [([0], {}), ([0, 0], {}), ([0, 1], {"se": 0.0}), ([], {})],
)
def test_groups_without_two_places_or_with_seeds_that_agree_have_no_line(kept, change):
    own = cells(("mnist", "mlp", 8, 2, 1.0, 0.1), ("mnist", "mlp", 32, 2, 2.0, 0.1))
    own = own.iloc[kept].reset_index(drop=True).assign(**change)
    for found in (capacity(own), complexity(own), lines(own, ["network"], own["width"])):
        assert len(found) == 0
        assert {"value", "se", "residual_se", "r2", "paper", "paper_se"} <= set(found.columns)
        assert together(found) is None


def test_classes_count_by_their_rank_among_all_cells():
    own = slopes(table(*single("digits", (8,)), *standard()))
    found = complexity(own)
    assert len(found) == 4
    assert set(found["network"]) == {"standard_mlp", "standard_cnn"}
    by = found.set_index(["dataset", "network"])
    assert by.loc["mnist", "value"].tolist() == pytest.approx([-1, -1])
    assert by["cells"].tolist() == [4] * 4
    assert by["se"].tolist() == pytest.approx([ERROR / np.sqrt(5)] * 4)
    fashion = np.polyfit([1, 2, 3, 4], [-1 - 0.4, -2 - 0.6, -3 - 1.0, -4 - 2.0], 1)[0]
    assert by.loc["fashion_mnist", "value"].tolist() == pytest.approx([fashion] * 2)
    narrower = own[(own["network"] == "mlp") | ~own["classes"].isin([3])]
    kept = complexity(narrower).set_index(["dataset", "network"])
    assert kept.loc["mnist", "value"].tolist() == pytest.approx([-1, -1])
    assert kept["se"].tolist() == pytest.approx([ERROR / np.sqrt(14 / 3)] * 4)  # at 1, 3 and 4
    without_threes = own[~own["classes"].isin([3])]  # now ranks 1, 2 and 3
    gone = complexity(without_threes).set_index(["dataset", "network"])
    assert gone.loc["mnist", "value"].tolist() == pytest.approx([-1.5, -1.5])
    assert complexity(own, ("mlp",))["value"].tolist() == pytest.approx([-1])


def test_capacity_is_the_logarithm_of_width():
    own = slopes(table(*single(widths=(8, 32, 128)), *single("digits", (8,)), *standard()))
    found = capacity(own)
    assert found["classes"].tolist() == [2, 3, 5, 10]
    assert set(found["dataset"]) == {"mnist"}
    assert set(found["network"]) == {"mlp"}
    assert found["value"].tolist() == pytest.approx([0.5] * 4)
    assert found["paper"].tolist() == pytest.approx([0.5] * 4)
    spread = 2 * np.log(4) ** 2
    assert found["se"].tolist() == pytest.approx([ERROR / np.sqrt(spread)] * 4)
    assert capacity(own, (RESNET,)).empty


def test_groups_are_combined_by_their_errors():
    groups = pd.DataFrame({"value": [1, 2], "se": [1, 1], "paper": [1, 4], "paper_se": [1, 2]})
    found = together(groups)
    assert (found.value, found.se, found.model) == (1.5, pytest.approx(0.5**0.5), "fixed")
    paper = together(groups, "paper", "paper_se")
    assert (paper.value, paper.se) == pytest.approx(((1 + 4 / 4) / 1.25, 1.25**-0.5))


# H1


def test_reduction_pools_errors_over_classes_and_corrects_by_holm():
    # A: variances 3 * 0.09, 3 * 0.01 and 3 * 0.05 are 0.15 on average, whose error is that of
    # 0.05 with six degrees of freedom. B: 0.04, with two.
    own = cells(
        ("mnist", "mlp", 8, 2, 1.2, 0.3), ("mnist", "mlp", 8, 3, -1.5, 0.1),
        ("mnist", "mlp", 8, 10, 0.4, 0.05**0.5), ("mnist", "cnn", 8, 2, 0.7, 0.2),
    )  # fmt: skip
    found = reduction(own)
    small = 0.05**0.5
    t = np.array([0.7 / 0.2, 1.2 / small, -1.5 / small, 0.4 / small])
    p = scipy.stats.t.sf(t, [2, 6, 6, 6])
    rising, corrected, *_ = multipletests(p, method="holm")
    falling = multipletests(1 - p, method="holm")[0]
    assert (found.rising, found.falling) == (rising.sum(), falling.sum()) == (1, 1)
    assert found.neither == 2 and found.rejected
    assert found.smallest_p == pytest.approx(corrected.min())
    assert sorted(found.cohens_d) == pytest.approx(sorted(t / np.sqrt(3)))
    mixed = reduction(own.sample(frac=1, random_state=0))
    assert mixed[:5] == pytest.approx(found[:5])


def test_cells_whose_seeds_all_agree_are_not_tested():
    own = cells(("mnist", "mlp", 8, 2, 1.0, 0.0), ("mnist", "cnn", 8, 2, 1.0, 0.01))
    assert len(reduction(own).cohens_d) == 1
    assert reduction(own[own["network"] == "mlp"]) is None
    assert reduction(own.iloc[:0]) is None


def test_one_agreeing_cell_borrows_the_error_of_its_network():
    own = cells(("mnist", "mlp", 8, 2, 1.0, 0.0), ("mnist", "mlp", 8, 3, 1.0, 0.2))
    assert reduction(own).cohens_d == pytest.approx([1 / (0.2 * 0.5**0.5) / 3**0.5] * 2)


# Pairs of data sets


def test_pairs_are_cells_that_both_data_sets_have():
    own = cells(
        ("mnist", "mlp", 8, 2, 1.0, 0.1), ("mnist", "mlp", 8, 3, 2.0, 0.2),
        ("fashion_mnist", "mlp", 8, 3, 5.0, 0.3), ("fashion_mnist", "mlp", 32, 2, 6.0, 0.4),
        ("digits", "mlp", 8, 3, 7.0, 0.5),
    )  # fmt: skip
    (row,) = pairs(own).to_dict("records")
    assert row == {
        "network": "mlp", "width": 8, "classes": 3, "slope_first": 5.0, "se_first": 0.3,
        "slope_second": 2.0, "se_second": 0.2,
    }  # fmt: skip
    (row,) = pairs(own, "digits", "fashion_mnist").to_dict("records")
    assert (row["slope_first"], row["slope_second"]) == (7.0, 5.0)
    assert pairs(own, "cifar10").empty


def test_difficulty_is_a_paired_test_over_shared_cells():
    own = slopes(table(*standard()))
    found = difficulty(own)
    by = own.set_index(CELL)["slope"].sort_index()
    test = scipy.stats.ttest_rel(by["fashion_mnist"], by["mnist"])
    assert (found.t, found.p, found.df) == pytest.approx((test.statistic, test.pvalue, 7))
    assert found.mean == pytest.approx(-0.2 * (2 + 3 + 5 + 10) / 4)
    assert found.weighted == pytest.approx(-1)
    assert found.weighted_se == pytest.approx(ERROR * np.sqrt(2 / 8))
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))


def test_fewer_than_three_pairs_or_one_difference_tell_no_difficulty():
    own = slopes(table(*standard()))
    assert difficulty(own[own["classes"] == 10]) is None
    assert difficulty(own[own["dataset"] == "mnist"]) is None
    fashion = own["dataset"] == "fashion_mnist"
    assert difficulty(own.assign(slope=np.where(fashion, 1.0, 2.0))) is None


@pytest.mark.parametrize("classes", [(10,), tuple(RANK)])
def test_the_paired_test_does_not_need_seeds_that_differ(classes):
    own = slopes(table(*standard()))
    agreeing = own.assign(se=own["se"].mask(own["classes"].isin(classes), 0.0))
    assert difficulty(agreeing)[:8] == pytest.approx(difficulty(own)[:8])


# In words


def test_the_summary_says_what_the_tests_found():
    own = slopes(table(*single(), *single("fashion_mnist", (8,)), *standard()))
    found = summary(own).set_index("hypothesis")
    names = [
        "H1, rising / falling", "H2, standard", "H2, single-layer",
        "H3", "Fashion, standard", "Fashion, single-layer",
    ]  # fmt: skip
    assert list(found.index) == names
    rising, falling = sum(own["slope"] > 0.03), sum(own["slope"] < -0.03)
    assert rising + falling == 27  # one of 28 is as good as flat
    assert found.loc[names[0], "here"] == f"{rising} / {falling} of 28"
    fashion = np.polyfit([1, 2, 3, 4], [-1 - 0.4, -2 - 0.6, -3 - 1.0, -4 - 2.0], 1)[0]
    both = together(complexity(own))
    half = scipy.stats.t.ppf(0.975, 3) * both.random_se
    middle = (-1 + fashion) / 2
    assert (
        found.loc[names[1], "here"] == f"{middle:+.2f} [{middle - half:+.2f}, {middle + half:+.2f}]"
    )
    assert found.loc[names[1], "test"] == f"Q(3) = {both.q:.1f}"
    flat = found.loc[names[3]]
    assert flat["test"] == "Q(3) = 0.0"
    assert flat["paper's rules"] == "+0.50 +- 0.00"
    for name, times in ((names[4], 2), (names[5], 1)):
        test = scipy.stats.ttest_1samp([-0.4, -0.6, -1.0, -2.0] * times, 0)
        d = test.statistic / np.sqrt(4 * times)
        low, high = test.confidence_interval()
        assert found.loc[name, "here"] == f"-1.00 [{low:+.2f}, {high:+.2f}]"
        assert found.loc[name, "test"] == f"t({test.df}) = {test.statistic:.1f}, d = {d:.1f}"
        theirs = f"-1.00 +- {ERROR / np.sqrt(2 * times):.2f}"
        assert found.loc[name, "paper's rules"] == theirs


def test_widths_have_errors_of_their_own_and_share_them_over_classes():
    # Width 8: variances 0.03 and 0.05, so 0.04 for both; width 32: 1 and 2, so 1.5.
    own = cells(
        *(
            ("mnist", "mlp", width, classes, 1.0, (variance / 3) ** 0.5)
            for width, variances in ((8, (0.03, 0.05)), (32, (1.0, 2.0)))
            for classes, variance in zip((2, 10), variances, strict=True)
        )
    )
    found = with_errors(own).set_index("width")["error"]
    assert found.loc[8].tolist() == pytest.approx([(0.04 / 3) ** 0.5] * 2)
    assert found.loc[32].tolist() == pytest.approx([(1.5 / 3) ** 0.5] * 2)
    assert list(capacity(own)["se"]) == pytest.approx([(1.54 / 3) ** 0.5 / np.log(4)] * 2)


def test_the_summary_has_the_line_by_the_papers_rules_too():
    # Through 1, 2 and 6 at ranks 1 to 3, with weights of 100, 25 and 100 / 9.
    own = cells(
        ("mnist", "mlp", 8, 2, 1.0, 0.1),
        ("mnist", "mlp", 8, 3, 2.0, 0.2),
        ("mnist", "mlp", 8, 5, 6.0, 0.3),
    )
    row = summary(own).set_index("hypothesis").loc["H2, single-layer"]
    (slope, _), covariance = np.polyfit([1, 2, 3], own["slope"], 1, w=1 / own["se"], cov="unscaled")
    assert row["paper's rules"] == f"{slope:+.2f} +- {covariance[0, 0] ** 0.5:.2f}"
    # Residuals 0.5, -1, 0.5 of one degree of freedom, wider than what the seeds' scatter gives.
    half = scipy.stats.t.ppf(0.975, 1) * np.sqrt(1.5 / 2)
    assert row["here"] == f"+2.50 [{2.5 - half:+.2f}, {2.5 + half:+.2f}]"


def test_the_summary_leaves_out_what_was_not_run():
    found = summary(slopes(table(*single())))["hypothesis"].tolist()
    assert found == ["H1, rising / falling", "H2, single-layer", "H3"]
    empty = summary(cells())
    assert empty.empty and {"hypothesis", "paper", "here", "test"} <= set(empty.columns)


# What of a grid is there


def test_filled_counts_cells_of_the_grid():
    grid = adversarial.conditions(
        adversarial.Settings(
            datasets=("mnist", "digits"), cnn_datasets=("mnist",), mlp=(8, 32), cnn=(8,),
            classes=(2, 3), compared=(8,), other_l1=(0.3,),
        )
    )  # fmt: skip
    done = [
        record(planted(1), width=8, classes=2), record(planted(1), width=8, classes=3),
        record(planted(1), width=32, classes=2), record(planted(1), dataset="digits", classes=3),
        record(planted(1), width=8, classes=2, way=other(l1=0.3)), record(planted(1), width=512),
    ]  # fmt: skip
    found = filled(grid, frame(done))
    assert list(found.columns) == [8, 32]
    assert found.to_dict("index") == {
        ("digits", "mlp"): {8: "1 of 2", 32: "0 of 2"},
        ("mnist", "cnn"): {8: "0 of 2", 32: ""},
        ("mnist", "mlp"): {8: "2 of 2", 32: "1 of 2"},
    }


# Other ways of fitting


# Claims


def everything():
    """Cells of every claim; in one of three classes F goes up and down."""

    def hump(epsilon, seed, *_):
        return 10 * (
            (1, 1.5, 1.2, 0.9)[EPSILONS.index(epsilon)] + 0.1 * (seed - 1) * (epsilon == 0.1)
        )

    bumped = record(
        hump, dataset="digits", network="standard_cnn", width=16, classes=3, layers=LAYERS
    )
    easy = record(planted(0.0), dataset="fashion_mnist")
    return [*single(), *standard(), *resnets(staged), bumped, easy]


@pytest.fixture(scope="module")
def values():
    return claimed(table(*everything()))


def test_the_values_are_those_of_the_ledger(values):
    ledger = [claim.id for claim in load_ledger().values() if claim.section == "adversarial"]
    assert {f"adversarial.{name}" for name in values} == set(ledger)
    for estimate in values.values():
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.note


def test_planted_complexity_and_capacity_come_out():
    found = claimed(table(*single(widths=WIDTHS), *standard(("mnist",))))
    one, many = found["complexity_slope"], found["capacity_slope"]
    half = Z * ERROR / np.sqrt(5) / np.sqrt(2)  # ranks 1 to 4; two networks
    assert one[:3] == pytest.approx((-1, -1 - half, -1 + half))
    half = Z * ERROR / (np.log(4) * np.sqrt(5)) / np.sqrt(4)  # four tasks
    assert many[:3] == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert "random effects of 2; Q = 0.0" in one.note and "random effects of 4" in many.note


def test_planted_slopes_come_out_of_noise_of_their_own():
    draw = np.random.default_rng(0)

    def noisy(slope):
        return lambda epsilon, *_: 10 * (1 + slope * epsilon) + draw.normal(0, 0.02)

    records = [
        record(noisy(slope_of("mnist", width, classes)), network=network, width=width,
               classes=classes, layers=layers)
        for classes in RANK
        for network, widths, layers in (
            ("mlp", (8, 32, 128), (("relu1", 100),)), ("standard_mlp", (32,), LAYERS),
        )
        for width in widths
    ]  # fmt: skip
    found = claimed(table(*records))
    assert found["complexity_slope"].value == pytest.approx(-1, abs=0.02)
    assert found["capacity_slope"].value == pytest.approx(0.5, abs=0.02)


def test_groups_that_differ_are_combined_with_random_effects(values):
    # MNIST's two networks fall by 1 per rank, Fashion-MNIST's by as much more as planted.
    fashion = np.polyfit([1, 2, 3, 4], [-1 - 0.4, -2 - 0.6, -3 - 1.0, -4 - 2.0], 1)[0]
    assert values["complexity_slope"].value == pytest.approx((-1 + fashion) / 2)
    assert "random effects of 4" in values["complexity_slope"].note


def test_the_share_that_rises_has_wilsons_interval():
    found = claimed(table(*single(widths=WIDTHS)))["share_rising"]
    rising = sum(slope_of("mnist", width, classes) > 0 for width in WIDTHS for classes in RANK)
    assert rising == 7
    interval = proportion_confint(7, 16, method="wilson")
    assert found[:3] == pytest.approx((7 / 16, *interval))
    assert found.note.startswith("7 of 16 cells")


def test_fashion_is_compared_with_mnist_on_standard_networks(values):
    test = scipy.stats.ttest_1samp([-0.4, -0.6, -1.0, -2.0] * 2, 0)
    assert values["fashion_minus_mnist"][:3] == pytest.approx((-1, *test.confidence_interval()))
    assert values["fashion_minus_mnist"].note.startswith(f"t(7) = {test.statistic:.2f}, p = ")


def test_extremes_are_those_of_the_widest_and_of_the_strongest(values):
    # Two classes: the highest of width 32. Ten: the lowest at 0.3, of Fashion-MNIST at width 16.
    half = scipy.stats.t.ppf(0.975, 2) * 0.3 * ERROR
    peak = 1 + 0.3 * (0.5 * np.log(32) - 1)
    assert values["two_class_peak"][:3] == pytest.approx((peak, peak - half, peak + half))
    assert " 32, relu1, " in values["two_class_peak"].note
    assert values["two_class_peak"].note.endswith("epsilon 0.3")
    fall = 1 + 0.3 * (0.5 * np.log(16) - 4 - 2)
    assert values["ten_class_fall"][:3] == pytest.approx((fall, fall - half, fall + half))
    assert "fashion_mnist, standard_cnn 16" in values["ten_class_fall"].note


def test_a_peak_is_of_two_classes_in_the_widest_network_of_its_kind():
    records = [
        record(planted(slope), network=network, width=width, classes=classes)
        for network, width, classes, slope in (
            ("mlp", 8, 2, 9.0), ("mlp", 32, 2, 2.0), ("mlp", 32, 3, 8.0), ("cnn", 16, 2, 3.0),
            ("standard_mlp", 32, 2, 7.0),
        )
    ]  # fmt: skip
    assert claimed(table(*records))["two_class_peak"].value == pytest.approx(1.9)


def test_where_all_fall_the_peak_lies_below_one():
    assert claimed(table(record(planted(-1.0))))["two_class_peak"].value == pytest.approx(0.9)


def test_ten_classes_fall_at_the_largest_epsilon_of_their_data_set():
    curves = {"mnist": (1, 0.8, 0.4, 0.7), "cifar10": (1, 0.3, 0.9, 0.6)}

    def features(dataset, epsilons):
        return lambda epsilon, seed, *_: (
            10 * (curves[dataset][epsilons.index(epsilon)] + SPREAD * (seed - 1) * (epsilon > 0))
        )

    records = [
        record(features(dataset, epsilons), dataset=dataset, classes=10, epsilons=epsilons)
        for dataset, epsilons in (("mnist", EPSILONS), ("cifar10", (0.0, 0.01, 0.02, 0.03)))
    ]
    assert claimed(table(*records))["ten_class_fall"].value == pytest.approx(0.6)


def test_other_ways_of_fitting_enter_no_claim():
    records = [*single(), *standard(("mnist",))]
    varied = [record(planted(5.0), classes=k, way=other(l1=0.3)) for k in RANK]
    assert claimed(table(*records, *varied)) == claimed(table(*records))


def test_the_clearest_hump_of_three_classes_counts(values):
    # At 0.1: 1.4, 1.5 and 1.6, minus the larger end, 1.
    half = scipy.stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert values["inverted_u"][:3] == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert values["inverted_u"].note == "digits, standard_cnn; peak at 0.1"


def test_only_humps_of_three_classes_count():
    def bump(height):
        return lambda epsilon, seed, *_: (
            10 * ((1, 1 + height + 0.1 * (seed - 1), 1, 1)[EPSILONS.index(epsilon)])
        )

    records = [
        record(bump(height), network=network, classes=classes)
        for network, classes, height in (
            ("standard_mlp", 2, 3.0), ("standard_mlp", 3, 0.4), ("mlp", 3, 2.0),
        )
    ]  # fmt: skip
    assert claimed(table(*records))["inverted_u"].value == pytest.approx(0.4)


def test_resnets_of_most_classes_have_the_line():
    records = [
        record(planted(np.log(width) * classes), network=RESNET, width=width, classes=classes)
        for width in (16, 32) for classes in (2, 10)
    ]  # fmt: skip
    assert claimed(table(*records))["resnet_capacity"].value == pytest.approx(10)


def test_resnets_have_their_line_and_their_median_layers(values):
    x = np.log([16, 64, 128])
    at_64 = np.mean([(staged(site, "clean", 64) - 1) / 0.03 for site in SITES])
    y = [31 * np.log(width / 64) if width != 64 else at_64 for width in (16, 64, 128)]
    fit = scipy.stats.linregress(x, y)
    half = scipy.stats.t.ppf(0.975, 1) * fit.stderr  # wider than what the seeds' scatter gives
    expected = (fit.slope, fit.slope - half, fit.slope + half)
    assert values["resnet_capacity"][:3] == pytest.approx(expected)
    assert values["resnet_capacity"].note == f"R^2 = {fit.rvalue**2:.2f}"
    half = scipy.stats.t.ppf(0.975, 2) * 0.03 * ERROR
    for name, ratio, stages in (("early", 0.7, ("stem", "layer1")), ("late", 2.8, ("layer4",))):
        found = values[f"resnet_{name}"]
        assert found[:3] == pytest.approx((ratio, ratio - half, ratio + half))
        assert found.note.startswith("the median layer, ")
        assert found.note.removeprefix("the median layer, ").startswith(stages)


def test_the_median_layer_is_in_the_middle():
    def ends(site, kind, width):
        place = SITES.index(site) + 0.4 * (kind != "clean")
        return 1 + 0.1 * place

    found = claimed(table(*resnets(ends, (64,))))
    for name, stages in (("resnet_early", ("stem", "layer1")), ("resnet_late", ("layer4",))):
        sites = [site for site in SITES if site.startswith(stages)]
        ratios = sorted(ends(site, kind, 64) for site in sites for kind in ("clean", "attacked"))
        middle = ratios[len(sites) - 1 : len(sites) + 1]
        assert min(abs(found[name].value - each) for each in middle) < 1e-9
    assert "resnet_capacity" not in found


@pytest.mark.parametrize(
    ("records", "shuffles"), [(everything(), 1), (resnets(staged, (64,)), 4)], ids=["all", "resnet"]
)
def test_the_order_of_rows_does_not_matter(records, shuffles):
    draw = np.random.default_rng(0)
    for row in (row for each in records for row in each.rows):
        row["features"] = draw.uniform(5, 20)
    expected = claimed(table(*records))
    for seed in range(shuffles):
        found = claimed(shuffled(records, seed))
        assert {name: own.note for name, own in found.items()} == {
            name: own.note for name, own in expected.items()
        }
        for name, own in found.items():
            assert own[:3] == pytest.approx(expected[name][:3]), name


FAMILIES = {"single": single, "standard": standard, "resnet": lambda: resnets(staged)}
OF_SINGLE = {"capacity_slope", "two_class_peak"}
OF_STANDARD = {"complexity_slope", "fashion_minus_mnist", "inverted_u"}
OF_RESNETS = {"resnet_capacity", "resnet_early", "resnet_late"}


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        (["single"], {"share_rising", "ten_class_fall", *OF_SINGLE}),
        (["standard"], {"share_rising", "ten_class_fall", *OF_STANDARD}),
        (["resnet"], {"share_rising", *OF_RESNETS}),
        (["standard", "resnet"], {"share_rising", "ten_class_fall", *OF_STANDARD, *OF_RESNETS}),
        ([], set()),
    ],
)
def test_values_of_networks_that_were_not_run_are_left_out(families, expected):
    records = [each for name in families for each in FAMILIES[name]()]
    assert set(claimed(table(*records))) == expected


@pytest.mark.parametrize(
    ("missing", "gone"),
    [
        (lambda c: c["dataset"] == "mnist", {"fashion_minus_mnist"}),
        (lambda c: c["classes"] == 2, {"two_class_peak"}),
        (lambda c: c["classes"] == 3, {"inverted_u"}),
        (lambda c: c["classes"] == 10, {"ten_class_fall", "resnet_capacity"}),
        (lambda c: c["classes"] != 10, {"complexity_slope", "two_class_peak", "inverted_u"}),
        (lambda c: c["width"] == 64, {"resnet_early", "resnet_late"}),
    ],
)
def test_missing_cells_leave_their_values_out(missing, gone, values):
    kept = [each for each in everything() if not missing(each.condition["training"])]
    found = claimed(table(*kept))
    assert gone.isdisjoint(found)
    assert set(found) <= set(values)


def test_a_missing_width_of_a_task_leaves_the_other_tasks_lines():
    kept = [
        each for each in single()
        if each.condition["training"]["width"] == 8 or each.condition["training"]["classes"] < 5
    ]  # fmt: skip
    found = claimed(table(*kept))["capacity_slope"]
    assert found.value == pytest.approx(0.5)
    assert "random effects of 2;" in found.note


@pytest.mark.parametrize("slope", [0.5, 0.1])
def test_seeds_that_all_agree_leave_out_what_needs_their_error(slope):
    records = [
        record(lambda epsilon, *_, k=k, d=d: 10 * (1 + (slope - d * k) * epsilon), classes=k,
               dataset=dataset, network=network, width=width)
        for k in RANK for dataset, d in (("mnist", 0), ("fashion_mnist", 0.25))
        for network, width in (("mlp", 8), ("mlp", 32), ("standard_mlp", 32))
    ]  # fmt: skip
    found = claimed(table(*records))
    assert {"share_rising", "complexity_slope", "capacity_slope"}.isdisjoint(found)
    assert found["two_class_peak"][:3] == pytest.approx((1 + 0.3 * slope,) * 3)
    assert found["ten_class_fall"][:3] == pytest.approx((1 + 0.3 * (slope - 2.5),) * 3)


def test_one_seed_or_only_dead_networks_have_no_values():
    dead = [record(lambda *_: None, network=name) for name in ("mlp", "standard_mlp", RESNET)]
    assert claimed(table(*dead)) == {}
    assert claimed(table(*(record(planted(1), seeds=(0,), classes=k) for k in RANK))) == {}


def test_a_missing_seed_leaves_the_values_of_the_others():
    records = single() + standard(("mnist",))
    for each in records[::2]:
        each.rows[:] = [row for row in each.rows if row["seed"] != 1]
    found = claimed(table(*records))
    assert found["complexity_slope"].value == pytest.approx(-1)
    assert found["capacity_slope"].value == pytest.approx(0.5)


@settings(max_examples=10)
@given(draw=st.integers(0, 2**32 - 1), share=st.floats(0.05, 1))
def test_whatever_is_missing_the_rest_is_judged(draw, share):
    gone = np.random.default_rng(draw)

    def features(slope):
        return without(planted(slope), lambda *_: gone.random() < 0.3 * share)

    records = [
        record(features(slope_of(dataset, width, classes)), dataset=dataset, network=network,
               width=width, classes=classes, seeds=SEEDS[: gone.integers(1, 4)])
        for dataset in ("mnist", "fashion_mnist") for classes in (2, 10)
        for network, width in (("mlp", 8), ("mlp", 32), ("standard_mlp", 32))
        if gone.random() > share
    ]  # fmt: skip
    for own in claimed(table(*records)).values():
        assert own.low <= own.value <= own.high


def test_other_data_sets_than_the_papers_stand_in_for_them():
    def about(dataset):
        found = adversarial.estimates(frame(single(dataset)), adversarial.Settings())
        return {estimate.stand_in for estimate in found.values()}

    assert about("mnist") == about("fashion_mnist") == {""}
    assert about("digits") == {"digits in place of MNIST"}
    assert adversarial.estimates(frame([]), adversarial.Settings()) == {}
