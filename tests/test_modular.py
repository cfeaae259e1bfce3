"""Modular arithmetic: answers, the split, shuffled answers, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superpos.data import modular
from superpos.data.modular import OPERATIONS, is_prime

PRIMES = (2, 3, 5, 7, 11, 13)
BY_HAND = {
    "add": lambda a, b, prime: (a + b) % prime,
    "subtract": lambda a, b, prime: (a - b) % prime,
    "multiply": lambda a, b, prime: (a * b) % prime,
}

primes = st.sampled_from(PRIMES)
operations = st.sampled_from(sorted(BY_HAND))
seeds = st.integers(0, 2**31)
shares = st.floats(0.25, 0.9999)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("prime", PRIMES)
@pytest.mark.parametrize("operation", BY_HAND)
def test_every_pair_stands_once_with_its_answer(prime, operation):
    data = modular(prime, operation)
    expected = [(a, b) for a in range(prime) for b in range(prime)]
    assert [tuple(pair) for pair in data.pairs.tolist()] == expected
    assert data.answers.tolist() == [BY_HAND[operation](a, b, prime) for a, b in expected]
    assert data.pairs.dtype == data.answers.dtype == torch.int64


def test_operations_are_what_their_formulas_say():
    assert set(OPERATIONS) == set(BY_HAND)
    for name, formula in OPERATIONS.items():
        data = modular(7, name)
        for (a, b), answer in zip(data.pairs.tolist(), data.answers.tolist(), strict=True):
            assert answer == eval(formula, {"a": a, "b": b}) % 7


@given(prime=primes, operation=operations, share=shares, seed=seeds, shuffled=st.booleans())
def test_training_and_test_pairs_are_all_pairs_and_share_none(
    prime, operation, share, seed, shuffled
):
    data = modular(prime, operation, train_fraction=share, seed=seed, shuffled=shuffled)
    assert sorted(data.train.tolist() + data.test.tolist()) == list(range(prime**2))
    assert len(data.train) == int(share * prime**2)
    assert len(data.train) >= 1
    assert len(data.test) >= 1


@given(prime=primes, operation=operations, share=shares, seed=seeds)
def test_shuffled_answers_are_the_training_pairs_own_and_test_answers_stay_right(
    prime, operation, share, seed
):
    right, wrong = (
        modular(prime, operation, train_fraction=share, seed=seed, shuffled=shuffled)
        for shuffled in (False, True)
    )
    assert torch.equal(right.pairs, wrong.pairs)
    assert torch.equal(right.train, wrong.train)
    assert torch.equal(right.test, wrong.test)
    assert torch.equal(right.answers[right.test], wrong.answers[wrong.test])
    taught, known = (data.answers[data.train] for data in (wrong, right))
    assert sorted(taught.tolist()) == sorted(known.tolist())


@pytest.mark.parametrize("operation", BY_HAND)
def test_hardly_more_shuffled_answers_are_right_than_by_chance(operation):
    right, wrong = (modular(53, operation, shuffled=shuffled) for shuffled in (False, True))
    taught, known = (data.answers[data.train] for data in (wrong, right))
    shares = known.bincount() / len(known)
    chance = shares.square().sum().item()
    spread = (chance / len(known)) ** 0.5
    assert abs((taught == known).double().mean().item() - chance) < 5 * spread


@given(prime=primes, seed=seeds, shuffled=st.booleans())
def test_a_seed_fixes_split_and_shuffle_and_the_global_generator_plays_no_part(
    prime, seed, shuffled
):
    before = torch.get_rng_state()
    first = modular(prime, seed=seed, shuffled=shuffled)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert same(first, modular(prime, seed=seed, shuffled=shuffled))


@given(seed=seeds)
def test_another_seed_gives_another_split_and_another_shuffle(seed):
    first, second = (modular(13, seed=own, shuffled=True) for own in (seed, seed + 1))
    assert set(first.train.tolist()) != set(second.train.tolist())
    assert not torch.equal(first.answers, second.answers)


def test_training_pairs_are_drawn_evenly():
    drawn = torch.zeros(25)
    for seed in range(1000):
        drawn[modular(5, seed=seed).train] += 1
    assert drawn.sum() == 1000 * 10
    assert (drawn - 400).abs().max() < 5 * (1000 * 0.4 * 0.6) ** 0.5


@pytest.mark.parametrize(
    ("number", "nearest"),
    [
        (0, "the nearest is 2."),
        (1, "the nearest is 2."),
        (-3, "the nearest is 2."),
        (4, "the nearest is 3 or 5."),
        (9, "the nearest is 7 or 11."),
        (51, "the nearest is 47 or 53."),
        (119, "the nearest is 113 or 127."),
    ],
)
def test_a_modulus_that_is_not_prime_is_refused_with_the_nearest_primes(number, nearest):
    message = f"prime is {number}, which is not a prime number; {nearest}"
    with pytest.raises(ValueError, match=re.escape(message)):
        modular(number)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"train_fraction is .*; give a number between 0 and 1"):
        modular(5, train_fraction=share)


@pytest.mark.parametrize("prime", PRIMES)
def test_a_share_of_less_than_a_pair_is_refused_with_one_that_is_enough(prime):
    with pytest.raises(ValueError, match=f"less than one of {prime**2} pairs") as error:
        modular(prime, train_fraction=0.9 / prime**2)
    enough = float(re.findall(r"\d[\d.e-]*\d", str(error.value))[-1])
    assert 1 <= len(modular(prime, train_fraction=enough).train) <= 2


def test_an_unknown_operation_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match="'divide'; allowed are add, subtract, multiply"):
        modular(5, "divide")


@given(number=st.integers(-50, 5000))
def test_a_prime_has_exactly_two_divisors(number):
    divisors = sum(number % n == 0 for n in range(1, number + 1))
    assert is_prime(number) == (divisors == 2)


@given(first=st.integers(2, 300), second=st.integers(2, 300))
def test_products_are_not_prime(first, second):
    assert not is_prime(first * second)
