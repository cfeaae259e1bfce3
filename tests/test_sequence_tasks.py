"""Sequence tasks: their inputs and answers, how networks are judged and trained on them."""

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, mse_loss

from superpos.compression import Compressed
from superpos.rasp import compiled, evaluate, histogram, reversal, shifted_copy, sorting, tokens
from superpos.sequence_tasks import Task, accuracy, answer_loss, indicator_loss, task, trained
from superpos.transformers import Shape, Transformer

PROGRAMS = {
    "reversal": (reversal(), "ab", 3),
    "sorting": (sorting(3), (1, 2, 3), 3),
    "histogram": (histogram(), "abc", 2),
    "shift": (shifted_copy(), "ab", 4),
    "one token": (tokens, "a", 2),
}
SEEDS = st.integers(0, 9999)


@cache
def network(name):
    return compiled(*PROGRAMS[name])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def words_of(name, own):
    """The words that the rows of a task stand for; BOS, tokens, blanks and padding are checked."""
    vocabulary = network(name).vocabulary
    size, found = len(vocabulary), []
    for row in own.ids.tolist():
        length = sum(number != size + 2 for number in row) - 1
        assert row[0] == size + 1 and row[length + 1 :] == [size + 2] * (len(row) - length - 1)
        found.append(tuple((*vocabulary, None)[number] for number in row[1 : length + 1]))
    return found


# Tasks


@pytest.mark.parametrize("empty", [0.0, 0.3])
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_input_has_the_answers_that_the_interpreter_gives(name, empty):
    program, vocabulary, length = PROGRAMS[name]
    own, symbols = task(network(name), empty=empty), (*vocabulary, *([None] if empty else []))
    words = words_of(name, own)
    expected = [word for n in range(1, length + 1) for word in product(symbols, repeat=n)]
    assert len(words) == len(expected) and set(words) == set(expected)
    rows = zip(words, own.answers.tolist(), own.asked.tolist(), own.present.tolist(), strict=True)
    for word, answers, asked, present in rows:
        rest = length - len(word)
        values = evaluate(program, list(word))
        places = [-1 if own is None else network(name).outputs.index(own) for own in values]
        assert answers == [-1, *places, *[-1] * rest]
        assert asked == [False, *[True] * len(word), *[False] * rest]
        assert present == [True, *[True] * len(word), *[False] * rest]


@pytest.mark.parametrize("name", PROGRAMS)
@given(empty=st.floats(0, 0.999))
def test_lengths_come_equally_often_and_positions_are_empty_with_the_probability(name, empty):
    own, (_, vocabulary, length) = task(network(name), empty=empty), PROGRAMS[name]
    words, lengths, blanks = words_of(name, own), [0.0] * (length + 1), {}
    for word, frequency in zip(words, own.frequency.tolist(), strict=True):
        expected = 1 / length
        for token in word:
            expected *= empty if token is None else (1 - empty) / len(vocabulary)
        assert frequency == pytest.approx(expected, rel=1e-9, abs=1e-300)
        lengths[len(word)] += frequency
        for place, token in enumerate(word):
            at = len(word), place
            blanks[at] = blanks.get(at, 0.0) + frequency * (token is None)
    assert sum(lengths) == pytest.approx(1)
    assert lengths[1:] == pytest.approx([1 / length] * length)
    assert list(blanks.values()) == pytest.approx([empty / length] * len(blanks))


@pytest.mark.parametrize("empty", [-0.1, 1, 1.5, math.nan, math.inf])
def test_a_share_of_empty_positions_that_is_no_probability_below_one_is_refused(empty):
    with pytest.raises(ValueError, match=f"empty is {empty}; give a probability from 0 to below"):
        task(network("reversal"), empty=empty)


# Accuracy


class Recited(torch.nn.Module):
    """Gives outputs that are written down for every input."""

    def __init__(self, ids, outputs):
        super().__init__()
        rows = zip(ids.tolist(), outputs, strict=True)
        self.outputs = {tuple(row): output for row, output in rows}

    def forward(self, ids):
        return torch.stack([self.outputs[tuple(row)] for row in ids.tolist()])


def right(own, outputs):
    """Outputs that are on where they should be, and none where there is no answer."""
    hot = torch.nn.functional.one_hot(own.answers.clamp_min(0), outputs)
    return hot.float() * (own.answers >= 0)[..., None]


def place_of(name, own, word):
    return words_of(name, own).index(tuple(word))


