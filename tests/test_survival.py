"""Conclusions under other choices, and without networks whose adversarial training failed."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from test_hypotheses import ERROR, RANK, SPREAD, Z, cells, single
from test_robustness import other, record, table

from superpos.robustness import above_chance, only_accurate, slopes
from superpos.survival import explained, robust_survival, shown, survival, with_robustness

pytestmark = pytest.mark.filterwarnings("error")


def test_survival_has_a_row_for_every_way_range_and_kind():
    # Attacked inputs have 0.4 more, another l1 twice the slopes; width 128 has one way only.
    def features(slope):
        return lambda epsilon, seed, kind, _: (
            10 * (1 + (slope + SPREAD * (seed - 1) + 0.4 * (kind != "clean")) * epsilon)
        )

    records = []
    for width in (8, 32, 128):
        for classes in RANK:
            slope = 0.5 * np.log(width) - RANK[classes]
            cell = {"width": width, "classes": classes}
            records.append(record(features(slope), **cell))
            if width < 128:
                records.append(record(features(2 * slope), way=other(l1=0.3), **cell))
    own = table(*records)
    found = survival(own).set_index("variant")
    kinds = ["clean inputs only", "adversarial inputs only"]
    ranges = ["epsilon up to 0.1", "epsilon up to 0.2"]
    assert list(found.index) == ["usual", *ranges, *kinds, "l1 0.3"]
    assert found["cells"].tolist() == [8] * 6
    assert found["complexity"].tolist() == pytest.approx([-1] * 5 + [-2])
    assert found["capacity"].tolist() == pytest.approx([0.5] * 5 + [1])
    bases = {width: 0.5 * np.log(width) for width in (8, 32)}

    def rising(factor, shift):
        return sum(factor * (base - rank) + shift > 0 for base in bases.values() for rank in (1, 2))

    expected = [rising(1, 0.2)] * 3 + [rising(1, 0), rising(1, 0.4), rising(2, 0.2)]
    assert found["rising"].tolist() == expected
    half = Z * ERROR / np.sqrt(5) / np.sqrt(2)
    usual = found.loc["usual"]
    assert (usual["complexity_low"], usual["complexity_high"]) == pytest.approx(
        (-1 - half, -1 + half)
    )
    half = Z * ERROR / (np.log(4) / np.sqrt(2)) / np.sqrt(4)
    assert (usual["capacity_low"], usual["capacity_high"]) == pytest.approx(
        (0.5 - half, 0.5 + half)
    )
    pd.testing.assert_frame_equal(
        survival(own.sample(frac=1, random_state=0)).set_index("variant"), found
    )


def test_ranges_of_epsilon_change_what_bends():
    # Up to 0.1 F grows by 2 per epsilon, then it falls: 1, 1.2, 1.1, 1.0. Deviations of epsilon
    # from its mean, -0.15 to 0.15, times F make -0.005, over 0.05; up to 0.2 0.01 over 0.02.
    bend = {0.0: 1, 0.1: 1.2, 0.2: 1.1, 0.3: 1.0}

    def features(epsilon, seed, *_):
        return 10 * (bend[epsilon] + SPREAD * (seed - 1) * epsilon)

    own = table(*(record(features, way=way) for way in (other(), other(l1=0.3))))
    found = survival(own).set_index("variant")
    assert found.loc["epsilon up to 0.1", "rising"] == found.loc["epsilon up to 0.2", "rising"] == 1
    assert found.loc["usual", "rising"] == 0
    assert found["complexity"].isna().all() and found["capacity_low"].isna().all()


def test_survival_compares_the_same_cells_in_every_way():
    records = single()
    records += single(way=other(l1=0.3))
    records += single(widths=(8,), way=other(expansion=8.0))
    found = survival(table(*records, *single(widths=(128,)))).set_index("variant")
    assert found["cells"].tolist() == [4] * len(found)


def test_survival_is_shown_with_a_star_where_an_interval_lacks_zero():
    variants = pd.DataFrame(
        {
            "variant": ["usual", "l1 0.3", "topk"], "cells": [8, 8, 8],
            "rising": [3, 0, 8], "falling": [1, 0, 0],
            "complexity": [-1.0, 0.5, -0.5], "complexity_low": [-1.5, 0.25, -1.5],
            "complexity_high": [-0.5, 0.75, 0.5], "capacity": [0.5, np.nan, 0.0],
            "capacity_low": [-0.5, np.nan, -1.0], "capacity_high": [1.5, np.nan, 1.0],
        }
    )  # fmt: skip
    assert shown(variants).to_dict("records") == [
        {
            "variant": "usual", "rise / fall": "3 / 1 of 8", "complexity": "-1.00 [-1.50, -0.50] *",
            "capacity": "+0.50 [-0.50, +1.50]",
        },
        {
            "variant": "l1 0.3", "rise / fall": "0 / 0 of 8",
            "complexity": "+0.50 [+0.25, +0.75] *", "capacity": "-",
        },
        {
            "variant": "topk", "rise / fall": "8 / 0 of 8",
            "complexity": "-0.50 [-1.50, +0.50]", "capacity": "+0.00 [-1.00, +1.00]",
        },
    ]  # fmt: skip


@pytest.mark.parametrize("agreeing", [("usual",), ("usual", "other")])
def test_survival_without_errors_is_shown_too(agreeing):
    def features(name):
        spread = 0.0 if name in agreeing else SPREAD
        return lambda epsilon, seed, *_: 10 * (1 + (0.5 + spread * (seed - 1)) * epsilon)

    ways = {"usual": other(), "other": other(l1=0.3)}
    own = table(*(record(features(name), way=way) for name, way in ways.items()))
    found = shown(survival(own)).set_index("variant")
    assert found.loc["usual", "rise / fall"] == "-"
    expected = "-" if "other" in agreeing else "1 / 0 of 1"
    assert found.loc["l1 0.3", "rise / fall"] == expected


def test_nothing_varied_has_no_survival():
    assert survival(table(*single(widths=(8,)))).empty
    assert survival(pd.DataFrame()).empty


# Failed training


def test_accuracy_above_chance_is_zero_for_guessing_and_one_for_no_errors():
    found = above_chance(pd.Series([0.5, 1.0, 0.1, 0.55]), pd.Series([2, 2, 10, 10]))
    assert found.tolist() == pytest.approx([0, 1, 0, 0.5])


def failing(last, *, classes=2, width=8, slope=1.0, dataset="mnist"):
    """F rises by `slope` per epsilon, and collapses at the last with the robust accuracy `last`."""

    def features(epsilon, seed, *_):
        return 10 * (1 + (slope + SPREAD * (seed - 1)) * epsilon) * (0.2 if epsilon > 0.25 else 1)

    return record(
        features, classes=classes, width=width, dataset=dataset,
        robust=lambda epsilon, _: last if epsilon > 0.25 else 0.9,
    )  # fmt: skip


def test_epsilons_whose_networks_failed_are_left_out():
    own = table(failing(0.6), failing(0.8, classes=3))
    kept = only_accurate(own)  # 0.6 of two classes is 0.2 above chance, 0.8 of three 0.7
    assert sorted(kept.loc[kept["classes"] == 2, "epsilon"].unique()) == [0, 0.1, 0.2]
    assert len(kept[kept["classes"] == 3]) == len(own[own["classes"] == 3])
    assert only_accurate(own, 0.95).empty
    assert len(only_accurate(own, 0.0)) == len(own)
    assert only_accurate(own.iloc[:0]).empty


def test_one_failed_seed_does_not_leave_out_an_epsilon_that_others_carry():
    lone = record(
        lambda epsilon, *_: 1 + epsilon, robust=lambda epsilon, seed: 0.5 if seed == 0 else 0.95
    )
    assert len(only_accurate(table(lone))) == len(table(lone))  # the mean is 0.8, 0.6 above chance


def test_a_fall_that_is_failed_training_goes_away_with_it():
    own = table(
        *(failing(0.5, width=w, classes=k) for w in (8, 32) for k in (2, 3)),
        *(failing(0.5, width=w, dataset="fashion_mnist", slope=0.5) for w in (8, 32)),
    )
    found = robust_survival(own, (0.5,)).set_index("variant")
    ranges, kinds = ["epsilon <= 0.1", "epsilon <= 0.2"], ["clean inputs", "adversarial inputs"]
    assert list(found.index) == ["all", *ranges, *kinds, "clean >= 0.5", "robust >= 0.5"]
    assert found.loc[kinds, "falling"].tolist() == [6, 6]
    whole, robust = found.iloc[0], found.iloc[-1]
    assert found.loc[ranges, "rising"].tolist() == [6, 6]  # the same, and for all cells alike
    assert found.loc["clean >= 0.5", "falling"] == 6  # clean accuracy tells nothing here
    assert (whole["rising"], whole["falling"], whole["cells"]) == (0, 6, 6)
    assert (robust["rising"], robust["falling"], robust["cells"]) == (6, 0, 6)
    assert robust["capacity"] == pytest.approx(0, abs=1e-9)
    assert np.isnan(robust["difficulty"])  # two pairs are too few
    nothing = shown(robust_survival(own.iloc[:0]))
    assert nothing["rise / fall"].tolist() == ["-"]


def test_the_difference_of_data_sets_stands_beside_it():
    records = [
        failing(0.9, width=w, dataset=d, slope=2.0 + 0.1 * w - (d != "mnist"))
        for w in (8, 16, 32) for d in ("mnist", "fashion_mnist")
    ]  # fmt: skip
    records[-1] = failing(0.9, width=32, dataset="fashion_mnist", slope=4.0)
    found = robust_survival(table(*records), ()).iloc[0]
    by = slopes(table(*records)).pivot(index="width", columns="dataset", values="slope")
    test = scipy.stats.ttest_rel(by["fashion_mnist"], by["mnist"])
    low, high = test.confidence_interval()
    mean = (by["fashion_mnist"] - by["mnist"]).mean()
    assert [found[f"difficulty{end}"] for end in ("", "_low", "_high")] == pytest.approx(
        [mean, low, high]
    )
    assert "difficulty" in shown(robust_survival(table(*records), ()))


def test_clean_accuracy_can_be_what_counts():
    own = table(failing(0.9), failing(0.9, classes=3))
    own.loc[(own["epsilon"] == 0.3) & (own["classes"] == 2), "accuracy"] = 0.5
    kept = only_accurate(own, 0.5, "accuracy")
    assert kept.groupby("classes")["epsilon"].max().to_dict() == {2: 0.2, 3: 0.3}
    assert len(only_accurate(own)) == len(own)


def grid(slope):
    """Cells of twelve tasks whose slope is a function of task and robust accuracy above chance."""
    rng = np.random.default_rng(0)
    rows, accuracies = [], []
    for dataset in ("mnist", "fashion_mnist"):
        for width in (8, 32):
            for classes in (2, 3, 10):
                robust = rng.uniform()
                value = slope(dataset, width, classes, robust)
                rows.append((dataset, "mlp", width, classes, value, 0.1))
                accuracies.append(robust * (1 - 1 / classes) + 1 / classes)
    return cells(*rows).assign(robust=accuracies, clean=1.0, reach=0.3)


def test_slopes_that_are_robustness_are_explained_by_it_and_not_by_the_task():
    own = grid(lambda dataset, width, classes, robust: 3 * robust - 1)
    found = explained(own).set_index("model")
    assert found.loc["robust accuracy", ["r2", "new_task", "terms"]].tolist() == pytest.approx(
        [1, 1, 1]
    )
    assert found.loc["task", "new_task"] < 0.5
    assert found.loc["task and robust accuracy", "r2"] == pytest.approx(1)
    assert found.loc["clean accuracy", "r2"] == pytest.approx(0)
    assert with_robustness(own)[:3] == pytest.approx((1, 1, 1))


def test_slopes_that_are_the_task_are_explained_by_it():
    own = grid(lambda dataset, width, classes, _: np.log(width) - 2 * (dataset == "mnist"))
    found = explained(own).set_index("model")
    assert found.loc["task", ["r2", "new_task", "terms"]].tolist() == pytest.approx([1, 1, 3])
    assert found.loc["robust accuracy", "r2"] < 0.5
    value, low, high = with_robustness(own)[:3]
    assert low < 0 < high and abs(value) < 0.7


def test_a_new_task_is_predicted_from_all_others():
    own = grid(lambda dataset, width, classes, robust: robust**2 + 0.01 * classes)
    x = above_chance(own["robust"], own["classes"]).to_numpy()
    y = 0.3 * own["slope"].to_numpy()
    errors = np.zeros(len(y))
    for task in own.groupby(["dataset", "classes"]).indices.values():
        kept = np.setdiff1d(np.arange(len(y)), task)
        errors[task] = y[task] - np.polyval(np.polyfit(x[kept], y[kept], 1), x[task])
    expected = 1 - (errors**2).sum() / ((y - y.mean()) ** 2).sum()
    found = explained(own).set_index("model").loc["robust accuracy", "new_task"]
    assert found == pytest.approx(expected)


def test_what_counts_is_the_change_up_to_the_largest_epsilon():
    own = grid(lambda dataset, width, classes, robust: robust)
    scaled = own.assign(reach=0.03, slope=10 * own["slope"])
    mixed = pd.concat([own.iloc[::2], scaled.iloc[1::2]]).sort_index()
    pd.testing.assert_frame_equal(explained(mixed), explained(own))
    assert with_robustness(mixed) == with_robustness(own)


def test_cells_of_one_task_are_drawn_together():
    own = grid(lambda dataset, width, classes, robust: robust + 0.3 * (classes == 2))
    twice = pd.concat([own, own], ignore_index=True)
    assert with_robustness(twice)[:3] == pytest.approx(with_robustness(own)[:3])


def test_few_cells_or_tasks_explain_nothing():
    own = grid(lambda dataset, width, classes, robust: robust)
    assert explained(own.head(9)).empty
    one = pd.concat([own[own["classes"] == 2]] * 3, ignore_index=True)
    assert explained(one).empty
    assert with_robustness(own.head(3)) is None
    assert with_robustness(own.assign(slope=1.0)) is None
    assert with_robustness(one[one["dataset"] == "mnist"]) is None
