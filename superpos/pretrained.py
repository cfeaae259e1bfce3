"""Dictionaries that lie on disk or on a hub, as one `SAE` per site of a language model.

Their folders are those of Marks et al. (2024): `<root>/<model>/<site>/<name>/ae.pt`, where a site
is `embed`, `attn_out_layer0`, `mlp_out_layer0`, `resid_out_layer0` and so on. Our own stand there
as `sae.safetensors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .sae import SAE, SAEConfig
from .settings import data_root

SAELENS = "saelens:"
"""Before the names of SAELens releases, or of a folder of such autoencoders."""
FILES = ("ae.pt", "sae.safetensors")
MARKS = "saprmarks/pythia-70m-deduped-saes"
MARKS_FILE = "dictionaries_pythia-70m-deduped_10.zip"
_PARTS = {"bias": 1, "encoder.weight": 2, "encoder.bias": 1, "decoder.weight": 2}  # axes
_HOOKS = {
    "embed": "hook_resid_pre",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "resid_out": "hook_resid_post",
}


class DictionaryNotFound(FileNotFoundError):
    """A site has no dictionary where it was looked for."""


def load_dictionaries(
    source: str | Path, model: str, sites: Sequence[str], width: int, *, device: str = "cpu"
) -> dict[str, SAE]:
    """One autoencoder for each site of a model.

    Args:
        source: a folder laid out as in Marks et al., here or where SUPERPOS_DATA says, or
            `"saelens:"` with releases joined by `+`.
        model: the model's name or folder; its last part names its folder of dictionaries.
        sites: `embed`, `attn_out_layer0`, ...
        width: neurons N of the model's residual stream, which the dictionaries must have.
        device: where they go.

    Returns:
        Autoencoders of one member by site. A SAELens release covers the sites it has.

    Raises:
        DictionaryNotFound: a site's file is missing; says where to get it.
        ValueError: a file holds something else, or a dictionary of another width.
    """
    if str(source).startswith(SAELENS):
        found = _saelens(str(source).removeprefix(SAELENS).split("+"), sites)
    else:
        root = Path(source) if Path(source).is_dir() else data_root() / source
        folder = root / model.rstrip("/").split("/")[-1]
        found = {site: read_dictionary(_only_file(folder / site)) for site in sites}
    for site, sae in found.items():
        if sae.neurons != width:
            raise ValueError(
                f"the dictionary of {site} takes {sae.neurons} neurons, the model has {width}: it "
                "was made for another model."
            )
    return {site: sae.to(device) for site, sae in found.items()}


def read_dictionary(path: Path | str) -> SAE:
    """The autoencoder in one file; nothing but arrays is unpickled.

    z = ReLU(W_enc (x - bias) + b_enc) of Marks et al. becomes z = ReLU(W_enc x + b), with
    b = b_enc - W_enc bias.

    Args:
        path: `sae.safetensors` as `SAE.save` writes it, or `ae.pt`: a state dict with `bias`
            [neurons], `encoder.weight` [dictionary, neurons], `encoder.bias` [dictionary] and
            `decoder.weight` [neurons, dictionary].

    Raises:
        ValueError: the file holds something else.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        sae = SAE.load(path)
        if sae.members != 1:
            raise ValueError(f"{path} holds {sae.members} autoencoders; give one a file.")
        return sae
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a file that is none makes the reader raise
        raise ValueError(
            f"{path} is no file of plain arrays ({type(error).__name__}); nothing else is loaded."
        ) from None
    sae = _from_state(state, path)
    try:
        sae.check()
    except ValueError as error:
        raise ValueError(f"{path} holds no dictionary: {error}.") from None
    return sae


def _from_state(state: Any, path: Path) -> SAE:
    """An autoencoder from the state dict of Marks et al."""
    arrays = state if isinstance(state, Mapping) else {}
    shapes = {name: tuple(value.shape) for name, value in arrays.items() if _is_plain(value)}
    if set(arrays) != set(_PARTS) or any(len(shapes.get(n, ())) != k for n, k in _PARTS.items()):
        raise ValueError(
            f"{path} holds {shapes or type(state).__name__}; a dictionary has bias [neurons], "
            "encoder.weight [dictionary, neurons], encoder.bias [dictionary] and decoder.weight "
            "[neurons, dictionary], all of floating-point numbers."
        )
    size, neurons = shapes["encoder.weight"]
    fitting = {"bias": (neurons,), "encoder.bias": (size,), "decoder.weight": (neurons, size)}
    if wrong := [f"{n} {shapes[n]}" for n, shape in fitting.items() if shapes[n] != shape]:
        raise ValueError(
            f"{path}: {', '.join(wrong)} does not fit encoder.weight {(size, neurons)}."
        )
    return _untied(
        state["encoder.weight"], state["encoder.bias"], state["decoder.weight"].T, state["bias"]
    )


