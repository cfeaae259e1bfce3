"""Language models read in shards: against codes that are kept, one document at a time."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from superpos import shards as module
from superpos.entropy import effective_features
from superpos.magnitudes import packed, points
from superpos.pretrained import load_dictionaries
from superpos.record import plain
from superpos.sae import SAE, SAEConfig
from superpos.shards import Fitting, fit_sites, measured, merged, save_sites

WIDTH, DICTIONARY, DOCUMENTS, VOCABULARY = 8, 24, 43, 60
SITES = [
    "embed",
    *(f"{kind}_layer{n}" for n in range(2) for kind in ("attn_out", "mlp_out", "resid_out")),
]
FITTING = Fitting("untied", expansion=2, l1=0.1, steps=40, rounds=1, samples=150)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32, initializer_range=0.5, use_cache=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPTNeoXForCausalLM(config).eval()


@pytest.fixture(scope="module")
def ids():
    """First tokens differ, so that no two tokens have the same past."""
    draw = random.Random(0)
    return [
        [first, *(draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 8)))]
        for first in range(DOCUMENTS)
    ]


@pytest.fixture(scope="module")
def activations(model, ids):
    """By site, of every token of one document after the other, `[tokens, neurons]`."""
    layers = model.gpt_neox.layers
    parts = [model.gpt_neox.embed_in]
    parts += [part for own in layers for part in (own.attention, own.mlp, own)]
    found = {site: [] for site in SITES}

    def keep(site):
        def hook(_, __, output):
            found[site].append((output[0] if isinstance(output, tuple) else output)[0])

        return hook

    hooks = [
        part.register_forward_hook(keep(site)) for site, part in zip(SITES, parts, strict=True)
    ]
    with torch.no_grad():
        for own in ids:
            model(input_ids=torch.tensor([own]))
    for hook in hooks:
        hook.remove()
    return {site: torch.cat([x.view(-1, WIDTH) for x in rows]) for site, rows in found.items()}


@pytest.fixture(scope="module")
def saes():
    return {site: random_sae(seed) for seed, site in enumerate(SITES)}


def random_sae(seed, bias=None):
    return SAE(
        SAEConfig("untied", expansion=DICTIONARY / WIDTH),
        normal(1, DICTIONARY, WIDTH, seed=10 * seed),
        normal(1, DICTIONARY, seed=10 * seed + 1) if bias is None else bias,
        decoder=0.1 * normal(1, DICTIONARY, WIDTH, seed=10 * seed + 2),
        offset=normal(1, WIDTH, seed=10 * seed + 3),
    )


def lengths_of(ids):
    return [len(own) for own in ids]


def cut(ids, ends):
    """Documents in shards that end at some places."""
    return [ids[a:b] for a, b in zip([0, *ends], [*ends, len(ids)], strict=True) if b > a]


@pytest.fixture
def drawn(monkeypatch):
    """Samples that the dimension was asked of, in the order of the sites."""
    samples = []

    def spy(x):
        samples.append(x)
        return len(samples) + 0.123456789

    monkeypatch.setattr(module, "two_nn", spy)
    return samples


def places_of(rows, x):
    """Where rows stand among activations `[tokens, neurons]`."""
    distances = torch.cdist(rows.double(), x.double())
    assert distances.amin(1).max() < 1e-4
    assert (distances < 1e-3).sum(1).max() == 1  # no two tokens are alike
    return distances.argmin(1).tolist()


def shard(sums, *, documents=5, tokens=50, **changed):
    """A row of `measured` as far as merging reads it."""
    sums = torch.as_tensor(sums, dtype=torch.float64)
    row = {
        "site": "embed", "dictionary": len(sums), "weights": "w", "digest": "d",
        "documents": documents, "tokens": tokens, "codes": packed(sums),
    }  # fmt: skip
    return {name: value for name, value in {**row, **changed}.items() if value is not None}


def features_of(sums):
    """F, one code at a time."""
    total = sum(sums)
    return math.exp(-sum(z / total * math.log(z / total) for z in sums if z > 0))


def test_rows_hold_the_sums_of_codes_that_are_kept_one_document_at_a_time(
    model, ids, activations, saes
):
    rows = measured(model, ids, saes)
    assert [row["site"] for row in rows] == SITES
    places = torch.tensor(lengths_of(ids)).cumsum(0).tolist()
    for row in rows:
        z = saes[row["site"]].encode(activations[row["site"]])[0].double()
        torch.testing.assert_close(merged([row]).codes, z.sum(0), rtol=1e-4, atol=1e-3)
        assert row["features"] == pytest.approx(effective_features(z.sum(0)).item(), rel=1e-5)
        assert row["points"] == [1, 2, 5, 10, 20, 43]
        expected = [effective_features(z[: places[n - 1]].sum(0)).item() for n in row["points"]]
        assert row["curve"] == pytest.approx(expected, rel=1e-5)
        assert (row["documents"], row["tokens"]) == (DOCUMENTS, sum(lengths_of(ids)))
        assert (row["neurons"], row["dictionary"]) == (WIDTH, DICTIONARY)


def test_sites_have_their_kinds_and_layers_counted_from_one(model, ids, saes):
    rows = measured(model, ids[:2], saes)
    assert [(row["kind"], row["layer"]) for row in rows] == [
        ("embed", 0),
        ("attn_out", 1), ("mlp_out", 1), ("resid_out", 1),
        ("attn_out", 2), ("mlp_out", 2), ("resid_out", 2),
    ]  # fmt: skip


def test_only_sites_with_a_dictionary_are_measured(model, ids, saes):
    every = {row["site"]: row for row in measured(model, ids, saes)}
    chosen = ["resid_out_layer1", "embed"]
    rows = measured(model, ids, {site: saes[site] for site in chosen})
    assert [row["site"] for row in rows] == chosen
    assert rows == [every[site] for site in chosen]


@pytest.mark.parametrize("samples", [30, 100, 10_000])
def test_what_needs_tokens_at_once_is_that_of_the_tokens_drawn(
    model, ids, activations, saes, drawn, samples
):
    rows = measured(model, ids, saes, samples=samples, seed=3)
    number = min(samples, sum(lengths_of(ids)))
    for place, (row, x) in enumerate(zip(rows, drawn, strict=True)):
        assert x.shape == (number, WIDTH)
        sae = saes[row["site"]]
        z = sae.encode(x)
        assert row["active"] == pytest.approx((z > 0).sum().item() / number, rel=1e-6)
        left = (sae.decode(z)[0] - x).double().square().sum()
        total = (x - x.mean(0)).double().square().sum()
        assert row["explained"] == pytest.approx((1 - left / total).item(), rel=1e-4, abs=1e-5)
        assert row["dimension"] == place + 1.123457  # seven digits


def test_the_tokens_drawn_are_the_same_at_all_sites_and_none_twice(
    model, ids, activations, saes, drawn
):
    places = {}
    for seed in (0, 0, 1):
        drawn.clear()
        measured(model, ids, saes, samples=40, seed=seed)
        found = dict(zip(SITES, drawn, strict=True))
        here = places_of(found[SITES[-1]], activations[SITES[-1]])
        assert here == sorted(set(here))
        assert len(here) == 40
        for site in SITES:
            torch.testing.assert_close(found[site], activations[site][here], rtol=1e-4, atol=1e-4)
        assert places.setdefault(seed, here) == here
    assert places[0] != places[1]


def test_every_token_is_as_likely_to_be_drawn(monkeypatch, drawn):
    """A stream of numbered tokens in place of a language model."""
    lengths, draws, samples = [3, 1, 7, 2, 7], 900, 5
    number = torch.arange(20.0)[:, None]

    def stream(*_):
        yield {"embed": number[:4]}, lengths[:2]
        yield {"embed": number[4:]}, lengths[2:]

    monkeypatch.setattr(module, "token_activations", stream)
    sae = SAE(SAEConfig(expansion=1), torch.ones(1, 1, 1), torch.ones(1, 1))
    for seed in range(draws):
        measured(None, [[0] * n for n in lengths], {"embed": sae}, samples=samples, seed=seed)
    counts = torch.cat(drawn).int().flatten().bincount(minlength=20)
    assert counts.sum() == draws * samples
    share = samples / 20
    error = math.sqrt(draws * share * (1 - share))
    assert (counts - draws * share).abs().max() < 4.5 * error
    pairs = torch.zeros(20, 20)
    for x in drawn:
        pairs[x.int(), x.int().T] += 1
    share *= (samples - 1) / 19
    error = math.sqrt(draws * share * (1 - share))
    apart = pairs[~torch.eye(20, dtype=torch.bool)]
    assert (apart - draws * share).abs().max() < 4.5 * error


def test_precision_is_that_asked_for(model, ids, saes):
    single, half = (measured(model, ids, saes, precision=name) for name in ("float32", "bfloat16"))
    for row, other in zip(single, half, strict=True):
        assert row["codes"] != other["codes"]
        assert other["features"] == pytest.approx(row["features"], rel=0.02)
        assert other["explained"] == row["explained"]


def test_what_is_not_defined_is_none_and_rows_are_plain_json(model, ids, saes):
    dead = random_sae(0, bias=torch.full((1, DICTIONARY), -1e6))
    row, other = measured(model, ids[:3], {"embed": dead, "mlp_out_layer0": saes["embed"]})
    assert row["features"] is None
    assert row["curve"] == [None, None, None]
    assert row["active"] == 0
    assert row["dimension"] is None  # of so few tokens
    assert other["features"] > 1
    assert json.loads(json.dumps([row, other], allow_nan=False)) == [row, other]


def test_dictionaries_are_told_apart_by_their_weights(model, ids):
    names = set()
    for changed in ("nothing", "encoder", "bias"):
        sae = random_sae(0)
        if changed != "nothing":
            getattr(sae, changed)[0, 0] += 1e-3
        (row,) = measured(model, ids[:2], {"embed": sae})
        names.add(row["weights"])
    assert len(names) == 3
    assert measured(model, ids[:1], {"embed": random_sae(0)})[0]["weights"] in names


@settings(max_examples=8)
@given(ends=st.lists(st.integers(1, DOCUMENTS - 1), max_size=5, unique=True).map(sorted))
def test_shards_put_together_are_one_pass_over_all_documents(model, ids, activations, saes, ends):
    chosen = {site: saes[site] for site in ("embed", "mlp_out_layer1")}
    whole = measured(model, ids, chosen)
    parts = [measured(model, own, chosen) for own in cut(ids, ends)]
    places = torch.tensor([0, *lengths_of(ids)]).cumsum(0).tolist()
    for place, site in enumerate(chosen):
        found = merged(rows[place] for rows in parts)
        assert found.features == pytest.approx(whole[place]["features"], rel=1e-6)
        torch.testing.assert_close(found.codes, merged([whole[place]]).codes, rtol=1e-5, atol=1e-5)
        assert (found.documents, found.tokens) == (DOCUMENTS, places[-1])
        assert found.ends == [*ends, DOCUMENTS]
        z = saes[site].encode(activations[site])[0].double()
        expected = [effective_features(z[: places[end]].sum(0)).item() for end in found.ends]
        assert found.curve == pytest.approx(expected, rel=1e-5)
        assert found.curve[-1] == found.features


@given(
    rows=st.integers(1, 6).flatmap(
        lambda codes: st.lists(
            st.lists(st.floats(2.0**-6, 1e4, width=32), min_size=codes, max_size=codes),
            min_size=1,
            max_size=6,
        )
    )
)
def test_features_curve_and_interval_are_those_of_a_loop_over_shards(rows):
    documents = [n + 1 for n in range(len(rows))]
    found = merged(
        shard(row, documents=n, tokens=10 * n) for n, row in zip(documents, rows, strict=True)
    )
    totals = [
        [sum(codes) for codes in zip(*rows[:last], strict=True)] for last in range(1, len(rows) + 1)
    ]
    assert found.codes.tolist() == pytest.approx(totals[-1], rel=1e-9)
    assert found.curve == pytest.approx([features_of(total) for total in totals], rel=1e-9)
    assert found.features == found.curve[-1]
    assert found.ends == [sum(documents[: n + 1]) for n in range(len(rows))]
    assert (found.documents, found.tokens) == (sum(documents), 10 * sum(documents))
    many, size = len(rows), len(rows[0])
    if many < 3:
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        return
    left_out = [
        features_of([sum(codes) for codes in zip(*(rows[:n] + rows[n + 1 :]), strict=True)])
        for n in range(many)
    ]
    mean = sum(left_out) / many
    variance = (many - 1) / many * sum((value - mean) ** 2 for value in left_out)
    half = t.ppf(0.975, many - 1) * math.sqrt(variance)
    features = features_of(totals[-1])
    assert found.low == pytest.approx(max(1, features - half), rel=1e-6, abs=1e-5)
    assert found.high == pytest.approx(min(size, features + half), rel=1e-6, abs=1e-5)


def test_the_interval_holds_the_features_of_as_many_documents_in_most_draws():
    """Shards of one distribution, whose F over very many documents is known."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(30, generator=generator, dtype=torch.float64) ** 2
    inside = 0
    for _ in range(200):
        noise = torch.rand(10, 30, generator=generator, dtype=torch.float64)
        found = merged(shard(row) for row in shares * (0.5 + noise))
        inside += found.low <= features_of(shares.tolist()) <= found.high
    assert 0.9 < inside / 200 < 0.99


