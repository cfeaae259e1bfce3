"""Ensembles: members stay independent of each other and of how many are computed together."""

import pytest
import torch

from superpos.ensemble import Ensemble, train
from superpos.networks import classification_loss, mlp


def networks(seeds):
    return [mlp(6, 5, 3, seed=seed) for seed in seeds]


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