@pytest.mark.parametrize("empty", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_perfect_network_has_an_accuracy_of_exactly_one(name, empty):
    own = task(network(name), empty=empty)
    outputs = right(own, len(network(name).outputs))
    assert accuracy(network(name).transformer, own) == 1.0
    assert accuracy(Recited(own.ids, outputs), own) == 1.0
    junk = torch.randn(outputs.shape, generator=seeded()) * 9
    outputs = torch.where(own.asked[..., None], outputs, junk)
    assert accuracy(Recited(own.ids, outputs), own) == 1.0


def test_mistakes_count_as_often_as_their_inputs_come():
    """Of lengths 1, 2 and 3, each a third: 1 + 2 + 3 tokens, so that 6 thirds are asked for."""
    own = task(network("reversal"))
    for words, wrong in {
        ("a",): 1 / 2,
        ("a", "b"): 1,
        ("ab",): 1 / 4,
        ("aab",): 1 / 8,
        ("b", "ab", "ba", "bbb"): 1 / 2 + 2 / 4 + 1 / 8,
    }.items():
        outputs = right(own, 2)
        for word in words:
            row = outputs[place_of("reversal", own, word)]
            row[len(word)] = row[len(word)].flip(0)
        assert accuracy(Recited(own.ids, outputs), own) == pytest.approx(1 - wrong / 6)
    assert accuracy(Recited(own.ids, right(own, 2).flip(-1)), own) == 0.0


def test_the_largest_output_is_the_answer_however_small_it_is():
    own = task(network("reversal"))
    assert accuracy(Recited(own.ids, 0.01 * right(own, 2) - 5), own) == 1.0


def test_where_nothing_is_to_be_said_no_output_may_exceed_one_half():
    own = task(network("reversal"), empty=0.25)
    answered = (own.answers >= 0)[..., None]
    for loud, expected in {0.5: 1.0, 0.51: 0.0, -3.0: 1.0}.items():
        outputs = torch.where(answered, right(own, 2), torch.tensor([loud, -9.0]))
        assert accuracy(Recited(own.ids, outputs), own) == expected
    assert accuracy(Recited(own.ids, right(own, 2) + 1), own) == 0.0  # always answers
    assert accuracy(Recited(own.ids, torch.zeros(*own.ids.shape, 2)), own) < 0.6  # never answers


def test_the_lower_of_the_shares_of_answers_and_of_silence_counts():
    """Silence is asked for at the first position of a shifted copy, and after a blank."""
    own = task(network("shift"), empty=0.5)
    weights, first = own.frequency[:, None] * own.asked, torch.zeros_like(own.asked)
    first[:, 1] = True
    silent = own.answers < 0
    outputs = right(own, 2)
    outputs[:, 1] = 1.0  # an answer at all first positions
    # Lengths 1 to 4: all first positions are silent, 4 in all; of the other 6, one half.
    assert accuracy(Recited(own.ids, outputs), own) == pytest.approx(1 - 4 / 7)
    assert (weights * (silent & ~first)).sum().item() == pytest.approx(3 / 4)
    outputs = right(own, 2)
    outputs[:, 2] = outputs[:, 2].flip(-1)  # of 3 answers one half each, 3 at second positions
    assert accuracy(Recited(own.ids, outputs), own) == pytest.approx(1 - 3 / 6)


@pytest.mark.parametrize("name", ["reversal", "shift", "histogram"])
@given(seed=SEEDS, empty=st.sampled_from([0.0, 0.2, 0.8]))
def test_accuracy_is_what_a_loop_over_inputs_and_positions_counts(name, seed, empty):
    own, size = task(network(name), empty=empty), len(network(name).outputs)
    drawn = torch.randn(*own.ids.shape, size, generator=seeded(seed))
    outputs = torch.where(drawn[..., :1] > -0.5, right(own, size), drawn)
    good, total = {}, {}
    rows = zip(
        words_of(name, own), own.frequency.tolist(), own.answers.tolist(), outputs.tolist(),
        strict=True,
    )  # fmt: skip
    for word, frequency, answers, given_ in rows:
        for place in range(1, len(word) + 1):
            answer, values = answers[place], given_[place]
            ok = max(values) <= 0.5 if answer < 0 else values[answer] == max(values)
            kind = answer < 0
            good[kind] = good.get(kind, 0.0) + frequency * ok
            total[kind] = total.get(kind, 0.0) + frequency
    expected = min(good[kind] / total[kind] for kind in total)
    assert accuracy(Recited(own.ids, outputs), own) == pytest.approx(expected)


def test_inputs_beyond_the_first_few_hundred_count_too():
    own = task(compiled(tokens, "abc", 6))
    assert len(own.ids) == 1092
    outputs = right(own, 3)
    outputs[-1, -1] = outputs[-1, -1].roll(1)
    found = accuracy(Recited(own.ids, outputs), own)
    assert found == pytest.approx(1 - 1 / 3**6 / (1 + 2 + 3 + 4 + 5 + 6), abs=1e-9)
    for row, answers in zip(own.ids[-3:].tolist(), own.answers[-3:].tolist(), strict=True):
        assert answers[1:] == row[1:]


# Losses


def some_outputs(seed, members=2, batch=3, positions=4, outputs=3):
    """Random outputs, and answers of which about a third are missing."""
    generator = seeded(seed)
    shape = members, batch, positions
    answers = torch.randint(outputs, shape, generator=generator)
    missing = torch.rand(shape, generator=generator) < 0.35
    return torch.randn(*shape, outputs, generator=generator).double(), answers.where(~missing, -1)


def element_by_element(outputs, answers, own_loss):
    """`[members][batch]`, zero where no position has an answer."""
    found = []
    for member, wanted in zip(outputs, answers.tolist(), strict=True):
        rows = []
        for row, places in zip(member, wanted, strict=True):
            losses = [
                own_loss(output, place).item()
                for output, place in zip(row, places, strict=True)
                if place >= 0
            ]
            rows.append(sum(losses) / len(losses) if losses else 0.0)
        found.append(rows)
    return found


def entropy(output, place):
    return cross_entropy(output[None], torch.tensor([place]))


def squares(output, place):
    return mse_loss(output, torch.eye(len(output)).double()[place], reduction="sum")


LOSSES = {"answers": (answer_loss, entropy), "indicators": (indicator_loss, squares)}


@pytest.mark.parametrize("name", LOSSES)
@given(seed=SEEDS, outputs=st.integers(1, 5), positions=st.integers(1, 5))
def test_losses_are_averages_over_the_positions_with_an_answer(name, seed, outputs, positions):
    loss, own_loss = LOSSES[name]
    given_, answers = some_outputs(seed, outputs=outputs, positions=positions)
    found = loss(given_, answers)
    assert found.shape == (2, 3)
    expected = element_by_element(given_, answers, own_loss)
    torch.testing.assert_close(found, torch.tensor(expected).double())


@pytest.mark.parametrize("name", LOSSES)
def test_positions_without_an_answer_have_no_say(name):
    loss, _ = LOSSES[name]
    outputs, answers = some_outputs(1)
    answers[0, 0] = -1
    outputs.requires_grad_()
    loss(outputs, answers).sum().backward()
    moved = (outputs.grad != 0).any(-1)
    assert torch.equal(moved, answers >= 0) and not outputs.grad.isnan().any()
    assert loss(outputs, answers)[0, 0] == 0


# Training

TRAINING = {"loss": answer_loss, "steps": 200, "batch": 32, "rate": 5e-3}


def scratch(seeds, width=8):
    shape = replace(network("reversal").transformer.shape, width=width, layers=2)
    return [Transformer(shape, seed=seed) for seed in seeds]


def test_transformers_learn_to_reverse_from_nothing():
    own = task(network("reversal"))
    first = scratch([0, 1], width=12)
    assert max(accuracy(member, own) for member in first) < 0.9
    found = trained(first, own, seeds=[0, 1], **TRAINING | {"steps": 300})
    assert [accuracy(member, own) for member in found] == [1.0, 1.0]


def squeezed(seeds, neurons=9):
    frozen = compiled(*PROGRAMS["reversal"]).transformer.double()
    return [Compressed(frozen, neurons, seed=seed) for seed in seeds]


@pytest.mark.parametrize(("made", "loss"), [(scratch, answer_loss), (squeezed, indicator_loss)])
def test_a_network_among_others_gets_what_it_gets_alone(made, loss):
    own, options = task(network("reversal")), TRAINING | {"steps": 40, "loss": loss}

    def after(seeds):
        return trained([net.double() for net in made(seeds)], own, seeds=seeds, **options)

    (alone,), among = after([3]), after([5, 3, 4])
    for name, value in alone.named_parameters():
        torch.testing.assert_close(among[1].get_parameter(name), value)
        assert not torch.allclose(among[0].get_parameter(name), value, rtol=0.01)


def test_networks_that_are_given_stay_as_they_are():
    own, first = task(network("reversal")), scratch([0, 1])
    before = [{name: value.clone() for name, value in net.named_parameters()} for net in first]
    found = trained(first, own, seeds=[0, 1], **TRAINING | {"steps": 5})
    for net, values, new in zip(first, before, found, strict=True):
        for name, value in net.named_parameters():
            assert torch.equal(value, values[name])
            assert not torch.equal(value, new.get_parameter(name))


def test_of_a_compressed_network_only_the_matrix_moves():
    frozen, own = network("reversal").transformer, task(network("reversal"))
    before = [weight.clone() for weight in frozen.parameters()]
    first = [Compressed(frozen, 9, seed=seed) for seed in range(2)]
    options = TRAINING | {"loss": indicator_loss, "steps": 60}
    found = trained(first, own, seeds=[0, 1], **options)
    assert all(map(torch.equal, frozen.parameters(), before))
    with torch.no_grad():
        for old, new in zip(first, found, strict=True):
            losses = [
                indicator_loss(net(own.ids)[None], own.answers[None]).mean() for net in (new, old)
            ]
            assert losses[0] < losses[1]
            assert [name for name, _ in new.named_parameters()] == ["matrix"]
            assert not torch.equal(new.matrix, old.matrix)
            new.matrix.copy_(old.matrix)
            assert torch.equal(new(own.ids), old(own.ids))


class Dial(torch.nn.Module):
    """One number, which stands at every output."""

    def __init__(self):
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, ids):
        return self.number.expand(*ids.shape, 2)


