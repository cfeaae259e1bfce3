"""What a user gives to `measure`: a right answer, or one sentence."""

import math

import numpy as np
import pytest
import torch
from bad_input import JUNK, refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from superpos import DeadCodesError, SAEConfig, fit, measure
from superpos.activations import UnknownSite
from superpos.given import LARGEST, SMALLEST

CONFIG = SAEConfig(steps=12, rounds=2, starts=1, l1=0.01)
GENERATOR = torch.Generator().manual_seed(0)
WHOLE = torch.randint(0, 8, (30, 4), generator=GENERATOR).float()  # exact in every kind of number


def quick(model, data, sites=None, **options):
    options = {"sae": CONFIG, "seeds": 2, "device": "cpu", "progress": False} | options
    return measure(model, data, sites, **options)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Sigmoid())


def same():
    """A network whose activations are its inputs where those are positive."""
    return nn.Sequential(nn.ReLU())


FORMS = {
    **{str(kind): lambda x, kind=kind: x.to(kind) for kind in (
        torch.float16, torch.bfloat16, torch.float64,
    )},
    "transposed": lambda x: x.T.contiguous().T,
    "strided": lambda x: x.repeat_interleave(3, 1)[:, ::3],
    "with gradients": lambda x: x.clone().requires_grad_(),
    "array": lambda x: x.numpy(),
    "array of doubles": lambda x: x.double().numpy(),
    "array of long doubles": lambda x: x.numpy().astype(np.longdouble),
    "array of the other byte order": lambda x: x.numpy().astype(">f8"),
    "array read backwards": lambda x: x.numpy()[::-1].copy()[::-1],
    "array that cannot be written": lambda x: np.broadcast_to(x.numpy(), x.shape),
    "batches of several lengths": lambda x: [x[:1], x[1:20], x[20:]],
    "batches of arrays": lambda x: [x[:7].numpy(), x[7:].double().numpy()],
    "batches of lists": lambda x: [(x[:9].tolist(), "label"), (x[9:].tolist(), "label")],
    "mappings": lambda x: [{"input": x[:7]}, {"input": x[7:].numpy()}],
    "shuffled": lambda x: DataLoader(TensorDataset(x), batch_size=30, shuffle=True),
}  # fmt: skip


@pytest.fixture(scope="module")
def usual():
    return quick(network(), WHOLE)["1"]


@pytest.mark.parametrize("form", FORMS)
def test_equal_inputs_of_any_kind_give_equal_reports(form, usual):
    found = quick(network(), FORMS[form](WHOLE))["1"]
    assert (found.samples, found.neurons) == (30, 5)
    rel = 0.2 if form == "shuffled" else 1e-3  # other samples in the first batches
    assert found.by_seed == pytest.approx(usual.by_seed, rel=rel)
    assert found.explained_variance == pytest.approx(usual.explained_variance, abs=rel)


class InPlace(nn.Module):
    """A network that changes its input."""

    def __init__(self, clones):
        super().__init__()
        self.clones, self.act = clones, nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act((x.clone() if self.clones else x).mul_(2).sub_(3))


@pytest.mark.parametrize("batches", [lambda x: x, lambda x: [x], lambda x: [{"x": x}]])
def test_a_network_that_changes_its_input_is_measured_on_what_was_given(batches):
    x = WHOLE.clone()
    found = quick(InPlace(clones=False), batches(x))
    assert torch.equal(x, WHOLE)
    assert found["act"] == quick(InPlace(clones=True), batches(x))["act"]


class Gives(nn.Module):
    """A network with a module `inner` that gives something made of its input."""

    class Inner(nn.Module):
        def __init__(self, made):
            super().__init__()
            self.made = made

        def forward(self, x):
            return self.made(x)

    def __init__(self, made):
        super().__init__()
        self.inner = self.Inner(made)

    def forward(self, x):
        return (self.inner(x),)


@pytest.mark.parametrize("made", [lambda x: (x, 1), lambda x: [x], lambda x: (x, None, {})])
def test_of_several_outputs_the_first_is_measured(made):
    found = quick(Gives(made), WHOLE, "inner")["inner"]
    assert found == quick(Gives(lambda x: x), WHOLE, "inner")["inner"]


@pytest.mark.parametrize(
    "made",
    [
        lambda x: {"h": x},
        lambda x: None,
        lambda x: 3,
        lambda x: "text",
        lambda x: (),
        lambda x: (None, x),
        lambda x: ((x,),),
        lambda x: x.long(),
        lambda x: x > 0,
        lambda x: x.to(torch.complex64),
    ],
)
def test_a_site_that_gives_no_floating_point_tensor_is_named(made):
    message = refusal(TypeError, quick, Gives(made), WHOLE, "inner")
    assert message == "site 'inner' gives no floating-point tensor; choose another site."


