import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from superpos.attacks import fgsm, pgd
from superpos.networks import accuracy, mlp

NORMS = ["linf", "l2"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def curved_ensemble(members, features, classes, seed=0, dtype=torch.float32):
    """Random two-layer networks, computed one by one so that a member alone is the same sum."""
    generator = seeded(seed)
    first = torch.randn(members, features, 8, generator=generator, dtype=dtype)
    second = torch.randn(members, 8, classes, generator=generator, dtype=dtype)

    def member(index):
        return lambda x: torch.tanh(x.flatten(1) @ first[index]) @ second[index]

    def ensemble(x):
        return torch.stack([member(index)(part) for index, part in enumerate(x)])

    return ensemble, member


def distances(difference, norm, samples):
    flat = difference.flatten(samples)
    return flat.abs().amax(-1) if norm == "linf" else flat.norm(dim=-1)


@pytest.fixture(scope="module")
def digits(digits_network):
    network, images = digits_network
    assert accuracy(network(images.x_test), images.y_test) > 0.9
    return (
        network,
        torch.cat([images.x_train, images.x_test]),
        torch.cat([images.y_train, images.y_test]),
    )


@settings(deadline=None, max_examples=150)
@given(
    norm=st.sampled_from(NORMS),
    epsilons=st.lists(st.sampled_from([0.0, 1e-3, 0.1, 0.3, 2.0]), min_size=1, max_size=3),
    features=st.sampled_from([(1,), (7,), (2, 3), (1, 3, 3)]),
    classes=st.integers(1, 4),
    steps=st.integers(1, 4),
    step_size=st.sampled_from([None, 0.05, 3.0]),
    targeted=st.booleans(),
    random_start=st.booleans(),
    bounds=st.sampled_from([(0.0, 1.0), (-2.0, 0.5)]),
    seed=st.integers(0, 1000),
)
def test_attacks_stay_inside_ball_and_bounds(
    norm, epsilons, features, classes, steps, step_size, targeted, random_start, bounds, seed
):
    members, batch, (low, high) = len(epsilons), 5, bounds
    generator = seeded(seed)
    x = torch.rand(members, batch, *features, generator=generator) * (high - low) + low
    x = x.round(decimals=1).clamp(low, high)  # some inputs on the bounds themselves
    y = torch.randint(0, max(classes, 2), (batch,), generator=generator)
    model, _ = curved_ensemble(members, x[0, 0].numel(), classes, seed)
    epsilon = torch.tensor(epsilons)
    adversarial = pgd(
        model,
        x,
        y,
        epsilon=epsilon,
        steps=steps,
        step_size=step_size,
        norm=norm,
        random_start=random_start,
        targeted=targeted,
        bounds=bounds,
        generator=generator,
    )
    assert adversarial.shape == x.shape and not adversarial.requires_grad
    assert ((low <= adversarial) & (adversarial <= high)).all()
    assert (distances(adversarial - x, norm, 2) <= epsilon[:, None] + 1e-6).all()
    assert torch.equal(adversarial[epsilon == 0], x[epsilon == 0])


def test_fgsm_agrees_with_torchattacks(digits):
    network, x, y = digits
    expected = torchattacks.FGSM(network, eps=0.1)(x, y)
    torch.testing.assert_close(fgsm(network, x, y, epsilon=0.1), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [2, 5])
def test_pgd_without_random_start_agrees_with_torchattacks(digits, steps):
    network, x, y = digits
    expected = torchattacks.PGD(network, eps=0.1, alpha=0.04, steps=steps, random_start=False)(x, y)
    ours = pgd(network, x, y, epsilon=0.1, steps=steps, step_size=0.04, random_start=False)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [2, 5])