def test_the_rate_rises_over_the_first_steps_and_falls_to_zero_along_a_cosine():
    """Under a constant gradient, Adam moves a number by just the rate."""
    numbers, steps, rate = [], 200, 0.01

    def loss(outputs, answers):
        numbers.append(outputs[0, 0, 0, 0].item())
        return outputs.mean((-1, -2))

    own = task(network("reversal"))
    options = TRAINING | {"loss": loss, "steps": steps, "rate": rate, "batch": 2}
    (last,) = trained([Dial()], own, seeds=[0], **options)
    numbers.append(last.number.item())
    rates = [(before - after) / rate for before, after in pairwise(numbers)]
    cosine = [(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    assert rates[10:] == pytest.approx(cosine[10:], rel=1e-4)
    assert 0 < rates[0] < 0.2 and rates[:10] == sorted(rates[:10])
    assert rates[0] / rates[1] == pytest.approx(0.5, abs=0.01)


def test_every_network_has_inputs_of_its_own_drawn_by_their_frequency():
    own = task(network("reversal"))
    own = own._replace(answers=torch.arange(len(own.ids))[:, None].expand_as(own.ids))
    frequency = torch.zeros_like(own.frequency)
    frequency[2], frequency[5], frequency[7] = 0.5, 0.3, 0.2

    def draws(seeds):
        found = []

        def loss(outputs, answers):
            found.append(answers[..., 0])
            assert outputs.shape == (len(seeds), 50, 4, 2) and answers.shape == outputs.shape[:-1]
            return outputs.mean((-1, -2))

        options = TRAINING | {"loss": loss, "batch": 50, "steps": 40}
        weighted = own._replace(frequency=frequency)
        trained([Dial() for _ in seeds], weighted, seeds=seeds, **options)
        return torch.stack(found)

    found = draws([4, 9])
    shares = found.flatten().bincount(minlength=len(own.ids)) / found.numel()
    torch.testing.assert_close(shares.double(), frequency, atol=0.03, rtol=0)
    assert not torch.equal(found[:, 0], found[:, 1]) and not torch.equal(found[0], found[1])
    assert torch.equal(draws([9])[:, 0], found[:, 1])


def test_ids_and_answers_of_a_batch_belong_together():
    """A network that sees the token and is asked for it learns it; for another's it could not."""
    own = Task(
        torch.tensor([[0], [1]]), torch.tensor([0.5, 0.5]), torch.tensor([[0], [1]]),
        *[torch.ones(2, 1, dtype=torch.bool)] * 2,
    )  # fmt: skip
    shape = Shape(tokens=3, positions=1, width=4, layers=0, heads=1, head=1, hidden=1, outputs=2)
    options = TRAINING | {"steps": 60, "rate": 0.05}
    (found,) = trained([Transformer(shape, seed=0)], own, seeds=[0], **options)
    with torch.no_grad():
        assert answer_loss(found(own.ids)[None], own.answers[None]).max() < 0.1
