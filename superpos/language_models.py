"""Small language models: GPT-NeoX, the architecture of Pythia, with byte-pair tokenizers.

A network is trained on part of a text and judged on the rest of it, beside a bigram model of the
same tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from .data.text import read_text, tokenized
from .given import MOST, real, whole

END = "<|endoftext|>"
"""Stands between documents in training."""
HELD_OUT = 0.3
"""Share of the documents that the network never sees."""
MATRIX_RATE = 0.02  # of Muon
WARM_UP = 50  # steps
SHOWN = 3.0  # seconds between two states of a bar; notebooks send each of them to the page
EVALUATED = 65_536  # held-out tokens that losses are computed on
SMOOTHING = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # of bigrams towards unigrams


@dataclass(frozen=True)
class Training:
    """A small network: everything that decides its weights, besides the versions of libraries."""

    text: str
    """As `superpos.data.text.read_text` takes it."""
    seed: int
    """Of the split, the weights and the batches."""
    layers: int
    width: int
    heads: int
    vocabulary: int
    """Tokens, at least 257: all bytes, and the end of a document."""
    context: int
    """Tokens of a training sequence."""
    steps: int
    batch: int
    """Sequences per step."""
    rate: float
    """AdamW's learning rate, for all but the matrices inside the layers, which follow Muon."""
    checkpoints: tuple[int, ...]
    """Steps at which the network is kept."""

    def __post_init__(self) -> None:
        """Refuse shapes that make no network."""
        sizes = {"layers": 1, "width": 1, "heads": 1, "context": 2, "steps": 0, "batch": 1}
        for name, low in {**sizes, "vocabulary": 1, "seed": -MOST}.items():
            whole(name, getattr(self, name), low)
        real("rate", self.rate, "a positive number", lambda number: 0 < number < math.inf)
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width is {self.width} with {self.heads} heads: each head needs an even number of "
                "neurons of its own."
            )
        if self.vocabulary < 257:
            raise ValueError(
                f"vocabulary is {self.vocabulary}; 256 bytes and the end of a document make 257."
            )
        kept = [whole("a checkpoint", step, -MOST) for step in self.checkpoints]
        outside = [step for step in kept if not 0 <= step <= self.steps]
        if outside or not self.checkpoints:
            raise ValueError(
                f"checkpoints are {list(self.checkpoints)}; give at least one, all from 0 to "
                f"{self.steps}."
            )


class Split(NamedTuple):
    """A text, divided once and for all by the seed."""

    train: list[str]
    """Documents to train on."""
    held_out: list[str]
    """Documents that the network never sees."""
    skipped: dict[str, int]
    """What the text was read without."""
    digest: str
    """Of the whole text."""


def split(text: str, seed: int) -> Split:
    """Divide a text's documents into those to train on and those held out.

    Raises:
        DataNotFound, ValueError: as `superpos.data.text.read_text` does.
    """
    found = read_text(text, seed=seed)
    cut = round((1 - HELD_OUT) * len(found.documents))
    return Split(found.documents[:cut], found.documents[cut:], found.skipped, found.digest)


def folder_of(folder: Path, step: int) -> Path:
    """Where `train` puts the network of a step."""
    return folder / f"step{step}"


