"""Dictionaries from elsewhere: their own formulas, their folders, and files that are refused."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from superpos.pretrained import (
    DictionaryNotFound,
    from_saelens,
    load_dictionaries,
    read_dictionary,
)
from superpos.sae import ARCHITECTURES, SAE, SAEConfig

NEURONS, DICTIONARY, SAMPLES = 6, 21, 50
SITES = ["embed", "attn_out_layer0", "mlp_out_layer1", "resid_out_layer1"]
MODEL = "someone/small-model"


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Marks(nn.Module):
    """The autoencoder of Marks et al. (2024), as they write it."""

    def __init__(self, neurons=NEURONS, dictionary=DICTIONARY, seed=0):
        super().__init__()
        self.bias = nn.Parameter(3 * normal(neurons, seed=seed))
        self.encoder = nn.Linear(neurons, dictionary, bias=True)
        self.decoder = nn.Linear(dictionary, neurons, bias=False)
        with torch.no_grad():
            self.encoder.weight.copy_(normal(dictionary, neurons, seed=seed + 1))
            self.encoder.bias.copy_(normal(dictionary, seed=seed + 2))
            self.decoder.weight.copy_(normal(neurons, dictionary, seed=seed + 3))

    def encode(self, x):
        return torch.relu(self.encoder(x - self.bias))

    def decode(self, z):
        return self.decoder(z) + self.bias


class SaeLens(nn.Module):
    """The `standard` autoencoder of SAELens, as it writes it."""

    def __init__(self, *, subtracts=True, kind="standard", seed=0, **changed):
        super().__init__()
        self.W_enc = nn.Parameter(normal(NEURONS, DICTIONARY, seed=seed))
        self.W_dec = nn.Parameter(normal(DICTIONARY, NEURONS, seed=seed + 1))
        self.b_enc = nn.Parameter(normal(DICTIONARY, seed=seed + 2))
        self.b_dec = nn.Parameter(3 * normal(NEURONS, seed=seed + 3))
        values = {
            "architecture": lambda: kind,
            "apply_b_dec_to_input": subtracts,
            "normalize_activations": "none",
            "reshape_activations": "none",
        }
        self.cfg = SimpleNamespace(**(values | changed))

    def encode(self, x):
        x = x - self.b_dec * self.cfg.apply_b_dec_to_input
        return torch.relu(x @ self.W_enc + self.b_enc)

    def decode(self, z):
        return z @ self.W_dec + self.b_dec


class Evil:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.mkdir, (self.path,))


def assert_same_codes(sae, other, x=None):
    x = 3 * normal(SAMPLES, NEURONS, seed=9) if x is None else x
    with torch.no_grad():
        z = other.encode(x)
        rebuilt = other.decode(z)
    assert (z > 0).any()
    assert (z == 0).any()
    torch.testing.assert_close(sae.encode(x)[0], z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.decode(z[None])[0], rebuilt, rtol=1e-4, atol=1e-4)
    assert (sae.members, sae.neurons, sae.dictionary) == (1, x.shape[1], z.shape[1])
    assert sae.config.dictionary(sae.neurons) == sae.dictionary
    assert not any(value.requires_grad for value in sae.tensors().values())


def put(root, site, *, model="small-model", seed=0, **shape):
    """A dictionary in the layout of Marks et al."""
    other = Marks(seed=seed, **shape)
    folder = root / model / site / f"10_{other.encoder.out_features}"
    folder.mkdir(parents=True)
    torch.save(other.state_dict(), folder / "ae.pt")
    return other


def state(**changed):
    """A state dict with some arrays changed, or with None left out."""
    arrays = {**Marks().state_dict(), **{name.replace("_", "."): v for name, v in changed.items()}}
    return {name: value for name, value in arrays.items() if value is not None}


def random_sae(architecture="tied", members=1):
    untied = architecture != "tied"
    return SAE(
        SAEConfig(architecture=architecture, expansion=DICTIONARY / NEURONS, k=3),
        normal(members, DICTIONARY, NEURONS),
        normal(members, DICTIONARY, seed=1),
        decoder=normal(members, DICTIONARY, NEURONS, seed=2) if untied else None,
        offset=normal(members, NEURONS, seed=3) if untied else None,
        threshold=torch.full((members,), 0.5) if architecture == "batchtopk" else None,
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("neurons", "dictionary"), [(6, 21), (21, 6), (1, 4), (7, 70)])
def test_codes_and_rebuilt_activations_are_those_of_marks(tmp_path, neurons, dictionary, seed):
    other = Marks(neurons, dictionary, seed)
    torch.save(other.state_dict(), tmp_path / "ae.pt")
    x = 3 * normal(SAMPLES, neurons, seed=9)
    assert_same_codes(read_dictionary(tmp_path / "ae.pt"), other, x)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
def test_files_of_any_age_and_precision_are_read_in_single_precision(tmp_path, options, kind):
    other = Marks()
    torch.save(dict(other.to(kind).state_dict()), tmp_path / "ae.pt", **options)
    sae = read_dictionary(tmp_path / "ae.pt")
    assert {value.dtype for value in sae.tensors().values()} == {torch.float32}
    assert_same_codes(sae, other.float())


def test_a_bias_much_larger_than_what_it_is_taken_off_does_not_cost_precision(tmp_path):
    other = Marks()
    with torch.no_grad():
        other.bias *= 1e3
    torch.save(other.state_dict(), tmp_path / "ae.pt")
    x = normal(SAMPLES, NEURONS, seed=9).double() + other.bias.detach()
    sae = read_dictionary(tmp_path / "ae.pt")
    with torch.no_grad():
        expected = other.double().encode(x)
    torch.testing.assert_close(sae.encode(x)[0].double(), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("model", ["small-model", MODEL, "/there/small-model/"])
def test_every_site_gets_its_own_dictionary_from_the_models_folder(tmp_path, model):
    others = {site: put(tmp_path, site, seed=10 * n) for n, site in enumerate(SITES)}
    put(tmp_path, "resid_out_layer0", seed=77)
    put(tmp_path, "embed", model="other-model", seed=88)
    wanted = [SITES[2], SITES[0], SITES[3]]
    found = load_dictionaries(tmp_path, model, wanted, NEURONS)
    assert list(found) == wanted
    for site, sae in found.items():
        assert_same_codes(sae, others[site])


def test_a_folder_is_looked_for_here_and_then_where_the_data_are(tmp_path, monkeypatch):
    here, data = tmp_path / "here", tmp_path / "data"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("SUPERPOS_DATA", str(data))
    there = put(data / "dictionaries" / "marks", "embed", seed=1)
    found = load_dictionaries("dictionaries/marks", MODEL, ["embed"], NEURONS)
    assert_same_codes(found["embed"], there)
    nearer = put(here / "dictionaries" / "marks", "embed", seed=2)
    found = load_dictionaries("dictionaries/marks", MODEL, ["embed"], NEURONS)
    assert_same_codes(found["embed"], nearer)


def test_dictionaries_go_to_the_device_asked_for(tmp_path):
    put(tmp_path, "embed")
    sae = load_dictionaries(tmp_path, MODEL, ["embed"], NEURONS, device="meta")["embed"]
    assert {value.device.type for value in sae.tensors().values()} == {"meta"}


@pytest.mark.parametrize("present", [[], ["embed"]])
def test_a_missing_file_is_named_with_where_to_get_it(tmp_path, monkeypatch, present):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SUPERPOS_DATA", raising=False)
    for site in present:
        put(tmp_path / "data" / "marks", site)
    with pytest.raises(DictionaryNotFound) as caught:
        load_dictionaries("marks", MODEL, ["embed", "mlp_out_layer0"], NEURONS)
    said = str(caught.value)
    missing = "mlp_out_layer0" if present else "embed"
    assert str(Path("data", "marks", "small-model", missing)) in said
    for part in (
        "ae.pt",
        "sae.safetensors",
        "saprmarks/pythia-70m-deduped-saes",
        "dictionaries_pythia-70m-deduped_10.zip",
        "`superpos fetch pythia`",
    ):
        assert part in said
    assert isinstance(caught.value, FileNotFoundError)


def test_a_dictionary_of_another_width_is_refused(tmp_path):
    put(tmp_path, "embed")
    put(tmp_path, "mlp_out_layer0", neurons=4)
    message = "dictionary of mlp_out_layer0 takes 4 neurons, the model has 6: it was made for"
    with pytest.raises(ValueError, match=message):
        load_dictionaries(tmp_path, MODEL, ["embed", "mlp_out_layer0"], NEURONS)


@pytest.mark.parametrize("second", ["ae.pt", "sae.safetensors"])
def test_several_dictionaries_of_one_site_are_refused(tmp_path, second):
    put(tmp_path, "embed")
    folder = tmp_path / "small-model" / "embed" / "9_7"
    folder.mkdir()
    (folder / second).write_bytes(b"")
    with pytest.raises(ValueError, match=r"several dictionaries \((10_21, 9_7|9_7, 10_21)\)"):
        load_dictionaries(tmp_path, MODEL, ["embed"], NEURONS)


def test_other_files_beside_a_dictionary_do_no_harm(tmp_path):
    other = put(tmp_path, "embed")
    folder = tmp_path / "small-model" / "embed"
    (folder / "config.json").write_text("{}")
    (folder / "10_21" / "config.json").write_text("{}")
    found = load_dictionaries(tmp_path, MODEL, ["embed"], NEURONS)
    assert_same_codes(found["embed"], other)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_our_own_dictionaries_come_back_as_they_were_saved(tmp_path, architecture):
    sae = random_sae(architecture)
    folder = tmp_path / "small-model" / "embed" / "fitted_21"
    folder.mkdir(parents=True)
    sae.save(folder / "sae.safetensors")
    found = load_dictionaries(tmp_path, MODEL, ["embed"], NEURONS)["embed"]
    assert found.config == sae.config
    assert found.tensors().keys() == sae.tensors().keys()
    for name, value in sae.tensors().items():
        assert torch.equal(getattr(found, name), value)


def test_a_file_of_several_of_our_autoencoders_is_refused(tmp_path):
    random_sae(members=2).save(tmp_path / "sae.safetensors")
    with pytest.raises(ValueError, match="holds 2 autoencoders; give one a file"):
        read_dictionary(tmp_path / "sae.safetensors")


@pytest.mark.parametrize(
    "changed",
    [
        {"bias": normal(5)},
        {"bias": normal(DICTIONARY)},
        {"encoder_bias": normal(NEURONS)},
        {"decoder_weight": normal(DICTIONARY, NEURONS)},
        {"encoder_weight": normal(NEURONS, DICTIONARY)},
        {"encoder_weight": normal(DICTIONARY, NEURONS + 1)},
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused_by_name(tmp_path, changed):
    torch.save(state(**changed), tmp_path / "ae.pt")
    with pytest.raises(ValueError, match=r"ae\.pt: .* does not fit encoder\.weight \(") as caught:
        read_dictionary(tmp_path / "ae.pt")
    if "encoder_weight" not in changed:
        (name, value), *_ = changed.items()
        assert f"{name.replace('_', '.')} {tuple(value.shape)} does" in str(caught.value)


@pytest.mark.parametrize(
    "held",
    [
        {},
        state(bias=None),
        state(encoder_bias=None),
        state(extra=normal(2)),
        state(bias=normal(NEURONS, 1)),
        state(encoder_weight=normal(DICTIONARY)),
        state(bias=3.0),
        normal(3),
        [normal(3)],
        "text",
        None,
    ],
)
def test_files_that_hold_something_else_are_refused_with_what_a_dictionary_has(tmp_path, held):
    torch.save(held, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match=r"a dictionary has bias \[neurons\], encoder.weight \["):
        read_dictionary(tmp_path / "ae.pt")


@pytest.mark.parametrize("form", ["whole", "array", "old", "bare"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, form):
    mark, path = tmp_path / "mark", tmp_path / "ae.pt"
    held = Evil(mark) if form != "array" else {**state(), "bias": Evil(mark)}
    if form == "bare":
        path.write_bytes(pickle.dumps(held, protocol=2))
        pickle.loads(path.read_bytes())
    else:
        torch.save(held, path, _use_new_zipfile_serialization=form != "old")
        torch.load(path, weights_only=False)
    assert mark.is_dir()  # it does run where it is let
    mark.rmdir()
    with pytest.raises(ValueError, match=r"ae\.pt is no file of plain arrays"):
        read_dictionary(path)
    assert not mark.exists()


def test_a_whole_module_is_refused_though_it_is_a_dictionary(tmp_path):
    torch.save(Marks(), tmp_path / "ae.pt")
    with pytest.raises(ValueError, match="no file of plain arrays"):
        read_dictionary(tmp_path / "ae.pt")


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"<!DOCTYPE html>", b"PK"],
)
def test_files_that_are_cut_off_or_no_archive_are_refused(tmp_path, content):
    (tmp_path / "ae.pt").write_bytes(content)
    with pytest.raises(ValueError, match="no file of plain arrays"):
        read_dictionary(tmp_path / "ae.pt")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_download_that_broke_off_is_refused(tmp_path, share):
    torch.save(state(), tmp_path / "ae.pt")
    content = (tmp_path / "ae.pt").read_bytes()
    (tmp_path / "ae.pt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="no file of plain arrays"):
        read_dictionary(tmp_path / "ae.pt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ae.pt", b"hello world\n"),
        ("ae.pt", b"\x80\x02."),
        ("sae.safetensors", b""),
        ("sae.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    ],
)
def test_whatever_a_file_holds_it_is_refused_in_the_same_way(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_dictionary(tmp_path / name)


@pytest.mark.parametrize("subtracts", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_codes_and_rebuilt_activations_are_those_of_saelens(subtracts, seed):
    other = SaeLens(subtracts=subtracts, seed=seed)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    assert_same_codes(from_saelens(other), other)
    for name, value in other.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_large_output_bias_that_saelens_does_not_take_off_costs_no_precision():
    other = SaeLens(subtracts=False)
    with torch.no_grad():
        other.b_dec *= 1e5
        expected = other.encode(normal(SAMPLES, NEURONS, seed=9))
    found = from_saelens(other).encode(normal(SAMPLES, NEURONS, seed=9))[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"kind": "topk"}, "'topk'"),
        ({"kind": "jumprelu"}, "'jumprelu'"),
        ({"kind": "gated"}, "'gated'"),
        ({"kind": "transcoder"}, "'transcoder'"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations='layer_norm'"),
        ({"normalize_activations": "expected_average_only_in"}, "expected_average_only_in"),
        ({"reshape_activations": "hook_z"}, "only"),
    ],
)
def test_other_autoencoders_of_saelens_are_refused(changed, named):
    with pytest.raises(ValueError, match=r"only 'standard' with 'none' is read") as caught:
        from_saelens(SaeLens(**changed))
    assert named in str(caught.value)


def test_without_saelens_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(DictionaryNotFound, match=r"pip install 'superpos\[saelens\]'"):
        load_dictionaries("saelens:any", MODEL, SITES, NEURONS)


@pytest.fixture
def saelens(monkeypatch):
    """A stand-in for the package: releases by name, and autoencoders in files of their own."""
    releases: dict[str, dict[str, SaeLens]] = {}

    class Loader:
        @staticmethod
        def from_pretrained(release, name):
            return releases[release][name]

        @staticmethod
        def load_from_disk(path):
            return SaeLens(seed=json.loads((Path(path) / "seed.json").read_text()))

    package, loading, directory = (ModuleType(name) for name in ("sae_lens", "loading", "known"))
    package.SAE = Loader
    directory.get_pretrained_saes_directory = lambda: {
        name: SimpleNamespace(saes_map=dict.fromkeys(own, "path")) for name, own in releases.items()
    }
    monkeypatch.setitem(sys.modules, "sae_lens", package)
    monkeypatch.setitem(sys.modules, "sae_lens.loading", loading)
    monkeypatch.setitem(sys.modules, "sae_lens.loading.pretrained_saes_directory", directory)
    return releases


def on_disk(root, name, seed):
    (root / name).mkdir(parents=True)
    (root / name / "seed.json").write_text(json.dumps(seed))


def test_releases_cover_the_sites_they_have_in_the_order_asked_for(saelens):
    saelens["res"] = {f"blocks.{n}.hook_resid_post": SaeLens(seed=n) for n in range(12)}
    saelens["mlp"] = {"blocks.0.hook_mlp_out": SaeLens(seed=20)}
    saelens["att"] = {"blocks.1.hook_attn_out": SaeLens(seed=30)}
    sites = ["embed", "mlp_out_layer0", "resid_out_layer11", "attn_out_layer1", "resid_out_layer1"]
    found = load_dictionaries("saelens:res+mlp+att", MODEL, sites, NEURONS)
    assert list(found) == sites[1:]
    for site, seed in zip(sites[1:], (20, 11, 30, 1), strict=True):
        assert_same_codes(found[site], SaeLens(seed=seed))
    assert list(load_dictionaries("saelens:mlp", MODEL, sites, NEURONS)) == ["mlp_out_layer0"]


def test_a_folder_of_autoencoders_serves_as_a_release(saelens, tmp_path):
    saelens["mlp"] = {"blocks.0.hook_mlp_out": SaeLens(seed=1)}
    on_disk(tmp_path, "blocks.0.hook_attn_out", 2)
    on_disk(tmp_path, "blocks.10.hook_resid_post", 3)
    sites = ["attn_out_layer0", "mlp_out_layer0", "resid_out_layer10", "resid_out_layer1"]
    found = load_dictionaries(f"saelens:mlp+{tmp_path}", MODEL, sites, NEURONS)
    assert list(found) == sites[:3]
    for site, seed in zip(sites, (2, 1, 3), strict=False):
        assert_same_codes(found[site], SaeLens(seed=seed))


def test_a_release_that_does_not_exist_is_refused(saelens):
    saelens["res"] = {"blocks.0.hook_resid_post": SaeLens()}
    with pytest.raises(DictionaryNotFound, match=r"release or folder 'none'.*pythia-70m-deduped"):
        load_dictionaries("saelens:res+none", MODEL, ["resid_out_layer0"], NEURONS)


def test_a_release_without_any_of_the_sites_is_refused(saelens):
    saelens["res"] = {"blocks.0.hook_resid_post": SaeLens()}
    message = r"res: no autoencoder for mlp_out_layer0, resid_out_layer1; they .*hook_mlp_out"
    with pytest.raises(DictionaryNotFound, match=message):
        load_dictionaries("saelens:res", MODEL, ["mlp_out_layer0", "resid_out_layer1"], NEURONS)


def test_releases_for_a_model_of_another_width_are_refused(saelens):
    saelens["res"] = {"blocks.0.hook_resid_post": SaeLens()}
    with pytest.raises(ValueError, match="resid_out_layer0 takes 6 neurons, the model has 512"):
        load_dictionaries("saelens:res", MODEL, ["resid_out_layer0"], 512)


@pytest.mark.parametrize("subtracts", [True, False])
def test_autoencoders_that_saelens_itself_wrote_are_read(tmp_path, subtracts):
    sae_lens = pytest.importorskip("sae_lens")
    config = sae_lens.StandardSAEConfig(
        d_in=NEURONS, d_sae=DICTIONARY, apply_b_dec_to_input=subtracts
    )
    other = sae_lens.StandardSAE(config)
    with torch.no_grad():
        for seed, value in enumerate(other.parameters()):
            value.copy_(normal(*value.shape, seed=seed))
    other.save_model(tmp_path / "blocks.0.hook_mlp_out")
    sites = ["embed", "attn_out_layer0", "mlp_out_layer0"]
    found = load_dictionaries(f"saelens:{tmp_path}", MODEL, sites, NEURONS)
    assert list(found) == ["mlp_out_layer0"]
    assert_same_codes(found["mlp_out_layer0"], other)


def test_other_autoencoders_that_saelens_itself_wrote_are_refused(tmp_path):
    sae_lens = pytest.importorskip("sae_lens")
    config = sae_lens.TopKSAEConfig(d_in=NEURONS, d_sae=DICTIONARY, k=2)
    sae_lens.TopKSAE(config).save_model(tmp_path / "blocks.0.hook_mlp_out")
    with pytest.raises(ValueError, match="'topk'"):
        load_dictionaries(f"saelens:{tmp_path}", MODEL, ["mlp_out_layer0"], NEURONS)


def test_the_releases_named_for_pythia_exist_and_have_the_names_looked_for():
    pytest.importorskip("sae_lens")
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory()
    for end, hook in (("res", "resid_post"), ("mlp", "mlp_out"), ("att", "attn_out")):
        names = known[f"pythia-70m-deduped-{end}-sm"].saes_map
        assert {f"blocks.{layer}.hook_{hook}" for layer in range(6)} <= set(names)
