"""Language models: the three roads end to end, and what is read off planted shards."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from superpos import hub
from superpos import language_tables as tables
from superpos.book import execute
from superpos.cli import main as command_line
from superpos.data import text as texts
from superpos.data.images import DataNotFound
from superpos.entropy import effective_features
from superpos.experiments import pythia
from superpos.language_models import byte_pairs
from superpos.language_sites import ModelNotFound
from superpos.ledger import Estimate, Verdict, judge, load_ledger
from superpos.magnitudes import packed
from superpos.settings import SettingsError, from_values, load_profile, project_root
from superpos.store import Store, frame
from superpos.sweep import sweep

WIDTH, LAYERS, CODES = 8, 3, 24
WORDS = (
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "that",
    "dog",
    "who",
    "ran",
    "to",
    "her",
)
TINY = {
    "layers": 3, "width": 8, "heads": 2, "vocabulary": 300, "context": 16, "steps": 4, "batch": 2,
    "documents": 9, "shard": 4, "samples": 120, "sae_steps": 5, "sae_samples": 200,
    "expansion": 3.0, "seeds": 1,
}  # fmt: skip


def documents(count, seed=0):
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(9, 30))) for _ in range(count)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A machine without a hub, with its own folders of results and data."""
    monkeypatch.setenv("SUPERPOS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("SUPERPOS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "story.txt").write_text("\n\n".join(documents(120)), encoding="utf-8")
    for cached in (pythia._model, pythia._trained, pythia._dictionaries, pythia._fitted):
        cached.cache_clear()
    return tmp_path


def saved(model, folder):
    model.save_pretrained(folder)
    byte_pairs(documents(50), 280).save_pretrained(folder)