def test_shards_without_a_code_count_and_leave_gaps_in_the_curve():
    found = merged([shard([0, 0]), shard([0, 0]), shard([1, 1]), shard([1, 0])])
    assert found.ends == [5, 10, 15, 20]
    assert found.curve == pytest.approx([math.nan, math.nan, 2, features_of([2, 1])], nan_ok=True)
    assert found.features == found.curve[-1]
    assert 1 <= found.low < found.features < found.high <= 2


def test_shards_of_which_one_has_all_codes_have_features_but_no_interval():
    found = merged([shard([0, 0]), shard([3, 3]), shard([0, 0])])
    assert found.features == pytest.approx(2)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_shards_that_are_all_silent_have_no_features():
    found = merged([shard([0, 0])] * 3)
    assert all(math.isnan(value) for value in (found.features, found.low, found.high))
    assert (found.documents, found.tokens) == (15, 150)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"site": "mlp_out_layer0"}, r"differ in their site: (embed, mlp|mlp\w*, embed)"),
        ({"dictionary": 3, "codes": packed(torch.ones(3))}, "differ in their dictionary: "),
        ({"weights": "other"}, "differ in their weights: "),
        ({"digest": "other"}, "differ in their digest: "),
        ({"digest": None}, "differ in their digest: "),
    ],
)
def test_shards_of_different_things_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        merged([shard([1, 2]), shard([2, 1]), shard([1, 1], **changed)])


