"""Reading activations: against plain hooks, for any module, and the reservoir."""

from __future__ import annotations

import copy
import pickle

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from superpos.activations import (
    Reservoir,
    Site,
    UnknownSite,
    find_sites,
    inputs,
    read,
    reiterable,
)
from superpos.evaluation import evaluating

CPU = torch.device("cpu")


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def small_mlp():
    return nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.ReLU(inplace=True), nn.Linear(5, 2))


def hooked(model, module, batch):
    """All outputs of a module in one forward pass, captured by a plain hook."""
    outputs = []
    handle = module.register_forward_hook(lambda *args: outputs.append(args[2].detach().clone()))
    with torch.no_grad():
        model(**batch) if isinstance(batch, dict) else model(batch)
    handle.remove()
    return outputs


@pytest.fixture(scope="module")
def resnet():
    return resnet18(weights=None).eval()


def test_every_run_of_a_reused_relu_equals_what_a_plain_hook_captures(resnet):
    x = uniform(2, 3, 32, 32)
    sites = find_sites(resnet, x)
    assert len(sites) == 17
    captured = hooked(resnet, resnet.layer1[0].relu, x)
    assert len(captured) == 2
    values = read(resnet, x, sites)
    for number, output in enumerate(captured, start=1):
        expected = output.permute(0, 2, 3, 1).reshape(2, -1, 64)
        assert torch.equal(values[f"layer1.0.relu#{number}"], expected)
    assert not torch.equal(values["layer1.0.relu#1"], values["layer1.0.relu#2"])


def test_one_run_of_a_reused_relu_can_be_read_alone_and_beside_its_block(resnet):
    x = uniform(2, 3, 32, 32)
    second = hooked(resnet, resnet.layer1[0].relu, x)[1].permute(0, 2, 3, 1).reshape(2, -1, 64)
    alone = read(resnet, x, find_sites(resnet, x, ["layer1.0.relu#2"]))
    assert list(alone) == ["layer1.0.relu#2"]
    assert torch.equal(alone["layer1.0.relu#2"], second)
    pair = read(resnet, x, find_sites(resnet, x, ["layer1.0", "layer1.0.relu#2"]))
    assert torch.equal(pair["layer1.0"], second)  # a block ends with its second ReLU


def test_a_modules_path_stands_for_all_its_runs(resnet):
    sites = find_sites(resnet, uniform(1, 3, 32, 32), ["layer2.1.relu"])
    assert sites == [
        Site("layer2.1.relu#1", "layer2.1.relu", 0),
        Site("layer2.1.relu#2", "layer2.1.relu", 1),
    ]


def test_changes_in_place_further_on_do_not_reach_what_was_read():
    model, x = small_mlp(), uniform(64, 4)
    values = read(model, x, find_sites(model, x))
    expected = model[1](model[0](x))
    assert (expected < 0).any()
    torch.testing.assert_close(values["1"].squeeze(1), expected)
    torch.testing.assert_close(values["2"].squeeze(1), expected.clamp_min(0))


def test_sites_come_in_order_of_execution_whatever_the_order_asked():
    model, x = small_mlp(), uniform(3, 4)
    assert [site.name for site in find_sites(model, x, ["3", "0", "2"])] == ["0", "2", "3"]


def test_a_wrong_name_is_answered_with_the_names_there_are():
    model, x = small_mlp(), uniform(3, 4)
    with pytest.raises(UnknownSite) as caught:
        find_sites(model, x, ["1", "relu"])
    message = str(caught.value)
    assert message.startswith("the network has no site 'relu'.")
    assert "Activation sites: 1, 2." in message
    assert "All sites: 0, 1, 2, 3." in message


def test_a_slip_is_answered_with_the_nearest_name(resnet):
    with pytest.raises(UnknownSite, match=r"Did you mean 'layer1.0.relu#1'\?"):
        find_sites(resnet, uniform(1, 3, 32, 32), ["layer1.0.relu#11"])


def test_a_network_without_activation_modules_says_what_it_has():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(UnknownSite, match=r"name sites yourself.* run: 0, 1"):
        find_sites(model, uniform(2, 3))


def test_a_module_that_does_not_run_is_no_site():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.used(x)

    assert [site.name for site in find_sites(Idle(), uniform(2, 3))] == ["used"]
    with pytest.raises(UnknownSite, match="no site 'idle'"):
        find_sites(Idle(), uniform(2, 3), ["idle"])


@pytest.mark.parametrize(
    ("shape", "rows"),
    [((6, 5), (6, 1, 5)), ((6, 7, 5), (6, 7, 5)), ((6, 5, 2, 3), (6, 6, 5))],
)
def test_positions_are_samples_and_channels_neurons(shape, rows):
    model, x = nn.Sequential(nn.ReLU()), uniform(*shape) - 0.5
    value = read(model, x, find_sites(model, x))["0"]
    assert value.shape == rows
    expected = x.relu() if x.ndim < 4 else x.relu().flatten(2).transpose(1, 2)
    assert torch.equal(value, expected.reshape(rows))


