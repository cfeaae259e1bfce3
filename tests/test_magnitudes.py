"""Summed codes without keeping codes, against codes that are kept."""

from __future__ import annotations

import base64
import itertools
import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from superpos import magnitudes as module
from superpos.entropy import effective_features
from superpos.magnitudes import Magnitudes, packed, points, summed_codes, unpacked
from superpos.sae import ARCHITECTURES, SAE, SAEConfig, slices

MEMBERS, SAMPLES, NEURONS, DICTIONARY, K = 3, 23, 5, 12, 3
BLOCKS = st.tuples(st.integers(1, SAMPLES + 2), st.integers(1, DICTIONARY + 2))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_sae(architecture="tied", *, members=MEMBERS, size=DICTIONARY, normalize=False, seed=0):
    untied = architecture != "tied"
    return SAE(
        SAEConfig(architecture=architecture, expansion=size / NEURONS, k=K, normalize=normalize),
        normal(members, size, NEURONS, seed=seed),
        normal(members, size, seed=seed + 1),
        decoder=normal(members, size, NEURONS, seed=seed + 2) if untied else None,
        offset=normal(members, NEURONS, seed=seed + 3) if untied else None,
        threshold=torch.linspace(-0.5, 1, members) if architecture == "batchtopk" else None,
        scale=torch.linspace(0.5, 2, members) if normalize else None,
    )


def kept_codes(sae, x, ends):
    """The same sums from codes that are all kept."""
    z = sae.encode(x).double()
    return torch.stack([z[:, :end].sum(1) for end in ends], 1)


