"""What a user gives to fits and formulas: a right answer, or one sentence."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from bad_input import JUNK, refusal
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn

from superpos import DeadCodesError, SAEConfig, effective_features, fit, hill_number, superposition
from superpos.entropy import frobenius_superposition, weight_features
from superpos.given import LARGEST, SMALLEST
from superpos.recipe import fit_for_epochs
from superpos.relay import relay
from superpos.sae import ARCHITECTURES, MOST_WEIGHTS, SAE

QUICK = {"steps": 12, "rounds": 2, "starts": 1, "l1": 0.01}
GENERATOR = torch.Generator().manual_seed(0)
WHOLE = torch.randint(0, 8, (30, 4), generator=GENERATOR).float()  # exact in every kind of number


def quick(x, **options):
    return fit(x, SAEConfig(**{**QUICK, **options}))


def native_f8(values):
    return np.ascontiguousarray(values, dtype=np.float64)


def read_only(array):
    array.flags.writeable = False
    return array


FORMS = {
    **{str(kind): lambda x, kind=kind: x.to(kind) for kind in (
        torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int64,
        torch.uint16,
    )},
    "transposed": lambda x: x.T.contiguous().T,
    "strided": lambda x: x.repeat_interleave(3, 1)[:, ::3],
    "with gradients": lambda x: x.clone().requires_grad_() * 1,
    "parameter": lambda x: nn.Parameter(x.clone()),
    "array": lambda x: x.numpy(),
    "array of doubles": lambda x: native_f8(x),
    "array of the other byte order": lambda x: x.numpy().astype(">f4"),
    "array of long doubles": lambda x: x.numpy().astype(np.longdouble),
    "array of small whole numbers": lambda x: x.numpy().astype(np.uint8),
    "array in Fortran's order": lambda x: np.asfortranarray(x.numpy()),
    "array read backwards": lambda x: x.numpy()[::-1].copy()[::-1],
    "array that cannot be written": lambda x: read_only(x.numpy().copy()),
    "lists": lambda x: x.tolist(),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_equal_activations_of_any_kind_give_equal_features(form):
    found, usual = quick(FORMS[form](WHOLE)), quick(WHOLE)
    torch.testing.assert_close(found.features, usual.features, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.loss, usual.loss, rtol=1e-6, atol=0)
    assert found.sae.encoder.dtype == torch.float32


def test_true_and_false_are_one_and_zero():
    on = WHOLE > 3
    assert torch.equal(quick(on).features, quick(on.float()).features)


LOWEST, HIGHEST = math.ceil(math.log2(SMALLEST)), math.floor(math.log2(LARGEST / 8))
POWERS = st.integers(LOWEST, HIGHEST)


@settings(max_examples=15)
@example(LOWEST, "tied", 0.01)
@example(HIGHEST, "tied", 0.01)
@given(POWERS, st.sampled_from(("tied", "untied", "topk")), st.sampled_from((0.0, 0.01)))
def test_up_to_the_limits_of_size_normalizing_makes_features_ignore_it(power, architecture, l1):
    options = {"architecture": architecture, "l1": l1, "normalize": True}
    found, usual = quick(WHOLE * 2.0**power, **options), quick(WHOLE, **options)
    assert found.features.item() == pytest.approx(usual.features.item(), rel=1e-3)


@settings(max_examples=25)
@given(
    st.floats(math.log10(8 * LARGEST), 36) | st.floats(-44, math.log10(SMALLEST / 8)),
    st.sampled_from(ARCHITECTURES), st.booleans(), st.booleans(),
)  # fmt: skip
def test_beyond_the_limits_of_size_activations_are_refused(power, architecture, normalize, alone):
    x = WHOLE.double() * 10**power
    x = x if alone else torch.stack([WHOLE.double(), x])
    message = refusal(ValueError, quick, x, architecture=architecture, normalize=normalize)
    assert "which single precision cannot fit; multiply them all by one number" in message


@settings(max_examples=25)
@given(st.floats(min_value=0), POWERS, st.sampled_from(ARCHITECTURES), st.booleans())
def test_no_penalty_that_is_taken_makes_a_fit_diverge(l1, power, architecture, normalize):
    options = {"l1": l1, "architecture": architecture, "normalize": normalize}
    try:
        SAEConfig(**options)
    except ValueError as error:
        assert l1 > LARGEST and "give a number from 0 to 1e+15" in str(error)
        return
    found = quick(WHOLE * 2.0**power, **options)
    assert found.loss.isfinite().all()
    assert_possible(found, WHOLE * 2.0**power)


def assert_possible(found, x):
    """F between one and the size of the dictionary, or unknown where every code is zero."""
    features, sums = found.features.item(), found.sae.losses(x)[1]
    if math.isnan(features):
        assert not sums.any()
    else:
        assert 1 <= features <= found.sae.dictionary * (1 + 1e-9)


ANY = st.floats(width=64) | st.sampled_from((0.0, 1.0, 1e30, 1e-320))
MATRICES = [
    arrays(
        np.float64, array_shapes(min_dims=low, max_dims=high, min_side=side, max_side=4),
        elements=elements,
    )
    for low, high, side, elements in ((0, 4, 0, ANY), (2, 3, 1, ANY), (2, 3, 1, st.floats(-9, 9)))
]  # fmt: skip


@settings(max_examples=80)
@given(st.one_of(MATRICES))
def test_whatever_numbers_are_given_features_are_possible_or_refused(x):
    try:
        found = quick(x)
    except ValueError as error:
        assert "\n" not in str(error)
        size = np.abs(x).max(axis=(-2, -1)) if x.ndim in (2, 3) and x.size else np.full(1, np.nan)
        assert not ((size == 0) | ((size >= SMALLEST) & (size <= LARGEST))).all()
        return
    for member in range(len(found.features)):
        own = x if x.ndim == 2 else x[member]
        one = found._replace(
            features=found.features[member : member + 1], sae=found.sae.select([member])
        )
        assert found.loss[member].isfinite()
        assert_possible(one, torch.as_tensor(own).float())


@pytest.mark.parametrize("samples", [1, 30])
@pytest.mark.parametrize("neurons", [1, 4])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_constant_activations_have_the_features_of_one_sample(architecture, neurons, samples):
    x = torch.full((samples, neurons), 0.7)
    found = quick(x, architecture=architecture)
    z = found.sae.encode(x[:1])[0, 0].double()
    shares = z[z > 0] / z.sum()
    expected = math.exp(-(shares * shares.log()).sum().item())
    assert found.features.item() == pytest.approx(expected, rel=1e-5)
    assert 1 <= expected <= found.sae.dictionary


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (None, "activations hold object"),
        ("abc", "activations hold <U3"),
        (np.array([["a", "b"]]), "activations hold <U1"),
        (np.array([[{}, 1]], dtype=object), "activations hold object"),
        ([[1, 2], [3]], "activations are a list that makes no array"),
        (WHOLE.to(torch.complex64), "activations hold complex64"),
        (WHOLE.numpy().astype(complex), "activations hold complex128"),
        (WHOLE.to_sparse(), "activations are sparse or quantized"),
        (WHOLE.to("meta"), "activations are on the meta device"),
        (np.zeros((3, 2), "M8[D]"), "activations hold datetime64"),
    ],
)
def test_what_is_no_tensor_of_real_numbers_is_refused(x, said):
    assert said in refusal(TypeError, fit, x)
    assert said in refusal(TypeError, fit_for_epochs, x, SAEConfig(), epochs=[1])
    assert said in refusal(TypeError, relay, x, SAEConfig(), seed=0)
    assert said in refusal(TypeError, quick(WHOLE).sae.encode, x)


@pytest.mark.parametrize("seeds", [3, None, "12", [1.5], [True], [None], ["a"], [2**63], [10**30]])
def test_seeds_that_are_no_whole_numbers_are_refused(seeds):
    assert "whole number" in refusal(ValueError, fit, WHOLE, SAEConfig(**QUICK), seeds=seeds)


@pytest.mark.parametrize(
    "seeds",
    [(s for s in (0, 1)), np.array([0, 1]), torch.tensor([0, 1]), range(2), (0, np.int8(1))],
)
def test_whole_numbers_of_any_kind_are_seeds(seeds):
    config = SAEConfig(**QUICK)
    usual = fit(WHOLE, config, seeds=[0, 1]).features
    assert torch.equal(fit(WHOLE, config, seeds=seeds).features, usual)


@pytest.mark.parametrize("at_once", [0, -1, 1.5, "a", True, math.nan])
def test_a_wrong_number_at_once_is_refused(at_once):
    assert "at_once is" in refusal(ValueError, fit, WHOLE, SAEConfig(**QUICK), at_once=at_once)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "nonsense", "", "meta", "CPU", 99, -1, 1.5])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device):
    message = refusal(ValueError, fit, WHOLE, SAEConfig(**QUICK), device=device)
    assert message.startswith(f"device is '{device}', which is not here; give one of 'auto', 'cpu'")


@pytest.mark.parametrize("config", [{}, {"l1": 1}, "tied", 0, SAEConfig])
def test_what_is_no_configuration_is_refused(config):
    assert "give a SAEConfig" in refusal(TypeError, fit, WHOLE, config)


@pytest.mark.parametrize("expansion", [1e9, 1e30, 1e308])
def test_a_dictionary_too_large_is_refused_before_it_is_made(expansion):
    message = refusal(ValueError, fit, WHOLE, SAEConfig(expansion=expansion))
    assert f"more than {MOST_WEIGHTS:,} weights; lower it" in message


FIELDS = ("expansion", "l1", "k", "starts", "steps", "rounds", "tolerance", "normalize")


@given(st.sampled_from(FIELDS), st.sampled_from(JUNK) | st.floats() | st.integers())
def test_a_configuration_holds_plain_numbers_within_limits_or_is_refused(name, value):
    try:
        held = getattr(SAEConfig(**{name: value}), name)
    except ValueError:
        assert refusal(ValueError, SAEConfig, **{name: value}).startswith(f"{name} is ")
        return
    assert held == (value if value is None else type(held)(value))
    assert json.loads(json.dumps(asdict(SAEConfig(**{name: value}))))[name] == held
    if name == "normalize":
        assert held is value
    elif name in ("expansion", "l1", "tolerance"):
        assert type(held) is float and 0 <= held < math.inf and (held or name == "l1")
    else:
        assert held is None or (type(held) is int and held >= 1)


def test_numbers_of_other_libraries_in_a_configuration_survive_its_file(tmp_path):
    config = SAEConfig(**{**QUICK, "l1": np.float64(0.1), "steps": np.int64(5)})
    fit(WHOLE, config).sae.save(tmp_path / "sae.safetensors")
    assert SAE.load(tmp_path / "sae.safetensors").config == config


POSSIBLE = st.floats(0, 1e308) | st.sampled_from((0.0, 5e-324, 1.0, 1e-300))


@given(
    arrays(np.float64, st.integers(1, 6), elements=POSSIBLE).filter(np.any),
    st.floats(0, math.inf) | st.floats(0, 3),
)
def test_hill_numbers_of_any_codes_and_order_are_possible(codes, order):
    number = hill_number(codes, order)
    assert 1 - 1e-9 <= number <= np.count_nonzero(codes) * (1 + 1e-9)
    assert hill_number(codes, 0) == np.count_nonzero(codes)


@given(st.one_of(MATRICES))
def test_features_of_any_codes_are_possible_or_refused(codes):
    try:
        features = effective_features(codes)
    except DeadCodesError:
        assert (codes == 0).all(-1).any()
    except ValueError:
        assert codes.ndim == 0 or codes.shape[-1] == 0 or not (codes >= 0).all() or np.inf in codes
    else:
        assert features.shape == codes.shape[:-1]
        assert ((features >= 1 - 1e-9) & (features <= codes.shape[-1] * (1 + 1e-9))).all()


@pytest.mark.parametrize(
    "codes", [None, "abc", ["1", "2"], [1, 2j], {1, 2}, [[1], [2, 3]], WHOLE.to_sparse(), object()]
)
def test_codes_that_are_no_real_numbers_are_refused(codes):
    for measure in (effective_features, lambda z: superposition(z, 2), lambda z: hill_number(z, 2)):
        assert "codes" in refusal((TypeError, ValueError), measure, codes)


def test_codes_of_any_kind_give_equal_features():
    usual = effective_features(WHOLE[1:3]).tolist()
    for name, form in FORMS.items():
        assert list(effective_features(form(WHOLE[1:3]))) == usual, name


@pytest.mark.parametrize("value", JUNK)
def test_neurons_and_orders_are_numbers_or_refused(value):
    codes = np.array([3.0, 1.0])
    known = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if whole and 1 <= value <= 10**12:
        assert superposition(codes, value) == pytest.approx(known / value)
    else:
        assert "neurons is" in refusal(ValueError, superposition, codes, value)
    try:
        number = hill_number(codes, value)
    except ValueError:
        assert refusal(ValueError, hill_number, codes, value).startswith("order is ")
    else:
        assert not isinstance(value, (bool, str, bytes)) and float(value) >= 0
        assert 1 <= number <= 2


def test_weights_whose_squares_overflow_are_refused():
    weights = np.full((2, 3), 1e200)
    for measure in (weight_features, frobenius_superposition):
        assert "whose squares overflow" in refusal(ValueError, measure, weights)
        assert "none of them empty" in refusal(ValueError, measure, weights[:0])
