"""Adversarial training of many members: against plain loops, in any groups, however often killed.

Plain loops train a torch module with torch's SGD on the same batches.
"""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.func import functional_call

from superpos import attacks, robust_group, robust_training
from superpos.attacks import pgd
from superpos.data import load_images
from superpos.data.ordering import stratified_order
from superpos.image_networks import make_network
from superpos.learner import Order
from superpos.robust_group import Training, attacked, generators
from superpos.robust_training import load_members, train_members

USUAL = {
    "dataset": "digits", "network": "mlp", "width": 4, "classes": 3, "epsilons": (0.0, 0.05),
    "seeds": (0, 1), "train_size": None, "held_out": 30, "steps": 18, "epochs": None,
    "batch": 16, "rate": 0.3, "weight_decay": 1e-2, "attack_steps": 3, "attack_step": None,
    "checks": 3, "patience": 100, "precision": "float32",
}  # fmt: skip
RESNET = {
    "network": "resnet18", "width": 2, "epsilons": (0.05,), "steps": 6, "batch": 8,
    "attack_steps": 1, "rate": 0.01,
}  # fmt: skip
UNEVEN = {
    "epsilons": (0.0,), "seeds": (0, 1, 2, 3), "rate": 0.5, "weight_decay": 0.0, "held_out": 40,
    "steps": 40, "checks": 12,
}  # fmt: skip
"""Accuracies fall for some members and rise for others, with ties."""


ALL = 100


class Died(Exception):
    pass


@pytest.fixture(scope="module")
def images():
    return load_images("digits", classes=3, train_size=120)


def training(**own):
    return Training(**(USUAL | own))


def trained(folder, images, at_once=None, **own):
    """Course and weights of all members."""
    folder.mkdir(exist_ok=True)
    train_members(training(**own), images, folder, at_once=at_once)
    return course_of(folder), load_file(folder / "weights.safetensors")


def course_of(folder):
    return json.loads((folder / "course.json").read_text(encoding="utf-8"))


def parted(images, held_out):
    """Indices of the images that are held out, and of the others."""
    order = stratified_order(images.y_train, generator=torch.Generator().manual_seed(0))
    return order[:held_out], order[held_out:]


def by_hand(images, epsilon, seed, **own):
    """A plain loop's weights after every step, from step 1 on."""
    plan = training(**own)
    kept = parted(images, plan.held_out)[1]
    network = make_network(plan.network, plan.width, images.shape, plan.classes, seed=seed)
    model = in_precision(network, plan.precision)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=plan.rate, momentum=0.9, weight_decay=plan.weight_decay
    )
    order, starts = Order(seed, len(kept), plan.batch), attack_generator(seed, 0)
    states = {}
    for step in range(1, plan.steps + 1):
        index = kept[order.next()]
        x, y = images.x_train[index], images.y_train[index]
        if epsilon:
            grown = epsilon * min(1, 3 * step / plan.steps)
            network.eval()
            x = pgd(
                model, x, y, epsilon=grown, steps=plan.attack_steps, step_size=plan.attack_step,
                generator=starts,
            )  # fmt: skip
        done = (step - 1) / plan.steps
        optimizer.param_groups[0]["lr"] = plan.rate * (
            1 if done < 0.5 else 0.1 ** (1 + (done >= 0.75))
        )
        network.train()
        optimizer.zero_grad()
        loss_by_hand(model(x), y).backward()
        optimizer.step()
        states[step] = {name: value.clone() for name, value in network.state_dict().items()}
    return states


def in_precision(network, precision):
    def rounded(x):
        with torch.autocast("cpu", torch.bfloat16):
            return network(x).float()

    return network if precision == "float32" else rounded


def loss_by_hand(logits, y):
    if logits.shape[1] == 1:
        return nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y.float())
    return nn.functional.cross_entropy(logits, y)


def attack_generator(seed, purpose):
    return torch.Generator().manual_seed(1000 * (seed + 1) + purpose)


