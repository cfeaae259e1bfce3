"""Ensembles: members stay independent of each other and of how many are computed together."""

import pytest
import torch
from torch import nn

from superpos.ensemble import Ensemble, train
from superpos.networks import classification_loss, mlp


def networks(seeds):
    return [mlp(6, 5, 3, seed=seed) for seed in seeds]


def normalized(seeds):
    """Small convolutional networks with batch normalization and dropout."""
    found = []
    for seed in seeds:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found.append(
                nn.Sequential(
                    nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.0),
                    nn.Linear(3 * 9, 4),
                )
            )  # fmt: skip
    return found


def some_images(members=3, batch=7, seed=0):
    return 2 + torch.rand(members, batch, 2, 5, 5, generator=torch.Generator().manual_seed(seed))


def test_outputs_equal_those_of_the_networks_alone():
    alone = networks(range(3))
    x = torch.rand(3, 7, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([net(own) for net, own in zip(alone, x, strict=True)])
    for at_once in (None, 1, 2):
        ensemble = Ensemble(networks(range(3)), at_once=at_once)
        torch.testing.assert_close(ensemble(x), expected)


def trained(seeds, at_once=None):
    ensemble = Ensemble(networks(seeds), at_once=at_once)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def batches(step):
        x = torch.stack([torch.rand(8, 6, generator=g) for g in generators])
        return x, (x[..., 0] * 3).long().clamp(max=2)

    train(
        ensemble,
        batches=batches,
        loss=classification_loss,
        optimizer=torch.optim.SGD(list(ensemble.parameters.values()), lr=0.5, momentum=0.9),
        schedule=lambda done: 1 - done,
        steps=20,
    )
    return ensemble


def test_a_member_trained_among_others_equals_the_member_trained_alone():
    among, alone = trained([3, 1, 2]), trained([1])
    for name, value in among.parameters.items():
        torch.testing.assert_close(value[1], alone.parameters[name][0], rtol=1e-5, atol=1e-6)


def test_training_equals_a_plain_loop_over_modules():
    ensemble = trained([4, 5])
    net = networks([5])[0]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    generator = torch.Generator().manual_seed(5)
    for step in range(20):
        x = torch.rand(8, 6, generator=generator)
        y = (x[:, 0] * 3).long().clamp(max=2)
        optimizer.param_groups[0]["lr"] = 0.5 * (1 - step / 20)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    member = ensemble.member(1)
    for name, value in net.named_parameters():
        torch.testing.assert_close(member.get_parameter(name), value, rtol=1e-5, atol=1e-6)


def test_selected_members_compute_what_they_compute_among_all():
    ensemble = trained([0, 1, 2])
    x = torch.rand(3, 4, 6)
    part = ensemble.select(torch.tensor([2, 0]))
    torch.testing.assert_close(part(x[[2, 0]]), ensemble(x)[[2, 0]])


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="at least one network"):
        Ensemble([])
    with pytest.raises(ValueError, match="at least 1"):
        Ensemble(networks([0]), at_once=0)
    with pytest.raises(ValueError, match="3 members, the ensemble 2"):
        Ensemble(networks([0, 1]))(torch.rand(3, 4, 6))


def test_buffers_that_change_are_each_members_own():
    alone, ensemble = normalized([4, 2, 9]), Ensemble(normalized([4, 2, 9]), at_once=1)
    for step in range(3):
        x = some_images(seed=step) * torch.tensor([1.0, 3.0, -2.0]).view(3, 1, 1, 1, 1)
        expected = torch.stack([network(own) for network, own in zip(alone, x, strict=True)])
        torch.testing.assert_close(ensemble(x), expected)
    assert ensemble.buffers.keys() == dict(alone[0].named_buffers()).keys()
    for name, value in ensemble.buffers.items():
        for index, network in enumerate(alone):
            torch.testing.assert_close(value[index], network.get_buffer(name))
    assert ensemble.buffers["1.num_batches_tracked"].tolist() == [3, 3, 3]
    means = ensemble.buffers["1.running_mean"]
    assert (means[0] - means[1]).abs().min() > 0.01


def test_training_one_after_another_with_batch_norm_equals_plain_modules():
    seeds = [4, 2]
    ensemble, alone = Ensemble(normalized(seeds), at_once=1), normalized(seeds)
    y = torch.arange(14).view(2, 7) % 4
    train(
        ensemble,
        batches=lambda step: (some_images(2, seed=step), y),
        loss=classification_loss,
        optimizer=torch.optim.SGD(list(ensemble.parameters.values()), lr=0.1, momentum=0.9),
        schedule=lambda done: 1 - done,
        steps=6,
    )
    for index, network in enumerate(alone):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        for step in range(6):
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 6)
            optimizer.zero_grad()
            logits = network(some_images(2, seed=step)[index])
            nn.functional.cross_entropy(logits, y[index]).backward()
            optimizer.step()
        found = ensemble.member(index).state_dict()
        for name, value in network.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [None, 1, 2])
