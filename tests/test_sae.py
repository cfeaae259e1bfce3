"""Sparse autoencoders: formulas against a loop over members and samples, and files."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from superpos import sae as sae_module
from superpos.sae import ARCHITECTURES, SAE, SAEConfig, keep_top, keep_top_of_batch, slices

MEMBERS, SAMPLES, NEURONS, DICTIONARY, K = 3, 17, 5, 10, 2


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_sae(architecture, normalize=False):
    untied = architecture != "tied"
    return SAE(
        SAEConfig(architecture=architecture, expansion=2, l1=0.3, k=K, normalize=normalize),
        normal(MEMBERS, DICTIONARY, NEURONS),
        normal(MEMBERS, DICTIONARY, seed=1),
        decoder=normal(MEMBERS, DICTIONARY, NEURONS, seed=2) if untied else None,
        offset=normal(MEMBERS, NEURONS, seed=3) if untied else None,
        threshold=torch.tensor([0.1, 0.5, 1.0]) if architecture == "batchtopk" else None,
        scale=torch.tensor([0.5, 1.0, 2.0]) if normalize else None,
    )


def code_by_hand(sae, member, x):
    """Code of one sample, one number at a time."""
    scale = 1.0 if sae.scale is None else sae.scale[member]
    z = []
    for row, bias in zip(sae.encoder[member], sae.bias[member], strict=True):
        z.append(max(0.0, (row @ (x / scale) + bias).item()))
    if sae.config.architecture == "topk":
        last = sorted(z)[-K]
        z = [value if value >= last else 0.0 for value in z]
    if sae.config.architecture == "batchtopk":
        z = [value if value > sae.threshold[member] else 0.0 for value in z]
    return torch.tensor(z)


def rebuilt_by_hand(sae, member, z):
    """Activations of one sample's code, in the activations' own units."""
    decoder = sae.encoder if sae.decoder is None else sae.decoder
    x = sum(value * row for value, row in zip(z, decoder[member], strict=True))
    x = x if sae.offset is None else x + sae.offset[member]
    return x if sae.scale is None else x * sae.scale[member]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_codes_and_rebuilt_activations_equal_a_loop_over_members_and_samples(
    architecture, normalize
):
    sae, x = random_sae(architecture, normalize), normal(MEMBERS, SAMPLES, NEURONS, seed=4)
    z = sae.encode(x)
    assert z.shape == (MEMBERS, SAMPLES, DICTIONARY)
    rebuilt = sae.decode(z)
    for member in range(MEMBERS):
        for sample in range(SAMPLES):
            expected = code_by_hand(sae, member, x[member, sample])
            torch.testing.assert_close(z[member, sample], expected, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(
                rebuilt[member, sample],
                rebuilt_by_hand(sae, member, expected),
                atol=1e-4,
                rtol=1e-4,
            )


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("rows", [1, 5, SAMPLES, 100])
def test_losses_equal_the_stated_formula_whatever_the_slices(
    architecture, normalize, rows, monkeypatch
):
    sae, x = random_sae(architecture, normalize), normal(MEMBERS, SAMPLES, NEURONS, seed=4)
    z = sae.encode(x)
    error = sae.decode(z) - x
    if normalize:
        error = error / sae.scale[:, None, None]
    expected = error.square().mean((1, 2))
    if not sae.config.sparse_by_rank:
        expected = expected + 0.3 * z.mean((1, 2))
    monkeypatch.setattr(
        sae_module, "slices", lambda activations: slices(activations, rows), raising=True
    )
    loss, sums = sae.losses(x)
    torch.testing.assert_close(loss, expected.double(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(sums, z.sum(1).double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_activations_that_all_members_share_need_not_be_repeated(architecture):
    sae, x = random_sae(architecture), normal(SAMPLES, NEURONS, seed=4)
    assert torch.equal(sae.encode(x), sae.encode(x.expand(MEMBERS, -1, -1)))
    assert torch.equal(sae.losses(x)[0], sae.losses(x.expand(MEMBERS, -1, -1))[0])


@pytest.mark.parametrize("shape", [(NEURONS,), (SAMPLES, 4), (2, SAMPLES, NEURONS), (1, 1, 1, 5)])
def test_activations_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match="activations have"):
        random_sae("tied").encode(torch.zeros(shape))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_autoencoder_comes_back_with_its_configuration(tmp_path, architecture, normalize):
    sae = random_sae(architecture, normalize)
    sae.save(tmp_path / "sae.safetensors")
    loaded = SAE.load(tmp_path / "sae.safetensors")
    assert loaded.config == sae.config
    assert loaded.tensors().keys() == sae.tensors().keys()
    for name, tensor in sae.tensors().items():
        assert torch.equal(getattr(loaded, name), tensor)


def test_the_file_is_plain_safetensors(tmp_path):
    sae = random_sae("untied")
    sae.save(tmp_path / "sae.safetensors")
    assert torch.equal(load_file(tmp_path / "sae.safetensors")["decoder"], sae.decoder)


def test_a_file_of_something_else_is_refused(tmp_path):
    save_file({"encoder": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no superpos autoencoder"):
        SAE.load(tmp_path / "other.safetensors")


def test_a_pickle_is_not_opened(tmp_path):
    torch.save({"encoder": torch.ones(2)}, tmp_path / "sae.pt")
    with pytest.raises(ValueError, match=r"sae\.pt is no safetensors file: .*(?i:header)"):
        SAE.load(tmp_path / "sae.pt")


def test_selected_members_are_copies_in_the_order_asked_for():
    sae = random_sae("batchtopk", normalize=True)
    chosen = sae.select([2, 0])
    assert (chosen.members, chosen.dictionary, chosen.neurons) == (2, DICTIONARY, NEURONS)
    for name, tensor in sae.tensors().items():
        assert torch.equal(getattr(chosen, name), tensor[[2, 0]])
    chosen.encoder.zero_()
    assert sae.encoder.abs().min() > 0


@given(st.integers(1, 12), st.integers(0, 10_000))
def test_keep_top_keeps_the_largest_codes_of_every_sample(k, seed):
    z = torch.rand(3, 12, generator=torch.Generator().manual_seed(seed))
    kept = keep_top(z, k)
    assert ((kept == 0) | (kept == z)).all()
    assert ((kept > 0).sum(-1) <= k).all()
    torch.testing.assert_close(kept.sum(-1), z.sort(-1).values[:, -k:].sum(-1))


@given(st.integers(1, 30), st.integers(0, 10_000))
def test_keep_top_of_batch_keeps_k_codes_a_sample_on_average(k, seed):
    z = torch.rand(2, 5, 12, generator=torch.Generator().manual_seed(seed))
    kept = keep_top_of_batch(z, k)
    assert ((kept == 0) | (kept == z)).all()
    assert ((kept > 0).sum((1, 2)) <= min(5 * k, 60)).all()
    for member in range(2):
        largest = z[member].flatten().sort(descending=True).values[: 5 * k]
        torch.testing.assert_close(kept[member].sum(), largest.sum())


@given(st.integers(1, 40), st.integers(1, 50))
def test_slices_put_together_are_the_whole(samples, rows):
    x = torch.arange(2 * samples * 3).view(2, samples, 3)
    parts = list(slices(x, rows))
    assert all(part.shape[1] <= rows for part in parts)
    assert torch.equal(torch.cat(parts, 1), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "gated"}, "allowed are tied, untied, topk, batchtopk"),
        ({"expansion": 0}, "expansion is 0"),
        ({"expansion": math.nan}, "expansion is nan"),
        ({"expansion": math.inf}, "expansion is inf"),
        ({"tolerance": -0.1}, "tolerance is -0.1"),
        ({"l1": -1}, "l1 is -1"),
        ({"l1": math.nan}, "l1 is nan"),
        ({"k": 0}, "k is 0"),
        ({"starts": 1.5}, "starts is 1.5"),
        ({"steps": 0}, "steps is 0"),
        ({"rounds": 0}, "rounds is 0"),
    ],
)
def test_configurations_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SAEConfig(**options)


@given(st.floats(0.01, 20), st.integers(1, 600))
def test_the_dictionary_has_the_expansion_asked_for_and_at_least_one_code(expansion, neurons):
    size = SAEConfig(expansion=expansion).dictionary(neurons)
    assert size >= 1
    assert size == 1 or abs(size - expansion * neurons) <= 0.5


def test_k_defaults_to_a_quarter_of_the_neurons_and_may_not_exceed_the_dictionary():
    assert SAEConfig().kept(16) == 4
    assert SAEConfig().kept(2) == 1
    with pytest.raises(ValueError, match="k is 9, but the dictionary has only 8 codes"):
        SAEConfig(k=9).kept(2)
