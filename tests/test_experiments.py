"""Experiments: small runs against a stored baseline, and the physics that must hold.

`baseline.yaml` holds key numbers of these small runs with their tolerances. They were computed by
`python tests/test_experiments.py`, which prints them; other machines round differently, which
training amplifies, so the tolerances are relative and not tight.
"""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from superpos import solver
from superpos.attacks import pgd
from superpos.data import nonempty_toy_features
from superpos.experiments import (
    adversarial,
    algorithmic_tasks,
    calibration,
    dictionary_scaling,
    dropout,
    grokking,
    pythia,
    toy_models,
)
from superpos.networks import predictions
from superpos.sae import SAE, SAEConfig
from superpos.store import Store
from superpos.sweep import sweep
from superpos.toy_networks import BATCH, RATE, train_toy_models

BASELINE = Path(__file__).with_name("baseline.yaml")

TOY = replace(
    toy_models.conditions(toy_models.Settings())[0],
    models=6,
    toy_steps=1500,
    starts=1,
    samples=4000,
)
ATTACKED = adversarial.conditions(
    adversarial.Settings(
        mlp=(8,), classes=(2,), epsilons=(0.0, 0.2), seeds=(0, 1), steps=150, batch=256,
        attack_steps=10, held_out=20, starts=2,
    )
)[0]  # fmt: skip
PLANTED = calibration.conditions(calibration.Settings(neurons=8, seeds=2))[0]
SCALED = dictionary_scaling.conditions(
    dictionary_scaling.Settings(
        hidden=16, models=2, train_epochs=15, expansions=(4.0,), l1s=(0.1,), ways=("tied",)
    )
)[0]
DROPPED = dropout.conditions(
    dropout.Settings(hidden=(16,), rates=(0.0, 0.5), seeds=2, train_epochs=15, sae_epochs=100)
)[1]
SQUEEZED, LEARNED = algorithmic_tasks.conditions(
    algorithmic_tasks.Settings(
        neurons=(14,), compared=(), empty=(), empty_neurons=(), fit_steps=500, train_steps=200
    )
)
GROKKED = grokking.conditions(
    grokking.Settings(
        prime=11, train_fraction=0.7, embedding=6, hidden=24, steps=3000, checkpoints=25,
        sae_steps=200, passes=2, sae_epochs=20, burn_in=20, draws=40,
    )
)[0]  # fmt: skip
READ = pythia.conditions(
    pythia.Settings(
        texts=("story.txt",), layers=3, width=16, heads=2, vocabulary=300, context=32, steps=60,
        batch=8, documents=30, shard=30, sae_steps=200, sae_samples=400, samples=200,
    )
)[0]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def story(tmp_path_factory):
    """Where the text lies, and where networks trained on it are kept."""
    with pytest.MonkeyPatch.context() as patch:
        told(tmp_path_factory.mktemp("text"), patch)
        yield