def test_l2_pgd_without_random_start_agrees_with_torchattacks(digits, steps):
    network, x, y = (part.double() if torch.is_tensor(part) else part for part in digits)
    network, y = mlp(64, 32, 10, seed=0).double(), y.long()
    network.load_state_dict(digits[0].state_dict())
    options = {"eps": 0.5, "alpha": 0.2, "steps": steps, "random_start": False}
    expected = torchattacks.PGDL2(network, eps_for_division=1e-30, **options)(x, y)
    ours = pgd(
        network, x, y, epsilon=0.5, steps=steps, step_size=0.2, norm="l2", random_start=False
    )
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("norm", "theirs", "epsilon"),
    [("linf", torchattacks.PGD, 0.1), ("l2", torchattacks.PGDL2, 0.5)],
)
def test_robust_accuracy_agrees_with_torchattacks(digits, norm, theirs, epsilon):
    network, x, y = digits
    # Their l2 start is uniform in radius, not in the ball; enough steps forget the difference.
    step, steps = epsilon / 4, 20
    ours = pgd(
        network, x, y, epsilon=epsilon, steps=steps, step_size=step, norm=norm, generator=seeded()
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = theirs(network, eps=epsilon, alpha=step, steps=steps, random_start=True)(x, y)
    robust, clean = accuracy(network(ours), y), accuracy(network(x), y)
    assert abs(robust - accuracy(network(expected), y)) < 0.01
    assert robust < clean - 0.1


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_network_meets_its_closed_form_worst_case(norm, targeted):
    generator = seeded()
    weights = torch.randn(6, 1, generator=generator, dtype=torch.float64)
    x = torch.rand(20, 6, generator=generator, dtype=torch.float64) * 0.4 + 0.3
    y = torch.randint(0, 2, (20,), generator=generator)
    direction = weights.sign() if norm == "linf" else weights / weights.norm()
    sign = (2 * y - 1 if targeted else 1 - 2 * y).double()
    expected = x + 0.2 * sign[:, None] * direction.T
    options = {"epsilon": 0.2, "norm": norm, "targeted": targeted}
    for model in (lambda x: x @ weights, lambda x: (x @ weights).squeeze(-1)):
        torch.testing.assert_close(fgsm(model, x, y, **options), expected, atol=1e-12, rtol=0)
        short = pgd(model, x, y, steps=3, step_size=0.02, random_start=False, **options)
        torch.testing.assert_close(short, x + 0.3 * (expected - x), atol=1e-12, rtol=0)
        found = pgd(model, x, y, steps=40, step_size=0.1, generator=seeded(), **options)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_steps_are_two_and_a_half_radii_together_unless_told_otherwise(norm):
    x, (_, member) = torch.rand(4, 8, generator=seeded()), curved_ensemble(1, 8, 3)
    options = {"epsilon": 0.3, "steps": 5, "norm": norm, "random_start": False}
    found = pgd(member(0), x, torch.zeros(4), **options)
    expected = pgd(member(0), x, torch.zeros(4), step_size=0.15, **options)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_one_radius_serves_all_samples(norm):
    x, (_, member) = torch.rand(4, 8, generator=seeded()), curved_ensemble(1, 8, 3)
    given, listed = (
        fgsm(member(0), x, torch.zeros(4), epsilon=epsilon, norm=norm)
        for epsilon in (0.1, torch.tensor([0.1]))
    )
    assert torch.equal(given, listed)


def test_fgsm_keeps_to_the_bounds_it_is_given():
    x, sign = torch.tensor([[-0.9, 0.0, 0.9]]), torch.tensor([-1.0, 1.0, 1.0])
    found = fgsm(lambda x: x @ sign, x, torch.zeros(1), epsilon=0.5, bounds=(-1.0, 1.0))
    torch.testing.assert_close(found, torch.tensor([[-1.0, 0.5, 1.0]]))


@pytest.mark.parametrize("norm", NORMS)
def test_a_member_is_attacked_in_an_ensemble_as_alone(norm):
    x = torch.rand(3, 5, 2, 4, generator=seeded())
    y = torch.randint(0, 3, (3, 5), generator=seeded(1))
    ensemble, member = curved_ensemble(3, 8, 3)
    epsilon = torch.tensor([0.1, 0.0, 0.3])
    options = {"steps": 4, "norm": norm}
    together = pgd(
        ensemble, x, y, epsilon=epsilon, generator=[seeded(i) for i in range(3)], **options
    )
    for i in range(3):
        alone = pgd(
            ensemble_of_one(member(i)),
            x[i : i + 1],
            y[i],
            epsilon=epsilon[i : i + 1],
            generator=[seeded(i)],
            **options,
        )
        assert torch.equal(together[i], alone[0])
        single = pgd(member(i), x[i], y[i], epsilon=epsilon[i], generator=seeded(i), **options)
        assert torch.equal(together[i], single)


def ensemble_of_one(model):
    return lambda x: model(x[0]).unsqueeze(0)


@pytest.mark.parametrize("norm", NORMS)
def test_samples_are_attacked_independently(norm):
    x = torch.rand(6, 8, generator=seeded(), dtype=torch.float64)
    y = torch.randint(0, 3, (6,), generator=seeded(1))
    _, member = curved_ensemble(1, 8, 3, dtype=torch.float64)
    epsilon = torch.tensor([0.0, 0.05, 0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    options = {"steps": 3, "norm": norm, "random_start": False}
    together = pgd(member(0), x, y, epsilon=epsilon, **options)
    for i in range(6):
        part = slice(i, i + 1)
        alone = pgd(member(0), x[part], y[part], epsilon=float(epsilon[i]), **options)
        torch.testing.assert_close(together[part], alone)


@pytest.mark.parametrize("norm", NORMS)
def test_targeted_attacks_raise_the_probability_of_their_target(digits, norm):
    network, x, y = digits
    target = (y + 1) % 10
    adversarial = pgd(
        network, x, target, epsilon=0.1, steps=5, norm=norm, targeted=True, generator=seeded()
    )
    chosen = torch.arange(len(x)), target
    before, after = network(x).softmax(-1)[chosen], network(adversarial).softmax(-1)[chosen]
    assert (after > before).float().mean() > 0.95


def test_the_loss_can_be_replaced():
    x, y = torch.full((4, 3), 0.5), torch.zeros(4)
    adversarial = fgsm(lambda x: x, x, y, epsilon=0.25, loss=lambda logits, y: -logits.mean())
    assert torch.equal(adversarial, torch.full((4, 3), 0.25))


def test_random_starts_are_uniform_in_the_ball():
    x = torch.full((4000, 5), 0.5)
    options = {"epsilon": 0.2, "steps": 1, "step_size": 0.0, "generator": seeded()}
    y = torch.zeros(4000)
    start = pgd(lambda x: x, x, y, **options) - 0.5
    assert stats.kstest(start.flatten().numpy(), stats.uniform(-0.2, 0.4).cdf).pvalue > 0.01
    start = pgd(lambda x: x, x, y, norm="l2", **options) - 0.5
    volume = (start.norm(dim=-1) / 0.2) ** 5
    assert stats.kstest(volume.numpy(), "uniform").pvalue > 0.01
    assert start.mean(0).abs().max() < 0.01


def test_random_starts_are_as_precise_as_their_inputs():
    x = torch.zeros(2, 3, dtype=torch.float64)
    options = {"epsilon": 1.0, "steps": 1, "step_size": 0.0, "bounds": (-1.0, 1.0)}
    for generator in (seeded(), [seeded(), seeded(1)]):
        start = pgd(lambda x: x, x, x[:, 0], generator=generator, **options)
        assert (start != start.float()).all()


@pytest.mark.parametrize("scale", [0.0, 1e-30])
def test_vanishing_gradients_do_no_harm_in_l2(scale):
    x, y = torch.rand(4, 6, generator=seeded()) * 0.2 + 0.4, torch.ones(4)
    options = {"epsilon": 0.1, "steps": 1, "step_size": 0.03, "norm": "l2", "random_start": False}
    adversarial = pgd(lambda x: scale * x.sum(-1), x, y, **options)
    moved = (adversarial - x).norm(dim=-1)
    torch.testing.assert_close(moved, torch.full((4,), 0.03 if scale else 0.0))


def mixed_module():
    network = nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3), nn.BatchNorm1d(3)
    )
    network.train()
    network[1].eval()
    network[0].weight.requires_grad_(False)
    network[3].weight.grad = torch.ones_like(network[3].weight)
    return network


def state(network):
    return (
        [module.training for module in network.modules()],
        [parameter.requires_grad for parameter in network.parameters()],
        [None if p.grad is None else p.grad.clone().tolist() for p in network.parameters()],
        {name: value.tolist() for name, value in network.state_dict().items()},
    )


@pytest.mark.parametrize("norm", NORMS)
def test_a_module_is_left_as_it_was(norm):
    network, x, y = mixed_module(), torch.rand(4, 6, generator=seeded()), torch.arange(4) % 3
    before = state(network)
    attack = {"epsilon": 0.1, "steps": 3, "norm": norm}
    first = pgd(network, x, y, generator=seeded(), **attack)
    with torch.no_grad():
        again = pgd(network, x.requires_grad_(), y, generator=seeded(), **attack)
    assert torch.equal(first, again)  # no dropout, no batch statistics
    assert x.grad is None and state(network) == before


def test_a_module_is_left_as_it_was_after_an_error():
    network = mixed_module()
    before = state(network)
    with pytest.raises(RuntimeError):
        fgsm(network, torch.rand(4, 7, generator=seeded()), torch.zeros(4), epsilon=0.1)
    assert state(network) == before


def test_epsilon_zero_returns_a_copy_without_calling_the_model():
    def refuse(x):
        raise AssertionError("called")

    x, generator = torch.rand(2, 3, 4, generator=seeded()), seeded(1)
    for epsilon in (0.0, torch.zeros(2), torch.zeros(2, 3)):
        copy = pgd(refuse, x, torch.zeros(3), epsilon=epsilon, steps=3, generator=generator)
        assert torch.equal(copy, x) and copy.data_ptr() != x.data_ptr()
    assert torch.equal(generator.get_state(), seeded(1).get_state())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"epsilon": -0.1}, ValueError, "epsilon must be finite and at least 0"),
        ({"epsilon": float("nan")}, ValueError, "epsilon must be finite"),
        ({"epsilon": torch.tensor([0.1, float("inf")])}, ValueError, "epsilon must be finite"),
        ({"epsilon": torch.full((3,), 0.1)}, ValueError, "does not fit the leading axes"),
        ({"epsilon": torch.full((2, 4), 0.1)}, ValueError, "does not fit the leading axes"),
        ({"step_size": -1.0}, ValueError, "step_size must be"),
        ({"norm": "l1"}, ValueError, "use one of linf, l2"),
        ({"steps": 0}, ValueError, "at least 1"),
        ({"bounds": (1.0, 0.0)}, ValueError, "lower first"),
        ({"bounds": (0.5, 0.5)}, ValueError, "lower first"),
        ({"bounds": (0.0, 0.75)}, ValueError, "from 0.25 to 1, outside the bounds 0 to 0.75"),
        ({"x": torch.full((2, 4), float("nan"))}, ValueError, "Inputs range from nan"),
        ({"x": torch.ones(2, 4, dtype=torch.int64)}, TypeError, "floating-point"),
        (
            {"generator": None},
            ValueError,
            r"^A random start needs a generator: pass generator=torch\.Generator\(x\.device\)\."
            r"manual_seed\(seed\), or random_start=False\.$",
        ),
        (
            {"generator": [seeded()] * 3},
            ValueError,
            r"^3 generators were given for 2 entries of the first axis of x: pass one for each, or "
            r"a single torch\.Generator\.$",
        ),
        ({"y": torch.zeros(3)}, ValueError, "do not fit logits"),
    ],
)
def test_wrong_arguments_are_refused_with_a_reason(change, error, message):
    arguments = {
        "x": torch.tensor([[0.25, 0.5, 0.75, 1.0]] * 2),
        "y": torch.zeros(2),
        "epsilon": 0.1,
        "steps": 2,
        "generator": seeded(),
    }
    with pytest.raises(error, match=message):
        pgd(lambda x: x, **(arguments | change))


def test_an_l2_radius_cannot_vary_between_features():
    x = torch.rand(2, 2, 4, generator=seeded())
    epsilon = torch.full((2, 2), 0.1)
    with pytest.raises(ValueError, match="may be the first 1 of x only"):
        fgsm(lambda x: x.flatten(1), x, torch.zeros(2), epsilon=epsilon, norm="l2")