def test_in_evaluation_mode_statistics_are_used_and_stay_as_they_are(at_once):
    alone = normalized(range(3))
    for index, network in enumerate(alone):
        network(3 * some_images(seed=index)[index])  # moves its running statistics
        network.eval()
    x = some_images(seed=5)
    expected = torch.stack([network(own) for network, own in zip(alone, x, strict=True)])
    ensemble = Ensemble(alone, at_once=at_once)
    ensemble.mode(True)
    ensemble.mode(False)
    before = {name: value.clone() for name, value in ensemble.buffers.items()}
    torch.testing.assert_close(ensemble(x), expected)
    for name, value in ensemble.buffers.items():
        assert torch.equal(value, before[name])


def test_in_training_mode_a_batchs_own_statistics_are_used():
    ensemble = Ensemble(normalized(range(3)), at_once=1)
    ensemble.mode(False)
    settled = ensemble(some_images())
    ensemble.mode(True)
    torch.testing.assert_close(
        ensemble(some_images()),
        torch.stack([net(x) for net, x in zip(normalized(range(3)), some_images(), strict=True)]),
    )
    assert not torch.allclose(ensemble(some_images()), settled)
    assert ensemble.buffers["1.num_batches_tracked"].tolist() == [2, 2, 2]


@pytest.mark.parametrize("at_once", [None, 2])
def test_batch_norm_is_trained_one_after_another_or_refused(at_once):
    ensemble = Ensemble(normalized(range(3)), at_once=at_once)
    part = ensemble.select(torch.tensor([0, 2]))
    for model, x in ((ensemble, some_images()), (part, some_images(2))):
        with pytest.raises(ValueError, match="make the ensemble with at_once=1"):
            model(x)
    assert ensemble.buffers["1.num_batches_tracked"].tolist() == [0, 0, 0]
    ensemble.mode(False)
    assert ensemble(some_images()).shape == (3, 7, 4)


def test_a_member_has_copies_of_its_own_weights_and_buffers():
    ensemble = Ensemble(normalized(range(3)), at_once=1)
    ensemble(some_images())
    member = ensemble.member(2)
    kept = {name: value.clone() for name, value in member.state_dict().items()}
    assert member.get_buffer("1.num_batches_tracked") == 1
    for name, value in [*ensemble.parameters.items(), *ensemble.buffers.items()]:
        assert torch.equal(kept[name], value[2])
    ensemble(some_images(seed=1))
    with torch.no_grad():
        for value in ensemble.parameters.values():
            value.add_(1)
    for name, value in member.state_dict().items():
        assert torch.equal(value, kept[name])
    assert not torch.equal(ensemble.member(2).get_buffer("1.running_mean"), kept["1.running_mean"])
    for name, value in member.state_dict().items():
        assert torch.equal(value, kept[name])
    member.train()(some_images()[2])
    assert ensemble.buffers["1.num_batches_tracked"].tolist() == [2, 2, 2]


@pytest.mark.parametrize("at_once", [None, 1, 2])
def test_selected_members_keep_the_weights_and_buffers_they_were_selected_with(at_once):
    ensemble = Ensemble(normalized(range(3)), at_once=1)
    ensemble(some_images())
    ensemble.mode(False)
    ensemble.at_once = at_once
    x, places = some_images(seed=3), [2, 0]
    expected = ensemble(x)[places].detach()
    part = ensemble.select(torch.tensor(places))
    with torch.no_grad():
        for value in ensemble.parameters.values():
            value.add_(1)
        for value in ensemble.buffers.values():
            value.add_(1)
    torch.testing.assert_close(part(x[places]), expected)
    assert not torch.allclose(ensemble(x)[places], expected)


def test_selected_members_in_training_mode_leave_the_ensembles_buffers_alone():
    ensemble = Ensemble(normalized(range(3)), at_once=1)
    part = ensemble.select(torch.tensor([1]))
    part(some_images()[[1]])
    assert ensemble.buffers["1.num_batches_tracked"].tolist() == [0, 0, 0]
    assert ensemble.buffers["1.running_mean"].abs().max() == 0


@pytest.mark.parametrize("at_once", [None, 1, 2])
def test_selected_members_give_gradients_to_inputs_and_none_to_weights(at_once):
    ensemble = Ensemble(networks(range(3)), at_once=at_once)
    x = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ensemble.select(torch.tensor([2, 1]))(x).sum().backward()
    for index, network in enumerate(networks([2, 1])):
        inputs = x[index].detach().requires_grad_()
        network(inputs).sum().backward()
        torch.testing.assert_close(x.grad[index], inputs.grad)
    assert all(value.grad is None for value in ensemble.parameters.values())