def checked_by_hand(images, state, epsilon, seed, **own):
    """Robust accuracy of some weights on what is held out."""
    plan = training(**own)
    held = parted(images, plan.held_out)[0]
    x, y = images.x_train[held], images.y_train[held]
    network = make_network(plan.network, plan.width, images.shape, plan.classes, seed=seed).eval()
    network.load_state_dict(state)
    if epsilon:
        x = pgd(
            network, x, y, epsilon=epsilon, steps=plan.attack_steps, step_size=plan.attack_step,
            generator=attack_generator(seed, 3),
        )  # fmt: skip
    logits = network(x)
    guess = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
    return (guess == y).float().mean().item()


def last_best(values):
    best = max(values)
    return max(place for place, value in enumerate(values) if value == best)


def assert_close(found, member, expected, rtol=1e-4, atol=1e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name][member], value, rtol=rtol, atol=atol)


def assert_same(first, second):
    assert first[0] == second[0]
    assert first[1].keys() == second[1].keys()
    for name, value in first[1].items():
        assert torch.equal(second[1][name], value), name


def home(name):
    """The module that training knows something by that name in."""
    return robust_group if hasattr(robust_group, name) else robust_training


def counted(monkeypatch, name):
    """Calls of what training knows by a name."""
    calls, original = [], getattr(home(name), name)

    def counting(*arguments, **options):
        calls.append((arguments, options))
        return original(*arguments, **options)

    monkeypatch.setattr(home(name), name, counting)
    return calls


@pytest.mark.parametrize(
    "own",
    [
        {"epsilons": (0.0,)},
        {"epsilons": (0.0,), "network": "cnn", "width": 2, "classes": 2},
        {"epsilons": (0.05,)},
        {"epsilons": (0.2,), "attack_step": 0.005},
        {"epsilons": (0.2,), "attack_step": 0.01, "classes": 2},
        {"epsilons": (0.05,), "network": "standard_cnn", "width": 3, "seeds": (4,), "rate": 0.1},
        RESNET | {"seeds": (5,)},
    ],
    ids=[
        "plain",
        "plain cnn, two classes",
        "attacked",
        "own step",
        "two classes",
        "standard cnn",
        "resnet",
    ],
)
def test_training_equals_a_plain_loop_over_a_module(tmp_path, images, own):
    if own.get("classes") == 2:
        images = load_images("digits", classes=2, train_size=120)
    course, weights = trained(tmp_path, images, 1, **own)
    for member, about in enumerate(course):
        epsilon, seed = about["epsilon"], about["seed"]
        states = by_hand(images, epsilon, seed, **own)
        assert_close(weights, member, states[about["best_step"]], rtol=1e-3, atol=2e-4)
        expected = [
            checked_by_hand(images, states[step], epsilon, seed, **own) for step in about["steps"]
        ]
        assert about["robust_accuracy"] == pytest.approx(expected)
        assert about["best_step"] == about["steps"][last_best(about["robust_accuracy"])]


