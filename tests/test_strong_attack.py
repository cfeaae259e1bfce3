import random
import sys

import numpy as np
import pytest
import torch
import torchattacks
from torch import nn

from superpos import strong_attack
from superpos.attacks import pgd
from superpos.networks import mlp, predictions
from superpos.strong_attack import survivors

EPSILON = 0.08
QUICK = {"epsilon": EPSILON, "seed": 0, "steps": 12, "queries": 60}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class After(nn.Module):
    """A network whose logits go through a function."""

    def __init__(self, network, function):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, x):
        return self.function(self.network(x))


class Settled(nn.Module):
    """A layer that refuses to be trained."""

    def forward(self, x):
        assert not self.training
        return x


def in_steps(logits):
    """Hide the gradient: it is zero wherever it exists. No two classes tie."""
    return (logits * 20).floor() / 20 + 0.003 * (1 + torch.arange(logits.shape[-1]))


@pytest.fixture(scope="module")
def digits(digits_network):
    network, images = digits_network
    return network, images.x_test[:100], images.y_test[:100]


def linear(classes, scale=1.0, shape=(1, 6, 6), samples=120):
    """A linear network, images, labels, ten of them wrong, and the worst margins in the ball."""
    generator = seeded(classes)
    layer = nn.Linear(36, 1 if classes == 2 else classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(-layer.weight.sum(1) / 2)
    x = torch.rand(samples, 36, generator=generator)
    y = predictions(layer(x))
    y[:10] = (y[:10] + 1) % classes
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    if classes == 2:
        weight, bias = (torch.cat([torch.zeros_like(part), part]) for part in (weight, bias))
    low, high = ((x.double() + sign * EPSILON / 2).clamp(0, 1) for sign in (-1, 1))
    direction = weight[y].unsqueeze(1) - weight  # [samples, classes, pixels]
    worst = torch.where(direction > 0, low.unsqueeze(1), high.unsqueeze(1))
    margins = (direction * worst).sum(-1) + bias[y].unsqueeze(1) - bias
    margins[torch.arange(samples), y] = torch.inf
    network = nn.Sequential(nn.Flatten(), layer, After(nn.Identity(), lambda z: scale * z))
    return network, x.reshape(samples, *shape), y, margins.amin(1)


def meets_the_closed_form(network, x, y, margins, border=1e-4, **options):
    found = survivors(network, x, y, **(QUICK | {"epsilon": EPSILON / 2} | options))
    decided = margins.abs() > border  # an image on the border may go either way
    assert 0.1 < found.float().mean() < 0.9 and (~decided).sum() < 4
    assert torch.equal(found[decided], margins[decided] > 0)


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_a_linear_network_is_broken_exactly_where_its_closed_form_says(classes, scale):
    meets_the_closed_form(*linear(classes, scale))


@pytest.mark.parametrize(
    ("classes", "name"),
    [
        (2, "apgd-ce"),
        (3, "apgd-dlr"),
        (4, "apgd-t"),
        (10, "apgd-t"),
        (2, "fab-t"),
        (4, "fab-t"),
        (10, "fab-t"),
    ],
)
def test_a_scale_free_attack_alone_meets_the_closed_form_of_large_logits(
    classes, name, monkeypatch
):
    monkeypatch.setattr(strong_attack, "ATTACKS", {min(classes, 4): (name,)})
    meets_the_closed_form(*linear(classes, 1e4), border=0.006)


@pytest.mark.parametrize("shape", [(36,), (4, 9)])
def test_images_keep_their_axes_and_may_come_in_batches(shape):
    def same(x):
        assert x.shape[1:] == shape
        return x

    network, *rest = linear(3, shape=shape)
    meets_the_closed_form(nn.Sequential(After(nn.Identity(), same), network), *rest, batch=50)


@pytest.mark.parametrize(
    "pair", [lambda z: z.squeeze(-1), lambda z: torch.cat([-z, 0 * z], 1)], ids=["flat", "two"]
)
def test_two_classes_may_have_a_logit_without_axis_or_one_each(pair):
    network, x, y, margins = linear(2)
    meets_the_closed_form(After(network, pair), x, y.float(), margins)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_survivors_are_those_of_a_search_of_the_whole_ball(classes):
    generator = seeded(classes)
    network = mlp(2, (8, 8), classes, seed=0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    x = torch.rand(200, 2, generator=generator)
    mean = network(x).mean(0).detach()
    network = After(network, lambda z: z - mean)
    y = predictions(network(x))
    side = torch.linspace(-0.1, 0.1, 101)
    ball = (x.unsqueeze(1) + torch.cartesian_prod(side, side)).clamp(0, 1)
    with torch.no_grad():
        everywhere = predictions(network(ball.reshape(-1, 2))).reshape(200, -1)
    expected = (everywhere == y.unsqueeze(1)).all(1)
    found = survivors(network, x, y, **(QUICK | {"epsilon": 0.1}))
    assert 0.1 < expected.float().mean() < 0.95
    assert (found != expected).sum() <= 1  # a boundary may pass between the points of the grid


def test_survivors_agree_with_autoattack_of_torchattacks(digits):
    network, x, y = digits
    theirs = torchattacks.AutoAttack(network, eps=EPSILON, seed=3)
    for attack in theirs._autoattack.attacks[:3]:
        attack.steps = 15
    theirs._autoattack.attacks[3].n_queries = 300
    with torch.random.fork_rng():
        expected = predictions(network(theirs(x, y))) == y
    found = survivors(network, x, y, epsilon=EPSILON, seed=3, steps=15, queries=300)
    assert 0.2 < expected.float().mean() < 0.9
    assert torch.equal(found, expected)


def test_no_image_survives_that_pgd_breaks(digits):
    network, x, y = digits
    found = survivors(network, x, y, **QUICK)
    adversarial = pgd(network, x, y, epsilon=EPSILON, steps=40, generator=seeded())
    assert not (found & (predictions(network(adversarial)) != y)).any()
    assert found.sum() < (predictions(network(x)) == y).sum()


def test_a_hidden_gradient_saves_a_network_from_pgd_only(digits):
    network, x, y = digits
    exposed = survivors(network, x, y, **QUICK)
    masked = After(network, in_steps)
    correct = predictions(masked(x)) == y
    adversarial = pgd(masked, x, y, epsilon=EPSILON, steps=40, random_start=False)
    assert torch.equal(adversarial, x)
    broken = correct & ~survivors(masked, x, y, **(QUICK | {"queries": 600}))
    assert broken.sum() > 0.6 * (correct & ~exposed).sum()


@pytest.mark.parametrize(
    ("clean", "found", "counts"),
    [
        (0.5, 0.6, True),
        (0.5, 0.6 + 5e-7, True),
        (0.5, 0.6 + 1e-5, False),
        (0.5, 0.4 - 5e-7, True),
        (0.5, 0.4 - 1e-5, False),
        (0.95, 1.0, True),
        (0.95, 1.0 + 1e-5, False),
        (0.05, 0.0, True),
        (0.05, 0.0 - 1e-5, False),
        (0.5, float("nan"), False),
    ],
)
def test_a_point_counts_only_inside_the_ball_and_the_bounds(clean, found, counts, monkeypatch):
    def cheat(self, images, labels):
        return torch.tensor([0.58, found]).expand_as(images)

    monkeypatch.setattr(torchattacks.APGD, "forward", cheat)
    monkeypatch.setattr(strong_attack, "ATTACKS", {2: ("apgd-ce",)})
    network = After(nn.Flatten(), lambda x: x[:, 0] - 0.55)
    x, y = torch.tensor([[0.5, clean]] * 2), torch.tensor([0, 1])  # the second label is wrong
    assert survivors(network, x, y, epsilon=0.1, seed=0).tolist() == [not counts, False]


def test_a_point_counts_only_if_the_network_misclassifies_it(monkeypatch):
    monkeypatch.setattr(torchattacks.APGD, "forward", lambda self, images, labels: images + 0.01)
    monkeypatch.setattr(strong_attack, "ATTACKS", {2: ("apgd-ce",)})
    network = After(nn.Flatten(), lambda x: x.sum(1, keepdim=True) - 1)
    x = torch.tensor([[0.5, 0.48], [0.5, 0.49]])  # the attack returns sums of 1.0 and 1.01
    assert survivors(network, x, torch.zeros(2), epsilon=0.1, seed=0).tolist() == [True, False]


def test_logits_that_are_the_images_themselves_are_not_written_into(monkeypatch):
    monkeypatch.setattr(strong_attack, "ATTACKS", {3: ("square",)})
    x = torch.tensor([[0.5, 0.4, 0.2], [0.7, 0.2, 0.4], [0.1, 0.2, 0.35]])
    found = survivors(nn.Flatten(), x, torch.tensor([0, 0, 2]), **QUICK)
    assert found.tolist() == [False, True, False]  # leads of 0.1, 0.3 and 0.15


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_a_network_without_gradient_and_choice_survives(classes):
    network = mlp(64, 4, classes, seed=0)
    nn.init.zeros_(network.linear2.weight)
    x = torch.rand(20, 8, 8, generator=seeded())
    assert survivors(network, x, predictions(network(x)), **QUICK).all()


def test_a_seed_fixes_the_survivors_whatever_was_drawn_before(digits):
    network, x, y = digits
    masked = After(network, in_steps)
    options = {"epsilon": EPSILON, "steps": 2, "queries": 20}
    first, other = (survivors(masked, x, y, seed=seed, **options) for seed in (0, 1))
    torch.rand(1, generator=torch.default_generator)
    assert torch.equal(first, survivors(masked, x, y, seed=0, **options))
    assert not torch.equal(first, other)


def test_random_states_model_and_images_are_left_as_they_were():
    network = nn.Sequential(
        nn.Linear(6, 5),
        nn.BatchNorm1d(5),
        nn.Dropout(0.5),
        nn.Linear(5, 3),
        nn.BatchNorm1d(3),
        Settled(),
    ).train()
    network[1].eval()
    network[0].weight.requires_grad_(False)
    network[3].weight.grad = torch.ones_like(network[3].weight)

    def state():
        return (
            torch.get_rng_state().tolist(),
            repr(np.random.get_state()),
            random.getstate(),
            [module.training for module in network.modules()],
            [parameter.requires_grad for parameter in network.parameters()],
            [None if p.grad is None else p.grad.tolist() for p in network.parameters()],
            {name: value.tolist() for name, value in network.state_dict().items()},
        )

    x = torch.rand(8, 6, generator=seeded()).requires_grad_()
    y, copy, before = torch.arange(8) % 3, x.detach().clone(), state()
    found = survivors(network, x, y, **QUICK)
    assert state() == before
    assert torch.equal(x, copy) and x.requires_grad and x.grad is None
    assert found.dtype == torch.bool and found.shape == (8,)


def test_epsilon_zero_attacks_nothing(digits, monkeypatch):
    def refuse(self, inputs, labels):
        raise AssertionError("attacked")

    monkeypatch.setattr(torchattacks.attack.Attack, "__call__", refuse)
    network, x, y = digits
    found = survivors(network, x, y, epsilon=0, seed=0)
    assert torch.equal(found, predictions(network(x)) == y)
    assert not survivors(network, x, y + 10, epsilon=EPSILON, seed=0).any()  # none stands


def test_the_attacks_of_each_number_of_classes_run_in_their_order(monkeypatch):
    ran = []

    def note(self, inputs, labels):
        kind = self.attack + (self.loss if self.attack == "APGD" else "")
        if self.attack == "Square":
            ran.append((kind, self.n_queries))
        else:
            ran.append((kind, self.steps, self.n_restarts, getattr(self, "n_target_classes", None)))
        assert self.attack != "FAB" or self.multi_targeted
        return inputs

    monkeypatch.setattr(torchattacks.attack.Attack, "__call__", note)
    square = ("Square", 60)
    for classes, expected in {
        2: [("APGDce", 12, 5, None), ("FAB", 12, 5, 1), square],
        3: [("APGDce", 12, 5, None), ("APGDdlr", 12, 5, None), ("FAB", 12, 5, 2), square],
        4: [("APGDce", 12, 1, None), ("APGDT", 12, 1, 3), ("FAB", 12, 1, 3), square],
        12: [("APGDce", 12, 1, None), ("APGDT", 12, 1, 9), ("FAB", 12, 1, 9), square],
    }.items():
        survivors(*linear(classes)[:3], **QUICK)
        assert ran == expected
        ran.clear()


def test_without_torchattacks_the_error_says_what_to_install(digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(ImportError, match=r"pip install 'superpos\[attacks\]'"):
        survivors(*digits, epsilon=EPSILON, seed=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.full((4, 36), 1.5)}, ValueError, "from 1.5 to 1.5: rescale them to"),
        ({"x": torch.full((4, 36), float("nan"))}, ValueError, "Images range from nan"),
        ({"x": torch.zeros(4, 36, dtype=torch.float64)}, TypeError, "got torch.float64"),
        ({"x": torch.zeros(4, 1, 1, 6, 6)}, ValueError, "is no batch of images"),
        ({"x": torch.zeros(4)}, ValueError, "is no batch of images"),
        ({"y": torch.zeros(3)}, ValueError, "do not fit logits"),
        ({"epsilon": -0.1}, ValueError, "epsilon must be finite and at least 0, got -0.1"),
        ({"epsilon": float("nan")}, ValueError, "epsilon must be finite"),
        ({"epsilon": float("inf")}, ValueError, "epsilon must be finite"),
        ({"batch": 0}, ValueError, "batch is 0"),
        ({"steps": 0}, ValueError, "steps is 0"),
        ({"queries": 0}, ValueError, "queries is 0"),
        ({"model": nn.Unflatten(1, (6, 6)), "y": torch.zeros(4, 6)}, ValueError, "of one model"),
    ],
)
def test_wrong_arguments_are_refused_with_a_reason(change, error, message):
    arguments = {"model": linear(3)[0], "x": torch.zeros(4, 36), "y": torch.zeros(4)} | QUICK
    with pytest.raises(error, match=message):
        survivors(**(arguments | change))
