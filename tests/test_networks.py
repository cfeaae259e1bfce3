import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from superpos.networks import accuracy, classification_loss, cnn, mlp, predictions


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (mlp(784, 8, 10, seed=0), 784 * 8 + 8 + 8 * 10 + 10),
        (mlp(784, 512, 2, seed=0), 784 * 512 + 512 + 512 + 1),
        (mlp(784, (128, 64, 32), 3, seed=0), 100480 + 8256 + 2080 + 99),
        (cnn(1, 28, 8, 10, seed=0), 25 * 8 + 8 + 14 * 14 * 8 * 10 + 10),
        (cnn(3, 32, 64, 2, seed=0), 75 * 64 + 64 + 16 * 16 * 64 + 1),
        (
            cnn(1, 28, 16, 10, seed=0, standard=True),
            (9 * 16 + 16) + (9 * 16 * 32 + 32) + (7 * 7 * 32 * 64 + 64) + (64 * 10 + 10),
        ),
    ],
)
def test_networks_have_the_parameters_counted_by_hand(network, count):
    assert parameters(network) == count


def test_relu_sites_are_numbered_in_order():
    sites = [name for name, _ in mlp(4, (3, 2), 5, seed=0).named_children()]
    assert sites == ["flatten", "linear1", "relu1", "linear2", "relu2", "linear3"]
    sites = [name for name, _ in cnn(1, 8, 2, 3, seed=0).named_children()]
    assert sites == ["conv1", "relu1", "pool1", "flatten", "linear1"]
    sites = [name for name, _ in cnn(1, 8, 2, 3, seed=0, standard=True).named_children()]
    assert [name for name in sites if name.startswith("relu")] == ["relu1", "relu2", "relu3"]


@pytest.mark.parametrize("size", [8, 9, 28])
@pytest.mark.parametrize(("classes", "logits"), [(2, 1), (3, 3), (10, 10)])
def test_two_classes_share_one_logit(size, classes, logits):
    images = torch.rand(5, 1, size, size, generator=seeded())
    for network in (
        mlp(size * size, 6, classes, seed=0),
        cnn(1, size, 2, classes, seed=0),
        cnn(1, size, 2, classes, seed=0, standard=True),
    ):
        assert network(images).shape == (5, logits)


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, other = mlp(20, 7, 3, seed=5), mlp(20, 7, 3, seed=6)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    again = mlp(20, 7, 3, seed=5)
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert not torch.equal(first.linear1.weight, other.linear1.weight)


@pytest.mark.parametrize("layer", ["linear1", "conv1"])
def test_weights_follow_the_default_distribution_of_torch(layer):
    ours = getattr(cnn(3, 28, 64, 10, seed=0), layer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = (
            torch.nn.Linear(14 * 14 * 64, 10)
            if layer == "linear1"
            else torch.nn.Conv2d(3, 64, 5, padding=2)
        )
    for name in ("weight", "bias"):
        drawn, expected = getattr(ours, name).detach(), getattr(theirs, name).detach()
        assert drawn.shape == expected.shape
        bound = 1 / math.sqrt(ours.weight[0].numel())
        assert drawn.abs().max() <= bound
        uniform = stats.uniform(-bound, 2 * bound).cdf
        assert stats.kstest(drawn.flatten().numpy(), uniform).pvalue > 0.001
        assert stats.kstest(expected.flatten().numpy(), uniform).pvalue > 0.001


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: mlp(4, 0, 2, seed=0), "hidden"),
        (lambda: mlp(4, (), 2, seed=0), "hidden"),
        (lambda: mlp(0, 3, 2, seed=0), "inputs"),
        (lambda: mlp(4, 3, 1, seed=0), "at least 2"),
        (lambda: cnn(1, 3, 2, 3, seed=0, standard=True), "size"),
        (lambda: cnn(1, 8, 0, 3, seed=0), "filters"),
    ],
)
def test_impossible_sizes_are_refused_by_name(make, word):
    with pytest.raises(ValueError, match=word):
        make()


@settings(deadline=None)
@given(
    members=st.integers(1, 4),
    batch=st.integers(1, 6),
    classes=st.integers(1, 5),
    shared=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_losses_of_members_are_the_losses_of_each_alone(members, batch, classes, shared, seed):
    generator = seeded(seed)
    logits = torch.randn(members, batch, classes, generator=generator, dtype=torch.float64)
    shape = (batch,) if shared else (members, batch)
    y = torch.randint(0, max(classes, 2), shape, generator=generator)
    losses = classification_loss(logits, y)
    assert losses.shape == (members, batch)
    for member in range(members):
        own = y if shared else y[member]
        for sample in range(batch):
            scores = logits[member, sample].tolist()
            scores = [0.0, *scores] if classes == 1 else scores
            total = math.log(sum(math.exp(score) for score in scores))
            expected = total - scores[own[sample]]
            assert losses[member, sample].item() == pytest.approx(expected, abs=1e-12)


def test_a_single_logit_may_go_without_its_axis():
    logits = torch.randn(3, 5, 1, generator=seeded())
    y = torch.randint(0, 2, (3, 5), generator=seeded(1))
    assert torch.equal(classification_loss(logits, y), classification_loss(logits.squeeze(-1), y))
    assert torch.equal(accuracy(logits, y), accuracy(logits.squeeze(-1), y))


def test_predictions_are_the_most_likely_classes():
    assert predictions(torch.tensor([[-0.1], [0.2]])).tolist() == [0, 1]
    assert predictions(torch.tensor([[[0.1, 0.5, 0.2], [3.0, 0.5, 0.2]]])).tolist() == [[1, 0]]


def test_accuracy_is_counted_for_every_member():
    logits = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    assert accuracy(logits, torch.tensor([0, 0])).tolist() == [1.0, 0.5]
    assert accuracy(logits, torch.tensor([[0, 1], [1, 0]])).tolist() == [0.5, 1.0]
    assert accuracy(logits[0], torch.tensor([0, 1])).item() == 0.5


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(4,\) do not fit logits of shape \(5, 3\)"):
        classification_loss(torch.zeros(5, 3), torch.zeros(4))
