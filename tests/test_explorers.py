"""Explorers compute in a kernel what their controls ask for, and show something without one."""

import datetime
import functools
import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import superpos
from superpos import explorers, playground
from superpos.entropy import superposition, weight_features
from superpos.toy_networks import train_toy_models

BRIEF = functools.partial(superpos.SAEConfig, starts=2, steps=200, rounds=2)
CACHED = (playground.toy_activations, playground.fitted_features, playground.trained_models)


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Short training and few fits, and nothing cached before or after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(playground, "STEPS", 60)
        patch.setattr(playground, "SPARSITIES", (0.0, 0.1, 0.5, 0.9))
        patch.setattr(playground, "SAMPLES", 300)
        patch.setattr(playground, "L1S", (0.1, 10.0))
        patch.setattr(playground, "EXPANSIONS", (1.0, 4.0))
        patch.setattr(explorers, "SAEConfig", BRIEF)
        for cached in CACHED:
            cached.cache_clear()
        yield
    for cached in CACHED:
        cached.cache_clear()


def image_of(explorer):
    return bytes(explorer.shown[0].value)


@pytest.mark.parametrize(
    ("name", "value"), [("sparsity", 0.5), ("features", 7), ("neurons", 2), ("importance", 0.9)]
)
def test_every_control_of_the_toy_models_draws_another_figure(name, value):
    explorer = explorers.toy_models()
    before = image_of(explorer)
    explorer.controls[name].value = value
    assert image_of(explorer) != before
    assert image_of(explorer).startswith(b"\x89PNG")


def test_the_models_drawn_are_those_of_the_controls(monkeypatch):
    drawn = []
    monkeypatch.setattr(playground, "toy_figure", lambda *given: drawn.append(given) or Figure())
    explorer = explorers.toy_models(sparsity=0.5, features=6, neurons=2)
    explorer.controls["importance"].value = 0.9
    models, chosen, neurons = drawn[-1]
    alone = train_toy_models(
        torch.tensor([0.5]), features=6, neurons=2, decay=0.9, steps=60, seed=0
    )
    torch.testing.assert_close(models.weights[chosen], alone.weights[0], rtol=1e-3, atol=1e-4)
    assert models.path[-1][1][chosen] == pytest.approx(
        superposition(weight_features(alone.weights), neurons).item(), rel=1e-3
    )


@pytest.mark.parametrize(
    ("name", "value"), [("l1", 10.0), ("expansion", 1.0), ("fitted", playground.FITS[1])]
)
def test_every_control_of_the_autoencoders_draws_another_figure(name, value):
    explorer = explorers.autoencoders()
    before = image_of(explorer)
    explorer.controls[name].value = value
    assert image_of(explorer) != before


def test_f_of_the_codes_is_that_of_the_library():
    x, truth = playground.toy_activations()
    found, shares = playground.fitted_features(0.1, 4.0, playground.FITS[0])
    assert shares.sum() == pytest.approx(1)
    assert found[0] == pytest.approx(superpos.effective_features(shares), rel=1e-6)
    assert 1 <= truth <= 20 and x.shape == (300, 5)


def test_a_penalty_that_silences_every_code_has_no_f():
    found, _ = playground.fitted_features(1e6, 1.0, playground.FITS[0])
    assert np.isnan(found).all()


def test_a_start_that_is_no_choice_is_refused():
    with pytest.raises(ValueError, match=r"sparsity is 0.42; allowed are 0.0, 0.1"):
        explorers.toy_models(sparsity=0.42)
    with pytest.raises(ValueError, match=r"l1 is 7; allowed are 0.1, 10.0"):
        explorers.autoencoders(l1=7)


def test_without_a_kernel_there_is_a_figure_and_in_one_there_are_widgets():
    bundle = explorers.toy_models()._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain", "application/vnd.jupyter.widget-view+json"}
    assert bundle["text/html"].count("<img") == len(playground.SPARSITIES)


def measured(explorer):
    explorer.controls["button"].click()
    return explorer.shown[0].value


def uploaded(explorer, name, content):
    explorer.controls["upload"].value = (
        {
            "name": name, "type": "", "size": len(content), "content": memoryview(content),
            "last_modified": datetime.datetime.now(datetime.timezone.utc),
        },
    )  # fmt: skip
    return measured(explorer)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


ONE_HOT = np.eye(4)[np.random.default_rng(0).integers(4, size=400)]


def test_an_uploaded_matrix_is_answered_with_its_report():
    answer = uploaded(explorers.activations(), "x.npy", npy(ONE_HOT))
    assert "<table" in answer
    expected = superpos.measure(
        torch.nn.Sequential(torch.nn.Identity()), torch.tensor(ONE_HOT), "0", sae=BRIEF()
    )
    assert f"{expected['0'].features:.1f}" in answer


def test_a_path_serves_as_well(tmp_path):
    np.save(tmp_path / "x.npy", ONE_HOT)
    explorer = explorers.activations()
    explorer.controls["path"].value = str(tmp_path / "x.npy")
    assert "<table" in measured(explorer)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.txt", b"1 2", "must end in .npy or .csv"),
        ("x.npy", npy(np.ones(4)), "a matrix is needed"),
        ("x.npy", npy(np.array([[1, np.nan], [1, 2]])), "nan or infinite"),
        ("x.npy", npy(np.zeros((50, 3))), "every code is zero"),
        ("<b>.csv", b"", "&lt;b&gt;.csv is empty"),
    ],
)
def test_what_cannot_be_measured_is_answered_with_the_reason(name, content, said):
    answer = uploaded(explorers.activations(), name, content)
    assert said in answer and "<table" not in answer


def test_a_missing_path_and_no_file_at_all_are_answered(tmp_path):
    explorer = explorers.activations()
    assert "Choose a file first" in measured(explorer)
    explorer.controls["path"].value = str(tmp_path / "none.npy")
    assert "none.npy" in measured(explorer)


def test_few_samples_are_pointed_at():
    wide = np.random.default_rng(0).normal(size=(6, 9))
    assert "a matrix on its side?" in uploaded(explorers.activations(), "x.npy", npy(wide))
