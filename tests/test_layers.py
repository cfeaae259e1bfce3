"""Parameters that feed each site: counted by hand, by gradients, for networks of every kind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torchvision import models

from superpos.activations import Site, UnknownSite, find_sites
from superpos.layers import layer_parameters
from superpos.networks import cnn, mlp
from superpos.resnet import resnet18


def uniform(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def counts(model, x, names=None):
    return layer_parameters(model, x, find_sites(model, x, names))


def unseeded(make, *args, **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*args, **kwargs)


def size(module):
    return sum(value.numel() for value in module.parameters())


def counted_by_gradients(model, x):
    """Parameters with a gradient at a site and at none before it, in evaluation mode."""
    model.eval()
    outputs = {}
    sites = find_sites(model, x)
    assert all(site.call == 0 for site in sites)
    for site in sites:
        model.get_submodule(site.module).register_forward_hook(
            lambda *args, name=site.name: outputs.update({name: args[2].sum()})
        )
    model(x)
    parameters, found = list(model.parameters()), {}
    for name, output in outputs.items():
        gradients = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True)
        reached = [gradient is not None for gradient in gradients]
        found[name] = sum(p.numel() for p, fed in zip(parameters, reached, strict=True) if fed)
        parameters = [p for p, fed in zip(parameters, reached, strict=True) if not fed]
    return found


def test_each_hidden_layer_of_an_mlp_has_its_linear_layer():
    assert counts(mlp(784, 8, 10, seed=0), uniform(2, 784)) == {"relu1": 784 * 8 + 8}
    found = counts(mlp(784, (128, 64, 32), 3, seed=0), uniform(2, 1, 28, 28))
    assert found == {"relu1": 100480, "relu2": 8256, "relu3": 2080}


def test_each_relu_of_the_convolutional_networks_has_the_layer_before_it():
    images = uniform(2, 1, 28, 28)
    assert counts(cnn(1, 28, 8, 10, seed=0), images) == {"relu1": 25 * 8 + 8}
    assert counts(cnn(1, 28, 16, 10, seed=0, standard=True), images) == {
        "relu1": 9 * 16 + 16,
        "relu2": 9 * 16 * 32 + 32,
        "relu3": 7 * 7 * 32 * 64 + 64,
    }


@pytest.mark.parametrize(("channels", "width"), [(3, 4), (1, 6)])
def test_a_resnets_relu_has_its_convolution_its_norm_and_the_skip_that_joins_there(channels, width):
    network = resnet18(channels, 16, width, 10, seed=0)
    found = counts(network, uniform(2, channels, 16, 16))
    expected = [channels * width * 9 + 2 * width]
    for stage in range(4):
        inner, outer = width * 2 ** max(stage - 1, 0), width * 2**stage
        skip = inner * outer + 2 * outer if stage else 0
        inside = outer * outer * 9 + 2 * outer
        expected += [inner * outer * 9 + 2 * outer, inside + skip, inside, inside]
    assert list(found.values()) == expected
    assert sum(found.values()) == size(network) - size(network.linear1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: resnet18(3, 32, 4, 10, seed=0),
        lambda: unseeded(models.squeezenet1_1, num_classes=10),
        lambda: unseeded(models.mobilenet_v3_small, num_classes=10),
        lambda: unseeded(models.DenseNet, 4, (2, 2), 8),
    ],
    ids=["resnet18", "squeezenet", "mobilenet", "densenet"],
)
def test_the_counts_are_those_of_the_parameters_a_gradient_first_reaches(make):
    images = uniform(2, 3, 32, 32)
    found = counts(make(), images)
    assert found == counted_by_gradients(make(), images)
    assert len(found) >= 9


def test_runs_of_a_reused_relu_have_layers_of_their_own():
    network = unseeded(models.resnet18)
    found = counts(network, uniform(2, 3, 32, 32), ["layer2.0.relu"])
    block = network.layer2[0]
    before = size(network.conv1) + size(network.bn1) + size(network.layer1)
    assert found == {
        "layer2.0.relu#1": before + size(block.conv1) + size(block.bn1),
        "layer2.0.relu#2": size(block.conv2) + size(block.bn2) + size(block.downsample),
    }


@given(
    layers=st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=6),
    chosen=st.sets(st.integers(0, 5)),
)
def test_sites_left_out_leave_their_layers_to_the_next(layers, chosen):
    modules, expected, width, count = [], {}, 3, 0
    for number, (outputs, twice) in enumerate(layers):
        linears = [nn.Linear(width, outputs)]
        linears += [nn.Linear(outputs, outputs)] if twice else []
        modules += [nn.Sequential(*linears), nn.ReLU()]
        count += width * outputs + outputs + (outputs * outputs + outputs if twice else 0)
        if number in chosen:
            expected[str(2 * number + 1)] = count
            count = 0
        width = outputs
    network, x = nn.Sequential(*modules), uniform(2, 3)
    sites = [site for site in find_sites(network, x) if site.name in expected]
    assert layer_parameters(network, x, sites) == expected


class Strange(nn.Module):
    """Weights used bare, used twice, looked at early, never used; a site with its own."""

    def __init__(self):
        super().__init__()
        self.bare = nn.Parameter(torch.ones(3, 5))
        self.biases = nn.ParameterList([torch.ones(2), torch.ones(3)])
        self.unused = nn.Parameter(torch.ones(1000))
        self.norm = nn.utils.parametrizations.weight_norm(nn.Linear(5, 5))
        self.late = nn.Linear(5, 5, bias=False)
        self.act1 = nn.PReLU(5)
        self.act2 = nn.ReLU()
        self.act3 = nn.ReLU()
        self.out = nn.Linear(5, 2)

    def forward(self, x, scale):
        assert not torch.is_grad_enabled()
        assert self.late.weight.dtype == x.dtype and self.late.weight.shape == (5, 5)
        hidden = self.act1(x @ self.bare * scale + torch.cat(list(self.biases)))
        hidden = self.act2(self.norm(hidden))
        hidden = self.act3(hidden + functional.linear(hidden, self.bare.new_ones(5, 5)))
        hidden = self.late(hidden) + x @ self.bare
        return self.out(hidden)


def test_a_parameter_counts_where_an_operation_first_takes_it_however_it_is_held():
    network = unseeded(Strange)
    batch = {"x": uniform(2, 3), "scale": uniform(1)}
    found = counts(network, batch, ["act1", "act2", "act3", "late"])
    assert found == {"act1": 15 + 5 + 5, "act2": 5 + 25 + 5, "act3": 0, "late": 25}


def test_tied_layers_count_once():
    shared = nn.Linear(3, 3)
    network = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(3, 2), nn.ReLU())
    assert counts(network, uniform(2, 3)) == {"1": 12, "3": 0, "5": 8}


@pytest.mark.parametrize("training", [True, False])
def test_attention_and_recurrence_count_whole(training):
    layer = unseeded(nn.TransformerEncoderLayer, 8, 2, 16, activation=nn.ReLU(), batch_first=True)
    network = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train(training)
    attention, up, down, norm = 4 * 8 * 8 + 4 * 8, 8 * 16 + 16, 16 * 8 + 8, 2 * 8
    assert counts(network, uniform(2, 3, 8)) == {
        "layers.0.activation": attention + norm + up,
        "layers.1.activation": down + norm + attention + norm + up,
    }
    recurrent = unseeded(nn.LSTM, 3, 4, 2, batch_first=True).train(training)
    assert counts(recurrent_network(recurrent), uniform(2, 5, 3)) == {"relu": size(recurrent)}


def recurrent_network(recurrent):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent, self.relu = recurrent, nn.ReLU()

        def forward(self, x):
            return self.relu(self.recurrent(x)[0])

    return Network()


def test_the_network_is_left_as_it_was():
    network = resnet18(1, 8, 2, 3, seed=0)
    network.layer2.eval()
    network.stem.append(nn.Dropout(0.5))
    modes = [module.training for module in network.modules()]
    before = [value.clone() for value in network.state_dict().values()]
    images = uniform(2, 1, 8, 8)
    sites = find_sites(network.eval(), images)
    for module, mode in zip(network.modules(), modes, strict=True):
        module.training = mode
    generator = torch.random.get_rng_state()
    layer_parameters(network, images, sites)
    assert [module.training for module in network.modules()] == modes
    assert all(map(torch.equal, before, network.state_dict().values()))
    assert torch.equal(generator, torch.random.get_rng_state())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(value.grad is None for value in network.parameters())


def test_hooks_are_gone_and_modes_are_back_when_the_network_fails():
    network = mlp(4, 3, 2, seed=0)
    sites = find_sites(network, uniform(2, 4))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer_parameters(network, uniform(2, 5), sites)
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    "site", [Site("relu2", "relu2", 0), Site("relu1#2", "relu1", 1), Site("spare", "spare", 0)]
)
def test_a_site_that_does_not_run_is_refused_by_name(site):
    network = mlp(4, 3, 2, seed=0)
    network.flatten.add_module("spare", nn.ReLU())
    known = find_sites(network, uniform(2, 4))
    with pytest.raises(UnknownSite, match=f"does not run a site '{site.name}'"):
        layer_parameters(network, uniform(2, 4), [*known, site])