class Watching(TorchDispatchMode):
    """Sizes of all tensors that operations make, and the precision of matrix products."""

    def __init__(self):
        super().__init__()
        self.largest, self.precisions = 0, set()

    def __torch_dispatch__(self, operation, kinds, arguments=(), keywords=None):
        made = operation(*arguments, **(keywords or {}))
        if "mm" in str(operation):
            self.precisions.add(torch.get_float32_matmul_precision())
        for value in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(value, torch.Tensor):
                held = value.untyped_storage().nbytes() // value.element_size()
                self.largest = max(self.largest, held)
        return made


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=40)
@given(
    ends=st.lists(st.integers(0, SAMPLES), min_size=1, max_size=6).map(sorted),
    block=BLOCKS,
    seed=st.integers(0, 99),
)
def test_sums_are_those_of_codes_that_are_kept_at_any_ends_and_in_any_blocks(
    architecture, normalize, ends, block, seed
):
    sae, x = random_sae(architecture, normalize=normalize, seed=seed), normal(SAMPLES, NEURONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CPU_BLOCK", block)
        found = summed_codes(sae, x, ends)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, kept_codes(sae, x, ends), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_ends_the_sum_is_over_all_samples(architecture):
    sae, x = random_sae(architecture), normal(SAMPLES, NEURONS)
    expected = sae.encode(x).double().sum(1, keepdim=True)
    torch.testing.assert_close(summed_codes(sae, x), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_blocks_as_large_as_they_are_give_the_sums_of_codes_that_are_kept(architecture):
    sae = random_sae(architecture, members=1, size=1100)
    x = normal(1100, NEURONS)
    ends = [0, 3, 513, 1100]
    torch.testing.assert_close(
        summed_codes(sae, x, ends), kept_codes(sae, x, ends), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("precision", module.PRECISIONS)
def test_activations_in_half_precision_are_read_as_the_autoencoder_reads_them(precision):
    sae, x = random_sae(), normal(SAMPLES, NEURONS).bfloat16()
    found = summed_codes(sae, x, precision=precision)
    assert torch.equal(found, summed_codes(sae, x.float(), precision=precision))


@pytest.mark.parametrize("architecture", ["tied", "untied", "batchtopk"])
@settings(max_examples=25)
@given(block=BLOCKS, seed=st.integers(0, 999))
def test_half_precision_errs_by_no_more_than_its_rounding(architecture, block, seed):
    sae, x = random_sae(architecture, seed=seed), normal(SAMPLES, NEURONS, seed=seed + 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CPU_BLOCK", block)
        found = summed_codes(sae, x, precision="bfloat16")[:, 0]
    expected = kept_codes(sae, x, [SAMPLES])[:, 0]
    bias = sae.bias[:, None].double()
    x = x.double().expand(MEMBERS, -1, -1)
    if sae.offset is not None:  # is taken off before rounding
        x = x - sae.offset[:, None]
        bias = bias + torch.einsum("mn,mdn->md", sae.offset, sae.encoder)[:, None]
    before = torch.einsum("msn,mdn->msd", x, sae.encoder.double()) + bias
    size = torch.einsum("msn,mdn->msd", x.abs(), sae.encoder.abs().double()) + bias.abs()
    bound = 3 * 2.0**-8 * size
    if sae.threshold is not None:  # what is near the threshold may be on or off
        off = sae.threshold[:, None, None].clamp(min=0)
        bound += ((before - off).abs() < bound) * before.abs()
    assert ((found - expected).abs() <= bound.sum(1)).all()


def test_sums_of_codes_in_half_precision_are_not_rounded_themselves():
    ones = SAE(SAEConfig(expansion=1), torch.eye(NEURONS)[None], torch.zeros(1, NEURONS))
    found = summed_codes(ones, torch.ones(301, NEURONS), [257, 301], precision="bfloat16")[0]
    assert found.tolist() == [[257.0] * NEURONS, [301.0] * NEURONS]


def test_half_precision_does_not_suffer_from_a_mean_that_the_autoencoder_takes_off():
    sae = random_sae("untied")
    sae.offset *= 1e4
    sae.bias -= torch.einsum("mn,mdn->md", sae.offset, sae.encoder)
    x = normal(SAMPLES, NEURONS, seed=7)
    for member in range(MEMBERS):
        one, own = sae.select([member]), x + sae.offset[member]
        found, expected = summed_codes(one, own, precision="bfloat16"), summed_codes(one, own)
        torch.testing.assert_close(found, expected, rtol=0.05, atol=1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tf32_is_single_precision_without_a_gpu(architecture):
    sae, x = random_sae(architecture), normal(SAMPLES, NEURONS)
    found, expected = summed_codes(sae, x, precision="tf32"), summed_codes(sae, x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("architecture", "changes"), [("tied", True), ("topk", False)])
def test_half_precision_is_used_but_not_for_codes_kept_by_rank(architecture, changes):
    sae, x = random_sae(architecture), normal(SAMPLES, NEURONS)
    half, single = (summed_codes(sae, x, precision=name) for name in ("bfloat16", "float32"))
    assert torch.equal(half, single) != changes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("precision", "expected"), [("float32", "highest"), ("tf32", "high")])
@pytest.mark.parametrize("before", ["highest", "medium"])
def test_products_have_the_precision_asked_for_and_the_setting_is_put_back(
    architecture, precision, expected, before
):
    own = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        with Watching() as watched:
            summed_codes(random_sae(architecture), normal(SAMPLES, NEURONS), precision=precision)
        assert watched.precisions == {expected}
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(own)


@pytest.mark.parametrize("precision", module.PRECISIONS)
@pytest.mark.parametrize("architecture", ["tied", "untied", "batchtopk"])
def test_no_more_codes_are_held_than_a_block(architecture, precision, monkeypatch):
    monkeypatch.setattr(module, "CPU_BLOCK", (50, 40))
    size, samples = 300, 600
    sae, x = random_sae(architecture, members=2, size=size), normal(samples, NEURONS)
    with Watching() as watched:
        summed_codes(sae, x, [10, 250, samples], precision=precision)
    inputs = 2 * max(samples, size) * NEURONS
    assert 50 * 40 <= watched.largest <= inputs < samples * size / 20


def test_codes_kept_by_rank_are_held_for_some_samples_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "slices", lambda x: slices(x, 20))
    size, samples = 300, 600
    sae, x = random_sae("topk", members=2, size=size), normal(samples, NEURONS)
    with Watching() as watched:
        found = summed_codes(sae, x)
    assert watched.largest <= 20 * size
    torch.testing.assert_close(found, kept_codes(sae, x, [samples]), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_sample_makes_no_code(architecture):
    sae = random_sae(architecture)
    for x, ends in ((normal(SAMPLES, NEURONS), [0, 0]), (torch.empty(0, NEURONS), [0])):
        assert torch.equal(summed_codes(sae, x, ends), torch.zeros(MEMBERS, len(ends), DICTIONARY))


def test_activations_and_autoencoder_stay_as_they_were():
    for architecture in ARCHITECTURES:
        sae, x = random_sae(architecture, normalize=True), normal(SAMPLES, NEURONS)
        summed_codes(sae, x)
        assert torch.equal(x, normal(SAMPLES, NEURONS))
        expected = random_sae(architecture, normalize=True).tensors()
        for name, value in sae.tensors().items():
            assert torch.equal(value, expected[name])


@pytest.mark.parametrize("ends", [[5, 3], [-1, 3], [SAMPLES + 1], [2, SAMPLES + 1], []])
def test_ends_that_do_not_rise_within_the_samples_are_refused(ends):
    with pytest.raises(ValueError, match=r"ends are .*rise from 0 to at most 23 samples"):
        summed_codes(random_sae(), normal(SAMPLES, NEURONS), ends)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="'half'; allowed are float32, tf32, bfloat16"):
        summed_codes(random_sae(), normal(SAMPLES, NEURONS), precision="half")


@pytest.mark.parametrize("shape", [(SAMPLES, 4), (SAMPLES,), (1, 1, 1, NEURONS)])
def test_activations_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="activations have shape"):
        summed_codes(random_sae(), torch.zeros(shape))


@pytest.mark.parametrize("members", [1, MEMBERS])
def test_activations_of_each_member_are_refused(members):
    with pytest.raises(ValueError, match="activations have shape"):
        summed_codes(random_sae(members=members), normal(members, SAMPLES, NEURONS))


def documents_of(lengths, seed=5):
    return normal(sum(lengths), NEURONS, seed=seed)


def added(sae, x, lengths, cuts, **options):
    """Documents added in several parts."""
    own = Magnitudes(sae, **options)
    places = [0, *sorted(cuts), len(lengths)]
    for first, last in itertools.pairwise(places):
        if last > first:
            before = sum(lengths[:first])
            own.add(x[before : before + sum(lengths[first:last])], lengths[first:last])
    return own


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=30)
@given(data=st.data(), lengths=st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_however_documents_are_cut_sums_and_curve_are_those_of_codes_that_are_kept(
    architecture, data, lengths
):
    many = len(lengths)
    cuts = data.draw(st.lists(st.integers(0, many), max_size=5))
    at = data.draw(st.sets(st.integers(1, many)).map(sorted))
    sae, x = random_sae(architecture, members=1, normalize=True), documents_of(lengths)
    z = sae.encode(x)[0].double()
    own = added(sae, x, lengths, cuts, at=at)
    torch.testing.assert_close(own.codes, z.sum(0), rtol=1e-6, atol=1e-5)
    assert (own.documents, own.tokens) == (many, sum(lengths))
    assert list(own.curve) == at
    for number, features in own.curve.items():
        first = z[: sum(lengths[:number])].sum(0)
        expected = effective_features(first).item() if first.any() else math.nan
        assert features == pytest.approx(expected, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sums_over_many_documents_equal_one_pass_to_a_millionth(architecture):
    lengths = [7] * 300
    sae, x = random_sae(architecture, members=1), 100 * documents_of(lengths)
    expected = sae.encode(x)[0].double().sum(0)
    for cuts in ([], [1, 2, 150], range(300)):
        own = added(sae, x, lengths, cuts, at=[300])
        torch.testing.assert_close(own.codes, expected, rtol=1e-6, atol=0)
        features = effective_features(expected).item()
        assert own.curve[300] == pytest.approx(features, rel=1e-6)


def test_sums_have_the_precision_asked_for():
    sae, x = random_sae(members=1), documents_of([4, 5])
    half = added(sae, x, [4, 5], [1], precision="bfloat16")
    expected = summed_codes(sae, x, [4, 9], precision="bfloat16")[0, -1]
    assert torch.equal(half.codes, expected)
    assert not torch.equal(half.codes, added(sae, x, [4, 5], [1]).codes)


def test_features_are_nan_while_every_code_is_zero():
    one = torch.eye(NEURONS)[None]
    own = Magnitudes(SAE(SAEConfig(expansion=1), one, torch.zeros(1, NEURONS)), at=[1, 2, 3])
    own.add(-torch.ones(2, NEURONS), [1, 1])
    own.add(torch.ones(1, NEURONS), [1])
    assert [math.isnan(own.curve[number]) for number in (1, 2, 3)] == [True, True, False]
    assert own.curve[3] == pytest.approx(NEURONS)


def test_points_beyond_the_documents_are_left_open():
    own = added(random_sae(members=1), documents_of([2, 2]), [2, 2], [], at=[1, 2, 3])
    assert list(own.curve) == [1, 2]


@pytest.mark.parametrize("lengths", [[], [3], [3, 3], [6]])
def test_lengths_that_do_not_add_up_are_refused(lengths):
    with pytest.raises(ValueError, match=r"lengths add up to .*, there are 5 tokens"):
        Magnitudes(random_sae(members=1)).add(documents_of([5]), lengths)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_refused_leaves_the_sums_as_they_were(value):
    own = added(random_sae(members=1), documents_of([2, 3]), [2, 3], [], at=[1, 3])
    before, curve = own.codes.clone(), dict(own.curve)
    spoiled = documents_of([4])
    spoiled[3, 1] = value
    for x, message in ((spoiled, "nan or infinity"), (torch.zeros(4, 2), "have shape")):
        with pytest.raises(ValueError, match=message):
            own.add(x, [4])
    assert torch.equal(own.codes, before)
    assert (own.documents, own.tokens, own.curve) == (2, 5, curve)


def test_autoencoders_of_several_members_are_refused():
    with pytest.raises(ValueError, match="3 members; sums are of one"):
        Magnitudes(random_sae())


@given(st.integers(1, 10**7))
def test_points_are_one_two_and_five_times_powers_of_ten_and_the_last(last):
    found = points(last)
    expected = {m * 10**power for power in range(9) for m in (1, 2, 5)}
    assert set(found) == {number for number in expected if number < last} | {last}
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("last", "expected"),
    [(1, [1]), (2, [1, 2]), (10, [1, 2, 5, 10]), (31, [1, 2, 5, 10, 20, 31])],
)
def test_points_of_few_documents(last, expected):
    assert points(last) == expected


@given(st.lists(st.floats(0, 1e30), max_size=40))
def test_packed_numbers_are_single_precision_little_endian_and_come_back(values):
    text = packed(torch.tensor(values, dtype=torch.float64))
    assert base64.b64decode(text) == struct.pack(f"<{len(values)}f", *values)
    back = unpacked(text)
    assert back.dtype == torch.float64
    assert torch.equal(back, torch.tensor(values, dtype=torch.float64).float().double())


@pytest.mark.parametrize("text", ["*", "AAAA", "AAAAA", "AAAAAA==\n?", "é"])
def test_text_that_holds_no_packed_numbers_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        unpacked(text)
