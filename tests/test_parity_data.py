import time
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from superpos.data import sparse_parity
from superpos.data.ordering import stratified_order


def enumerated(tasks, bits):
    """Every input with its label, written out in plain Python."""
    labels = {}
    for task in range(tasks):
        task_part = tuple(int(other == task) for other in range(tasks))
        for bit_part in product((0, 1), repeat=tasks * bits):
            own = bit_part[task * bits : (task + 1) * bits]
            labels[task_part + bit_part] = sum(own) % 2
    return labels


def listed(x, y):
    return list(zip(map(tuple, x.int().tolist()), y.tolist(), strict=True))


def samples_of(data):
    return listed(data.x_train, data.y_train) + listed(data.x_test, data.y_test)


def cells(data):
    """Task and label of every sample in order, as one-hot `[samples, 2 * tasks]`."""
    x, y = torch.cat([data.x_train, data.x_test]), torch.cat([data.y_train, data.y_test])
    cell = 2 * x[:, : data.tasks].argmax(1) + y
    return torch.nn.functional.one_hot(cell, 2 * data.tasks)


def off_share(cells):
    """How far any beginning is from having each cell in its share, in samples."""
    count = torch.arange(1, len(cells) + 1, dtype=torch.float64)[:, None]
    return (cells.cumsum(0) - count * cells.double().mean(0)).abs().max()


def spread(counts):
    return counts.max() - counts.min()


def same(first, second):
    pairs = zip(first[2:], second[2:], strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def available(monkeypatch, size):
    memory = SimpleNamespace(available=size)
    monkeypatch.setattr("superpos.data.parity.psutil.virtual_memory", lambda: memory)


@pytest.mark.parametrize(
    ("tasks", "bits"), [(1, 1), (1, 2), (1, 8), (2, 1), (2, 3), (5, 1), (4, 2), (3, 4)]
)
def test_the_whole_set_is_every_input_once_with_its_parity(tasks, bits):
    data = sparse_parity(tasks, bits, train_share=0.7 if bits > 1 else 0.5)
    expected = enumerated(tasks, bits)
    found = samples_of(data)
    assert len(found) == len(expected) == tasks * 2 ** (tasks * bits)
    assert dict(found) == expected
    assert data.inputs == data.x_train.shape[1] == data.x_test.shape[1] == tasks + tasks * bits


def test_the_default_is_the_papers_set():
    data = sparse_parity()
    assert (data.tasks, data.bits, data.inputs) == (3, 4, 15)
    assert data.x_train.dtype == data.x_test.dtype == torch.float32
    assert data.y_train.dtype == data.y_test.dtype == torch.int64
    assert (len(data.x_train), len(data.x_test)) == (len(data.y_train), len(data.y_test))
    assert (len(data.x_train), len(data.x_test)) == (9830, 2458)
    assert cells(data).sum(0).tolist() == [2048] * 6
    assert sorted(cells(data)[:9830].sum(0).tolist()) == [1638] * 4 + [1639] * 2


def test_only_the_bits_of_the_active_task_change_the_label():
    labels = dict(samples_of(sparse_parity(3, 2)))
    for values, label in labels.items():
        task = values[:3].index(1)
        for bit in range(3, 9):
            flipped = (*values[:bit], 1 - values[bit], *values[bit + 1 :])
            relevant = (bit - 3) // 2 == task
            assert (labels[flipped] != label) == relevant


@settings(max_examples=60)
@given(
    tasks=st.integers(1, 5),
    bits=st.integers(1, 6),
    samples=st.integers(2, 300),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 1000),
)
def test_any_sample_is_distinct_exact_and_even(tasks, bits, samples, share, seed):
    samples = min(samples, tasks * 2 ** (tasks * bits))
    cut = round(share * samples)
    assume(0 < cut < samples)
    data = sparse_parity(tasks, bits, samples=samples, train_share=share, seed=seed)
    assert (len(data.x_train), len(data.x_test)) == (cut, samples - cut)
    found = samples_of(data)
    assert len(dict(found)) == samples
    for values, label in found:
        assert set(values) <= {0, 1} and sum(values[:tasks]) == 1
        start = tasks + values.index(1) * bits
        assert label == sum(values[start : start + bits]) % 2
    chosen = cells(data)
    drawn = chosen.sum(0).view(tasks, 2)
    assert spread(drawn) <= 1 and spread(drawn.sum(0)) <= 1 and spread(drawn.sum(1)) <= 1
    assert off_share(chosen) < 1


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=9),
    seed=st.integers(0, 100),
)
def test_stratified_orders_keep_their_bound_for_uneven_classes(sizes, seed):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    order = stratified_order(labels, generator=torch.Generator().manual_seed(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))
    bound = 0.5 + max(sizes) / sum(sizes) * max(len(sizes) - 2, 0) / 2
    assert off_share(torch.nn.functional.one_hot(labels[order])) <= bound + 1e-9


