"""What is measured at checkpoints, against the same done by hand for each."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from superpos import checkpoints as module
from superpos import ways
from superpos.checkpoints import (
    CEILING,
    SAMPLERS,
    WAYS,
    coefficients,
    dictionaries,
    embeddings,
)
from superpos.data import modular
from superpos.dictionary import codes
from superpos.entropy import effective_features, hill_number
from superpos.fourier import cyclic_order, embedding_power, purity, wave
from superpos.llc import SGLD, llc
from superpos.modular_networks import TwoPathMLP, trained
from superpos.networks import classification_loss
from superpos.record import plain
from superpos.relay import relay
from superpos.sae import SAEConfig

PRIME, STEPS, SEED, PASSES, EPOCHS = 5, [0, 10, 30, 60], 3, 2, 6
QUICK = SAEConfig(steps=50, starts=1, rounds=1)
DATA = modular(PRIME, train_fraction=0.6, seed=1)
RESIDUES = cyclic_order(PRIME, "add")
CHAINS = {"chains": 3, "burn_in": 4, "draws": 6}


@pytest.fixture(scope="module")
def networks():
    found = trained(
        [DATA], embedding=4, hidden=6, seeds=[2], checkpoints=STEPS, batch=8, rate=0.02, decay=1e-3
    )
    return [own for (own,) in found.networks]


@pytest.fixture(scope="module")
def columns(networks):
    return fitted(networks)


@pytest.fixture(scope="module")
def sampled(networks):
    return coefficients(networks, DATA, seed=SEED, kept=[0, 2], **CHAINS)


@pytest.fixture
def shuffled(networks):
    return in_shuffled_order(networks)


def in_shuffled_order(networks):
    """Pre-activations of all pairs in the order in which autoencoders see them, and that order."""
    generator = torch.Generator().manual_seed(1_000_003 * SEED + 500_009)
    order = torch.randperm(PRIME**2, generator=generator)
    with torch.no_grad():
        return torch.stack([network.pre(DATA.pairs[order]) for network in networks]), order


def fitted(networks, config=QUICK, passes=PASSES):
    return dictionaries(networks, DATA, RESIDUES, config, seed=SEED, passes=passes, epochs=EPOCHS)


def assert_described(columns, way, sae, x):
    """Columns of a way are those of its autoencoders on what they were fitted to."""
    found = codes(sae, x)
    expected = {
        "features": effective_features(found.sums),
        "hill0": (found.sums > 0).sum(-1).double(),
        "hill2": hill_number(found.sums, 2),
        "hill_infinity": found.sums.sum(-1) / found.sums.amax(-1),
        "explained": found.explained,
        "active": found.active,
        "loss": sae.losses(x)[0],
    }
    for name, values in expected.items():
        torch.testing.assert_close(columns[f"{name}_{way}"], values, msg=f"{name}_{way}")


def guessing_wrong(networks, factor):
    """Copies whose logits are larger, so that what is wrong costs more."""
    copies = copy.deepcopy(list(networks))
    with torch.no_grad():
        for network in copies:
            network.out.weight.mul_(factor)
    return copies


def test_every_column_has_one_value_per_checkpoint(networks, columns, sampled):
    found = embeddings(networks, RESIDUES, kept=[0])
    for name, values in {**columns, **sampled, **found}.items():
        assert len(values) == len(STEPS), name


def test_the_columns_are_those_documented(columns, sampled):
    measures = ("features", "hill0", "hill2", "hill_infinity", "explained", "active", "loss")
    expected = {f"{name}_{way}" for name in measures for way in WAYS}
    expected |= {f"{name}_{way}" for name in ("converged", "rounds") for way in ("starts", "relay")}
    expected |= {"purity_neurons", "purity_codes", "rms", "dimension"}
    assert columns.keys() == expected
    measures = ("llc", "error", "chains", "diverged", "lost", "distance", "trace")
    assert sampled.keys() == {f"{name}_{sampler}" for name in measures for sampler in SAMPLERS}


def test_starts_and_relay_are_those_of_the_activations_in_shuffled_order(columns, shuffled):
    x = torch.nn.functional.gelu(shuffled[0])
    own, after = relay(x, QUICK, seed=SEED, passes=PASSES)
    assert_described(columns, "starts", own.sae, x)
    assert_described(columns, "relay", after.sae, x)
    assert torch.equal(columns["converged_starts"], own.converged)
    assert torch.equal(columns["converged_relay"], after.converged)
    assert torch.equal(columns["rounds_starts"], own.rounds)
    assert torch.equal(columns["rounds_relay"], after.rounds)
    assert (columns["loss_relay"] < columns["loss_starts"]).any()
    assert (columns["loss_relay"] <= columns["loss_starts"]).all()


def test_the_recipe_sees_pre_activations(columns, shuffled):
    sites = {"pre": shuffled[0], "post": torch.full((4, 25, 6), math.nan)}
    (entry,) = ways.fitted("recipe", sites, QUICK, seeds=[SEED] * 4, epochs=[EPOCHS])
    assert_described(columns, "recipe", entry.sae, shuffled[0])


def test_the_recipe_sees_and_describes_the_first_pairs_alone(networks, shuffled, monkeypatch):
    monkeypatch.setattr(ways, "RECIPE_SAMPLES", 9)
    x = shuffled[0][:, :9]
    (entry,) = ways.fitted("recipe", {"pre": x}, QUICK, seeds=[SEED] * 4, epochs=[EPOCHS])
    assert_described(fitted(networks), "recipe", entry.sae, x)


@pytest.mark.parametrize("way", WAYS)
def test_hill_numbers_fall_with_their_order(columns, way):
    falling = [columns[f"{name}_{way}"] for name in ("hill0", "features", "hill2", "hill_infinity")]
    for more, less in itertools.pairwise(falling):
        assert (more >= less - 1e-9).all()
    assert (falling[-1] >= 1).all()
    assert (falling[0] <= 24).all()


def test_purity_is_that_of_pairs_in_their_own_order(networks, columns, shuffled):
    x, order = torch.nn.functional.gelu(shuffled[0]), shuffled[1]
    _, after = relay(x, QUICK, seed=SEED, passes=PASSES)
    for place, network in enumerate(networks):
        with torch.no_grad():
            grid = network.activation(network.pre(DATA.pairs))
        torch.testing.assert_close(
            columns["purity_neurons"][place], purity(grid, RESIDUES).mean(), rtol=1e-5, atol=1e-7
        )
        z = torch.empty(25, 24)
        z[order] = after.sae.select([place]).encode(x[place])[0]
        total, expected = z.sum().double(), 0.0
        for code in z.T:
            expected += purity(code[:, None], RESIDUES).item() * (code.sum() / total).item()
        assert columns["purity_codes"][place].item() == pytest.approx(expected, rel=1e-4)
    for name in ("purity_neurons", "purity_codes"):
        assert all(0 < value < 1 for value in columns[name])


def test_size_and_dimension_are_those_of_the_activations(columns, shuffled):
    for place, x in enumerate(torch.nn.functional.gelu(shuffled[0]).double().numpy()):
        assert columns["rms"][place].item() == pytest.approx((x**2).mean() ** 0.5)
        variances = np.linalg.eigvalsh(np.cov(x.T))
        expected = variances.sum() ** 2 / (variances**2).sum()
        assert columns["dimension"][place].item() == pytest.approx(expected, rel=1e-5)


def test_a_network_of_one_frequency_is_pure():
    network = TwoPathMLP(PRIME, 2, 6, seed=0)
    turn = 2 * math.pi * 2 * torch.arange(PRIME) / PRIME
    with torch.no_grad():
        network.embedding.weight.copy_(torch.stack([turn.cos(), turn.sin()], 1))
        network.activation = torch.nn.Identity()
    found = fitted([network, network])
    assert [value.item() for value in found["purity_neurons"]] == pytest.approx([1, 1], abs=1e-5)


def test_where_every_code_is_zero_there_is_no_number(networks):
    found = fitted(networks, SAEConfig(steps=300, starts=1, rounds=2, l1=1e4))
    values = ("features", "hill0", "hill2", "hill_infinity")
    for name in (*(f"{name}_relay" for name in values), "purity_codes"):
        assert all(math.isnan(value) for value in found[name]), name
    assert found["active_relay"].tolist() == [0] * 4
    assert found["loss_relay"].isfinite().all()


def test_a_dead_dictionary_leaves_the_others_their_numbers(networks):
    still = copy.deepcopy(networks[1])
    with torch.no_grad():
        for value in (still.left.weight, still.right.weight, still.left.bias, still.right.bias):
            value.mul_(1e-3)
    series, config = [still, *networks[2:]], SAEConfig(steps=300, starts=1, rounds=2)
    found = fitted(series, config, passes=0)
    x = torch.nn.functional.gelu(in_shuffled_order(series)[0])
    own, _ = relay(x, config, seed=SEED, passes=0)
    sums = codes(own.sae, x).sums[1:]
    for name, q in (("features", 1), ("hill0", 0), ("hill2", 2), ("hill_infinity", math.inf)):
        assert math.isnan(found[f"{name}_starts"][0]), name
        torch.testing.assert_close(found[f"{name}_starts"][1:], hill_number(sums, q))


@pytest.mark.parametrize("name", SAMPLERS)
def test_coefficients_are_those_of_the_sampler_on_the_training_pairs(networks, sampled, name):
    pairs, answers = DATA.pairs[DATA.train], DATA.answers[DATA.train]
    ceiling = 2 * math.log(PRIME) if name == "local" else math.inf
    sampler = SGLD(**SAMPLERS[name], **CHAINS, ceiling=ceiling)
    seed = 2 * SEED + list(SAMPLERS).index(name)
    found = llc(networks, pairs, answers, classification_loss, sampler, seed=seed)
    assert not found.diverged.any()
    exact = {"rtol": 0, "atol": 0}
    torch.testing.assert_close(sampled[f"llc_{name}"], found.mean, **exact)
    torch.testing.assert_close(sampled[f"error_{name}"], found.error, **exact)
    torch.testing.assert_close(sampled[f"distance_{name}"], found.distance.mean(-1), **exact)
    assert sampled[f"diverged_{name}"].tolist() == [0] * 4
    for chains, expected in zip(sampled[f"chains_{name}"], found.chains.tolist(), strict=True):
        assert chains == pytest.approx(expected, abs=1e-4)
    level = found.initial[:, None] + found.trace[..., 4:].double().mean(-1)
    lost = (level > CEILING * math.log(PRIME)).sum(1)
    assert sampled[f"lost_{name}"].tolist() == lost.tolist()


def test_samplers_and_seeds_do_not_share_their_noise(networks, monkeypatch):
    used = []

    def noting(*arguments, seed):
        used.append(seed)
        return llc(*arguments, seed=seed)

    monkeypatch.setattr(module, "llc", noting)
    for seed in range(3):
        coefficients(networks[:1], DATA, seed=seed, kept=[], chains=1, burn_in=0, draws=1)
    assert len(set(used)) == 3 * len(SAMPLERS)


def test_the_samplers_are_those_documented(sampled):
    assert {name: tuple(own.values()) for name, own in SAMPLERS.items()} == {
        "local": (1e-4, 46, 100),
        "wide": (3e-3, 2, 5),
    }
    assert (sampled["distance_wide"] > 2 * sampled["distance_local"]).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_traces_are_kept_where_asked_and_are_those_of_the_steps(networks, sampled, name):
    kept = [place for place, trace in enumerate(sampled[f"trace_{name}"]) if trace is not None]
    assert kept == [0, 2]
    trace = torch.tensor(sampled[f"trace_{name}"][2])
    assert trace.shape == (3, 10)  # short ones as they are, burn-in first
    mean = trace[:, 4:].mean().item()
    assert mean == pytest.approx(sampled[f"llc_{name}"][2].item(), abs=1e-3)
    assert coefficients(networks[:1], DATA, seed=0, kept=[], **CHAINS)[f"trace_{name}"] == [None]


def test_long_traces_are_thinned_and_average_to_the_coefficient(networks):
    found = coefficients(networks[:2], DATA, seed=SEED, kept=[1], chains=2, burn_in=0, draws=80)
    for name in SAMPLERS:
        trace = torch.tensor(found[f"trace_{name}"][1])
        assert trace.shape == (2, 40)
        assert trace.mean().item() == pytest.approx(found[f"llc_{name}"][1].item(), abs=1e-4)
        assert (trace * 1e4).round().div(1e4).sub(trace).abs().max() < 1e-5


def test_chains_that_know_less_than_guesses_are_lost(networks):
    worse = [*guessing_wrong(networks[:2], 1000), networks[-1]]
    found = coefficients(worse, DATA, seed=SEED, kept=[], **CHAINS)
    for name in SAMPLERS:
        assert found[f"lost_{name}"].tolist() == [3, 3, 0], name
    assert found["diverged_local"].tolist() == [3, 3, 0]
    assert found["diverged_wide"].tolist() == [0, 0, 0]
    assert found["llc_local"].isnan().tolist() == [True, True, False]
    assert found["llc_wide"].isfinite().all()


def test_chains_without_a_loss_are_lost_and_have_diverged(networks):
    found = coefficients(
        guessing_wrong(networks[:1], math.nan), DATA, seed=SEED, kept=[0], **CHAINS
    )
    for name in SAMPLERS:
        assert found[f"lost_{name}"].tolist() == found[f"diverged_{name}"].tolist() == [3]
        assert plain(found[f"llc_{name}"][0]) is None
        assert found[f"chains_{name}"] == [[None] * 3]
        assert {value for chain in found[f"trace_{name}"][0] for value in chain} == {None}


def test_draws_above_twice_the_loss_of_guessing_make_a_chain_lost(networks, monkeypatch):
    def spoiled(*arguments, **options):
        found = llc(*arguments, **options)
        levels = math.log(PRIME) * torch.tensor([1.99, 2.01, 1.99])
        found.trace[..., :4] = 100.0
        found.trace[..., 4:] = (levels - found.initial[:, None])[..., None]
        return found

    monkeypatch.setattr(module, "llc", spoiled)
    found = coefficients(networks, DATA, seed=SEED, kept=[], **CHAINS)
    assert found["lost_local"].tolist() == found["lost_wide"].tolist() == [1] * 4


def test_the_norm_is_that_of_all_weights(networks):
    for network, norm in zip(
        networks, embeddings(networks, RESIDUES, kept=[])["weight_norm"], strict=True
    ):
        expected = sum(value.square().sum().item() for value in network.parameters()) ** 0.5
        assert plain(norm) == pytest.approx(expected, rel=1e-5)


def test_frequencies_are_the_effective_number_of_powers(networks):
    found = embeddings(networks, RESIDUES, kept=[1, 3])
    for place, network in enumerate(networks):
        shares = embedding_power(network.embedding.weight, RESIDUES)
        shares = (shares / shares.sum()).tolist()
        expected = math.exp(-sum(p * math.log(p) for p in shares))
        assert found["frequencies"][place].item() == pytest.approx(expected)
        if place in (1, 3):
            assert found["power"][place] == pytest.approx(shares, abs=1e-4)
        else:
            assert found["power"][place] is None
    assert 1 <= found["frequencies"].min() <= found["frequencies"].max() <= 2


def test_the_plane_is_that_of_the_strongest_frequency_at_the_end(networks):
    found = embeddings(networks, RESIDUES, kept=[0, 2])
    last = embedding_power(networks[-1].embedding.weight, RESIDUES)
    strongest = 1 + last.tolist().index(max(last.tolist()))
    assert found["strongest"] == [strongest] * 4
    for place, plane in enumerate(found["plane"]):
        if place not in (0, 2):
            assert plane is None
            continue
        expected = wave(networks[place].embedding.weight.detach(), RESIDUES, strongest)
        assert len(plane) == PRIME
        for row, own in zip(plane, expected.tolist(), strict=True):
            assert row == pytest.approx(own, abs=1e-4)


def test_the_last_checkpoint_alone_says_which_frequency_is_strongest():
    networks = [TwoPathMLP(13, 2, 4, seed=0) for _ in range(2)]
    order = cyclic_order(13, "multiply")
    for network, frequency in zip(networks, (2, 5), strict=True):
        turn = 2 * math.pi * frequency * torch.arange(12) / 12
        with torch.no_grad():
            network.embedding.weight[order] = torch.stack([turn.cos(), turn.sin()], 1)
    found = embeddings(networks, order, kept=[1])
    assert found["strongest"] == [5, 5]
    assert found["frequencies"].tolist() == pytest.approx([1, 1], abs=1e-5)
    assert found["power"][1] == [0, 0, 0, 0, 1, 0]
    assert len(found["plane"][1]) == 12


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.pi, 3.141593),
        (123456789.0, 123456800.0),
        (1.23456789e-12, 1.234568e-12),
        (torch.tensor(2 / 3, dtype=torch.float64), 0.6666667),
        (torch.tensor(7), 7),
        (torch.tensor(True), True),
        (123456789, 123456789),
        (True, True),
        (None, None),
        ([0.123456789, 1], [0.123456789, 1]),
        ("local", "local"),
    ],
)
def test_records_hold_plain_values_of_seven_digits(value, expected):
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_none(value):
    assert plain(value) is None
    assert plain(torch.tensor(value)) is None
