"""Where language models are read: activations against plain hooks, and models on disk."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from superpos.language_models import byte_pairs
from superpos.language_sites import (
    ModelNotFound,
    batches,
    language_sites,
    load_model,
    token_activations,
)

FAMILIES = ("gpt_neox", "gpt2", "llama", "opt")
VOCABULARY, WIDTH, LAYERS = 40, 16, 3
DOCUMENTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9], [3, 2], [3, 8, 4, 6, 2, 6, 4]]
NAMES = [
    "embed",
    *(
        f"{kind}_layer{layer}"
        for layer in range(LAYERS)
        for kind in ("attn_out", "mlp_out", "resid_out")
    ),
]


def made(family):
    """A small random network in which attention and places matter."""
    shared = {"vocab_size": VOCABULARY, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    shared |= {"hidden_size": WIDTH, "max_position_embeddings": 32}
    torch.manual_seed(0)
    if family == "gpt_neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**shared, intermediate_size=24))
    elif family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(**shared, n_inner=24))
    elif family == "llama":
        config = LlamaConfig(**shared, intermediate_size=24, num_key_value_heads=1)
        model = LlamaForCausalLM(config)
    else:
        model = OPTForCausalLM(OPTConfig(**shared, ffn_dim=24, word_embed_proj_dim=WIDTH))
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0, 0.4)
    return model.eval()


def parts(model):
    """Embedding, layers, a layer's attention and MLP, and the norm after the last layer."""
    if isinstance(model, GPTNeoXForCausalLM):
        own = model.gpt_neox
        return own.embed_in, own.layers, "attention", "mlp", own.final_layer_norm
    if isinstance(model, GPT2LMHeadModel):
        return model.transformer.wte, model.transformer.h, "attn", "mlp", model.transformer.ln_f
    if isinstance(model, LlamaForCausalLM):
        return model.model.embed_tokens, model.model.layers, "self_attn", "mlp", model.model.norm
    own = model.model.decoder
    return own.embed_tokens, own.layers, "self_attn", "fc2", own.final_layer_norm


def hooked(model, ids):
    """Outputs of one document's tokens by plain hooks, in the order in which they come."""
    embedding, layers, attention, mlp, _ = parts(model)
    modules = {"embed": embedding}
    for number, layer in enumerate(layers):
        modules[f"attn_out_layer{number}"] = getattr(layer, attention)
        modules[f"mlp_out_layer{number}"] = getattr(layer, mlp)
        modules[f"resid_out_layer{number}"] = layer
    found = {}

    def keeping(name):
        def hook(_, __, output):
            first = output[0] if isinstance(output, tuple) else output
            found[name] = first.detach().reshape(len(ids), WIDTH).clone()

        return hook

    handles = [module.register_forward_hook(keeping(name)) for name, module in modules.items()]
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return found


def joined(model, names=None, **options):
    """Activations of all documents by site, and their lengths."""
    found = list(token_activations(model, DOCUMENTS, names, **options))
    sites = {name: torch.cat([own[name] for own, _ in found]) for name in found[0][0]}
    return sites, [length for _, lengths in found for length in lengths]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return made(request.param)


@pytest.fixture(scope="module")
def neox():
    return made("gpt_neox")


@pytest.mark.parametrize("documents", [1, 2, 16])
def test_activations_are_those_of_every_document_on_its_own(model, documents):
    found, lengths = joined(model, documents=documents)
    assert lengths == [len(ids) for ids in DOCUMENTS]
    alone = [hooked(model, ids) for ids in DOCUMENTS]
    for name in NAMES:
        assert found[name].shape == (sum(lengths), WIDTH)
        close(found[name], torch.cat([own[name] for own in alone]))


def test_sites_come_by_name_in_the_order_in_which_they_run(model):
    (found, _), *_ = token_activations(model, DOCUMENTS)
    assert list(found) == NAMES == list(hooked(model, DOCUMENTS[0]))
    batch, _ = next(batches(DOCUMENTS, 2, "cpu"))
    assert list(language_sites(model, batch)) == NAMES


def test_the_residual_stream_is_what_the_network_itself_calls_hidden_states(model):
    found, _ = joined(model)
    ends = torch.tensor([len(ids) for ids in DOCUMENTS]).cumsum(0).tolist()
    *_, norm = parts(model)
    for ids, end in zip(DOCUMENTS, ends, strict=True):
        own = slice(end - len(ids), end)
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            last = norm(found[f"resid_out_layer{LAYERS - 1}"][own])
        assert len(states) == LAYERS + 1
        for layer in range(LAYERS - 1):
            close(found[f"resid_out_layer{layer}"][own], states[layer + 1][0])
        close(last, states[-1][0])
        close(found["embed"][own], model.get_input_embeddings()(torch.tensor(ids)).detach())


def test_a_layer_adds_its_attention_and_its_mlp_to_the_residual_stream(model):
    found, _ = joined(model)
    for layer in range(1, LAYERS):
        added = found[f"attn_out_layer{layer}"] + found[f"mlp_out_layer{layer}"]
        before, after = (found[f"resid_out_layer{number}"] for number in (layer - 1, layer))
        close(before + added, after)


def test_only_the_sites_asked_for_are_read_in_the_order_in_which_they_run(neox):
    names = ["resid_out_layer1", "mlp_out_layer0", "embed"]
    whole, _ = joined(neox)
    found, _ = joined(neox, names=names)
    assert list(found) == names[::-1]
    for name in names:
        assert torch.equal(found[name], whole[name])


def test_a_site_that_does_not_exist_is_refused(neox):
    with pytest.raises((ValueError, KeyError), match=f"resid_out_layer{LAYERS}"):
        joined(neox, names=["embed", f"resid_out_layer{LAYERS}"])