def test_a_member_that_is_not_trained_differs_from_a_trained_one(tmp_path, images):
    weights = trained(tmp_path, images, 1, epsilons=(0.1,), seeds=(0,), checks=1)[1]
    clean = by_hand(images, 0.0, 0)[18]
    before = make_network("mlp", 4, images.shape, 3, seed=0).state_dict()
    for other in (clean, before):
        assert (weights["linear1.weight"][0] - other["linear1.weight"]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("own", "sizes"),
    [
        ({"seeds": (3, 0, 1)}, (1, 2, ALL)),
        ({"network": "cnn", "width": 2, "attack_step": 0.03, "steps": 9, "seeds": (1, 2)}, (1, 3)),
    ],
)
def test_members_are_the_same_in_groups_of_any_size(tmp_path, images, own, sizes):
    found = [trained(tmp_path / str(size), images, size, **own) for size in sizes]
    told = [(own["epsilon"], own["seed"]) for own in found[0][0]]
    assert told == training(**own).members
    for course, weights in found[1:]:
        assert course == found[0][0]
        for name, value in found[0][1].items():
            torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "width", "together"),
    [("mlp", 4, 4), ("mlp", 64, 4), ("mlp", 65, 1), ("cnn", 1, 1), ("resnet18", 1, 1)],
)
def test_by_default_a_cpu_computes_narrow_networks_together(
    tmp_path, images, monkeypatch, network, width, together
):
    calls = counted(monkeypatch, "classification_loss")
    own = {"steps": 1, "attack_steps": 1, "held_out": 112, "checks": 1}
    trained(tmp_path, images, network=network, width=width, **own)
    assert [len(logits) for (logits, _), _ in calls] == [together] * (4 // together)


def test_elsewhere_all_are_computed_together_except_with_batch_norm(images):
    there = images._replace(x_train=images.x_train.to("meta"))
    for network, together in (("mlp", True), ("standard_cnn", True), ("resnet18", False)):
        plan = training(network=network, width=65)
        assert robust_training._pays_together(plan, there) == together


def test_what_is_written_is_the_weights_and_the_course(tmp_path, images):
    course, weights = trained(tmp_path, images, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "course.json", "weights.safetensors",
    ]  # fmt: skip
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        "linear1.weight": (4, 4, 64), "linear1.bias": (4, 4),
        "linear2.weight": (4, 3, 4), "linear2.bias": (4, 3),
    }  # fmt: skip
    for own in course:
        assert own.keys() == {"epsilon", "seed", "steps", "robust_accuracy", "best_step"}
        assert own["steps"] == [12, 15, 18]


def test_a_finished_folder_is_left_as_it_is(tmp_path, images, monkeypatch):
    before = trained(tmp_path, images)
    calls = counted(monkeypatch, "classification_loss")
    assert_same(before, trained(tmp_path, images))
    assert calls == []


@pytest.mark.parametrize("checks", [1, 4, 9, 100])
@pytest.mark.parametrize("steps", [1, 2, 7, 18])
def test_checks_lie_in_the_second_half_and_at_the_end(tmp_path, images, checks, steps):
    course, _ = trained(
        tmp_path, images, steps=steps, checks=checks, epsilons=(0.0,), seeds=(0,), attack_steps=1
    )
    found = course[0]["steps"]
    assert found == sorted(set(found))
    assert found[-1] == steps
    assert all(step >= steps / 2 for step in found)
    assert len(found) <= checks
    assert checks > steps // 2 or len(found) == checks
    assert len(course[0]["robust_accuracy"]) == len(found)


def test_epsilon_grows_over_a_third_of_training_and_only_what_has_one_is_attacked(
    tmp_path, images, monkeypatch
):
    calls = counted(monkeypatch, "pgd")
    trained(tmp_path, images, ALL, epsilons=(0.0, 0.1, 0.2), seeds=(0,), checks=1)
    assert len(calls) == 18 + 1
    for step, ((_, x, y), options) in enumerate(calls[:18], start=1):
        grown = min(1.0, step / 6)
        torch.testing.assert_close(options["epsilon"], torch.tensor([0.1, 0.2]) * grown)
        assert x.shape == (2, 16, 1, 8, 8)
        assert y.shape == (2, 16)
    torch.testing.assert_close(calls[-1][1]["epsilon"], torch.tensor([0.0, 0.1, 0.2]))


@pytest.mark.parametrize("at_once", [1, ALL])
def test_members_at_epsilon_zero_are_never_attacked(tmp_path, images, monkeypatch, at_once):
    def never(*_):
        raise AssertionError("an attack was made")

    monkeypatch.setattr(attacks, "_input_gradient", never)
    calls = counted(monkeypatch, "pgd")
    trained(tmp_path, images, at_once, epsilons=(0.0,))
    assert len(calls) == 3 * (2 if at_once == 1 else 1)  # the checks, which leave images alone