def neox(folder):
    """A tiny network of Pythia's architecture, under Pythia's name."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=300, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    saved(GPTNeoXForCausalLM(config), folder)


def dictionaries(root):
    """Files as Marks et al. publish them, with random weights; returns them by site."""
    states = {}
    names = [f"{kind}_layer{k}" for k in range(LAYERS) for kind in tables.LAYERED]
    for number, site in enumerate(["embed", *names]):
        draw = torch.Generator().manual_seed(number)
        state = {
            "bias": 0.1 * torch.randn(WIDTH, generator=draw),
            "encoder.weight": torch.randn(CODES, WIDTH, generator=draw),
            "encoder.bias": 0.1 * torch.randn(CODES, generator=draw),
            "decoder.weight": torch.randn(WIDTH, CODES, generator=draw),
        }
        folder = root / "pythia-70m-deduped" / site / f"10_{CODES}"
        folder.mkdir(parents=True)
        torch.save(state, folder / "ae.pt")
        states[site] = state
    return states


@pytest.fixture
def pythia_folder(here):
    """What the paper's road finds on a machine where everything was fetched: folder and states."""
    folder = here / "models" / "pythia-70m-deduped"
    neox(folder)
    lines = (json.dumps({"text": text}) for text in documents(40, seed=3))
    (here / "data" / "pile_seed0.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder, dictionaries(here / "data" / "dictionaries")


def of_paper(folder, **changes):
    """The paper profile's settings on that folder, with fewer documents."""
    values = load_profile("pythia", "paper")
    small = {"model": str(folder), "seeds": 1, "documents": 12, "shard": 4, "samples": 150}
    return from_values(pythia.Settings, {**values, "profile": "paper", **small, **changes})


def swept(settings, root):
    store = Store(root)
    done = sweep(pythia, pythia.conditions(settings), store=store, progress=False)
    return frame(done)


def by_hand(folder, states, read):
    """F at every site by plain hooks, one document at a time, and the formula of Marks et al."""
    model = GPTNeoXForCausalLM.from_pretrained(folder).eval()
    tokenizer = byte_pairs(documents(50), 280)
    sums = {site: torch.zeros(CODES, dtype=torch.float64) for site in states}

    def add(site):
        def hook(_, __, output):
            x = (output[0] if isinstance(output, tuple) else output)[0]
            own = states[site]
            pre = (x - own["bias"]) @ own["encoder.weight"].T + own["encoder.bias"]
            sums[site] += pre.relu().double().sum(0)

        return hook

    body = model.gpt_neox
    body.embed_in.register_forward_hook(add("embed"))
    for number, layer in enumerate(body.layers):
        layer.attention.register_forward_hook(add(f"attn_out_layer{number}"))
        layer.mlp.register_forward_hook(add(f"mlp_out_layer{number}"))
        layer.register_forward_hook(add(f"resid_out_layer{number}"))
    with torch.no_grad():
        for text in read:
            model(input_ids=torch.tensor([tokenizer(text)["input_ids"]]))
    return {site: effective_features(own).item() for site, own in sums.items()}


def test_the_papers_road_counts_what_plain_hooks_and_the_published_formula_count(
    here, pythia_folder
):
    folder, states = pythia_folder
    rows = swept(of_paper(folder), here / "results" / "paper")
    table = tables.sites(rows).set_index("site")
    expected = by_hand(folder, states, documents(40, seed=3)[:12])
    assert set(table.index) == set(expected)
    for site, value in expected.items():
        assert table.loc[site, "F"] == pytest.approx(value, rel=1e-5)
    assert (table["documents"] == 12).all()
    assert table["loss"].isna().all()


def test_shards_merge_to_what_one_run_over_all_documents_gives(here, pythia_folder):
    folder, _ = pythia_folder
    parts = tables.sites(swept(of_paper(folder, shard=5), here / "results" / "a"))
    whole = tables.sites(swept(of_paper(folder, shard=12), here / "results" / "b"))
    assert len(parts["merged"].iloc[0].ends) == 3
    assert parts["F"].to_numpy() == pytest.approx(whole["F"].to_numpy(), rel=1e-6)
    assert parts["hill2"].to_numpy() == pytest.approx(whole["hill2"].to_numpy(), rel=1e-6)
    assert (parts["tokens"] == whole["tokens"]).all()


def test_a_stopped_run_goes_on_with_the_shards_that_are_missing(here, pythia_folder, monkeypatch):
    folder, _ = pythia_folder
    settings = of_paper(folder)
    store = Store(here / "results" / "paper")
    first, *rest = pythia.conditions(settings)
    sweep(pythia, [first], store=store, progress=False)
    ran = []
    measured = pythia.run
    recorder = SimpleNamespace(
        SECTION=pythia.SECTION, VERSION=pythia.VERSION,
        run=lambda own, device: (ran.append(own), measured(own, device=device))[1],
    )  # fmt: skip
    sweep(recorder, [first, *rest], store=store, progress=False)
    assert ran == rest


def test_any_causal_model_is_measured_with_dictionaries_fitted_to_other_documents(here):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_embd=8, n_layer=3, n_head=2, n_positions=64)
    saved(GPT2LMHeadModel(config), here / "gpt2-tiny")
    settings = from_values(
        pythia.Settings, {**TINY, "model": str(here / "gpt2-tiny"), "texts": ["story.txt"]}
    )
    rows = swept(settings, here / "results" / "quick")
    table = tables.sites(rows)
    assert len(table) == 10 and (table["F"] > 1).all() and (table["dictionary"] == 24).all()
    found = pythia.estimates(rows, settings)
    assert {own.stand_in for own in found.values()} == {"another model (gpt2-tiny)"}
    what = next((here / "results" / "stock" / "dictionaries").glob("*/what.json"))
    assert json.loads(what.read_text())["after"] == settings.documents


