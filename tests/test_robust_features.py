"""F of networks on clean and attacked inputs: against activations and fits written out by hand."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from superpos import robust_features
from superpos.attacks import pgd
from superpos.data import load_images
from superpos.image_networks import make_network
from superpos.recipe import fit_for_epochs
from superpos.robust_features import Fitting, features_of
from superpos.sae import SAEConfig
from superpos.solver import fit

STEPS = 60
ALL = 100_000


def fitting(**own):
    usual = {
        "architecture": "tied", "expansion": 2.0, "l1": 0.05, "normalize": False, "starts": 1,
        "steps": STEPS, "rounds": 1, "epochs": None, "samples": ALL,
    }  # fmt: skip
    return Fitting(**(usual | own))


@pytest.fixture(scope="module")
def images():
    return load_images("digits", classes=3, train_size=40)


def made(name, seeds, width=6):
    networks = [make_network(name, width, (1, 8, 8), 3, seed=seed) for seed in seeds]
    return [network.eval().requires_grad_(False) for network in networks]


def measured(networks, members, images, **own):
    return features_of(
        networks, members, images.x_train, images.y_train, fitting=fitting(**own), attack_steps=4
    )


def row_of(rows, site, member, inputs):
    found = [
        row
        for row in rows
        if (row["site"], (row["epsilon"], row["seed"]), row["inputs"]) == (site, member, inputs)
    ]
    assert len(found) == 1
    return found[0]


def hidden(network, x):
    """What an MLP's first ReLU or a CNN's gives, `[rows, neurons]`."""
    if hasattr(network, "conv1"):
        conv = network.conv1
        found = nn.functional.conv2d(x, conv.weight, conv.bias, padding=conv.padding)
        return found.clamp(min=0).permute(0, 2, 3, 1).reshape(-1, found.shape[1])
    linear = network.linear1
    return (x.flatten(1) @ linear.weight.T + linear.bias).clamp(min=0)


def fitted(rows, seed, **own):
    plan = fitting(**own)
    config = SAEConfig(
        architecture=plan.architecture, expansion=plan.expansion, l1=plan.l1,
        normalize=plan.normalize, starts=plan.starts, steps=plan.steps, rounds=plan.rounds,
    )  # fmt: skip
    if plan.epochs is not None:
        return fit_for_epochs(rows, config, epochs=(plan.epochs,), seeds=(seed,))[0]
    return fit(rows, config, seeds=(seed,)).sae


def features(codes):
    """F of codes `[rows, dictionary]`: exp of the entropy of their summed shares."""
    sums = codes.double().sum(0)
    shares = sums / sums.sum()
    return torch.exp(-(shares[shares > 0] * shares[shares > 0].log()).sum()).item()


def attacked_by_hand(network, epsilon, seed, images, rows=256):
    """The attack's random starts go on from one slice to the next."""
    generator = torch.Generator().manual_seed(1000 * (seed + 1) + 2)
    return torch.cat(
        [
            pgd(network, x, y, epsilon=epsilon, steps=4, generator=generator)
            for x, y in zip(images.x_train.split(rows), images.y_train.split(rows), strict=True)
        ]
    )


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"l1": 0.2, "expansion": 3.0},
        {"normalize": True},
        {"architecture": "untied", "starts": 3, "rounds": 2},
        {"architecture": "topk"},
        {"epochs": 3},
        {"epochs": 3, "architecture": "untied"},
    ],
    ids=str,
)
def test_f_is_that_of_an_autoencoder_fitted_to_the_hidden_activations(images, own):
    members = [(0.0, 0), (0.0, 3)]
    networks = made("mlp", [0, 3])
    rows = measured(networks, members, images, **own)
    for network, member in zip(networks, members, strict=True):
        h = hidden(network, images.x_train)
        sae = fitted(h, member[1], **own)
        row = row_of(rows, "relu1", member, "clean")
        assert row["features"] == pytest.approx(features(sae.encode(h)[0]), rel=1e-4)
        assert row["neurons"] == 6
        assert 1 < row["features"] < sae.dictionary