def test_reading_changes_no_weight_and_keeps_no_gradient(neox):
    before = {name: value.clone() for name, value in neox.state_dict().items()}
    found, _ = joined(neox)
    assert not any(value.requires_grad for value in found.values())
    assert all(torch.equal(value, before[name]) for name, value in neox.state_dict().items())


def test_a_network_in_half_precision_gives_single_precision(neox):
    half = made("gpt_neox").to(torch.bfloat16)
    found, _ = joined(half)
    expected, _ = joined(neox)
    for name in NAMES:
        assert found[name].dtype == torch.float32
    torch.testing.assert_close(found["embed"], expected["embed"], rtol=0.01, atol=0.01)


def test_an_architecture_that_is_not_known_is_refused():
    bloom = BloomForCausalLM(BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2))
    batch, _ = next(batches(DOCUMENTS, 2, "cpu"))
    with pytest.raises(ValueError, match=r"BloomForCausalLM keeps its layers .*gpt_neox\.layers"):
        language_sites(bloom, batch)
    with pytest.raises(ValueError, match="BloomForCausalLM keeps its layers"):
        next(token_activations(bloom, DOCUMENTS))


@given(
    ids=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), max_size=9),
    documents=st.integers(1, 10),
)
def test_batches_hold_all_documents_in_order_padded_on_the_right(ids, documents):
    found, sizes = [], []
    for batch, lengths in batches(ids, documents, "cpu"):
        rows, mask = batch["input_ids"], batch["attention_mask"]
        assert rows.shape == mask.shape == (len(lengths), max(lengths))
        for row, own, length in zip(rows.tolist(), mask.tolist(), lengths, strict=True):
            assert own == [1] * length + [0] * (len(own) - length)
            found.append(row[:length])
        sizes.append(len(lengths))
    assert found == ids
    assert all(size == documents for size in sizes[:-1])
    assert all(0 < size <= documents for size in sizes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, neox):
    """A network and a tokenizer as `save_pretrained` writes them."""
    path = tmp_path_factory.mktemp("models") / "small"
    neox.save_pretrained(path)
    byte_pairs(["one two three, one two"], 260).save_pretrained(path)
    return path


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No hub, and an empty folder of what was fetched before."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def fetched(cache, folder, name, revision):
    """Put a folder where the hub's own client keeps what it fetched."""
    own, commit = cache / f"models--{name.replace('/', '--')}", revision.encode().hex()
    shutil.copytree(folder, own / "snapshots" / commit)
    (own / "refs").mkdir(exist_ok=True)
    (own / "refs" / revision).write_text(commit)


def test_a_folder_loads_as_it_was_saved_in_evaluation_mode(folder, neox, offline):
    found, tokenizer = load_model(str(folder))
    assert not any(module.training for module in found.modules())
    assert tokenizer.decode(tokenizer("one zwei")["input_ids"]) == "one zwei"
    ids = torch.tensor(DOCUMENTS[:1])
    with torch.no_grad():
        assert torch.equal(found(ids).logits, neox(ids).logits)


def test_weights_are_in_single_precision_unless_asked_for_otherwise(folder, tmp_path, offline):
    half = made("gpt_neox").to(torch.bfloat16)
    shutil.copytree(folder, tmp_path / "half")
    half.save_pretrained(tmp_path / "half")
    for wanted in (None, torch.float64, torch.bfloat16):
        found, _ = load_model(str(tmp_path / "half"), dtype=wanted)
        assert {value.dtype for value in found.parameters()} == {wanted or torch.float32}


def test_what_was_fetched_before_is_found_without_a_network(folder, neox, tmp_path, offline):
    other = made("gpt_neox")
    with torch.no_grad():
        other.gpt_neox.embed_in.weight.zero_()
    shutil.copytree(folder, tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    fetched(offline, folder, "someone/small", "main")
    fetched(offline, tmp_path / "other", "someone/small", "step1")
    for revision, expected in ((None, neox), ("step1", other)):
        found, tokenizer = load_model("someone/small", revision=revision)
        weights = found.gpt_neox.embed_in.weight
        assert torch.equal(weights, expected.gpt_neox.embed_in.weight)
        assert len(tokenizer) == 260
    with pytest.raises(ModelNotFound, match="superpos fetch pythia"):
        load_model("someone/small", revision="step2")


@pytest.mark.parametrize("name", ["none", "./none", "/none/here", "~/none", "a/b/c", "../a/b"])
def test_a_folder_that_is_not_there_is_refused(name, offline):
    with pytest.raises(ModelNotFound, match=f"no folder '{name}'; .*EleutherAI/pythia-70m-ded"):
        load_model(name)


def test_a_hub_out_of_reach_is_refused_with_the_command_that_helps(offline):
    with pytest.raises(ModelNotFound) as found:
        load_model("nobody/nothing")
    message = str(found.value)
    assert message.startswith("nobody/nothing is not on this machine")
    assert "`superpos fetch pythia`" in message
    assert "HF_HOME" in message
    assert message.count(".") == 1
    assert message.endswith(".")
    assert "\n" not in message


def test_a_model_that_is_not_found_is_a_file_that_is_not_found(offline):
    with pytest.raises(FileNotFoundError):
        load_model("nobody/nothing")


def test_a_folder_without_a_model_is_not_blamed_on_the_hub(tmp_path, offline):
    with pytest.raises(ModelNotFound) as found:
        load_model(str(tmp_path))
    assert str(tmp_path) in str(found.value)
    assert "superpos fetch" not in str(found.value)
