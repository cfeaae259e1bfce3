"""The plain recipe: Adam for a number of epochs, against a loop written out with autograd."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from superpos.entropy import effective_features
from superpos.learner import Order
from superpos.recipe import _initial, fit_for_epochs
from superpos.sae import SAEConfig

ARCHITECTURES = ("tied", "untied")


def layer(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).relu()


def written_out(x, config, seed, epochs, batch):
    """Weights of one member, by autograd and torch's Adam, from the same start and order."""
    start = _initial(x, config, [seed])
    if config.normalize:
        x = x / x.square().mean().sqrt()
    leaves = {
        name: value[0].clone().requires_grad_()
        for name, value in start.tensors().items()
        if name != "scale"
    }
    optimizer = torch.optim.Adam(leaves.values(), lr=1e-3)
    order = Order(seed, len(x), batch)
    for _ in range(epochs * (len(x) // batch)):
        rows = x[order.next()]
        z = functional.relu(functional.linear(rows, leaves["encoder"], leaves["bias"]))
        if config.architecture == "tied":
            rebuilt = z @ leaves["encoder"]
        else:
            rebuilt = z @ leaves["decoder"] + leaves["offset"]
        loss = functional.mse_loss(rebuilt, rows) + config.l1 * z.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return leaves


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_adam_on_the_stated_loss(architecture, normalize):
    x = 3 * layer(2, 70, 5)
    config = SAEConfig(architecture=architecture, expansion=3, l1=0.2, normalize=normalize)
    (sae,) = fit_for_epochs(x, config, epochs=(20,), seeds=(8, 9), batch=32)
    for member, seed in enumerate((8, 9)):
        expected = written_out(x[member], config, seed, epochs=20, batch=32)
        start = _initial(x[member], config, [seed])
        for name, value in expected.items():
            assert (value - getattr(start, name)[0]).abs().max() > 0.01
            torch.testing.assert_close(getattr(sae, name)[member], value, rtol=0, atol=2e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_start_xavier_uniform_and_biases_at_zero(architecture):
    config = SAEConfig(architecture=architecture)
    sae = _initial(layer(10, 32), config, [0, 1])
    matrices = [sae.encoder] if architecture == "tied" else [sae.encoder, sae.decoder]
    bound = math.sqrt(6 / (32 + 128))
    for matrix in matrices:
        assert matrix.shape == (2, 128, 32)
        assert 0.99 * bound < matrix.abs().max() <= bound
        assert matrix.mean().abs() < 0.01
        assert matrix.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not sae.bias.any()
    if architecture == "untied":
        assert not sae.offset.any()
        both = torch.stack([sae.encoder.flatten(), sae.decoder.flatten()])
        assert torch.corrcoef(both)[0, 1].abs() < 0.05
    assert not torch.equal(sae.encoder[0], sae.encoder[1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_copies_on_the_way_equal_shorter_runs(architecture):
    x, config = layer(60, 4), SAEConfig(architecture=architecture, normalize=True)
    kept = fit_for_epochs(x, config, epochs=(1, 3, 4), seeds=(5, 6), batch=16)
    assert len(kept) == 3
    for epochs, sae in zip((1, 3, 4), kept, strict=True):
        (alone,) = fit_for_epochs(x, config, epochs=(epochs,), seeds=(5, 6), batch=16)
        for name, value in alone.tensors().items():
            assert torch.equal(getattr(sae, name), value)
    assert not torch.equal(kept[1].encoder, kept[2].encoder)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_member_fitted_alone_equals_the_same_among_others(architecture):
    x, config = layer(3, 90, 6), SAEConfig(architecture=architecture)
    (together,) = fit_for_epochs(x, config, epochs=(15,), seeds=(4, 5, 6), batch=32)
    (alone,) = fit_for_epochs(x[1:2], config, epochs=(15,), seeds=(5,), batch=32)
    for name, value in alone.tensors().items():
        torch.testing.assert_close(getattr(together, name)[1], value[0], rtol=1e-5, atol=1e-5)


def test_shared_activations_equal_repeated_ones():
    x = layer(64, 4)
    (shared,) = fit_for_epochs(x, epochs=(5,), seeds=(1, 2), batch=16)
    (repeated,) = fit_for_epochs(x.expand(2, -1, -1), epochs=(5,), seeds=(1, 2), batch=16)
    torch.testing.assert_close(shared.encoder, repeated.encoder, rtol=0, atol=1e-5)


def test_one_seed_serves_many_members():
    x = layer(64, 4).expand(2, -1, -1)
    (sae,) = fit_for_epochs(x, epochs=(2,), seeds=(3,), batch=16)
    torch.testing.assert_close(sae.encoder[0], sae.encoder[1], rtol=0, atol=1e-6)


def test_a_seed_fixes_the_result_and_nothing_else_is_touched():
    x = layer(64, 4)
    before, state = x.clone(), torch.get_rng_state()
    (first,) = fit_for_epochs(x, epochs=(2,), seeds=(3,))
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    (second,) = fit_for_epochs(x, epochs=(2,), seeds=(3,))
    assert torch.equal(first.encoder, second.encoder)
    (other,) = fit_for_epochs(x, epochs=(2,), seeds=(4,))
    assert not torch.equal(first.encoder, other.encoder)


def test_fewer_samples_than_a_batch_are_one_batch():
    x = layer(20, 4)
    (usual,) = fit_for_epochs(x, epochs=(3,))
    (whole,) = fit_for_epochs(x, epochs=(3,), batch=20)
    assert torch.equal(usual.encoder, whole.encoder)


def test_the_loss_falls():
    x, config = layer(200, 6), SAEConfig(architecture="untied", l1=0.05)
    kept = fit_for_epochs(x, config, epochs=(1, 20, 200), batch=64)
    losses = [sae.losses(x)[0].item() for sae in kept]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.3 * losses[0]


def test_smaller_codes_for_longer_rows_rebuild_the_same_at_a_lower_loss():
    x, config = layer(200, 6), SAEConfig(architecture="untied")
    (sae,) = fit_for_epochs(x, config, epochs=(50,), batch=64)
    loss, sums = sae.losses(x)
    for _ in range(3):
        rebuilt = sae.decode(sae.encode(x))
        sae = replace(sae, encoder=sae.encoder / 2, bias=sae.bias / 2, decoder=2 * sae.decoder)
        torch.testing.assert_close(sae.decode(sae.encode(x)), rebuilt)
        lower, halved = sae.losses(x)
        torch.testing.assert_close(effective_features(halved), effective_features(sums))
        assert lower < loss
        loss = lower


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"config": SAEConfig(architecture="topk")}, "no topk; take tied or untied"),
        ({"config": SAEConfig(architecture="batchtopk")}, "no batchtopk; take tied or untied"),
        ({"epochs": ()}, "give rising numbers of at least 1"),
        ({"epochs": (0, 3)}, "give rising numbers of at least 1"),
        ({"epochs": (5, 3)}, "give rising numbers of at least 1"),
        ({"epochs": (3, 3)}, "give rising numbers of at least 1"),
        ({"seeds": (1, 2, 3)}, "3 seeds for 2 members"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message) as refusal:
        fit_for_epochs(layer(2, 10, 3), **settings)
    assert str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)


def test_activations_that_cannot_be_fitted_are_refused():
    with pytest.raises(ValueError, match="at least one of each"):
        fit_for_epochs(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="nan or infinity"):
        fit_for_epochs(torch.full((4, 3), torch.nan))