def dying(patch, name, call):
    """Die in the n-th call of what training knows by a name."""
    calls, original = [], getattr(home(name), name)

    def mortal(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise Died
        return original(*arguments, **options)

    patch.setattr(home(name), name, mortal)


ALWAYS, NEVER = -1.0, math.inf  # seconds between checkpoints
THREE = {"epsilons": (0.05,), "seeds": (0, 1, 2)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, images):
    """What uninterrupted trainings give, two members or one at once."""
    return {
        "mlp": trained(tmp_path_factory.mktemp("mlp"), images, 2, **THREE),
        "resnet18": trained(tmp_path_factory.mktemp("resnet"), images, 1, **RESNET),
    }


@pytest.mark.parametrize(
    ("name", "call", "own", "saved", "left"),
    [
        ("classification_loss", 4, THREE, ALWAYS, 36 - 3),  # epsilon still grows
        ("classification_loss", 16, THREE, ALWAYS, 36 - 15),  # right after a check
        ("accuracy", 2, THREE, ALWAYS, 36 - 14),
        ("classification_loss", 18 + 8, THREE, ALWAYS, 18 - 7),  # the second group
        ("accuracy", 3 + 3, THREE, ALWAYS, 1),
        ("save_file", 1, THREE, ALWAYS, 0),
        ("write_json", 1, THREE, ALWAYS, 0),
        ("classification_loss", 16, THREE, NEVER, 36),
        ("accuracy", 3 + 3, THREE, NEVER, 18),
        ("classification_loss", 2, RESNET, ALWAYS, 12 - 1),
        ("accuracy", 2, RESNET, ALWAYS, 12 - 4),
        ("classification_loss", 6 + 6, RESNET, ALWAYS, 1),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights_and_course(
    tmp_path, images, monkeypatch, whole, name, call, own, saved, left
):
    at_once = 1 if own is RESNET else 2
    monkeypatch.setattr(robust_group, "SAVED", saved)
    with monkeypatch.context() as patch:
        dying(patch, name, call)
        with pytest.raises(Died):
            trained(tmp_path, images, at_once, **own)
    assert not (tmp_path / "course.json").exists()
    calls = counted(monkeypatch, "classification_loss")
    found = trained(tmp_path, images, at_once, **own)
    assert_same(whole[training(**own).network], found)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "course.json", "weights.safetensors",
    ]  # fmt: skip
    assert len(calls) == left


def test_a_training_killed_again_and_again_comes_to_the_same_end(
    tmp_path, images, monkeypatch, whole
):
    monkeypatch.setattr(robust_group, "SAVED", ALWAYS)
    deaths = 0
    for _ in range(20):
        with monkeypatch.context() as patch:
            dying(patch, "classification_loss", 5)
            try:
                found = trained(tmp_path, images, 2, **THREE)
                break
            except Died:
                deaths += 1
    assert deaths == 8  # four steps go well every time, and there are 36
    assert_same(whole["mlp"], found)


def test_a_checkpoint_that_was_half_written_does_not_count(tmp_path, images, monkeypatch, whole):
    monkeypatch.setattr(robust_group, "SAVED", ALWAYS)
    save, calls = torch.save, []

    def failing(state, path):
        calls.append(path)
        save(state, path)
        if len(calls) == 15:
            path.write_bytes(path.read_bytes()[:500])
            raise Died

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", failing)
        with pytest.raises(Died):
            trained(tmp_path, images, 2, **THREE)
    assert_same(whole["mlp"], trained(tmp_path, images, 2, **THREE))
    assert len(list(tmp_path.iterdir())) == 2


def test_checkpoints_are_written_only_every_so_often(tmp_path, images, monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(robust_group.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(robust_training, "tqdm", Quiet)
    original = robust_group.classification_loss

    def slow(*arguments):
        now[0] += 50.0
        return original(*arguments)

    monkeypatch.setattr(robust_group, "classification_loss", slow)
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *own: (calls.append(now[0]), save(*own)))
    trained(tmp_path, images, 1, epsilons=(0.0,), steps=7)
    assert calls == [150.0, 300.0, 350.0, 500.0, 650.0, 700.0]  # and at the end of a group


class Quiet:
    """A bar that asks for no time."""

    n = 0

    def __init__(self, **_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, *_):
        pass


@pytest.fixture(scope="module")
def uneven(tmp_path_factory, images):
    """Course without an early end, and a plain loop's weights after every step."""
    course, _ = trained(tmp_path_factory.mktemp("uneven"), images, 1, **UNEVEN)
    return course, [by_hand(images, 0.0, seed, **UNEVEN) for seed in UNEVEN["seeds"]]


@pytest.mark.parametrize("at_once", [1, ALL])
def test_the_best_weights_are_kept_and_later_steps_leave_them_alone(
    tmp_path, images, uneven, at_once
):
    course, weights = trained(tmp_path, images, at_once, **UNEVEN)
    early = 0
    for member, (own, states) in enumerate(zip(course, uneven[1], strict=True)):
        expected = [
            checked_by_hand(images, states[step], 0.0, member, **UNEVEN) for step in own["steps"]
        ]
        assert own["robust_accuracy"] == pytest.approx(expected)
        best = own["steps"][last_best(expected)]
        assert own["best_step"] == best
        assert_close(weights, member, states[best])
        early += best < 40
    assert early > 0


def test_of_equal_checks_the_later_one_is_kept(tmp_path, images, uneven):
    course, states = uneven
    tied = [
        (member, own)
        for member, own in enumerate(course)
        if own["robust_accuracy"].count(max(own["robust_accuracy"])) > 1 and own["best_step"] < 40
    ]
    assert tied
    _, weights = trained(tmp_path, images, 1, **UNEVEN)
    for member, own in tied:
        values = own["robust_accuracy"]
        first, last = values.index(max(values)), len(values) - 1 - values[::-1].index(max(values))
        assert first < last
        assert own["best_step"] == own["steps"][last]
        kept = weights["linear1.weight"][member]
        at_first, at_last = (
            states[member][own["steps"][i]]["linear1.weight"] for i in (first, last)
        )
        assert (kept - at_last).abs().max() < 1e-3 * (kept - at_first).abs().max()


def ended(values, patience):
    """Checks up to which a member is trained."""
    for number in range(1, len(values) + 1):
        if number - 1 - last_best(values[:number]) >= patience:
            return number
    return len(values)


@pytest.mark.parametrize("patience", [1, 2, 4])
@pytest.mark.parametrize("at_once", [1, 3, ALL])
def test_patience_ends_each_members_training_whatever_its_group(
    tmp_path, images, monkeypatch, uneven, patience, at_once
):
    calls = counted(monkeypatch, "classification_loss")
    course, weights = trained(tmp_path, images, at_once, **UNEVEN, patience=patience)
    last = []
    for member, (own, full) in enumerate(zip(course, uneven[0], strict=True)):
        number = ended(full["robust_accuracy"], patience)
        values, steps = full["robust_accuracy"][:number], full["steps"][:number]
        best = steps[last_best(values)]
        assert own == {**full, "robust_accuracy": values, "steps": steps, "best_step": best}
        assert_close(weights, member, uneven[1][member][best])
        last.append(steps[-1])
    assert min(last) < max(last) == 40
    size = min(at_once, 4)
    assert len(calls) == sum(max(last[first : first + size]) for first in range(0, 4, size))


EXPLODING = {"epsilons": (0.0,), "classes": 2, "weight_decay": 6.0, "rate": 1.0, "checks": 20}


@pytest.fixture
def two_classes():
    return load_images("digits", classes=2, train_size=120)


@pytest.mark.parametrize("at_once", [1, ALL])
def test_a_network_that_diverges_is_not_kept_over_a_finite_one(
    tmp_path, two_classes, monkeypatch, at_once
):
    monkeypatch.setattr(robust_group, "MILESTONES", ())
    # Weights become four times as large in every step; then logits overflow.
    course, weights = trained(tmp_path, two_classes, at_once, steps=50, **EXPLODING)
    for own in course:
        values = own["robust_accuracy"]
        assert values[0] >= 0
        assert values[-1] == -1
        assert own["best_step"] == own["steps"][last_best(values)] < 50
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize("at_once", [1, ALL])
def test_a_training_that_only_diverges_comes_to_its_end(tmp_path, images, at_once):
    course, weights = trained(tmp_path, images, at_once, rate=1e25)
    assert all(own["robust_accuracy"] == [-1.0] * 3 for own in course)
    assert all(own["best_step"] == 18 for own in course)
    assert all(not value.isfinite().all() for value in weights["linear2.weight"])


def test_images_held_out_check_and_do_not_train(tmp_path, images):
    own = {"epsilons": (0.02,), "seeds": (0,), "checks": 1, "batch": 15, "rate": 0.3}
    held, kept = parted(images, 30)
    assert images.y_train[held].bincount().tolist() == [10, 10, 10]
    x = images.x_train.clone()
    x[held] = 0.0
    usual = trained(tmp_path / "usual", images, **own)
    blind = trained(tmp_path / "blind", images._replace(x_train=x), **own)
    for name, value in usual[1].items():
        assert torch.equal(blind[1][name], value)
    accuracies = [own[0][0]["robust_accuracy"][0] for own in (blind, usual)]
    assert accuracies[0] <= 0.4 < 0.6 < accuracies[1]
    for place in (0, 44, 89):  # 18 steps are three passes, so every other image trains
        x = images.x_train.clone()
        x[kept[place]] = 1 - x[kept[place]]
        other = trained(tmp_path / str(place), images._replace(x_train=x), **own)
        assert not torch.equal(other[1]["linear1.weight"], usual[1]["linear1.weight"])


@pytest.mark.parametrize("held_out", [-1, 0, 120, 1000])
def test_holding_out_none_or_too_many_images_is_refused(tmp_path, images, held_out):
    message = (
        f"held_out is {held_out}: there are 120 training images, so give at least 1 and fewer "
        "than that."
    )
    with pytest.raises(ValueError) as caught:
        train_members(training(held_out=held_out), images, tmp_path)
    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []


def test_all_images_but_one_may_be_held_out(tmp_path, images):
    course, _ = trained(tmp_path, images, held_out=119, steps=2)
    assert course[0]["steps"][-1] == 2


@pytest.mark.parametrize(
    ("batch", "steps"), [(16, 3 * (90 // 16)), (90, 3), (1000, 3), (89, 3), (45, 6)]
)
def test_without_a_number_of_steps_epochs_say_how_long(tmp_path, images, monkeypatch, batch, steps):
    calls = counted(monkeypatch, "classification_loss")
    own = {"epsilons": (0.0,), "seeds": (0,), "batch": batch}
    course, _ = trained(tmp_path, images, steps=None, epochs=3, **own)
    assert course[0]["steps"][-1] == len(calls) == steps
    x = calls[-1][0][0]
    assert x.shape == (1, min(batch, 90), 3)


def test_bfloat16_rounds_the_passes_and_not_the_weights(tmp_path, images):
    own = {"epsilons": (0.05,), "seeds": (0,), "checks": 1}
    _, weights = trained(tmp_path / "rounded", images, 1, **own, precision="bfloat16")
    expected = by_hand(images, 0.05, 0, **own, precision="bfloat16")[18]
    exact = trained(tmp_path / "exact", images, 1, **own)[1]
    assert all(value.dtype == torch.float32 for value in weights.values())
    assert_close(weights, 0, expected, rtol=1e-3, atol=1e-4)
    apart = (weights["linear1.weight"] - exact["linear1.weight"]).abs()
    assert 1e-3 < apart.max() < 0.2


@pytest.mark.parametrize("at_once", [1, ALL])
def test_bfloat16_serves_members_together_and_convolutions(tmp_path, images, at_once):
    course, weights = trained(
        tmp_path, images, at_once, network="cnn", width=2, steps=4, precision="bfloat16"
    )
    assert all(value.isfinite().all() for value in weights.values())
    assert all(0 <= value <= 1 for own in course for value in own["robust_accuracy"])


@pytest.mark.parametrize("own", [{}, RESNET | {"seeds": (5,)}], ids=["mlp", "resnet"])
def test_loaded_members_predict_what_the_ensemble_did(tmp_path, images, own):
    course, weights = trained(tmp_path, images, 1, **own)
    plan = training(**own)
    networks = load_members(plan, images.shape, tmp_path, "cpu")
    assert len(networks) == len(plan.members) == len(course)
    fresh = make_network(plan.network, plan.width, images.shape, 3, seed=9).eval()
    x = images.x_test[:20]
    for member, (network, about) in enumerate(zip(networks, course, strict=True)):
        assert not any(module.training for module in network.modules())
        assert not any(value.requires_grad for value in network.parameters())
        own_weights = {name: value[member] for name, value in weights.items()}
        logits = network(x)
        torch.testing.assert_close(logits, functional_call(fresh, own_weights, x))
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        again = checked_by_hand(images, state, about["epsilon"], about["seed"], **own)
        assert max(about["robust_accuracy"]) == pytest.approx(again)


@pytest.mark.parametrize("network", ["cnn", "standard_cnn", "resnet18"])
def test_convolutional_networks_refuse_images_that_are_not_square(tmp_path, images, network):
    oblong = images._replace(x_train=images.x_train[..., :6])
    with pytest.raises(ValueError, match=f"Images are 8 by 6: {network} takes square ones"):
        train_members(training(network=network), oblong, tmp_path)


def test_batch_norm_of_several_members_at_once_is_refused(tmp_path, images):
    with pytest.raises(ValueError, match="one after another"):
        train_members(training(**RESNET), images, tmp_path, at_once=2)


def test_mlps_take_images_that_are_not_square(tmp_path, images):
    oblong = images._replace(x_train=images.x_train[..., :6])
    _, weights = trained(tmp_path, oblong, steps=2)
    assert weights["linear1.weight"].shape == (4, 4, 48)


def test_members_are_every_epsilon_with_every_seed():
    assert training(epsilons=(0.0, 0.2), seeds=(5, 3)).members == [
        (0.0, 5), (0.0, 3), (0.2, 5), (0.2, 3),
    ]  # fmt: skip


@pytest.mark.parametrize("rows", [7, 256])
@pytest.mark.parametrize("step_size", [None, 0.03])
def test_attacked_images_are_those_of_pgd_on_every_member_alone(images, rows, step_size):
    networks = [make_network("mlp", 4, images.shape, 3, seed=seed) for seed in (0, 1, 2)]
    x, y = images.x_test[:20], images.y_test[:20]
    epsilon = torch.tensor([0.1, 0.0, 0.2])
    found = attacked(
        lambda own: torch.stack([n(part) for n, part in zip(networks, own, strict=True)]), x, y,
        epsilon, steps=4, step_size=step_size, generators=generators([5, 6, 7], 2, x.device),
        rows=rows,
    )  # fmt: skip
    assert found.shape == (3, 20, 1, 8, 8)
    assert torch.equal(found[1], x)
    for member, seed in ((0, 5), (2, 7)):
        own = epsilon[member].item()
        generator = attack_generator(seed, 2)
        parts = [
            pgd(
                networks[member], images, labels, epsilon=own, steps=4, step_size=step_size,
                generator=generator,
            )
            for images, labels in zip(x.split(rows), y.split(rows), strict=True)
        ]  # fmt: skip
        torch.testing.assert_close(found[member], torch.cat(parts), rtol=0, atol=1e-6)
        assert (found[member] - x).abs().max() > 0.9 * own


def test_every_seed_and_purpose_has_its_own_random_starts():
    device = torch.device("cpu")
    drawn = [
        tuple(torch.rand(4, generator=generator).tolist())
        for purpose in range(4)
        for generator in generators(range(20), purpose, device)
    ]
    assert len(set(drawn)) == 80
    again = generators([7], 2, device)[0]
    assert tuple(torch.rand(4, generator=again).tolist()) == drawn[2 * 20 + 7]