@pytest.mark.parametrize("value", [0.7, 1 / 3, 1.0, 1e-3, 1e6])
@pytest.mark.parametrize("samples", [1, 400])
def test_constant_activations_have_the_features_of_one_sample_and_no_variance(value, samples):
    x = torch.full((samples, 4), value)
    report = quick(same(), x)
    z = fit(x, CONFIG, seeds=range(2)).sae.encode(x[:1])[:, 0].double()
    shares = z / z.sum(1, keepdim=True)
    expected = torch.special.entr(shares).sum(1).exp()
    site = report["0"]
    assert site.by_seed == pytest.approx(expected.tolist(), rel=1e-5)
    assert 1 <= site.interval[0] <= site.features <= site.interval[1] <= 16
    assert math.isnan(site.explained_variance)
    assert "none to rebuild" in str(report) and "nan" not in str(report)


def test_a_variance_that_is_rounding_counts_as_none():
    x = torch.full((400, 4), 0.7)
    x[::2] = torch.nextafter(x[::2], torch.ones(()))
    assert math.isnan(quick(same(), x)["0"].explained_variance)


ANY = st.floats(width=64) | st.sampled_from((0.0, 1.0, 1e30, 1e-320))
SHAPES = array_shapes(min_dims=2, max_dims=4, max_side=4)


@settings(max_examples=30)
@given(
    arrays(np.float64, SHAPES, elements=st.floats(0, 9)) | arrays(np.float64, SHAPES, elements=ANY)
)
def test_whatever_inputs_are_given_figures_are_possible_or_refused(x):
    try:
        site = quick(same(), x)["0"]
    except ValueError as error:
        assert "\n" not in str(error)
        with np.errstate(over="ignore"):
            on = np.maximum(x.astype(np.float32), 0)
        fine = np.isfinite(on).all() and (SMALLEST <= on.max() <= LARGEST)
        assert not fine or "every code is zero" in str(error)
        return
    assert all(1 <= features <= 4 * site.neurons + 1e-9 for features in site.by_seed)
    assert site.interval[0] <= site.features <= site.interval[1]
    assert site.psi == pytest.approx(site.features / site.neurons)
    assert all(0 < number < math.inf for number in site.hill.values())
    assert site.explained_variance <= 1 or math.isnan(site.explained_variance)


def test_zero_activations_are_named_with_what_to_do():
    for x in (0 * WHOLE, -WHOLE):
        message = refusal(DeadCodesError, quick, same(), x)
        assert "at site '0' every code is zero. Lower l1" in message


@pytest.mark.parametrize("scale", [1e16, 1e30, 1e-12, 1e-40])
def test_activations_of_impossible_size_are_refused_with_the_site(scale):
    for config in (CONFIG, SAEConfig(steps=12, normalize=True), SAEConfig(steps=12, l1=0)):
        message = refusal(ValueError, quick, same(), WHOLE * scale, sae=config)
        assert "at site '0': activations reach" in message and "multiply them" in message


@pytest.mark.parametrize("place", [0, 29])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e20])
def test_one_wrong_input_is_found_wherever_it_is(place, value):
    x = WHOLE.clone()
    x[place, 2] = value
    assert "at site '0': activations" in refusal(ValueError, quick, same(), x, samples=5)


@pytest.mark.parametrize("value", JUNK)
@pytest.mark.parametrize(("name", "low", "high"), [("seeds", 1, 10_000), ("samples", 2, 10**12)])
def test_counts_are_whole_numbers_or_refused(name, low, high, value):
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if whole and low <= value <= high:
        site = quick(network(), WHOLE, **{name: value})["1"]
        assert len(site.by_seed) == (value if name == "seeds" else 2)
    else:
        message = refusal(ValueError, quick, network(), WHOLE, **{name: value})
        assert message.startswith(f"{name} is ") and f"at least {low} and at most" in message


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "nonsense", "", "meta", "CPU", None, 99, 1.5])
def test_a_device_that_is_not_there_is_refused_and_the_weights_stay(device):
    model = network()
    message = refusal(ValueError, quick, model, WHOLE, device=device)
    assert message.startswith(f"device is '{device}', which is not here; give one of 'auto', 'cpu'")
    for name, value in network().state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def shrinking():
    """Batches that are others when they are read again."""

    class Shrinking:
        left = 2

        def __iter__(self):
            self.left -= 1
            return iter([WHOLE] * self.left)

    return Shrinking()