def test_small_networks_are_trained_measured_and_compared(here):
    values = {
        **TINY, "texts": ["story.txt"], "course": [2], "other_l1": [1.0],
        "other_architectures": ["tied"],
    }  # fmt: skip
    settings = from_values(pythia.Settings, values)
    rows = swept(settings, here / "results" / "quick")
    table = tables.sites(rows)
    assert len(tables.main(table, settings)) == 10
    assert set(tables.main(table, settings)["documents"]) == {9}
    assert set(tables.compared(rows, settings, step=None)["step"]) == {2, 4}
    assert set(tables.compared(rows, settings, l1=1.0)["l1"]) == {1.0}
    assert set(tables.compared(rows, settings, architecture="tied")["architecture"]) == {"tied"}
    assert table["loss"].notna().all() and (table["bigram"] > 0).all()
    assert rows["fit_loss"].astype(float).notna().all()
    assert rows["skipped"].map(lambda own: "cut to 16 tokens" in own).all()


def test_the_same_condition_gives_the_same_record(here):
    settings = from_values(pythia.Settings, {**TINY, "texts": ["story.txt"]})
    condition = pythia.conditions(settings)[0]
    first = pythia.run(condition, device="cpu")
    for cached in (pythia._model, pythia._trained, pythia._dictionaries, pythia._fitted):
        cached.cache_clear()
    (here / "results" / "stock").rename(here / "elsewhere")  # so that all is made again
    assert pythia.run(condition, device="cpu") == first


def test_documents_measured_on_are_never_trained_or_fitted_on(here, monkeypatch):
    settings = from_values(pythia.Settings, {**TINY, "texts": ["story.txt"]})
    seen = []
    tokenize = pythia._tokenized
    monkeypatch.setattr(
        pythia, "_tokenized", lambda own, *rest: (seen.append(own), tokenize(own, *rest))[1]
    )
    pythia.run(pythia.conditions(settings)[0], device="cpu")
    measured, fitted = seen  # in the order in which run asks for them
    training = pythia.split("story.txt", 0).train
    assert len(measured) == 4 and set(fitted) <= set(training)
    assert not set(measured) & set(training)


def test_the_chapter_runs_on_the_papers_road(here, pythia_folder):
    folder, _ = pythia_folder
    settings = of_paper(folder)
    output = here / "pythia.ipynb"
    values = {**load_profile("pythia", "paper"), "profile": "paper"}
    names = ("model", "seeds", "documents", "shard", "samples")
    values |= {name: getattr(settings, name) for name in names}
    execute(project_root() / "notebooks" / "pythia.ipynb", output, values, root=project_root())
    page = output.read_text(encoding="utf-8")
    assert "another model (pythia-70m-deduped)" in page


def test_a_machine_that_cannot_reach_the_hub_is_told_what_to_do_in_one_sentence(here):
    settings = from_values(pythia.Settings, {**load_profile("pythia", "paper"), "documents": 5})
    with pytest.raises(ModelNotFound, match="superpos fetch pythia") as found:
        pythia.run(pythia.conditions(settings)[0], device="cpu")
    assert str(found.value).count(". ") == 0


def test_the_fetch_command_says_in_one_sentence_that_there_is_no_network(here):
    result = CliRunner().invoke(command_line, ["fetch", "pythia"])
    assert result.exit_code == 1 and "network" in result.output
    assert "Traceback" not in result.output and result.output.count("\n") <= 3


def test_the_fetch_command_gets_model_dictionaries_and_text(here, pythia_folder, monkeypatch):
    import zipfile

    folder, states = pythia_folder
    archive = here / "some.zip"
    root = here / "data" / "dictionaries"
    with zipfile.ZipFile(archive, "w") as file:
        for path in root.rglob("ae.pt"):
            file.write(path, path.relative_to(here / "data"))
    monkeypatch.setenv("SUPERPOS_DATA", str(here / "fetched"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(folder))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(archive))
    monkeypatch.setattr(hub, "pile", lambda seed: iter(["", "  \n", *documents(40, seed=seed)]))
    changes = ["-p", "documents", "12", "-p", "shard", "4", "-p", "seeds", "2"]
    result = CliRunner().invoke(command_line, ["fetch", "pythia", *changes])
    assert result.exit_code == 0, result.output
    fetched = here / "fetched"
    assert len(list(fetched.rglob("ae.pt"))) == len(states)
    read = texts.read_text("pile", seed=1, first=0, count=12)
    assert read.documents == documents(12, seed=1)
    pythia._dictionaries.cache_clear()
    table = tables.sites(swept(of_paper(folder, seeds=2), here / "results" / "paper"))
    assert set(table["seed"]) == {0, 1}