def test_no_shard_at_all_is_refused():
    with pytest.raises(ValueError, match="no shard to merge"):
        merged(iter([]))


@pytest.fixture(scope="module")
def fitted(model, ids):
    return fit_sites(model, ids, FITTING, seed=4)


def test_every_site_is_fitted_to_the_same_tokens_as_asked_for(model, ids, activations, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "fit", lambda *given, **named: asked.append((given, named)))
    for seed in (4, 4, 5):
        assert fit_sites(model, ids, FITTING, seed=seed) == (SITES, None)
    for (x, config), named in asked:
        assert x.shape == (len(SITES), 150, WIDTH)
        places = places_of(x[-1], activations[SITES[-1]])
        assert len(set(places)) == 150
        for own, site in zip(x, SITES, strict=True):
            torch.testing.assert_close(own, activations[site][places], rtol=1e-4, atol=1e-4)
        assert config.normalize
        assert (config.architecture, config.expansion, config.l1) == ("untied", 2, 0.1)
        assert (config.steps, config.rounds) == (40, 1)
        assert named["seeds"] in ([4], [5])
    assert torch.equal(asked[0][0][0], asked[1][0][0])
    assert not torch.equal(asked[0][0][0], asked[2][0][0])


def test_fitted_dictionaries_are_in_units_of_their_sites(activations, fitted):
    sites, found = fitted
    assert sites == SITES
    assert (found.sae.members, found.sae.dictionary) == (len(SITES), 2 * WIDTH)
    sizes = torch.stack([x.square().mean().sqrt() for x in activations.values()])
    torch.testing.assert_close(found.sae.scale, sizes, rtol=0.15, atol=0)
    assert sizes.max() > 1.5 * sizes.min()


