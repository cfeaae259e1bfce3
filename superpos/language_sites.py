"""Where a language model is read: embedding, attention, MLP and residual stream of every layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from .activations import Site, find_sites, read

KINDS = ("embed", "attn_out", "mlp_out", "resid_out")
"""What a site is the output of: the embedding, a layer's attention, its MLP, or the layer."""

# Paths of embedding and layers, and of attention and MLP inside a layer, by architecture.
_LAYOUTS = (
    ("gpt_neox.embed_in", "gpt_neox.layers", "attention", "mlp"),  # GPT-NeoX, Pythia
    ("transformer.wte", "transformer.h", "attn", "mlp"),  # GPT-2, GPT-J
    ("model.embed_tokens", "model.layers", "self_attn", "mlp"),  # Llama, Qwen, Gemma, Mistral
    ("model.decoder.embed_tokens", "model.decoder.layers", "self_attn", "fc2"),  # OPT
)


class ModelNotFound(FileNotFoundError):
    """A language model that is neither here nor within reach."""


def load_model(
    name: str, *, revision: str | None = None, device: str = "cpu", dtype: torch.dtype | None = None
) -> tuple[nn.Module, Any]:
    """A causal language model in evaluation mode, and its tokenizer.

    Nothing but arrays is unpickled, and no code that a model brings along is run.

    Args:
        name: a folder that `save_pretrained` wrote, or a name on the hub; what was fetched before
            is found without a network.
        revision: on the hub, which version, such as `"step1000"`.
        device: where to compute.
        dtype: floating-point type of the weights; default single precision.

    Raises:
        ModelNotFound: there is no such folder, and the hub cannot be reached or does not have it;
            or what is there is something else, or has to run code of its own.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise ModelNotFound(
            f"There is no folder {name!r}; give a folder written by save_pretrained, or a name on "
            "the hub such as EleutherAI/pythia-70m-deduped."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision or "main", trust_remote_code=False
        )
        model = AutoModelForCausalLM.from_pretrained(
            name, revision=revision or "main", dtype=dtype or torch.float32,
            trust_remote_code=False, weights_only=True,
        )  # fmt: skip
    except Exception as error:  # the hub's client and those below it raise errors of many kinds
        refused = isinstance(error, (ValueError, UnpicklingError, SafetensorError))
        if Path(name).is_dir() or refused:
            raise ModelNotFound(
                f"{name} holds no causal language model with its tokenizer, as save_pretrained "
                f"writes them ({type(error).__name__}); weights in files of plain arrays are all "
                "that is read, and no code that comes with them is run."
            ) from error
        raise ModelNotFound(
            f"{name} is not on this machine and the hub cannot be reached for it: run "
            "`superpos fetch pythia` where there is a network, and set HF_HOME to the folder that "
            "it fills."
        ) from error
    return model.eval().to(device), tokenizer


def language_sites(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Site]:
    """The sites of a causal language model, in the order in which they run.

    Args:
        model: of transformers.
        batch: token ids and attention mask, with which it is run once.

    Returns:
        By name: `embed`, and `attn_out_layer0`, `mlp_out_layer0`, `resid_out_layer0` and so on,
        counted from zero as in Marks et al. (2024); the paper counts layers from one.

    Raises:
        ValueError: an architecture that is not known here; says which are.
    """
    modules = dict(model.named_modules())
    layout = next((own for own in _LAYOUTS if own[0] in modules and f"{own[1]}.0" in modules), None)
    if layout is None:
        known = ", ".join(f"{layers}.<n>" for _, layers, _, _ in _LAYOUTS)
        raise ValueError(
            f"{type(model).__name__} keeps its layers where they are not looked for ({known})."
        )
    embedding, layers, attention, mlp = layout
    paths = {embedding: "embed"}
    for number in range(len(modules[layers])):
        at = f"{layers}.{number}"
        inside = (f"{at}.{attention}", f"{at}.{mlp}", at)
        paths |= {p: f"{kind}_layer{number}" for p, kind in zip(inside, KINDS[1:], strict=True)}
    return {paths[site.module]: site for site in find_sites(model, batch, list(paths))}


def batches(
    ids: Sequence[Sequence[int]], documents: int, device: torch.device | str
) -> Iterator[tuple[dict[str, Tensor], list[int]]]:
    """Documents in order, padded on the right to the longest of their batch.

    Args:
        ids: token ids of every document.
        documents: how many go into a batch.
        device: where the batches go.

    Yields:
        `input_ids` and `attention_mask`, both `[documents, longest]`, and the documents' lengths.
    """
    for first in range(0, len(ids), documents):
        part = ids[first : first + documents]
        lengths = [len(own) for own in part]
        rows = torch.zeros(len(part), max(lengths), dtype=torch.long)
        mask = torch.zeros_like(rows)
        for row, own in enumerate(part):
            rows[row, : len(own)] = torch.tensor(own)
            mask[row, : len(own)] = 1
        yield {"input_ids": rows.to(device), "attention_mask": mask.to(device)}, lengths


def token_activations(
    model: nn.Module,
    ids: Sequence[Sequence[int]],
    names: Sequence[str] | None = None,
    *,
    documents: int = 16,
) -> Iterator[tuple[dict[str, Tensor], list[int]]]:
    """Activations of all tokens at all sites, one traced forward pass per batch.

    Args:
        model: of transformers, on its device.
        ids: token ids of every document.
        names: sites wanted; default all.
        documents: how many are read at once.

    Yields:
        Per site, `[tokens, neurons]`, one document after the other without padding; and the
        documents' lengths.

    Raises:
        ValueError: a site that the model does not have.
    """
    device = next(model.parameters()).device
    sites: dict[str, Site] = {}
    for batch, lengths in batches(ids, documents, device):
        if not sites:
            sites = language_sites(model, batch)
            if unknown := set(names or ()) - set(sites):
                raise ValueError(
                    f"there is no site {', '.join(sorted(unknown))}; the model has "
                    f"{', '.join(sites)}."
                )
            sites = {name: sites[name] for name in sites if names is None or name in names}
        found = read(model, batch, list(sites.values()))
        present = batch["attention_mask"].bool()
        shape = (*present.shape, -1)  # OPT's inner modules join documents and tokens
        yield (
            {name: found[own.name].reshape(shape)[present] for name, own in sites.items()},
            lengths,
        )