@pytest.mark.parametrize("samples", [8, 40])
def test_every_input_is_drawn_as_often(samples):
    """Few samples are drawn bit by bit, many from the numbered inputs."""
    seeds = range(1000)
    drawn = [sparse_parity(1, 7, samples=samples, seed=seed).x_train for seed in seeds]
    codes = torch.cat(drawn)[:, 1:].long() @ (2 ** torch.arange(7))
    assert stats.chisquare(codes.bincount(minlength=128).numpy()).pvalue > 0.001


def test_every_input_is_tested_on_as_often():
    tests = [sparse_parity(1, 4, train_share=0.75, seed=seed).x_test for seed in range(2000)]
    codes = torch.cat(tests)[:, 1:].long() @ (2 ** torch.arange(4))
    assert stats.chisquare(codes.bincount(minlength=16).numpy()).pvalue > 0.001


@pytest.mark.parametrize("samples", [None, 20, 500])
def test_the_seed_fixes_the_data(samples):
    state = torch.get_rng_state()
    first, again, other = (sparse_parity(2, 4, samples=samples, seed=seed) for seed in (3, 3, 4))
    assert same(first, again) and not same(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_as_many_samples_as_inputs_are_the_whole_set():
    assert same(sparse_parity(2, 3), sparse_parity(2, 3, samples=128))


def test_sets_too_large_to_list_are_sampled():
    start = time.perf_counter()
    data = sparse_parity(40, 3, samples=5000)
    assert time.perf_counter() - start < 5
    found = samples_of(data)
    assert len(dict(found)) == 5000
    for values, label in found[::50]:
        task = values.index(1)
        assert label == sum(values[40 + 3 * task : 43 + 3 * task]) % 2
    assert sorted(set(cells(data).sum(0).tolist())) == [62, 63]
    low, high = stats.binom.interval(1 - 1e-6, 5000, 0.5)
    ones = torch.cat([data.x_train, data.x_test])[:, 40:].sum(0)
    assert ((low <= ones) & (ones <= high)).all()


def test_fewer_samples_than_tasks_are_of_different_tasks():
    data = sparse_parity(1000, 1, samples=10)
    assert sorted(values.index(1) for values, _ in samples_of(data)) == list(range(10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": 0}, "tasks is 0: give 1 or more"),
        ({"bits": 0}, "bits is 0: give 1 or more"),
        ({"bits": -3}, "bits is -3"),
        ({"samples": 1}, "samples is 1: 3 x 4 bits have 12,288 inputs, so give 2"),
        ({"samples": 12289}, "samples is 12289: 3 x 4 bits have 12,288 inputs"),
        ({"tasks": 30, "samples": 2**140}, "3 bits have 30 x 2"),
        ({"train_share": 0.0}, "train_share is 0.0: give a share above 0 and below 1"),
        ({"train_share": 1}, "train_share is 1"),
        ({"train_share": float("nan")}, "train_share is nan"),
        ({"samples": 2}, "of 2 samples it leaves none to test on"),
        ({"tasks": 1, "bits": 1}, "of 2 samples it leaves none to test on"),
        ({"train_share": 1e-6}, "of 12,288 samples it leaves none to train on"),
    ],
)
def test_wrong_choices_are_refused_with_what_is_allowed(options, message):
    options = {"bits": 3} | options if options.get("tasks", 1) > 3 else options
    with pytest.raises(ValueError, match=message):
        sparse_parity(**options)


def test_what_does_not_fit_is_refused_with_its_size_and_the_way_out(monkeypatch):
    available(monkeypatch, 2**20)
    with pytest.raises(MemoryError, match=r"12,288 inputs .* 2\.0 MiB .* 1\.0 MiB .*samples="):
        sparse_parity()
    with pytest.raises(MemoryError, match=r"12,000 samples .* 1\.0 MiB .*: give fewer samples"):
        sparse_parity(samples=12000)
    assert len(sparse_parity(samples=5000).x_train) == 4000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": 1000, "bits": 1000}, r"1000 x 2\^1000000 inputs .* at least 2\^1000032 bytes"),
        ({"tasks": 10**6, "bits": 10**6}, r"2\^1000000000000 inputs"),
        ({"tasks": 4, "bits": 10}, r"4,398,046,511,104 inputs of 4 x 10 bits need 1\.3 PiB"),
        ({"tasks": 10**6, "bits": 10**6, "samples": 9}, "9 samples .* 49.1 TiB .* fewer samples"),
        ({"tasks": 1000, "samples": 10**400}, "need at least 2"),
    ],
)
def test_absurd_sizes_are_refused_at_once(options, message):
    start = time.perf_counter()
    with pytest.raises(MemoryError, match=message):
        sparse_parity(**options)
    assert time.perf_counter() - start < 0.5
