"""Measuring whole networks: against the same steps by hand, on all kinds of data and models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from superpos import DeadCodesError, SAEConfig, fit, measure
from superpos import measurement as measurement_module
from superpos.activations import UnknownSite
from superpos.entropy import effective_features
from superpos.measurement import BLOCKS, CodeSums, features_interval
from superpos.networks import cnn, mlp

QUICK = SAEConfig(steps=150, rounds=2, starts=1, l1=0.02)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def quick(model, data, sites=None, **options):
    options = {"sae": QUICK, "seeds": 2, "device": "cpu", "progress": False} | options
    return measure(model, data, sites, **options)


def by_hand(rows, seeds=2):
    """F of every seed from one fit to all activations `[samples, neurons]`."""
    return fit(rows, QUICK, seeds=range(seeds)).features.tolist()


@pytest.fixture(scope="module")
def network():
    return mlp(6, (8, 5), 3, seed=0)


@pytest.fixture(scope="module")
def data():
    return 4 * uniform(400, 6)


@pytest.fixture(scope="module")
def report(network, data):
    return quick(network, data)


def test_every_activation_module_of_an_mlp_is_measured_as_by_hand(network, data, report):
    assert list(report) == ["relu1", "relu2"]
    with torch.no_grad():
        first = network.relu1(network.linear1(data))
        second = network.relu2(network.linear2(first))
    assert report["relu1"].by_seed == pytest.approx(by_hand(first), rel=1e-4)
    assert report["relu2"].by_seed == pytest.approx(by_hand(second), rel=1e-4)


def test_the_figures_of_a_site_follow_from_its_codes(network, data, report):
    with torch.no_grad():
        x = network.relu1(network.linear1(data))
    sae = fit(x, QUICK, seeds=range(2)).sae
    z = sae.encode(x).double()
    error = (sae.decode(sae.encode(x)) - x).square().sum((1, 2)).mean()
    site = report["relu1"]
    assert (site.neurons, site.samples) == (8, 400)
    assert site.features == pytest.approx(sum(site.by_seed) / 2)
    assert site.psi == pytest.approx(site.features / 8)
    assert site.mean_active == pytest.approx((z > 0).sum(-1).double().mean().item(), rel=1e-3)
    assert site.dead_share == pytest.approx((z.sum(1) == 0).double().mean().item())
    total = (x - x.mean(0)).square().sum()
    assert site.explained_variance == pytest.approx((1 - error / total).item(), abs=1e-4)
    block = torch.randint(BLOCKS, (400,), generator=torch.Generator().manual_seed(0))
    half = effective_features(z[:, block % 2 == 0].sum(1)).mean().item()
    assert site.half_change == pytest.approx(half / site.features - 1, abs=1e-4)


def test_hill_numbers_are_ordered_and_the_first_is_f(report):
    for site in report.values():
        values = [site.hill[order] for order in (0, 1, 2, math.inf)]
        assert values == sorted(values, reverse=True)
        assert values[1] == pytest.approx(site.features)


def test_the_interval_holds_the_mean_and_is_not_empty(report):
    for site in report.values():
        low, high = site.interval
        assert 1 <= low < site.features < high <= 4 * site.neurons


def test_positions_of_a_convolutional_site_are_samples():
    model, images = cnn(1, 8, 4, 3, seed=0), 4 * uniform(40, 1, 8, 8)
    outputs = []
    handle = model.relu1.register_forward_hook(lambda *args: outputs.append(args[2].detach()))
    model(images)
    handle.remove()
    site = quick(model, images)["relu1"]
    assert (site.neurons, site.samples) == (4, 40 * 64)
    rows = outputs[0].permute(0, 2, 3, 1).reshape(-1, 4)
    assert site.by_seed == pytest.approx(by_hand(rows), rel=1e-4)


def test_all_kinds_of_data_give_the_same_report(network, data, report):
    labels = torch.zeros(len(data))
    kinds = {
        "loader": DataLoader(TensorDataset(data, labels), batch_size=64),
        "list": list(data.split(100)),
        "tuples": [(part, "label") for part in data.split(150)],
        "generator": (part for part in data.split(70)),
    }
    for kind, batches in kinds.items():
        site = quick(network, batches, "relu1")["relu1"]
        assert site.by_seed == pytest.approx(report["relu1"].by_seed, rel=1e-3), kind
        assert site.samples == 400


def test_a_language_model_is_measured_on_mappings_of_inputs():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.table = nn.Parameter(torch.randn(11, 5, generator=generator))
            self.act = nn.ReLU()

        def forward(self, input_ids):
            return self.act(self.table[input_ids])

    generator = torch.Generator().manual_seed(0)
    batches = [{"input_ids": torch.randint(11, (8, 6), generator=generator)} for _ in range(4)]
    site = quick(Words(), batches)["act"]
    assert (site.neurons, site.samples) == (5, 4 * 8 * 6)


def test_features_come_from_all_the_data_though_the_fit_sees_a_sample(network, data):
    batches = list(data.split(64))
    site = quick(network, batches, "relu1", samples=100)["relu1"]
    assert site.samples == 400
    once = quick(network, iter(batches), "relu1", samples=100)["relu1"]
    assert once.samples == 100


def test_the_fitted_sample_is_bounded(network, data, monkeypatch):
    seen = []

    def watched(rows, *args, **options):
        seen.append(rows.shape)
        return fit(rows, *args, **options)

    monkeypatch.setattr(measurement_module, "fit", watched)
    quick(network, data, samples=100)
    assert seen == [(100, 8), (100, 5)]


def test_one_site_may_be_given_as_a_plain_name(network, data):
    assert list(quick(network, data, "relu2")) == ["relu2"]
    assert list(quick(network, data, ["linear2"])) == ["linear2"]


def test_a_wrong_site_is_answered_with_the_names(network, data):
    with pytest.raises(UnknownSite, match=r"Did you mean 'relu1'.*All sites: flatten, linear1"):
        quick(network, data, "relu_1")


def modes_of(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("sites", ["1", "nonsense"])
def test_modes_gradients_and_place_are_left_as_they_were_even_after_an_error(sites):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Dropout())
    model.train()
    model[2].eval()
    modes, weights = modes_of(model), {k: v.clone() for k, v in model.state_dict().items()}
    if sites == "nonsense":
        with pytest.raises(UnknownSite):
            quick(model, 4 * uniform(50, 4), sites)
    else:
        quick(model, 4 * uniform(50, 4), sites)
    assert modes_of(model) == modes
    assert all(p.device.type == "cpu" and p.grad is None for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])  # batch norm's running means too


def test_the_network_is_measured_in_evaluation_mode():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.9), nn.ReLU()).train()
    report = quick(model, 4 * uniform(200, 4), ["1", "3"])
    assert report["1"].by_seed == report["3"].by_seed


def test_the_same_call_gives_the_same_report_whatever_the_global_generator(network, data, report):
    torch.manual_seed(123)
    again = quick(network, data)
    assert again["relu1"] == report["relu1"]


def test_a_dead_site_is_named():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    nn.init.constant_(model[0].bias, -100.0)
    with pytest.raises(DeadCodesError, match="at site '1' every code is zero"):
        quick(model, uniform(50, 4))


def test_a_penalty_that_kills_every_code_is_named():
    model = nn.Sequential(nn.ReLU())
    with pytest.raises(DeadCodesError, match=r"at site '0' .* Lower l1"):
        quick(model, 1e-3 * uniform(50, 4), sae=SAEConfig(steps=300, rounds=2, l1=10))


def test_activations_that_are_not_finite_are_refused_with_the_site(network, data):
    broken = data.clone()
    broken[7, 3] = math.nan
    with pytest.raises(ValueError, match=r"at site 'relu1'.*nan or infinity"):
        quick(network, broken)


def test_numbers_and_data_that_make_no_sense_are_refused(network, data):
    with pytest.raises(ValueError, match="seeds is 0"):
        quick(network, data, seeds=0)
    with pytest.raises(ValueError, match="samples is 1"):
        quick(network, data, samples=1)
    with pytest.raises(ValueError, match="data holds no batch"):
        quick(network, [])
    with pytest.raises(TypeError, match="give a tensor"):
        quick(network, 7)


def test_a_budget_that_ends_too_soon_is_reported(network, data):
    short = SAEConfig(steps=20, rounds=1, l1=0.02)
    result = quick(network, data, "relu1", sae=short)
    assert not result["relu1"].converged
    assert "Not converged at relu1" in str(result)


@pytest.fixture(scope="module")
def sums_and_rows():
    rows = uniform(97, 3, 5)
    sae = fit(rows.flatten(0, 1), QUICK, seeds=range(2)).sae
    return sae, rows


def summed(sae, *parts):
    sums = CodeSums(sae)
    for part in parts:
        sums.add(part)
    return sums


def assert_sums_close(sums, others):
    """Equal to the rounding of single precision, in which codes are computed."""
    torch.testing.assert_close(torch.as_tensor(sums), torch.as_tensor(others), rtol=1e-5, atol=1e-6)


FIELDS = ("inputs", "samples", "codes", "active", "error", "total", "squares")


def test_sums_do_not_depend_on_the_cut_into_batches(sums_and_rows):
    sae, rows = sums_and_rows
    whole, parts = summed(sae, rows), summed(sae, *rows.split(13))
    for name in FIELDS:
        assert_sums_close(getattr(parts, name), getattr(whole, name))


def test_merged_sums_equal_one_pass_over_both(sums_and_rows):
    sae, rows = sums_and_rows
    first, second = summed(sae, rows[:50]), summed(sae, rows[50:])
    first.merge(second)
    whole = summed(sae, rows)
    for name in FIELDS:
        one, two = getattr(first, name), getattr(whole, name)
        if name == "codes":  # dealt to other blocks, the same in all
            one, two = one.sum(0), two.sum(0)
        assert_sums_close(one, two)
    torch.testing.assert_close(first.features(), whole.features())


def test_sums_are_those_of_the_codes(sums_and_rows):
    sae, rows = sums_and_rows
    flat = rows.flatten(0, 1)
    z = sae.encode(flat).double()
    sums = summed(sae, rows)
    torch.testing.assert_close(sums.codes.sum(0), z.sum(1))
    torch.testing.assert_close(sums.features(), effective_features(z.sum(1)))
    assert (sums.codes.sum((1, 2)) > 0).all()


def test_all_positions_of_an_input_are_dealt_to_one_block(sums_and_rows):
    sae, rows = sums_and_rows
    sums = CodeSums(sae)
    sums.add(rows[:1])
    assert (sums.codes.sum((1, 2)) > 0).sum() == 1


def test_sums_refuse_what_is_not_finite(sums_and_rows):
    sae, rows = sums_and_rows
    with pytest.raises(ValueError, match="nan or infinity"):
        CodeSums(sae).add(rows * math.inf)


def test_the_interval_narrows_as_data_grow(sums_and_rows):
    sae, _ = sums_and_rows
    one = sae.select([0])
    widths = []
    for count in (40, 4000):
        low, high = features_interval(summed(one, uniform(count, 1, 5, seed=3)))
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_the_interval_holds_the_value_of_much_more_data_most_of_the_time(sums_and_rows):
    one = sums_and_rows[0].select([0])
    truth = summed(one, uniform(50_000, 1, 5, seed=99)).features().item()
    hits = 0
    for seed in range(200):
        low, high = features_interval(summed(one, uniform(60, 1, 5, seed=seed)))
        hits += low <= truth <= high
    assert 0.88 <= hits / 200 <= 0.995


def test_with_few_inputs_and_one_seed_the_interval_is_a_point(sums_and_rows):
    sae, rows = sums_and_rows
    sums = summed(sae.select([0]), rows[:4])
    low, high = features_interval(sums)
    assert low == high == pytest.approx(sums.features().item())