def test_sections_without_downloads_say_so(here):
    result = CliRunner().invoke(command_line, ["fetch", "grokking", "--profile", "quick"])
    assert result.exit_code == 1 and "fetches nothing" in result.output


def test_beginnings_of_documents_are_kept_up_to_the_asked_characters(tmp_path, monkeypatch):
    long = ["x" * 100, " " * 20 + "word and more", "short"]
    monkeypatch.setattr(hub, "pile", lambda seed: iter(["", *long]))
    path = hub.fetch_pile(tmp_path, seed=0, count=3, characters=10)
    kept = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert kept == ["x" * 10, " " * 20 + "w", "short"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"texts": []}, "texts is empty"),
        ({"model": "some/model", "course": [3]}, "course"),
        ({"dictionaries": "elsewhere"}, "dictionaries made elsewhere"),
        ({"model": "some/model", "dictionaries": "x", "other_l1": [1.0]}, "made elsewhere"),
        ({"other_l1": [3.0]}, "repeats l1"),
        ({"other_sae_steps": [1000]}, "repeats sae_steps"),
        ({"other_architectures": ["untied"]}, "repeat"),
        ({"course": [500]}, "repeat"),
        ({"course": [501]}, "checkpoints"),
        ({"width": 63}, "heads"),
        ({"architecture": "other"}, "allowed"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_runs(values, words):
    with pytest.raises(SettingsError, match=words):
        from_values(pythia.Settings, values)


def test_too_many_documents_are_refused_with_the_number_there_is(here):
    settings = from_values(pythia.Settings, {**TINY, "texts": ["story.txt"], "documents": 40})
    with pytest.raises(ValueError, match="36 documents out"):
        pythia.run(pythia.conditions(settings)[-1], device="cpu")


def test_a_text_that_is_not_there_is_named(here):
    settings = from_values(pythia.Settings, {**TINY, "texts": ["nowhere.txt"]})
    with pytest.raises(DataNotFound, match=r"nowhere\.txt"):
        pythia.run(pythia.conditions(settings)[0], device="cpu")


# What is read off planted shards.


def codes_of(features, size=64):
    """Magnitudes whose F is as asked: so many equal codes, one of them partly."""
    whole = int(features)
    values = np.zeros(size)
    values[:whole] = 1.0
    return torch.tensor(values)


def planted(features, *, seed=0, text="embedded", neurons=8, dictionary=64, shards=2, **other):
    """A frame with F by site as given: `features[kind]` is a list over layers."""
    rows = []
    for first in range(shards):
        for kind, values in features.items():
            for layer, value in enumerate(values, start=0 if kind == "embed" else 1):
                site = kind if kind == "embed" else f"{kind}_layer{layer - 1}"
                rows.append(
                    {
                        "text": text, "seed": seed, "step": 500, "first": first, "site": site,
                        "fitting": {"architecture": "untied", "l1": 3.0, "steps": 1000},
                        "training": {}, "kind": kind, "layer": layer, "neurons": neurons,
                        "dictionary": dictionary, "documents": 10, "tokens": 100,
                        "codes": packed(codes_of(value, dictionary)), "points": [1, 10],
                        "curve": [1.0, float(value)], "active": 2.0, "explained": 0.9,
                        "dimension": float(layer), "loss": 2.0, "bigram": 3.0, "digest": "a",
                        **other,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


LIKE_PAPER = {
    "embed": [20], "mlp_out": [20, 40, 30, 10], "resid_out": [16, 30, 20, 12],
    "attn_out": [8, 12, 10, 6],
}  # fmt: skip


def test_the_claims_values_follow_from_planted_profiles():
    found = pythia.estimates(planted(LIKE_PAPER), pythia.Settings())
    assert found["mlp_over_residual"].value == pytest.approx(100 / 78)
    assert found["residual_over_attention"].value == pytest.approx(78 / 36)
    assert found["early_mlp_peak"].value == pytest.approx(0.5)
    assert found["non_monotone"].value == pytest.approx(4 / 12)
    assert found["saturation"].value == pytest.approx(0, abs=1e-9)
    assert found["living_share"].value == pytest.approx(1)
    expected = np.corrcoef([16, 30, 20, 12], [1, 2, 3, 4])[0, 1]
    assert found["hunchback"].value == pytest.approx(expected)
    assert "peak_per_neuron" not in found  # eight codes per neuron leave no room for twenty


def test_twenty_features_per_neuron_are_asked_only_of_dictionaries_with_room():
    wide = {kind: [10 * value for value in values] for kind, values in LIKE_PAPER.items()}
    found = pythia.estimates(planted(wide, dictionary=512, neurons=16), pythia.Settings())
    assert found["peak_per_neuron"].value == pytest.approx(400 / 16)


def test_intervals_are_over_seeds_with_texts_averaged_first():
    frames = []
    for text, factor in (("embedded", 1), ("other.txt", 2)):
        for seed, mlp in enumerate((20, 24, 28)):
            features = {**LIKE_PAPER, "mlp_out": [factor * mlp // 2] * 4}
            frames.append(planted(features, seed=seed, text=text))
    found = pythia.estimates(pd.concat(frames), pythia.Settings())["mlp_over_residual"]
    each = [np.mean([4 * (m // 2) / 78, 4 * m / 78]) for m in (20, 24, 28)]
    half = 4.302652729911275 * np.std(each, ddof=1) / math.sqrt(3)
    assert found[:3] == pytest.approx((np.mean(each), np.mean(each) - half, np.mean(each) + half))
    assert "embedded" in found.note and "other.txt" in found.note


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3], 0), ([3, 2, 1], 0), ([1, 4, 2], 0.5), ([4, 1, 3], 0.5), ([1, 4, 0], 0.75),
        ([2, 2, 2], 0),
    ],
)  # fmt: skip
def test_reversal_is_zero_for_monotone_courses_and_the_smaller_way_for_others(values, expected):
    assert tables.reversal(np.array(values, dtype=float)) == pytest.approx(expected)


def test_growth_compares_with_the_shard_that_ends_nearest_to_half_of_the_documents():
    rows = planted({"mlp_out": [20]}, shards=4)
    rows["codes"] = [packed(codes_of(value)) for value in (8, 12, 16, 20)]
    rows.loc[3, "documents"] = 9  # one was left out
    whole = tables.sites(rows)["merged"].iloc[0]
    assert tables.growth(whole) == pytest.approx(whole.features / whole.curve[1] - 1)
    single = tables.sites(planted({"mlp_out": [20]}, shards=1))["merged"].iloc[0]
    assert math.isnan(tables.growth(single))


def test_what_a_whole_text_is_read_without_counts_once_and_what_shards_cut_adds_up():
    rows = planted({"mlp_out": [20], "resid_out": [16]}, shards=3)
    counts = {"repeated": 7, "cut to 16 tokens": 2}
    rows["skipped"] = [counts] * len(rows)
    other = planted({"mlp_out": [20]}, shards=1, text="other.txt")
    other["skipped"] = [{"fewer than two tokens": 1}]
    found = tables.left_out(pd.concat([rows, other]))
    assert found.loc["embedded"].to_dict() == {
        "repeated": 7, "cut to 16 tokens": 6, "fewer than two tokens": 0,
    }  # fmt: skip
    assert found.loc["other.txt", "fewer than two tokens"] == 1
    other["skipped"] = [{}]
    assert tables.left_out(other).empty


def test_curves_average_shards_within_their_size_and_put_them_together_beyond():
    rows = planted({"mlp_out": [20]}, shards=2)
    rows["codes"] = [packed(codes_of(value)) for value in (8, 16)]
    rows["curve"] = [[2.0, 8.0], [4.0, 16.0]]
    found = tables.curves(rows).set_index("documents")["F"]
    assert found[1] == pytest.approx(3.0)
    assert found[10] == pytest.approx(8.0)
    together = torch.zeros(64)
    together[:8], together[8:16] = 2.0, 1.0
    assert found[20] == pytest.approx(effective_features(together).item())


def test_shards_of_another_text_or_dictionary_are_not_put_together():
    for name in ("digest", "weights"):
        rows = planted({"mlp_out": [20]}, weights="w")
        rows.loc[1, name] = "other"
        with pytest.raises(ValueError, match=name):
            tables.sites(rows)


def test_a_site_whose_codes_are_all_dead_has_no_value_and_hides_no_other():
    rows = planted(LIKE_PAPER)
    dead = rows["site"] == "attn_out_layer1"
    rows.loc[dead, "codes"] = packed(torch.zeros(64))
    table = tables.sites(rows).set_index("site")
    assert math.isnan(table.loc["attn_out_layer1", "F"])
    assert table.loc["mlp_out_layer1", "F"] == pytest.approx(40)
    assert math.isfinite(pythia.estimates(rows, pythia.Settings())["mlp_over_residual"].value)


# Stand-ins.


def pythia_like(**changes):
    features = {kind: [v[0]] if kind == "embed" else [*v, 20, 10] for kind, v in LIKE_PAPER.items()}
    values = {"neurons": 512, "dictionary": 32_768, "step": None} | changes
    rows = planted(features, **values)
    rows["fitting"] = None
    return rows


def test_only_pythia_with_the_published_dictionaries_on_the_pile_is_no_stand_in():
    values = load_profile("pythia", "paper")
    settings = from_values(pythia.Settings, {**values, "profile": "paper"})
    named = replace(settings, model="/somewhere/pythia-70m-deduped")
    for each in (settings, named):
        assert pythia.stand_in(tables.sites(pythia_like(text="pile")), each) == ""
    others = {
        "another model": (pythia_like(), replace(settings, model="EleutherAI/pythia-160m-deduped")),
        "another model ": (pythia_like(neurons=64), settings),
        "other dictionaries": (pythia_like(dictionary=4096), settings),
        "other text": (pythia_like(), replace(settings, texts=("embedded",))),
        "small networks": (planted(LIKE_PAPER), pythia.Settings()),
    }
    for words, (rows, changed) in others.items():
        assert words.strip() in pythia.stand_in(tables.sites(rows), changed)


def test_a_stand_in_is_never_counted_as_reproduced():
    claims = {name: own for name, own in load_ledger().items() if own.section == "pythia"}
    assert len(claims) == 10
    for claim in claims.values():
        inside = claim.low if claim.low is not None else claim.high
        for profile in ("workstation", "paper"):
            estimate = Estimate(inside, inside, inside, "", "a small network")
            assert judge(claim, estimate, profile) is Verdict.STAND_IN
            assert judge(claim, estimate._replace(stand_in=""), profile) is Verdict.REPRODUCED
    found = pythia.estimates(planted(LIKE_PAPER), pythia.Settings())
    assert all(own.stand_in for own in found.values())
    assert set(found) <= {name.split(".")[1] for name in claims}


def test_every_profile_makes_distinct_conditions_of_a_shard_each():
    for profile in ("quick", "workstation", "paper"):
        values = {**load_profile("pythia", profile), "profile": profile}
        settings = from_values(pythia.Settings, values)
        made = pythia.conditions(settings)
        assert len(set(made)) == len(made)
        usual = [own for own in made if own.seed == 0 and own.text == settings.texts[0]]
        assert {own.first for own in usual} == set(range(0, settings.documents, settings.shard))
        assert sum(own.count for own in made if own.first or own.step is None) <= (
            settings.documents * settings.seeds * len(settings.texts)
        )
    yaml.safe_load((project_root() / "notebooks/profiles/paper/pythia.yaml").read_text())
