"""ResNet-18 for small images: against torchvision's, its start, its sites."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
import torchvision
from torch import nn

from superpos.activations import find_sites, read
from superpos.resnet import resnet18

SITES = ["stem.relu"] + [
    f"layer{stage}.{block}.relu{number}"
    for stage in (1, 2, 3, 4)
    for block in (0, 1)
    for number in (1, 2)
]


def uniform(*shape, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def counted_by_hand(channels, width, logits):
    total = channels * width * 9 + 2 * width
    for inputs, outputs in [(1, 1), (1, 2), (2, 4), (4, 8)]:
        inputs, outputs = inputs * width, outputs * width
        total += inputs * outputs * 9 + 3 * outputs * outputs * 9 + 4 * 2 * outputs
        if inputs != outputs:
            total += inputs * outputs + 2 * outputs
    return total + 8 * width * logits + logits


def state(network):
    return [value.clone() for value in network.state_dict().values()]


def torchvisions(ours):
    """torchvision's ResNet-18 with the stem of small images and the weights of ours, in double."""
    with torch.random.fork_rng():
        theirs = torchvision.models.resnet18(num_classes=10)
        theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    # Both register their layers in the order conv, norm, conv, norm, skip.
    pairs = zip(theirs.state_dict(), state(ours), strict=True)
    theirs.double().load_state_dict(dict(pairs))
    return theirs


@pytest.fixture(scope="module")
def network():
    return resnet18(3, 32, 64, 10, seed=0)


def test_it_computes_and_learns_what_torchvisions_resnet_does():
    ours = resnet18(3, 16, 64, 10, seed=0).double()
    generator = torch.Generator().manual_seed(0)
    for value in ours.state_dict().values():
        if value.ndim == 1:  # batch norms at their start could change places unseen
            value.add_(torch.rand(value.shape, generator=generator), alpha=0.3)
    theirs = torchvisions(ours)
    images = uniform(3, 3, 16, 16, dtype=torch.float64)
    for training in (False, True, False):  # the last with the statistics that training left
        ours.train(training), theirs.train(training)
        with torch.set_grad_enabled(training):
            mine, other = ours(images), theirs(images)
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)
        if training:
            mine.square().sum().backward(), other.square().sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-7, atol=1e-9)
    for mine, other in zip(state(ours), state(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


def test_the_ordinary_network_has_the_known_number_of_parameters(network):
    assert parameters(network) == 11_173_962


@pytest.mark.parametrize("width", [1, 16, 32])
@pytest.mark.parametrize(("channels", "classes", "logits"), [(1, 2, 1), (3, 3, 3)])
def test_narrower_networks_have_the_parameters_counted_by_hand(width, channels, classes, logits):
    found = parameters(resnet18(channels, 32, width, classes, seed=0))
    assert found == counted_by_hand(channels, width, logits)


@pytest.mark.parametrize("size", [8, 28, 32])
@pytest.mark.parametrize(("classes", "logits"), [(2, 1), (3, 3), (10, 10)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_images_and_classes_are_taken_and_two_classes_share_one_logit(
    size, classes, logits, channels
):
    network = resnet18(channels, size, 2, classes, seed=0)
    images = uniform(4, channels, size, size)
    for training in (True, False):
        assert network.train(training)(images).shape == (4, logits)


@pytest.mark.parametrize(("size", "sides"), [(32, (32, 16, 8, 4)), (28, (28, 14, 7, 4))])
def test_every_relu_is_a_site_with_the_channels_of_its_stage(size, sides):
    network = resnet18(3, size, 4, 10, seed=0).eval()
    images = uniform(2, 3, size, size)
    sites = find_sites(network, images)
    assert [site.name for site in sites] == SITES
    values = read(network, images, sites)
    for name, value in values.items():
        stage = max(1, int(name.split(".")[0].replace("stem", "1").replace("layer", "")))
        assert value.shape == (2, sides[stage - 1] ** 2, 4 * 2 ** (stage - 1))
        assert value.min() == 0 < value.max()


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, other = (resnet18(3, 32, 4, 10, seed=seed) for seed in (5, 6))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert all(map(torch.equal, state(first), state(resnet18(3, 32, 4, 10, seed=5))))
    drawn = [value for value in first.parameters() if value.ndim == 4]
    assert len(drawn) == 20
    others = [value for value in other.parameters() if value.ndim == 4]
    assert not any(map(torch.equal, drawn, others))
    assert not torch.equal(first.linear1.weight, other.linear1.weight)


def test_layers_of_one_shape_start_differently(network):
    for stage in (1, 2, 3, 4):
        convolutions = [
            layer.weight
            for layer in network.get_submodule(f"layer{stage}").modules()
            if isinstance(layer, nn.Conv2d) and layer.in_channels == layer.out_channels
        ]
        assert len(convolutions) == (4 if stage == 1 else 3)
        for number, weight in enumerate(convolutions):
            assert not any(torch.equal(weight, later) for later in convolutions[number + 1 :])


def test_the_network_is_put_on_the_device_asked_for():
    network = resnet18(3, 32, 2, 10, seed=0, device="meta")
    assert {value.device.type for value in network.state_dict().values()} == {"meta"}


def test_convolutions_start_normal_with_the_fan_out_of_kaiming(network):
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.detach().flatten()[:20_000].double()
            deviation = math.sqrt(2 / (layer.out_channels * layer.kernel_size[0] ** 2))
            normal = scipy.stats.norm(0, deviation).cdf
            assert scipy.stats.kstest(weight.numpy(), normal).pvalue > 0.001
            assert layer.bias is None


def test_batch_norms_start_as_the_identity_and_the_linear_layer_as_in_torch(network):
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and (layer.bias == 0).all()
            assert (layer.running_mean == 0).all() and (layer.running_var == 1).all()
    bound = 1 / math.sqrt(512)
    distribution = scipy.stats.uniform(-bound, 2 * bound).cdf
    for value in network.linear1.parameters():
        value = value.detach().flatten().double().numpy()
        assert abs(value).max() <= bound
        assert scipy.stats.kstest(value, distribution).pvalue > 0.001


def test_running_statistics_move_in_training_and_not_in_evaluation():
    network = resnet18(1, 8, 2, 3, seed=0)
    images = uniform(4, 1, 8, 8)
    before = state(network)
    network.eval()(images)
    assert all(map(torch.equal, before, state(network)))
    network.train()(images)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.num_batches_tracked == 1
            assert (layer.running_mean != 0).any() and (layer.running_var != 1).any()


def test_relus_are_seventeen_modules_that_leave_their_inputs_alone(network):
    relus = [layer for layer in network.modules() if isinstance(layer, nn.ReLU)]
    assert len(relus) == 17
    assert not any(relu.inplace for relu in relus)


@pytest.mark.parametrize(
    ("sizes", "word"),
    [
        ((0, 32, 4, 10), "channels is too small"),
        ((3, 7, 4, 10), "size is too small"),
        ((3, 32, 0, 10), "width is too small"),
        ((3, 32, 4, 1), "at least 2"),
    ],
)
def test_impossible_sizes_are_refused_by_name(sizes, word):
    with pytest.raises(ValueError, match=word):
        resnet18(*sizes, seed=0)
