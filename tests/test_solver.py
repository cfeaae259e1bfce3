"""The solver: its gradients, its promise of convergence, and what it depends on."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from superpos import fit
from superpos.data import load_images
from superpos.entropy import effective_features
from superpos.learner import gradients
from superpos.networks import mlp
from superpos.polar import orthogonalized
from superpos.sae import ARCHITECTURES, SAE, SAEConfig, keep_top, keep_top_of_batch

QUICK = SAEConfig(steps=120, rounds=2, starts=2)
MEMBERS, BATCH, NEURONS, DICTIONARY, K, L1 = 3, 12, 5, 15, 2, 0.7


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def one_hot(features, samples, seed=0):
    """Samples with one feature each, of random magnitude, a neuron to a feature."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(samples, features)
    which = torch.randint(features, (samples,), generator=generator)
    x[torch.arange(samples), which] = torch.rand(samples, generator=generator)
    return x


@pytest.fixture(scope="module")
def hidden():
    """Hidden activations of an eight-neuron network trained on the digits, `[samples, 8]`."""
    data = load_images("digits")
    network = mlp(64, 8, 10, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(150):
        loss = functional.cross_entropy(network(data.x_train), data.y_train)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.relu1(network.linear1(data.x_train.flatten(1))).detach()


@pytest.fixture(scope="module")
def hidden_fit(hidden):
    return fit(hidden, seeds=range(3))


def stated_loss(architecture, x, encoder, bias, decoder, offset):
    """Sum over members of the loss that the documentation states, written with autograd."""
    z = torch.relu(x @ encoder.mT + bias[:, None])
    if architecture == "topk":
        z = keep_top(z, K)
    if architecture == "batchtopk":
        z = keep_top_of_batch(z, K)
    rebuilt = z @ encoder if architecture == "tied" else z @ decoder + offset[:, None]
    loss = (rebuilt - x).square().mean((1, 2))
    if architecture in ("tied", "untied"):
        loss = loss + L1 * z.mean((1, 2))
    return loss.sum()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_are_those_of_the_stated_loss(architecture):
    parameters = [
        normal(MEMBERS, DICTIONARY, NEURONS, seed=1, dtype=torch.float64),
        normal(MEMBERS, DICTIONARY, seed=2, dtype=torch.float64),
        normal(MEMBERS, DICTIONARY, NEURONS, seed=3, dtype=torch.float64),
        normal(MEMBERS, NEURONS, seed=4, dtype=torch.float64),
    ]
    encoder, bias, decoder, offset = parameters
    config = SAEConfig(architecture=architecture, expansion=3, k=K)
    sae = SAE(config, encoder, bias)
    if architecture != "tied":
        sae.decoder, sae.offset = decoder, offset
    x = normal(MEMBERS, BATCH, NEURONS, seed=5, dtype=torch.float64)
    found = gradients(sae, x, L1 / DICTIONARY)

    leaves = [parameter.clone().requires_grad_() for parameter in parameters]
    stated_loss(architecture, x, *leaves).backward()
    used = leaves[:2] if architecture == "tied" else leaves
    for name, leaf in zip(("encoder", "bias", "decoder", "offset"), used, strict=False):
        torch.testing.assert_close(found[name], leaf.grad, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("shape", [(2, 40, 8), (2, 8, 40), (1, 16, 16), (3, 60, 15)])
def test_orthogonalized_matrices_share_the_polar_factors_bases_and_roughly_its_size(shape):
    matrix = normal(*shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalized(matrix)
    assert result.shape == matrix.shape
    # Read in the singular bases of the matrix, the polar factor is the identity. Three
    # polynomials keep the bases, but leave singular values between 0.65 and 1.2 (weaker ones than
    # a hundredth of the whole grow, but stay below).
    inside = left.mT @ result @ right.mT
    values = inside.diagonal(dim1=-2, dim2=-1)
    assert (values > 0.15).all()
    assert (values < 1.2).all()
    torch.testing.assert_close(inside, torch.diag_embed(values), atol=1e-4, rtol=0)


def test_orthogonalizing_lifts_weak_directions_towards_strong_ones():
    left, right = torch.linalg.qr(normal(20, 4)).Q, torch.linalg.qr(normal(4, 4, seed=1)).Q
    strengths = torch.tensor([1.0, 0.3, 0.1, 0.02])
    result = orthogonalized((left * strengths @ right.mT)[None])[0]
    lifted = (left.mT @ result @ right).diagonal()
    assert lifted.max() / lifted.min() < 12


def test_orthogonalizing_ignores_the_scale_and_leaves_zero_at_zero():
    matrix = normal(2, 12, 4)
    scaled = torch.stack([1e-6 * matrix[0], 1e6 * matrix[1]])
    torch.testing.assert_close(orthogonalized(scaled), orthogonalized(matrix), atol=1e-3, rtol=0)
    assert torch.equal(orthogonalized(torch.zeros(1, 6, 3)), torch.zeros(1, 6, 3))


def test_planted_one_hot_features_are_counted_with_the_default_settings():
    planted = 16
    result = fit(one_hot(planted, 8000), seeds=range(3))
    assert result.features.tolist() == pytest.approx([planted] * 3, rel=0.02)
    assert result.converged.all()


def test_seeds_agree_on_the_features_of_a_trained_network(hidden_fit):
    features = hidden_fit.features
    assert hidden_fit.converged.all()
    assert (features.max() - features.min()) / features.mean() < 0.02


def test_a_ten_times_longer_fit_finds_the_same_features(hidden, hidden_fit):
    longer = fit(hidden, SAEConfig(steps=10 * (1000 + 16 * 8), rounds=1, starts=4), seeds=[7])
    assert hidden_fit.features.tolist() == pytest.approx([longer.features.item()] * 3, rel=0.03)


def test_the_loss_is_not_above_that_of_the_plain_recipe(hidden, hidden_fit):
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.empty(32, 8), torch.zeros(32, requires_grad=True)
    torch.nn.init.xavier_uniform_(weight, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], lr=1e-3)
    for _ in range(400):
        for x in hidden[torch.randperm(len(hidden), generator=generator)].split(128):
            z = functional.relu(functional.linear(x, weight, bias))
            loss = functional.mse_loss(z @ weight, x) + 0.1 * z.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        z = functional.relu(functional.linear(hidden, weight, bias))
        plain = functional.mse_loss(z @ weight, hidden) + 0.1 * z.mean()
    assert (hidden_fit.loss <= plain).all()


def test_the_stated_loss_and_features_are_those_of_the_autoencoders(hidden, hidden_fit):
    loss, sums = hidden_fit.sae.losses(hidden)
    torch.testing.assert_close(hidden_fit.loss, loss)
    torch.testing.assert_close(hidden_fit.features, effective_features(sums))
    torch.testing.assert_close(hidden_fit.history[-1], loss)


def test_the_history_never_rises():
    result = fit(normal(300, 6).relu(), SAEConfig(steps=60, tolerance=1e-6, rounds=5), seeds=[0, 1])
    assert len(result.history) == result.rounds.max()
    assert (result.history.diff(dim=0) <= 0).all()


def test_a_budget_that_ends_too_soon_is_reported():
    result = fit(normal(200, 4).relu(), SAEConfig(rounds=1, steps=20), seeds=[0])
    assert result.converged.tolist() == [False]
    assert result.rounds.tolist() == [1]
    assert result.history.shape == (1, 1)


def test_finished_members_stop_while_others_go_on():
    easy, hard = one_hot(4, 400), normal(400, 4, seed=1).relu()
    config = SAEConfig(steps=150, rounds=6, tolerance=1e-4, starts=1)
    together = fit(torch.stack([easy, hard]), config, seeds=[0, 0], at_once=2)
    assert together.rounds[0] != together.rounds[1]
    for member, x in enumerate((easy, hard)):
        alone = fit(x, config, seeds=[0])
        assert alone.rounds == together.rounds[member]
        torch.testing.assert_close(alone.loss[0], together.loss[member], rtol=1e-4, atol=0)
    finished = together.rounds.argmin()
    stop = together.rounds[finished]
    assert (together.history[stop - 1 :, finished] == together.loss[finished]).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_member_fitted_alone_equals_the_same_among_others(architecture):
    x = normal(3, 300, 6).relu()
    config = SAEConfig(architecture=architecture, steps=60, rounds=2, starts=2)
    together = fit(x, config, seeds=[4, 5, 6])
    alone = fit(x[1:2], config, seeds=[5])
    torch.testing.assert_close(alone.loss[0], together.loss[1], rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(alone.features[0], together.features[1], rtol=1e-3, atol=0)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_how_many_are_computed_together_does_not_matter(at_once):
    x = normal(4, 300, 6).relu()
    usual = fit(x, QUICK, seeds=range(4))
    other = fit(x, QUICK, seeds=range(4), at_once=at_once)
    torch.testing.assert_close(other.loss, usual.loss, rtol=1e-4, atol=0)
    torch.testing.assert_close(other.features, usual.features, rtol=1e-3, atol=0)


def test_shared_activations_equal_repeated_ones():
    x = normal(300, 6).relu()
    shared = fit(x, QUICK, seeds=range(3))
    repeated = fit(x.expand(3, -1, -1), QUICK, seeds=range(3))
    torch.testing.assert_close(shared.loss, repeated.loss, rtol=1e-4, atol=0)
    torch.testing.assert_close(shared.features, repeated.features, rtol=1e-3, atol=0)


def test_a_seed_fixes_the_result_and_the_global_generator_plays_no_part():
    x = normal(300, 6).relu()
    torch.manual_seed(1)
    first = fit(x, QUICK, seeds=[3])
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = fit(x, QUICK, seeds=[3])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.sae.encoder, second.sae.encoder)
    assert torch.equal(first.history, second.history)
    assert not torch.equal(first.sae.encoder, fit(x, QUICK, seeds=[4]).sae.encoder)


def test_the_activations_are_left_as_they_were():
    x = normal(200, 4).relu()
    before = x.clone()
    fit(x, SAEConfig(steps=20, rounds=2, normalize=True))
    assert torch.equal(x, before)


def test_one_seed_serves_many_members():
    x = normal(200, 4).relu()
    result = fit(x.expand(2, -1, -1), QUICK, seeds=[9])
    torch.testing.assert_close(result.loss[0], result.loss[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("normalize", [False, True])
def test_all_zero_activations_give_no_features(normalize):
    result = fit(torch.zeros(100, 4), SAEConfig(steps=300, normalize=normalize))
    assert result.features.isnan().all()
    assert result.loss.isfinite().all()


def test_an_overwhelming_penalty_kills_every_code_of_that_member_only():
    x = torch.stack([1e-3 * one_hot(4, 500), 10 * one_hot(4, 500)])
    result = fit(x, SAEConfig(steps=400, l1=1.0), seeds=[0])
    assert result.features.isnan().tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions_are_taken(dtype):
    x = normal(200, 4).relu().to(dtype)
    result = fit(x, QUICK)
    torch.testing.assert_close(result.loss, fit(x.float(), QUICK).loss)
    assert result.sae.encoder.dtype == torch.float32


@pytest.mark.parametrize(
    ("x", "seeds", "message"),
    [
        (torch.tensor([[1.0, torch.nan]]), [0], "nan or infinity"),
        (torch.full((3, 2), torch.inf), [0], "nan or infinity"),
        (torch.full((3, 2), 1e300, dtype=torch.float64), [0], "single precision"),
        (torch.zeros(0, 4), [0], "at least one of each"),
        (torch.zeros(4), [0], r"give \[samples, neurons\]"),
        (torch.zeros(1, 2, 3, 4), [0], r"give \[samples, neurons\]"),
        (torch.ones(3, 10, 4), [0, 1], "2 seeds for 3 members"),
        (torch.ones(10, 4), [], "0 seeds for 0 members"),
    ],
)
def test_activations_and_seeds_that_cannot_be_fitted_are_refused(x, seeds, message):
    with pytest.raises(ValueError, match=message):
        fit(x, QUICK, seeds=seeds)


def test_a_k_above_the_dictionary_is_refused():
    with pytest.raises(ValueError, match="k is 9"):
        fit(normal(20, 2), SAEConfig(architecture="topk", k=9))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("neurons", [1, 6])
def test_dictionaries_smaller_than_the_layer_and_few_samples_work(architecture, neurons):
    config = SAEConfig(architecture=architecture, expansion=0.5, steps=50, rounds=2, l1=0.001)
    result = fit(normal(7, neurons).relu() + 0.1, config)
    assert result.sae.dictionary == max(1, neurons // 2)
    assert result.loss.isfinite().all()
    assert 1 <= result.features.item() <= result.sae.dictionary + 1e-9


@pytest.mark.parametrize("architecture", ["tied", "untied"])
def test_normalizing_makes_features_ignore_the_scale_of_the_activations(architecture):
    x = normal(400, 6).relu()
    config = SAEConfig(architecture=architecture, steps=200, rounds=2, starts=2, normalize=True)
    scaled = torch.stack([x / 64, x * 64])  # powers of two, so that rounding is the same
    small, large = fit(scaled, config, seeds=[0]).features.tolist()
    assert small == pytest.approx(large, rel=1e-6)


def test_without_normalizing_the_scale_matters():
    x = one_hot(4, 500) @ normal(4, 4, seed=2)
    small, large = fit(torch.stack([0.3 * x, 30 * x]), SAEConfig(steps=300), seeds=[0]).features
    assert abs(small - large) / large > 0.05


def test_topk_keeps_at_most_k_codes_of_a_sample():
    x = normal(500, 8).relu()
    result = fit(x, SAEConfig(architecture="topk", k=3, steps=200, rounds=2, starts=1))
    active = (result.sae.encode(x) > 0).sum(-1)
    assert active.max() == 3


def test_batchtopk_keeps_k_codes_of_a_sample_on_average():
    x = normal(2, 500, 8).relu()
    config = SAEConfig(architecture="batchtopk", k=3, steps=200, rounds=2, starts=1)
    result = fit(x, config, seeds=[0])
    active = (result.sae.encode(x) > 0).sum(-1).double()
    assert active.mean(1).tolist() == pytest.approx([3, 3], rel=0.02)
    assert active.max() > 3


@pytest.mark.parametrize("architecture", ["untied", "topk", "batchtopk"])
def test_decoder_rows_have_unit_length(architecture):
    config = SAEConfig(architecture=architecture, steps=30, rounds=2, starts=1)
    norms = fit(normal(200, 5).relu(), config).sae.decoder.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_a_fitted_autoencoder_survives_its_file(tmp_path):
    x = normal(300, 5).relu()
    config = SAEConfig(architecture="batchtopk", normalize=True, steps=50, rounds=2)
    result = fit(x, config, seeds=[0, 1])
    result.sae.save(tmp_path / "sae.safetensors")
    assert torch.equal(SAE.load(tmp_path / "sae.safetensors").losses(x)[0], result.loss)