def _is_plain(value: Any) -> bool:
    """Whether this is a dense tensor of floating-point numbers with something in it."""
    return (
        isinstance(value, Tensor) and value.is_floating_point() and not value.is_meta
        and value.layout == torch.strided and value.numel() > 0
    )  # fmt: skip


def _untied(encoder: Tensor, bias: Tensor, decoder: Tensor, offset: Tensor) -> SAE:
    """z = ReLU(encoder (x - offset) + bias), x' = z decoder + offset, as an `SAE`."""
    folded = bias.double() - encoder.double() @ offset.double()
    size, neurons = encoder.shape
    return SAE(
        SAEConfig(architecture="untied", expansion=size / neurons),
        encoder=encoder.float()[None].contiguous(), bias=folded.float()[None],
        decoder=decoder.float()[None].contiguous(), offset=offset.float()[None],
    )  # fmt: skip


def _only_file(folder: Path) -> Path:
    """The one file of a dictionary below a site's folder."""
    found = sorted(path for name in FILES for path in folder.glob(f"*/{name}"))
    if not found:
        raise DictionaryNotFound(
            f"No {' or '.join(FILES)} in a folder of {folder}: those of Marks et al. for "
            f"pythia-70m-deduped are {MARKS_FILE} of {MARKS} on the hub; `superpos fetch pythia` "
            "gets and unpacks them."
        )
    if len(found) > 1:
        names = ", ".join(path.parent.name for path in found)
        raise ValueError(f"{folder} holds several dictionaries ({names}); leave one there.")
    return found[0]


def _saelens(releases: Sequence[str], sites: Sequence[str]) -> dict[str, SAE]:
    """Autoencoders of SAELens releases, at the sites they have."""
    try:
        import sae_lens
        from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
    except ImportError as error:
        raise DictionaryNotFound(
            "SAELens is not installed: `pip install 'superpos[saelens]'`."
        ) from error
    known, found = get_pretrained_saes_directory(), {}
    for release in releases:
        if not Path(release).is_dir() and release not in known:
            raise DictionaryNotFound(
                f"There is no SAELens release or folder {release!r}; for Pythia-70M there are "
                "pythia-70m-deduped-res-sm, -mlp-sm and -att-sm."
            )
        for site in sites:
            kind, _, layer = site.partition("_layer")
            name = f"blocks.{layer or 0}.{_HOOKS[kind]}"
            if (Path(release) / name).is_dir():
                found[site] = from_saelens(sae_lens.SAE.load_from_disk(Path(release) / name))
            elif release in known and name in known[release].saes_map:
                found[site] = from_saelens(sae_lens.SAE.from_pretrained(release, name))
    if not found:
        raise DictionaryNotFound(
            f"{', '.join(releases)}: no autoencoder for {', '.join(sites)}; they are looked for as "
            "blocks.<layer>." + " or ".join(_HOOKS.values()) + "."
        )
    return {site: found[site] for site in sites if site in found}


def from_saelens(other: Any) -> SAE:
    """An autoencoder of SAELens as one of ours.

    Args:
        other: `sae_lens.SAE` of the architecture `standard`, with ReLU and on activations as they
            are.

    Raises:
        ValueError: another architecture, or one that changes activations first.
    """
    config = other.cfg
    kind, scaling = config.architecture(), config.normalize_activations
    if kind != "standard" or scaling != "none" or config.reshape_activations != "none":
        raise ValueError(
            f"the SAELens autoencoder is {kind!r} with normalize_activations={scaling!r}; only "
            "'standard' with 'none' is read."
        )
    encoder, decoder = (value.detach().cpu() for value in (other.W_enc.T, other.W_dec))
    bias, offset = (value.detach().cpu() for value in (other.b_enc, other.b_dec))
    if not config.apply_b_dec_to_input:  # then nothing is taken off, so put it back
        bias = bias.double() + encoder.double() @ offset.double()
    return _untied(encoder, bias, decoder, offset)