def spent():
    batches = iter([WHOLE])
    next(batches)
    return batches


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        (TypeError, None, "data is a NoneType; give a tensor"),
        (TypeError, 3, "data is a int; give a tensor"),
        (TypeError, {"x": WHOLE}, "data is a dict; give a tensor"),
        (TypeError, network, "data is a function; give a tensor"),
        (TypeError, "text", "inputs hold <U1; give real numbers"),
        (TypeError, [None], "inputs hold object"),
        (TypeError, np.array([["a", "b"]]), "inputs hold <U1"),
        (TypeError, np.array([[{}]], dtype=object), "inputs hold object"),
        (TypeError, WHOLE.to(torch.complex64), "inputs hold complex64"),
        (TypeError, WHOLE.to_sparse(), "inputs are sparse"),
        (TypeError, WHOLE.to("meta"), "inputs are on the meta device"),
        (TypeError, [([[1.0], [2.0, 3.0]],)], "inputs are a list that makes no array"),
        (ValueError, WHOLE.tolist(), "has shape (); give tensors [rows, ...]"),
        (ValueError, torch.tensor(1.0), "has shape (); give tensors [rows, ...]"),
        (ValueError, np.array(1.0), "has shape (); give tensors [rows, ...]"),
        (ValueError, WHOLE[:0], "has shape (0, 4); give tensors [rows, ...] with at least one row"),
        (ValueError, [WHOLE, WHOLE[:0]], "has shape (0, 4)"),
        (ValueError, [()], "has shape (0,)"),
        (ValueError, [], "data holds no batch"),
        (ValueError, spent(), "data holds no batch"),
        (ValueError, WHOLE.long(), "batch of inputs (30, 4) of int64"),
        (ValueError, WHOLE > 0, "batch of inputs (30, 4) of bool"),
        (ValueError, WHOLE[:, :3], "batch of inputs (30, 3) of float32 (RuntimeError: "),
        (ValueError, [WHOLE, WHOLE[:, :3]], "batch of inputs (30, 3) of float32"),
        (ValueError, [{"y": WHOLE}], "batch of inputs y (30, 4) of float32 (TypeError: "),
        (ValueError, [{}], "missing 1 required positional argument"),
        (ValueError, shrinking(), "held 30 inputs when read first and 0 when read again"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_measured_are_refused(kind, data, said):
    assert said in refusal(kind, quick, network(), data)


def test_sites_whose_first_axes_differ_are_measured():
    model = nn.Sequential(nn.ReLU(), nn.Unflatten(1, (2, 2)), nn.Flatten(0, 1))
    report = quick(model, [WHOLE, WHOLE], ["0", "2"])
    assert [(site.samples, site.neurons) for site in report.values()] == [(60, 4), (120, 2)]


def test_batches_of_which_one_has_other_neurons_are_refused():
    message = refusal(ValueError, quick, same(), [WHOLE, WHOLE[:, :3]])
    assert message.startswith("at site '0': a batch has 3 neurons, one before it 4")


@pytest.mark.parametrize(
    ("kind", "sites", "said"),
    [
        (ValueError, "", "sites is empty"),
        (ValueError, [], "sites is empty"),
        (ValueError, [""], "sites is empty"),
        (TypeError, 1, "sites is 1; give names"),
        (TypeError, [1], "sites is [1]; give names"),
        (TypeError, [None], "sites is [None]; give names"),
        (TypeError, b"1", "sites is b'1'; give names"),
        (UnknownSite, "2", "no site '2'. Activation sites: 1. All sites: 0, 1."),
        (UnknownSite, ["1", "0.weight"], "no site '0.weight'"),
    ],
)
def test_sites_that_are_none_are_refused(kind, sites, said):
    assert said in refusal(kind, quick, network(), WHOLE, sites)


@pytest.mark.parametrize(
    "sites", ["1", ["1"], ("1",), {"1"}, iter(["1"]), ["1", "1"], np.array(["1"])]
)
def test_sites_may_come_in_any_listing(sites, usual):
    report = quick(network(), WHOLE, sites)
    assert list(report) == ["1"] and report["1"] == usual


@pytest.mark.parametrize("model", [None, "net", lambda x: x, nn.Linear, {}, [nn.ReLU()]])
def test_what_is_no_module_is_refused(model):
    assert "give a torch.nn.Module" in refusal(TypeError, quick, model, WHOLE)


@pytest.mark.parametrize("sae", [{}, {"l1": 0.1}, "tied", 0.1, SAEConfig])
def test_what_is_no_configuration_is_refused(sae):
    assert "give a SAEConfig" in refusal(TypeError, quick, network(), WHOLE, sae=sae)


def test_a_network_without_weights_or_modules_is_refused():
    empty = nn.Sequential(nn.Linear(4, 5, device="meta"), nn.ReLU())
    assert "without weights; load them first" in refusal(ValueError, quick, empty, WHOLE)
    message = refusal(UnknownSite, quick, nn.ReLU(), WHOLE)
    assert message.endswith("Modules that run: none.")