def train(training: Training, folder: Path, *, device: str = "cpu", progress: bool = False) -> None:
    """Train a network and write its checkpoints, each with the tokenizer, by `save_pretrained`.

    Besides the checkpoints stands `losses.json`: of every checkpoint the loss in nats a token on
    held-out text, the loss of the best of several bigram models on the same tokens, and how many
    tokens there were.

    Args:
        training: what is trained.
        folder: made if it is not there.
        device: where to compute.
        progress: show a bar over steps.
    """
    parts = split(training.text, training.seed)
    tokenizer = byte_pairs(parts.train, training.vocabulary)
    stream, unseen = (
        packed(documents, tokenizer).to(device) for documents in (parts.train, parts.held_out)
    )
    if min(len(stream), len(unseen)) <= training.context:
        raise ValueError(
            f"the text {training.text!r} is too short: {len(stream)} tokens to train on and "
            f"{len(unseen)} held out, for a context of {training.context}."
        )
    model = _network(training).to(device)
    unseen = unseen[: min(len(unseen), EVALUATED) // training.context * training.context]
    unseen = unseen.view(-1, training.context)
    losses = {}
    for step in _steps(model, stream, training, progress):
        if step in training.checkpoints:
            losses[step] = loss_of(model, unseen)
            model.save_pretrained(folder_of(folder, step))
            tokenizer.save_pretrained(folder_of(folder, step))
    about = {
        "losses": losses,
        "bigram": bigram_loss(stream, unseen, len(tokenizer)),
        "tokens": len(stream),
        "documents": len(parts.train),
        "skipped": parts.skipped,
        "digest": parts.digest,
    }
    (folder / "losses.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def losses(folder: Path) -> dict[str, Any]:
    """What `train` wrote about the losses, with steps as whole numbers.

    Raises:
        FileNotFoundError: nothing was written there.
        ValueError: the file holds something else.
    """
    path = folder / "losses.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return {**about, "losses": {int(step): loss for step, loss in about["losses"].items()}}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); train the network again.") from None


def byte_pairs(documents: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of byte pairs, learned from documents; every text can be written in it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def packed(documents: list[str], tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """All documents in one row of ids, each after an end of document."""
    end = tokenizer.eos_token_id
    ids = tokenized(documents, tokenizer, context=2**62).ids
    return torch.tensor([token for document in ids for token in (end, *document)])


@torch.no_grad()
def loss_of(model: GPTNeoXForCausalLM, rows: Tensor) -> float:
    """Mean cross-entropy in nats of every token given those before it in its row.

    Args:
        model: any causal language model of transformers.
        rows: ids, `[rows, context]`.
    """
    training = model.training
    model.eval()
    total = 0.0
    for part in rows.split(32):
        logits = model(input_ids=part).logits[:, :-1]
        total += cross_entropy(logits.flatten(0, 1).float(), part[:, 1:].flatten(), reduction="sum")
    model.train(training)
    return float(total) / (rows.shape[0] * (rows.shape[1] - 1))


def bigram_loss(stream: Tensor, rows: Tensor, vocabulary: int) -> float:
    """Loss of a bigram model on the tokens that `loss_of` counts.

    Counts are smoothed towards the frequencies of tokens; of several strengths the one that is best
    on these very rows counts, which favors the bigram model.

    Args:
        stream: ids to count in, `[tokens]`.
        rows: ids to judge, `[rows, context]`.
        vocabulary: number of tokens.
    """
    stream = stream.cpu()
    pairs = stream[:-1] * vocabulary + stream[1:]
    counts = torch.bincount(pairs, minlength=vocabulary**2).view(vocabulary, vocabulary).double()
    frequency = torch.bincount(stream, minlength=vocabulary).double() + 1
    frequency /= frequency.sum()
    before, after = rows[:, :-1].flatten().cpu(), rows[:, 1:].flatten().cpu()
    seen, total = counts[before, after], counts.sum(1)[before]
    return min(
        -((seen + weight * frequency[after]) / (total + weight)).log().mean().item()
        for weight in SMOOTHING
    )


def _network(training: Training) -> GPTNeoXForCausalLM:
    """A new network; weights depend on the seed alone."""
    config = GPTNeoXConfig(
        vocab_size=training.vocabulary, hidden_size=training.width,
        num_hidden_layers=training.layers, num_attention_heads=training.heads,
        intermediate_size=4 * training.width, max_position_embeddings=2048,
        bos_token_id=0, eos_token_id=0, use_cache=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        return GPTNeoXForCausalLM(config)


def _steps(model: GPTNeoXForCausalLM, stream: Tensor, training: Training, progress: bool) -> Any:
    """Train; yield the number of steps done, from 0 on, so that the network can be looked at."""
    inner = dict(model.gpt_neox.layers.named_parameters())
    matrices = [value for value in inner.values() if value.ndim == 2]
    chosen = {id(value) for value in matrices}
    others = [value for value in model.parameters() if id(value) not in chosen]
    optimizers = [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=training.rate, betas=(0.9, 0.99), weight_decay=0.01),
    ]
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    generator = torch.Generator().manual_seed(training.seed)
    offsets = torch.arange(training.context)
    model.train()
    options = {"desc": "training", "disable": not progress, "leave": False, "mininterval": SHOWN}
    for step in tqdm(range(training.steps), **options):
        yield step
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * _share(step, training.steps)
        starts = torch.randint(
            len(stream) - training.context, (training.batch, 1), generator=generator
        )
        rows = stream[(starts + offsets).to(stream.device)]
        logits = model(input_ids=rows).logits[:, :-1]
        cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    yield training.steps


def _share(step: int, steps: int) -> float:
    """Learning rate as a share of its highest: a short rise, a plateau, a fall over a half."""
    rise = min(1.0, (step + 1) / min(WARM_UP, math.ceil(steps / 10)))
    return rise * min(1.0, max(0.02, 2 * (1 - step / steps)))
