"""What dictionaries look like, against everything encoded at once and loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import r2_score
from torch.nn.functional import cosine_similarity

from superpos.dictionary import codes, directions, nearest_cosines, neurons_per_direction
from superpos.entropy import DeadCodesError
from superpos.sae import ARCHITECTURES, ROWS, SAE, SAEConfig

VECTORS = arrays.arrays(
    "float64",
    st.integers(1, 12),
    elements=st.floats(-100, 100).map(lambda value: value if abs(value) > 1e-6 else 0.0),
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_sae(architecture, normalize=False):
    """Two autoencoders of three neurons and twelve codes."""
    config = SAEConfig(architecture=architecture, k=2, normalize=normalize)
    sae = SAE(config, normal(2, 12, 3), normal(2, 12, seed=1))
    if architecture != "tied":
        sae.decoder, sae.offset = normal(2, 12, 3, seed=2), normal(2, 3, seed=3)
    if architecture == "batchtopk":
        sae.threshold = torch.tensor([0.5, 1.5])
    if normalize:
        sae.scale = torch.tensor([2.0, 0.5])
    return sae


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_slices_add_up_to_what_all_samples_give_at_once(architecture, shared, normalize):
    sae = random_sae(architecture, normalize=normalize)
    x = normal(2, ROWS + 100, 3, seed=4)
    x = x[0] if shared else x
    found = codes(sae, x)
    z = sae.encode(x)
    torch.testing.assert_close(found.sums, z.double().sum(1), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.active, (z > 0).double().sum(2).mean(1))
    assert torch.equal(found.living, (z > 0).any(1))
    rebuilt = sae.decode(z)
    for member in range(2):
        own = x if shared else x[member]
        expected = r2_score(own, rebuilt[member], multioutput="variance_weighted")
        assert found.explained[member].item() == pytest.approx(expected, rel=1e-4)


def test_a_perfect_autoencoder_explains_all_variance_and_the_mean_none():
    x = normal(200, 4).relu()
    config = SAEConfig(architecture="untied", expansion=1)
    encoder = torch.eye(4).expand(3, 4, 4)
    bias = torch.tensor([[0.0], [-1e6], [-1e6]]).expand(3, 4)
    offset = torch.stack([torch.zeros(4), x.mean(0), x.mean(0) + 1])
    found = codes(SAE(config, encoder, bias, encoder, offset), x)
    assert found.explained[:2].tolist() == pytest.approx([1, 0], abs=1e-6)
    assert found.explained[2] < 0
    assert found.living.any(1).tolist() == [True, False, False]
    assert found.active.tolist() == pytest.approx([(x > 0).sum(1).double().mean().item(), 0, 0])


def test_directions_are_unit_rows_of_what_rebuilds():
    tied, untied = random_sae("tied"), random_sae("untied")
    tied.encoder[0, 3] = 0
    for sae, rows in ((tied, tied.encoder), (untied, untied.decoder)):
        expected = rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        torch.testing.assert_close(directions(sae), expected)
    assert not directions(tied)[0, 3].any()


def test_nearest_cosines_are_those_of_a_loop():
    rows = torch.nn.functional.normalize(normal(3, 20, 4), dim=-1)
    living = normal(3, 20, seed=1) > 0
    for member, found in enumerate(nearest_cosines(rows, living)):
        own = rows[member][living[member]]
        expected = []
        for i, row in enumerate(own):
            others = [other for j, other in enumerate(own) if j != i]
            expected.append(max(cosine_similarity(row, other, dim=0).item() for other in others))
        assert found.tolist() == pytest.approx(sorted(expected), abs=1e-6)


def test_living_twins_have_a_cosine_of_one_and_dead_ones_do_not_count():
    rows = torch.nn.functional.normalize(normal(1, 6, 8), dim=-1).expand(2, -1, -1).clone()
    rows[:, 4] = rows[:, 1]
    living = torch.ones(2, 6, dtype=torch.bool)
    living[1, 4] = False
    twins, single = nearest_cosines(rows, living)
    assert twins[-2:].tolist() == pytest.approx([1, 1])
    assert twins[:-2].max() < 0.99
    assert len(single) == 5
    assert single.max() < 0.99


def test_opposite_directions_are_far_apart():
    rows = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    (found,) = nearest_cosines(rows, torch.ones(1, 2, dtype=torch.bool))
    assert found.tolist() == [-1, -1]


def test_fewer_than_two_living_directions_have_no_neighbors():
    rows = torch.nn.functional.normalize(normal(2, 3, 4), dim=-1)
    living = torch.tensor([[False, False, False], [False, True, False]])
    assert [len(found) for found in nearest_cosines(rows, living)] == [0, 0]


@pytest.mark.parametrize("neurons", [1, 2, 7, 64])
def test_one_neuron_carries_its_axis_and_all_carry_a_uniform_direction(neurons):
    signs = torch.sign(normal(neurons))
    both = torch.stack([torch.eye(neurons)[0] * -3, signs / math.sqrt(neurons)])
    assert neurons_per_direction(both).tolist() == pytest.approx([1, neurons])


def test_two_neurons_of_unequal_weight_count_as_their_entropy_says():
    shares = [0.9, 0.1]
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    found = neurons_per_direction(torch.tensor([0.0, 0.9, 0.0, 0.1]).sqrt())
    assert found.item() == pytest.approx(expected, rel=1e-6)


@given(vector=VECTORS, factor=st.floats(1e-3, 1e3), data=st.data())
def test_neurons_per_direction_ignore_scale_signs_and_order(vector, factor, data):
    assume(vector.any())
    vector = torch.from_numpy(vector)
    count = neurons_per_direction(vector).item()
    assert 1 - 1e-9 <= count <= (vector != 0).sum().item() + 1e-9
    order = data.draw(st.permutations(range(len(vector))))
    signs = data.draw(
        st.lists(st.sampled_from([-1, 1]), min_size=len(vector), max_size=len(vector))
    )
    other = factor * torch.tensor(signs) * vector[order]
    assert neurons_per_direction(other).item() == pytest.approx(count, rel=1e-9)


def test_many_directions_are_counted_together():
    rows = normal(2, 3, 5)
    found = neurons_per_direction(rows)
    assert found.dtype == torch.float64
    expected = [[neurons_per_direction(row).item() for row in part] for part in rows]
    assert found.tolist() == [pytest.approx(part) for part in expected]


def test_a_direction_of_zeros_is_refused():
    with pytest.raises(DeadCodesError):
        neurons_per_direction(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
