"""Small language models: tokenizers, losses against plain counts, training and its checkpoints."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig, GPTNeoXForCausalLM

from superpos import language_models as module
from superpos.data.text import read_text
from superpos.language_models import (
    END,
    SMOOTHING,
    Split,
    Training,
    bigram_loss,
    byte_pairs,
    folder_of,
    loss_of,
    losses,
    packed,
    split,
    train,
)

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "one", "red", "bird", "that", "sang"]


def paragraphs(count, seed=0):
    """Sentences in which words follow each other more or less in order."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        start = chance.randrange(len(WORDS))
        places = [start + step + (chance.random() < 0.1) for step in range(chance.randint(4, 12))]
        found.append(" ".join(WORDS[place % len(WORDS)] for place in places) + f" {number}.")
    return found


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "cats.txt"
    path.write_text("\n\n".join([*paragraphs(120), " \t", ""]), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def training(text):
    return Training(
        text=text, seed=0, layers=1, width=8, heads=1, vocabulary=300, context=16, steps=30,
        batch=8, rate=1e-2, checkpoints=(0, 30),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(training, tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks") / "trained"
    train(training, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(text):
    return byte_pairs(read_text(text).documents, 300)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def loaded(folder, step):
    at = folder_of(folder, step)
    return AutoModelForCausalLM.from_pretrained(at), AutoTokenizer.from_pretrained(at)


def weights(folder, step):
    return loaded(folder, step)[0].state_dict()


def alike(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@given(st.text())
@example("  two  spaces, a tab\tand a line\r\n\n")
@example(f"an {END} in the middle")
@example("e\u0301 ä 漢字 🙂 \x00 \ufeff don 't ; he 's .")
def test_a_tokenizer_gives_every_text_back(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < 300 for token in ids)


def test_a_tokenizer_is_as_large_as_asked_and_joins_what_is_frequent(tokenizer):
    assert len(tokenizer) == 300
    assert tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id) == END
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert len(tokenizer(" the")["input_ids"]) == 1
    assert len(tokenizer(" xyz")["input_ids"]) == 4
    assert len(byte_pairs(["the cat"], 257)) == 257


def test_a_split_is_disjoint_and_complete(text):
    whole = read_text(text, seed=3)
    found = split(text, 3)
    assert len(whole.documents) == 120
    assert len(found.train) == 84
    assert not set(found.train) & set(found.held_out)
    assert sorted(found.train + found.held_out) == sorted(whole.documents)
    assert found.skipped == whole.skipped == {"empty": 1}
    assert found.digest == whole.digest


def test_a_seed_fixes_a_split_and_another_makes_another(text):
    assert split(text, 3) == split(text, 3)
    held = [set(split(text, seed).held_out) for seed in range(4)]
    assert len(set(map(frozenset, held))) == 4


def test_documents_are_packed_one_after_the_other_each_after_an_end(tokenizer):
    documents = ["the cat", "x", "", f"a {END} red bird", "漢"]
    row = packed(documents, tokenizer)
    expected = []
    for document in documents:
        ids = tokenizer(document)["input_ids"]
        expected += [tokenizer.eos_token_id, *ids] if len(ids) > 1 else []
    assert row.tolist() == expected
    assert tokenizer.decode(row) == f"{END}the cat{END}a {END} red bird{END}漢"


def bigram_by_hand(stream, rows, vocabulary, weight):
    """Mean surprise of every token given the one before it, from plain counts."""
    pairs = Counter(pairwise(stream))
    before, single = Counter(stream[:-1]), Counter(stream)
    total = count = 0
    for row in rows:
        for a, b in pairwise(row):
            frequency = (single[b] + 1) / (len(stream) + vocabulary)
            total -= math.log((pairs[a, b] + weight * frequency) / (before[a] + weight))
            count += 1
    return total / count


@given(
    vocabulary=st.integers(2, 5), length=st.integers(2, 60), context=st.integers(2, 5),
    number=st.integers(1, 6), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_the_bigram_loss_is_that_of_plain_counts(vocabulary, length, context, number, seed):
    chance = random.Random(seed)
    stream = [chance.randrange(vocabulary) for _ in range(length)]
    rows = [[chance.randrange(vocabulary) for _ in range(context)] for _ in range(number)]
    expected = min(bigram_by_hand(stream, rows, vocabulary, weight) for weight in SMOOTHING)
    found = bigram_loss(torch.tensor(stream), torch.tensor(rows), vocabulary)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("weight", SMOOTHING)
def test_chances_after_a_token_sum_to_one(monkeypatch, weight):
    monkeypatch.setattr(module, "SMOOTHING", (weight,))
    stream = torch.tensor([0, 1, 0, 2, 1, 0, 1, 1])
    for before in range(4):
        found = [bigram_loss(stream, torch.tensor([[before, after]]), 4) for after in range(4)]
        assert sum(math.exp(-loss) for loss in found) == pytest.approx(1)


@pytest.mark.parametrize("rows", [1, 32, 33, 70])
def test_the_loss_is_the_mean_surprise_of_every_token_after_the_first(rows):
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=16, hidden_dropout=0.5,
    )  # fmt: skip
    model = GPTNeoXForCausalLM(config)
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0, 0.5)
    ids = torch.randint(30, (rows, 7))
    model.eval()
    surprise = []
    for row in ids:
        logits = model(row[None]).logits[0].detach()
        surprise += [cross_entropy(logits[place], row[place + 1]) for place in range(6)]
    expected = torch.stack(surprise).double().mean().item()
    assert loss_of(model, ids) == pytest.approx(expected, rel=1e-5)
    assert not model.training
    model.train()
    assert loss_of(model, ids) == pytest.approx(expected, rel=1e-5)
    assert model.training


def test_training_makes_a_network_better_than_it_was(trained, training):
    found = losses(trained)["losses"]
    assert list(found) == [0, 30]
    assert found[0] == pytest.approx(math.log(300), rel=0.05)
    assert found[30] < 0.85 * found[0]


def test_losses_are_those_of_the_checkpoints_on_text_held_out(trained, training, text, offline):
    about = losses(trained)
    parts = split(text, 0)
    for step in (0, 30):
        model, tokenizer = loaded(trained, step)
        stream, unseen = (packed(own, tokenizer) for own in (parts.train, parts.held_out))
        rows = unseen[: len(unseen) // 16 * 16].view(-1, 16)
        assert loss_of(model, rows) == pytest.approx(about["losses"][step], rel=1e-5)
    assert about["bigram"] == pytest.approx(bigram_loss(stream, rows, 300), rel=1e-9)
    assert about["tokens"] == len(stream)
    assert about["documents"] == len(parts.train)
    assert about["skipped"] == {"empty": 1}
    assert about["digest"] == parts.digest
    assert json.loads((trained / "losses.json").read_text())["losses"].keys() == {"0", "30"}


def test_a_checkpoint_holds_the_network_and_the_tokenizer_of_its_text(
    trained, training, text, offline
):
    assert sorted(path.name for path in trained.iterdir()) == ["losses.json", "step0", "step30"]
    model, tokenizer = loaded(trained, 30)
    assert isinstance(model, GPTNeoXForCausalLM)
    assert model.config.num_hidden_layers == 1
    assert model.config.hidden_size == 8
    assert model.get_input_embeddings().weight.shape == (300, 8)
    expected = byte_pairs(split(text, 0).train, 300)
    for document in [*paragraphs(5, seed=1), "  a\n\nb ", "漢字 🙂"]:
        ids = tokenizer(document)["input_ids"]
        assert ids == expected(document)["input_ids"]
        assert tokenizer.decode(ids) == document
    assert tokenizer.eos_token == END


def test_a_seed_fixes_a_network_whatever_else_draws_numbers_or_is_kept(
    trained, training, tmp_path, offline
):
    torch.rand(3)
    before = torch.get_rng_state()
    train(replace(training, checkpoints=(7, 30)), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert alike(weights(tmp_path, 30), weights(trained, 30))
    assert losses(tmp_path)["losses"][30] == losses(trained)["losses"][30]
    assert not alike(weights(tmp_path, 7), weights(tmp_path, 30))
    assert not folder_of(tmp_path, 0).exists()


def test_another_seed_makes_another_network(trained, training, tmp_path, offline):
    train(replace(training, seed=1, steps=1, checkpoints=(0,)), tmp_path)
    name = "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"
    assert not torch.equal(weights(tmp_path, 0)[name], weights(trained, 0)[name])


def test_text_held_out_plays_no_part_in_the_weights(
    trained, training, tmp_path, monkeypatch, offline
):
    parts = split(training.text, 0)
    other = Split(parts.train, paragraphs(40, seed=9), {}, "")
    monkeypatch.setattr(module, "split", lambda *_: other)
    train(training, tmp_path)
    assert alike(weights(tmp_path, 30), weights(trained, 30))
    assert losses(tmp_path)["losses"] != losses(trained)["losses"]


def test_all_weights_learn(trained, training, offline):
    first, last = weights(trained, 0), weights(trained, 30)
    assert [name for name, value in first.items() if torch.equal(value, last[name])] == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 3}, "width is 8 with 3 heads: each head needs an even number"),
        ({"heads": 8}, "width is 8 with 8 heads"),
        ({"width": 6, "heads": 2}, "width is 6 with 2 heads"),
        ({"vocabulary": 256}, "vocabulary is 256; 256 bytes and the end of a document make 257"),
        ({"checkpoints": ()}, r"checkpoints are \[\]; give at least one, all from 0 to 30"),
        ({"checkpoints": (0, 31)}, r"checkpoints are \[0, 31\]"),
        ({"checkpoints": (-1,)}, r"checkpoints are \[-1\]"),
    ],
)
def test_shapes_that_make_no_network_are_refused(training, wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(training, **wrong)


@pytest.mark.parametrize("width", [2, 4, 6, 10])
def test_shapes_that_are_not_refused_make_networks(training, tmp_path, width):
    train(replace(training, width=width, steps=2, checkpoints=(2,)), tmp_path)
    assert math.isfinite(losses(tmp_path)["losses"][2])


@pytest.mark.parametrize("documents", [1, 3])
def test_a_text_that_is_too_short_is_refused(training, tmp_path, documents):
    path = tmp_path / "short.txt"
    path.write_text("\n\n".join(paragraphs(documents)), encoding="utf-8")
    with pytest.raises(ValueError, match=r"short\.txt' is too short: \d+ tokens .* of 1000"):
        train(replace(training, text=str(path), context=1000), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_text_just_long_enough_is_trained_on(training, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "split", lambda *_: Split(["abcd"], ["efgh"], {}, ""))
    own = replace(training, vocabulary=257, steps=2, checkpoints=(2,))
    train(replace(own, context=4), tmp_path)
    assert losses(tmp_path)["tokens"] == 5
    with pytest.raises(ValueError, match="5 tokens to train on and 5 held out"):
        train(replace(own, context=5), tmp_path)