def told(folder, patch):
    """Write a text that is the same on every machine: words mostly followed by their successors."""
    draw = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("ba", "ke", "lo", "mi", "nu") for b in ("r", "st", "ng", "lf", "")]
    follows, paragraphs = draw.permutation(25), []
    for _ in range(200):
        place, text = int(draw.integers(25)), []
        for _ in range(20):
            text.append(words[place])
            place = int(follows[place]) if draw.random() < 0.8 else int(draw.integers(25))
        paragraphs.append(" ".join(text))
    (folder / "story.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    patch.setenv("SUPERPOS_DATA", str(folder))
    patch.setenv("SUPERPOS_RESULTS", str(folder / "results"))


@cache
def rows(name):
    module, condition = {
        "toy_models": (toy_models, TOY),
        "adversarial": (adversarial, ATTACKED),
        "calibration": (calibration, PLANTED),
        "dictionary_scaling": (dictionary_scaling, SCALED),
        "dropout": (dropout, DROPPED),
        "squeezed": (algorithmic_tasks, SQUEEZED),
        "learned": (algorithmic_tasks, LEARNED),
        "grokking": (grokking, GROKKED),
        "pythia": (pythia, READ),
    }[name]
    return pd.DataFrame(module.run(condition, device="cpu"))


def key_numbers():
    toy, attacked, planted = rows("toy_models"), rows("adversarial"), rows("calibration")
    clean = attacked[attacked["inputs"] == "clean"].groupby("epsilon")
    scaled, dropped = rows("dictionary_scaling"), rows("dropout")
    squeezed, learned = rows("squeezed"), rows("learned")
    late = rows("grokking").iloc[-8:].astype({"llc_local": float, "features_relay": float})
    read = rows("pythia")
    # At sparsity 0.999 few samples are not empty, and one start finds several minima.
    return {
        "toy psi of the weights": toy["psi_weights"].round(3).tolist(),
        "toy psi of the codes": toy["psi_codes"].round(3).tolist()[:-1],
        "digits robust accuracy": clean["robust_accuracy"].mean().round(3).tolist(),
        "digits effective features": clean["features"].mean().round(3).tolist(),
        "planted features": planted["features"].round(3).tolist(),
        "parity accuracy": scaled["accuracy"].round(3).tolist(),
        "parity effective features": scaled["features"].round(3).tolist(),
        "dropout accuracy": dropped["accuracy"].round(3).tolist(),
        "dropout effective features": dropped["features"].round(3).tolist(),
        "compressed reversal accuracy": squeezed["accuracy"].round(3).tolist()[::4],
        # Single layers and seeds differ from machine to machine; their mean does so much less.
        "compressed reversal effective features": [round(squeezed["features"].mean(), 3)],
        "learned reversal effective features": [round(learned["features"].mean(), 3)],
        # Late checkpoints together: rounding makes single ones differ from machine to machine.
        "modular addition, training loss": [round(late["train_loss"].mean(), 4)],
        "modular addition, effective features": [round(late["features_relay"].mean(), 3)],
        "modular addition, learning coefficient": [round(late["llc_local"].mean(), 3)],
        "modular addition, effective frequencies": [round(late["frequencies"].mean(), 3)],
        "small language model, loss": [round(read["loss"].iloc[0], 4)],
        "bigram model, loss": [round(read["bigram"].iloc[0], 4)],
        "small language model, effective features": (
            read.groupby("kind")["features"].mean().round(3).tolist()
        ),
    }


@pytest.mark.parametrize("name", yaml.safe_load(BASELINE.read_text()))
def test_key_numbers_stay_at_their_baseline(name):
    entry = yaml.safe_load(BASELINE.read_text())[name]
    np.testing.assert_allclose(key_numbers()[name], entry["values"], rtol=entry["tolerance"])


def test_superposition_of_toy_models_grows_with_sparsity():
    psi = rows("toy_models")["psi_weights"]
    assert (psi.diff().dropna() > -0.01).all()
    assert psi.iloc[0] == pytest.approx(1, abs=0.02)
    assert psi.iloc[-1] > 2


def test_the_gradient_written_out_for_toy_models_is_the_losses():
    options = {"features": 6, "neurons": 3, "decay": 0.7, "seed": 1}
    sparsity = torch.tensor([0.5])
    start = train_toy_models(sparsity, steps=0, **options)
    weights = start.weights[0].clone().requires_grad_()
    biases = start.biases[0].clone().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    f = nonempty_toy_features(BATCH, 6, sparsity, generator=generator)[0]
    importance = 0.7 ** torch.arange(6)
    empty = 0.5**6 / (1 - 0.5**6)
    output = torch.relu(f @ weights.T @ weights + biases)
    loss = (importance * (output - f) ** 2).sum(1).mean()
    loss = loss + empty * (importance * torch.relu(biases) ** 2).sum()
    loss.backward()
    after = train_toy_models(sparsity, steps=1, **options)
    step = (after.weights[0] - start.weights[0]) / RATE  # Adam's first step is a sign
    torch.testing.assert_close(step, -weights.grad.sign(), atol=1e-3, rtol=0)


def test_a_toy_model_trained_among_others_equals_the_model_alone():
    options = {"features": 8, "neurons": 3, "decay": 0.8, "seed": 0, "steps": 50}
    among = train_toy_models(torch.tensor([0.1, 0.9]), **options)
    alone = train_toy_models(torch.tensor([0.9]), **options)
    torch.testing.assert_close(among.weights[1], alone.weights[0], rtol=1e-4, atol=1e-5)


def test_a_tied_sae_prefers_two_codes_per_neuron_to_the_true_features():
    sparsity = torch.tensor([0.98])
    models = train_toy_models(sparsity, features=20, neurons=5, decay=0.7, steps=3000, seed=0)
    generator = torch.Generator().manual_seed(1)
    f = toy_models.toy_features(6000, 20, sparsity, generator=generator)
    x = torch.bmm(f, models.weights.mT)
    config = SAEConfig(expansion=8.0, starts=2)
    found = solver.fit(x, config)
    living = int((found.sae.losses(x)[1] > 0).sum())
    directions = torch.zeros(1, 40, 5)
    directions[:, :20] = torch.nn.functional.normalize(models.weights.mT, dim=-1)
    bias = torch.full((1, 40), -0.02)
    bias[:, 20:] = -5.0  # the other half of the dictionary starts and stays off
    informed = SAE(config, directions, bias)
    plan = solver.plan_of(config, x, None)
    for seed in range(2):
        order = solver.Order(seed, x.shape[1], plan.batch)
        solver.run_round(informed, x, [order], plan, rate=0.005)
    assert models.path[-1][1][0] > 2.2
    assert living == 10
    assert found.loss.item() <= informed.losses(x)[0].item() * 1.005


def test_at_epsilon_zero_attacked_inputs_measure_like_clean_ones():
    table = rows("adversarial")
    zero = table[table["epsilon"] == 0].pivot(index="seed", columns="inputs", values="features")
    np.testing.assert_allclose(zero["clean"], zero["adversarial"], rtol=1e-6)


def test_adversarial_training_resists_attacks_that_plain_training_does_not():
    table = rows("adversarial")
    assert table["accuracy"].min() > 0.9
    network, x, y = plainly_trained()
    weak = pgd(network, x, y, epsilon=0.2, steps=40, generator=torch.Generator().manual_seed(0))
    plain = (predictions(network(weak)) == y).float().mean().item()
    assert table.loc[table["epsilon"] == 0.2, "robust_accuracy"].min() > plain + 0.03


def test_an_ensemble_of_attacks_is_put_to_the_first_seeds_robust_networks_only(monkeypatch):
    members = ATTACKED.training.members
    table = [{"epsilon": epsilon, "seed": seed} for epsilon, seed in members]
    monkeypatch.setattr(adversarial, "features_of", lambda *_, **__: table)
    found = pd.DataFrame(adversarial.run(replace(ATTACKED, auto_images=12), device="cpu"))
    asked = (found["seed"] == 0) & (found["epsilon"] > 0)
    assert (found["auto_accuracy"].notna() == asked).all() and asked.any()
    assert (found["auto_accuracy"] <= found["auto_pgd_accuracy"])[asked].all()


def plainly_trained():
    """The member at epsilon 0, and the test images."""
    images, networks, _ = adversarial._trained(ATTACKED.training, None, "cpu")
    return networks[0], images.x_test, images.y_test


@pytest.mark.parametrize(
    "module",
    [
        toy_models,
        dictionary_scaling,
        dropout,
        algorithmic_tasks,
        grokking,
        pythia,
        adversarial,
        calibration,
    ],
)
def test_conditions_are_distinct_and_hashable(module):
    found = module.conditions(module.Settings())
    assert len(set(found)) == len(found) > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilons": (0.1, 0.2)},
        {"epsilons": (0.0,)},
        {"seeds": (0,)},
        {"mlp": ()},
        {"compared": (7,)},
    ],
)
def test_grids_without_a_base_or_repeats_are_refused(changes):
    with pytest.raises(ValueError, match="give"):
        adversarial.Settings(**changes)


def test_planted_directions_are_what_they_are_called():
    for kind in calibration.DIRECTIONS:
        x, magnitudes = calibration.planted_activations(kind, 4, 6, None, 500)
        assert x.shape == (500, 6)
        assert magnitudes.sum().item() == pytest.approx(x.norm(dim=1).sum().item(), rel=1e-4)
        assert (x >= 0).all() == (kind != "signed")
    with pytest.raises(ValueError, match="cannot be orthogonal"):
        calibration.planted_activations("orthogonal", 7, 6, None, 10)


def test_the_same_condition_gives_the_same_record(tmp_path):
    settings = calibration.Settings(neurons=4, ratios=(1.0,), samples=500, seeds=2, starts=1)
    condition = calibration.conditions(settings)[0]
    options = {"device": "cpu", "progress": False}
    one, two = (
        sweep(calibration, [condition], store=Store(tmp_path / name), **options)[0]
        for name in ("a", "b")
    )
    assert one.rows == two.rows


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as context:
        told(Path(name), context)
        print(yaml.safe_dump(key_numbers(), sort_keys=False))