def test_a_seed_fixes_the_fit_and_the_global_generator_plays_no_part(model, ids, fitted):
    before = torch.get_rng_state()
    torch.manual_seed(99)
    _, again = fit_sites(model, ids, FITTING, seed=4)
    torch.set_rng_state(before)
    _, other = fit_sites(model, ids, FITTING, seed=5)
    for name, value in fitted[1].sae.tensors().items():
        assert torch.equal(getattr(again.sae, name), value)
        assert not torch.equal(getattr(other.sae, name), value)


@pytest.mark.parametrize("architecture", ["tied", "topk", "batchtopk"])
def test_dictionaries_of_any_kind_come_back_from_their_folders_with_the_same_codes(
    model, ids, activations, tmp_path, architecture
):
    fitting = Fitting(architecture, expansion=3, l1=0.1, steps=20, rounds=1, samples=100)
    sites, found = fit_sites(model, ids, fitting)
    save_sites(tmp_path / "fitted", sites, found)
    back = load_dictionaries(tmp_path, "fitted", SITES, WIDTH)
    assert list(back) == SITES
    for place, site in enumerate(SITES):
        z = found.sae.select([place]).encode(activations[site])
        assert (z > 0).any()
        assert torch.equal(back[site].encode(activations[site]), z)


def test_how_a_fit_went_stands_beside_its_dictionaries(fitted, tmp_path):
    sites, found = fitted
    save_sites(tmp_path / "new" / "fitted", sites, found)
    about = json.loads((tmp_path / "new" / "fitted" / "fit.json").read_text())
    assert list(about) == SITES
    for place, own in enumerate(about.values()):
        assert own["loss"] == pytest.approx(found.loss[place].item())
        assert own["features"] == pytest.approx(found.features[place].item(), rel=1e-6)
        assert own["rounds"] == 1


def test_fitted_dictionaries_can_be_measured_and_put_together(model, ids, fitted, tmp_path):
    save_sites(tmp_path / "fitted", *fitted)
    saes = load_dictionaries(tmp_path, "fitted", SITES, WIDTH)
    whole = measured(model, ids, saes)
    parts = [measured(model, own, saes) for own in cut(ids, [9, 20, 31])]
    for place, row in enumerate(whole):
        found = merged(rows[place] for rows in parts)
        assert found.features == pytest.approx(row["features"], rel=1e-6)
        assert 1 <= found.low < found.features < found.high <= 2 * WIDTH


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="'gated'; allowed are tied, untied, topk, batchtopk"):
        Fitting("gated", expansion=2, l1=0.1, steps=1, rounds=1, samples=1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(math.nan, None), (math.inf, None), (1 / 3, 0.3333333), (12345678.9, 12345680.0), (0.0, 0.0)],
)
def test_numbers_are_kept_to_seven_digits(value, expected):
    assert plain(value) == expected


def test_points_of_a_shard_are_those_of_its_documents(model, ids, saes):
    (row,) = measured(model, ids[:7], {"embed": saes["embed"]})
    assert row["points"] == points(7) == [1, 2, 5, 7]
    assert len(row["curve"]) == 4