def test_a_language_models_keyword_inputs_and_sequences_are_read():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPTNeoXConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
    )
    model = transformers.GPTNeoXForCausalLM(config).eval()
    batch = {"input_ids": torch.arange(15).view(3, 5)}
    sites = find_sites(model, batch)
    assert [site.name for site in sites] == [f"gpt_neox.layers.{n}.mlp.act" for n in (0, 1)]
    layers = find_sites(model, batch, ["gpt_neox.layers.0", "gpt_neox.layers.1.mlp.act"])
    values = read(model, batch, layers)
    expected = hooked(model, model.gpt_neox.layers[1].mlp.act, batch)[0]
    assert values["gpt_neox.layers.1.mlp.act"].shape == (3, 5, 12)
    assert torch.equal(values["gpt_neox.layers.1.mlp.act"], expected)
    assert values["gpt_neox.layers.0"].shape == (3, 5, 8)


def test_half_precision_outputs_are_read_in_single_precision():
    model, x = nn.Sequential(nn.ReLU()), uniform(4, 3).to(torch.bfloat16)
    assert read(model, x, find_sites(model, x))["0"].dtype == torch.float32


def test_outputs_without_neurons_or_of_whole_numbers_are_refused():
    x = uniform(4, 3)
    scalar = nn.Sequential(nn.Flatten(0))
    with pytest.raises(TypeError, match="site '0' gives shape"):
        read(scalar, x, find_sites(scalar, x, ["0"]))
    whole = nn.Sequential(nn.ReLU())
    with pytest.raises(TypeError, match="site '0' gives no floating-point tensor"):
        read(whole, x.long(), find_sites(whole, x.long()))


def test_the_network_works_as_before_after_it_was_read():
    model, x = small_mlp(), uniform(6, 4).requires_grad_()
    expected = model(x).detach()
    read(model, x, find_sites(model, x))
    assert all(not module._forward_hooks for module in model.modules())
    assert torch.equal(model(x), expected)
    model(x).sum().backward()
    assert x.grad is not None
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)


def test_every_modules_own_mode_is_put_back_also_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3)))
    model[1].eval()
    model[1][1].train()
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("kind", ["tensor", "loader", "tuples", "list", "generator", "mappings"])
def test_all_kinds_of_data_give_the_same_inputs(kind):
    x, y = uniform(10, 3), torch.arange(10)
    data = {
        "tensor": x,
        "loader": DataLoader(TensorDataset(x, y), batch_size=4),
        "tuples": [(part, None) for part in x.split(3)],
        "list": list(x.split(4)),
        "generator": (part.numpy() for part in x.split(6)),
        "mappings": [{"x": part} for part in x.split(4)],
    }[kind]
    assert reiterable(data) == (kind != "generator")
    batches = list(inputs(data, 4, CPU))
    rows = [batch["x"] if kind == "mappings" else batch for batch in batches]
    assert torch.equal(torch.cat(rows), x)


def test_data_that_is_no_data_is_refused():
    with pytest.raises(TypeError, match="data is a int; give a tensor"):
        reiterable(3)


def cut(rows, sizes):
    """A stream cut into batches of some sizes, again and again."""
    parts, first = [], 0
    while first < len(rows):
        size = sizes[len(parts) % len(sizes)]
        parts.append(rows[first : first + size])
        first += size
    return parts


def filled(rows, size, sizes, seed=0):
    reservoir = Reservoir(size, torch.Generator().manual_seed(seed))
    for part in cut(rows, sizes):
        reservoir.add(part)
    return reservoir.rows


@given(st.integers(1, 60), st.integers(1, 30), st.lists(st.integers(1, 25), min_size=1, max_size=4))
def test_a_reservoir_keeps_different_rows_of_the_stream_in_order_up_to_its_size(count, size, sizes):
    rows = torch.arange(count).unsqueeze(1).float()
    kept = filled(rows, size, sizes).squeeze(1)
    assert len(kept) == min(size, count)
    assert (kept.diff() > 0).all()  # rows are numbered, so none comes twice
    assert torch.isin(kept, rows).all()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 30))
def test_a_reservoir_does_not_depend_on_how_the_stream_is_cut(sizes, size):
    rows = torch.arange(100).unsqueeze(1).float()
    assert torch.equal(filled(rows, size, sizes), filled(rows, size, [100]))


def test_a_reservoir_keeps_every_place_of_the_stream_equally_often():
    rows = torch.arange(30).unsqueeze(1)
    counts = torch.zeros(30)
    for seed in range(1500):
        counts[filled(rows, 10, [7], seed).squeeze(1)] += 1
    # Counts under sampling without replacement vary less than a chi-square takes them to by a
    # factor of 1 - 10/30 (and 30/29); corrected, the statistic has 29 degrees of freedom.
    statistic = ((counts - 500) ** 2 / 500).sum() / (1 - 10 / 30) * 29 / 30
    assert 0.001 < scipy.stats.chi2.sf(statistic.item(), 29) < 0.999