def test_the_loss_is_that_of_the_fit(images):
    network = made("mlp", [1])[0]
    row = measured([network], [(0.0, 1)], images)[0]
    h = hidden(network, images.x_train)
    sae = fitted(h, 1)
    z = (h @ sae.encoder[0].T + sae.bias[0]).clamp(min=0)
    loss = (h - z @ sae.encoder[0]).square().mean() + 0.05 * z.mean()
    assert row["fit_loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert row["converged"] is False  # in one round nothing can be seen to stand still


def test_a_fit_that_stands_still_has_converged_and_a_plain_recipe_never(images):
    networks, members = made("mlp", [1]), [(0.0, 1)]
    assert measured(networks, members, images, rounds=6, steps=300)[0]["converged"] is True
    assert measured(networks, members, images, epochs=2)[0]["converged"] is False


@pytest.mark.parametrize("rows", [256, 9])
def test_attacked_inputs_are_those_of_pgd_with_the_members_own_starts(images, monkeypatch, rows):
    monkeypatch.setattr(robust_features, "ROWS", rows)
    members = [(0.1, 2), (0.3, 2), (0.3, 5)]
    networks = made("mlp", [2, 4, 5])
    found = measured(networks, members, images)
    for network, (epsilon, seed) in zip(networks, members, strict=True):
        x = attacked_by_hand(network, epsilon, seed, images, rows)
        assert 0.9 * epsilon < (x - images.x_train).abs().max() <= epsilon + 1e-6
        h = hidden(network, x)
        expected = features(fitted(h, seed).encode(h)[0])
        own = row_of(found, "relu1", (epsilon, seed), "adversarial")
        clean = row_of(found, "relu1", (epsilon, seed), "clean")
        assert own["features"] == pytest.approx(expected, rel=1e-4)
        assert own["fit_loss"] != clean["fit_loss"]


def test_at_epsilon_zero_attacked_inputs_are_the_clean_ones(images, monkeypatch):
    members = [(0.0, 0), (0.2, 0), (0.0, 1)]
    networks = made("mlp", [0, 1, 2])
    made_of, original = [], robust_features.attacked
    monkeypatch.setattr(
        robust_features, "attacked",
        lambda *own, **options: made_of.append(own[3].item()) or original(*own, **options),
    )  # fmt: skip
    rows = measured(networks, members, images)
    assert made_of == [pytest.approx(0.2)]
    for member in members:
        clean, attacked = (row_of(rows, "relu1", member, kind) for kind in ("clean", "adversarial"))
        assert ({**clean, "inputs": ""} == {**attacked, "inputs": ""}) == (member[0] == 0)


@pytest.mark.parametrize("inputs", ["clean", "adversarial"])
@pytest.mark.parametrize("own", [{}, {"epochs": 2}], ids=str)
def test_of_a_cnn_all_positions_count_where_the_sample_holds_but_some(
    images, monkeypatch, inputs, own
):
    monkeypatch.setattr(robust_features, "ROWS", 16)
    members = [(0.1, 0), (0.1, 1)]
    networks = made("cnn", [0, 1], width=3)
    rows = measured(networks, members, images, samples=150, **own)
    for network, member in zip(networks, members, strict=True):
        x = images.x_train if inputs == "clean" else attacked_by_hand(network, *member, images, 16)
        h = hidden(network, x)
        assert h.shape == (40 * 64, 3)
        keys = torch.rand(len(h), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        sample = h[keys.topk(150).indices.sort().values]
        sae = fitted(sample, member[1], **own)
        row = row_of(rows, "relu1", member, inputs)
        every, some = (features(sae.encode(part)[0]) for part in (h, sample))
        assert row["features"] == pytest.approx(every, rel=1e-4)
        assert row["features"] != pytest.approx(some, rel=1e-3)
        assert row["fit_loss"] == pytest.approx(sae.losses(sample)[0].item(), rel=1e-4)


def test_a_sample_of_exactly_all_activations_is_all_of_them(images, monkeypatch):
    networks, members = made("cnn", [0], width=3), [(0.0, 0)]
    exact = measured(networks, members, images, samples=40 * 64)
    assert exact == measured(networks, members, images, samples=ALL)
    calls, read = [], robust_features.read
    monkeypatch.setattr(robust_features, "read", lambda *own: calls.append(1) or read(*own))
    for samples, times in ((40 * 64, 1), (40 * 64 - 1, 2)):
        calls.clear()
        measured(networks, members, images, samples=samples)
        assert len(calls) == times
    h = hidden(networks[0], images.x_train)
    assert exact[0]["features"] == pytest.approx(features(fitted(h, 0).encode(h)[0]), rel=1e-4)


def test_only_layers_that_the_sample_does_not_hold_are_read_again(images):
    networks, members = made("standard_cnn", [0], width=2), [(0.0, 0)]
    some = measured(networks, members, images, samples=700)
    every = measured(networks, members, images)
    for layer, positions in ((1, 64), (2, 16), (3, 1)):
        own, other = (row_of(rows, f"relu{layer}", members[0], "clean") for rows in (some, every))
        assert (own == other) == (positions * 40 <= 700)


def test_rows_tell_layers_their_parameters_and_members_in_order(images):
    members = [(0.0, 4), (0.0, 2), (0.2, 4), (0.2, 2)]
    networks = made("standard_mlp", [4, 2, 4, 2], width=2)
    rows = measured(networks, members, images)
    assert len(rows) == 3 * 4 * 2
    layers = {"relu1": (1, 8, 64 * 8 + 8), "relu2": (2, 4, 8 * 4 + 4), "relu3": (3, 2, 4 * 2 + 2)}
    for row in rows:
        assert (row["layer"], row["neurons"], row["parameters"]) == layers[row["site"]]
        assert row.keys() == {
            "site", "layer", "neurons", "parameters", "epsilon", "seed", "inputs", "features",
            "fit_loss", "converged",
        }  # fmt: skip
    clean = [row for row in rows if row["inputs"] == "clean"]
    assert [(row["site"], row["epsilon"], row["seed"]) for row in clean] == [
        (site, *member) for site in layers for member in members
    ]
    told = {(row["site"], row["epsilon"], row["seed"], row["inputs"]) for row in rows}
    assert len(told) == len(rows)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_of_convolutions_kernels_and_biases_are_the_parameters(images):
    rows = measured(made("standard_cnn", [0], width=2), [(0.0, 0)], images, samples=100, steps=5)
    found = [(row["site"], row["layer"], row["neurons"], row["parameters"]) for row in rows[:3]]
    assert found == [
        ("relu1", 1, 2, 9 * 2 + 2), ("relu2", 2, 4, 9 * 2 * 4 + 4), ("relu3", 3, 8, 16 * 8 + 8),
    ]  # fmt: skip


def test_a_resnet_has_all_its_seventeen_layers(images):
    rows = measured(made("resnet18", [0], width=1), [(0.0, 0)], images, samples=100, steps=2)
    clean = [row for row in rows if row["inputs"] == "clean"]
    assert [row["layer"] for row in clean] == list(range(1, 18))
    assert [row["neurons"] for row in clean] == [1] * 5 + [2] * 4 + [4] * 4 + [8] * 4
    assert clean[0]["site"] == "stem.relu"
    assert clean[0]["parameters"] == 9 + 2  # kernel, and a batch norm's scale and shift
    assert all(row["features"] is None or row["features"] >= 1 for row in clean)


@pytest.mark.parametrize("samples", [150, ALL])
def test_how_many_images_are_read_at_once_does_not_matter(images, monkeypatch, samples):
    networks, members = made("cnn", [0, 1], width=3), [(0.0, 0), (0.0, 1)]
    usual = measured(networks, members, images, samples=samples)
    for rows in (7, 39, 40):
        monkeypatch.setattr(robust_features, "ROWS", rows)
        again = measured(networks, members, images, samples=samples)
        for own, other in zip(usual, again, strict=True):
            assert own.keys() == other.keys()
            assert other["features"] == pytest.approx(own["features"], rel=1e-4)
            assert other["fit_loss"] == pytest.approx(own["fit_loss"], rel=1e-4)


def test_a_members_rows_do_not_depend_on_the_others(images):
    members = [(0.0, 0), (0.1, 1), (0.2, 1)]
    networks = made("mlp", [0, 1, 2])
    rows = measured(networks, members, images)
    for network, member in zip(networks, members, strict=True):
        for row in measured([network], [member], images):
            among = row_of(rows, "relu1", member, row["inputs"])
            assert among["features"] == pytest.approx(row["features"], rel=1e-4)


@pytest.mark.parametrize("samples", [150, ALL])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("value", [float("nan"), 1e38])
def test_a_network_that_has_diverged_has_no_f_and_leaves_the_others_alone(
    images, samples, place, value
):
    members = [(0.1, 0), (0.1, 1), (0.0, 2)]
    networks = made("cnn", [0, 1, 2], width=2)
    before = measured(networks, members, images, samples=samples)
    with torch.no_grad():
        for parameter in networks[place].parameters():
            parameter.fill_(value)
    rows = measured(networks, members, images, samples=samples)
    assert [row["site"] for row in rows] == [row["site"] for row in before]
    for own, other in zip(rows, before, strict=True):
        assert (own["epsilon"], own["seed"]) == (other["epsilon"], other["seed"])
        if (own["epsilon"], own["seed"]) == members[place]:
            assert own["features"] is None
            assert own["fit_loss"] is None
            assert own["converged"] is False
            assert own["neurons"] == 2
        else:
            assert own["features"] == pytest.approx(other["features"], rel=1e-5)


def test_when_all_networks_have_diverged_every_row_says_none(images):
    networks = made("standard_mlp", [0, 1], width=1)
    for network in networks:
        network.linear2.weight.fill_(float("nan"))
    rows = measured(networks, [(0.0, 0), (0.1, 1)], images)
    assert len(rows) == 3 * 2 * 2
    assert all(row["features"] is None and row["fit_loss"] is None for row in rows)


def test_a_layer_that_is_silent_has_no_f(images):
    networks = made("mlp", [0, 1])
    networks[1].linear1.bias.fill_(-1000.0)
    rows = measured(networks, [(0.0, 0), (0.0, 1)], images)
    assert row_of(rows, "relu1", (0.0, 0), "clean")["features"] > 1
    silent = row_of(rows, "relu1", (0.0, 1), "clean")
    assert silent["features"] is None
    assert silent["fit_loss"] == 0


def test_networks_are_left_as_they_were(images):
    network = made("mlp", [0])[0]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measured([network], [(0.2, 0)], images, steps=5)
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(value.grad is None for value in network.parameters())
