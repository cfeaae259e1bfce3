"""Ways of fitting the parity networks' layers, and the rows that describe the results."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from superpos.entropy import effective_features
from superpos.recipe import fit_for_epochs
from superpos.sae import SAE, SAEConfig
from superpos.solver import fit
from superpos.ways import POST, PRE, RECIPE_BATCH, WAYS, Fitted, described, fitted

MEMBERS, SAMPLES, NEURONS = 2, 80, 5


def activations(samples=SAMPLES):
    pre = torch.randn(MEMBERS, samples, NEURONS, generator=torch.Generator().manual_seed(0))
    return {PRE: pre, POST: pre.relu()}


def config_of(way, **settings):
    own = {"steps": 60, "rounds": 3, "starts": 1, "k": 2, "l1": 0.1}
    return SAEConfig(architecture=WAYS[way].architecture, **(own | settings))


def fitted_to(way, x=None, **settings):
    x = activations() if x is None else x
    return fitted(way, x, config_of(way, **settings), seeds=(3, 4), epochs=(2, 5))


@pytest.fixture(scope="module")
def entries():
    """By way, what was fitted."""
    return {way: fitted_to(way) for way in WAYS}


@pytest.fixture(scope="module")
def rows(entries):
    """Every entry with its rows."""
    return [(entry, described(entry)) for found in entries.values() for entry in found]


def by_hand(encoder, bias, decoder, x):
    """An entry around given weights of one member without an offset."""
    encoder, decoder = (torch.tensor([v], dtype=torch.float32) for v in (encoder, decoder))
    offset = torch.zeros(1, encoder.shape[2])
    bias = torch.tensor([bias], dtype=torch.float32)
    config = SAEConfig("untied", expansion=encoder.shape[1] / encoder.shape[2])
    sae = SAE(config, encoder, bias, decoder, offset)
    return Fitted(sae, torch.tensor([x], dtype=torch.float32), None, [True])


@pytest.mark.parametrize("way", [name for name, way in WAYS.items() if way.converges])
def test_a_way_that_converges_is_the_solvers_fit_of_its_site(way, entries):
    (entry,) = entries[way]
    site = {"untied": PRE}.get(way, POST)
    assert WAYS[way].site == site
    assert torch.equal(entry.x, activations()[site])
    expected = fit(entry.x, config_of(way), seeds=(3, 4))
    assert entry.sae.config.architecture == WAYS[way].architecture
    assert torch.equal(entry.sae.encoder, expected.sae.encoder)
    assert entry.converged == expected.converged.tolist()
    assert entry.epochs is None


def test_whether_a_fit_converged_is_told():
    assert fitted_to("tied", rounds=1)[0].converged == [False, False]
    assert fitted_to("tied", rounds=2, tolerance=1e6)[0].converged == [True, True]


def test_the_recipe_gives_an_entry_for_every_number_of_epochs(entries):
    found = entries["recipe"]
    assert [entry.epochs for entry in found] == [2, 5]
    expected = fit_for_epochs(
        activations()[PRE], config_of("recipe"), epochs=(2, 5), seeds=(3, 4), batch=RECIPE_BATCH
    )
    for entry, sae in zip(found, expected, strict=True):
        assert torch.equal(entry.x, activations()[PRE])
        assert torch.equal(entry.sae.decoder, sae.decoder)
        assert entry.converged == [None, None]


def test_the_recipe_sees_the_first_thousand_samples_only():
    x = activations(1200)
    first = {site: values[:, :1000] for site, values in x.items()}
    found, expected = fitted_to("recipe", x), fitted_to("recipe", first)
    for entry, other in zip(found, expected, strict=True):
        assert torch.equal(entry.x, first[PRE])
        assert torch.equal(entry.sae.encoder, other.sae.encoder)
    assert fitted_to("tied", x, steps=2, rounds=1)[0].x.shape[1] == 1200


def test_every_way_has_a_label_of_its_own():
    assert len({way.label for way in WAYS.values()}) == len(WAYS)


def test_rows_survive_their_file(rows):
    for _, own in rows:
        assert json.loads(json.dumps(own, allow_nan=False)) == own


def test_a_row_per_member_says_what_was_fitted(rows):
    for entry, own in rows:
        assert len(own) == MEMBERS
        assert [row["epochs"] for row in own] == [entry.epochs] * MEMBERS
        assert [row["converged"] for row in own] == entry.converged


def test_rows_hold_what_all_codes_at_once_say(rows):
    for entry, own in rows:
        z = entry.sae.encode(entry.x)
        rebuilt = entry.sae.decode(z)
        for member, row in enumerate(own):
            x, codes = entry.x[member].double(), z[member].double()
            assert row["features"] == pytest.approx(effective_features(codes.sum(0)).item())
            assert row["living"] == int((codes.sum(0) > 0).sum())
            assert row["active"] == pytest.approx((codes > 0).sum(1).double().mean().item())
            error = (x - rebuilt[member]).square().sum()
            explained = 1 - (error / (x - x.mean(0)).square().sum()).item()
            assert row["explained"] == pytest.approx(explained, abs=1e-5)
            eigenvalues = np.linalg.eigvalsh(np.cov(x.numpy().T))
            dimension = eigenvalues.sum() ** 2 / np.square(eigenvalues).sum()
            assert row["dimension"] == pytest.approx(dimension)
            assert 1 <= row["dimension"] <= NEURONS


def test_neurons_per_code_average_the_codes_by_their_shares(rows):
    for entry, own in rows:
        sums = entry.sae.encode(entry.x).double().sum(1)
        matrix = entry.sae.encoder if entry.sae.decoder is None else entry.sae.decoder
        for member, row in enumerate(own):
            total, carried = 0.0, []
            for magnitude, direction in zip(sums[member], matrix[member].double(), strict=True):
                if magnitude == 0:
                    continue
                shares = (direction.square() / direction.square().sum()).tolist()
                count = math.exp(-sum(p * math.log(p) for p in shares if p > 0))
                carried.append(count)
                total += magnitude.item() * count
            assert row["neurons_per_code"] == pytest.approx(total / sums[member].sum().item())
            assert 1 - 1e-9 <= row["neurons_per_code"] <= NEURONS + 1e-9
            expected = np.percentile(carried, range(0, 101, 10))
            assert row["carried"] == pytest.approx(expected, abs=1e-4)


def test_deciles_rise_from_the_least_to_the_largest(rows):
    for _, own in rows:
        for row in own:
            for name in ("carried", "nearest"):
                assert len(row[name]) == 11
                assert row[name] == sorted(row[name])
            assert 1 <= row["carried"][0] <= row["carried"][-1] <= NEURONS
            assert -1 <= row["nearest"][0] <= row["nearest"][-1] <= 1


def test_dead_autoencoders_have_no_features_but_a_row():
    x = {POST: 1e-3 * activations()[POST]}
    x[POST][1] *= 1e4
    (entry,) = fitted_to("tied", x, l1=1.0, steps=400, rounds=1)
    dead, alive = described(entry)
    for name in ("features", "neurons_per_code", "carried", "nearest"):
        assert dead[name] is None
        assert alive[name] is not None
    assert (dead["living"], dead["active"]) == (0, 0)
    assert dead["explained"] <= 0
    json.dumps(dead, allow_nan=False)


def test_a_single_living_code_has_no_neighbor():
    entry = by_hand([[1, 0], [0, 1]], [0, -9], [[3, 4], [1, 0]], [[1, 0], [2, 0], [0, 1]])
    (row,) = described(entry)
    assert (row["living"], row["nearest"]) == (1, None)
    assert row["features"] == pytest.approx(1)
    shares = np.array([9, 16]) / 25
    assert row["neurons_per_code"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert row["active"] == pytest.approx(2 / 3)


def test_dead_codes_count_neither_as_neighbors_nor_as_directions():
    # The third code would be the first one's twin, and the fourth is one neuron's; neither fires.
    decoder = [[3, 4], [4, -3], [3, 4], [1, 0]]
    encoder, x = [[1, 0], [0, 1], [1, 0], [1, 0]], [[1, 0], [0, 1], [1, 2]]
    (row,) = described(by_hand(encoder, [0, 0, -9, -9], decoder, x))
    assert row["living"] == 2
    assert row["nearest"] == pytest.approx([0] * 11)
    assert row["carried"] == pytest.approx([row["neurons_per_code"]] * 11, abs=1e-4)


def test_a_layer_that_does_not_vary_has_no_features_and_no_dimension():
    x = torch.rand(2, 50, 4, generator=torch.Generator().manual_seed(0))
    x[0] = 0
    config = SAEConfig(steps=20, rounds=1, starts=1)
    (entry,) = fitted("tied", {POST: x}, config, seeds=[0, 1])
    silent, other = described(entry)
    assert silent["dimension"] is None and silent["features"] is None
    assert 1 <= other["dimension"] <= 4


def test_the_way_decides_the_architecture_and_unknown_ways_are_refused():
    x = torch.rand(1, 50, 4, generator=torch.Generator().manual_seed(0))
    config = SAEConfig(steps=5, rounds=1, starts=1)
    (entry,) = fitted("untied", {PRE: x}, config, seeds=[0])
    assert entry.sae.config.architecture == "untied"
    with pytest.raises(ValueError, match="allowed are tied"):
        fitted("bogus", {PRE: x}, config, seeds=[0])
