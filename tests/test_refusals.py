"""What means nothing is refused in one sentence, which says what is given and what to give."""

import pytest
import torch
from torch import nn

import superpos
from superpos import rasp
from superpos.compression import compressed
from superpos.data import load_images, sparse_parity
from superpos.data.images import check_classes
from superpos.dictionary import codes
from superpos.entropy import participation_ratio, probabilities, weight_features
from superpos.experiments import adversarial, calibration, pythia
from superpos.image_networks import make_network
from superpos.llc import SGLD, llc
from superpos.parity_networks import trained
from superpos.recipe import fit_for_epochs
from superpos.robust_training import train_members
from superpos.sae import SAE, SAEConfig
from superpos.settings import load_profile

ONES = torch.ones(8, 4)
BRIEF = SAEConfig(starts=1, steps=5, rounds=1)
NETWORK = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
SAME, HUGE = nn.Sequential(nn.Identity()), 1e25 * torch.arange(32.0).view(8, 4)
PAIR = SAE(SAEConfig(), torch.ones(2, 8, 4), torch.zeros(2, 8))


def training(folder, **options):
    settings = adversarial.Settings(**load_profile("adversarial", "quick"))
    own = adversarial.conditions(settings)[0].training
    train_members(own, load_images("digits"), folder, **options)


def no_token(documents, **_):
    return {"input_ids": [[] for _ in documents]}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda _: compressed(None, None, 3, seeds=[], starts=1, steps=1), "0 seeds and 1 starts"),
        (lambda folder: check_classes(folder, 2), "give each class a folder with images"),
        (lambda _: codes(PAIR, torch.ones(3, 8, 4)), "3 members, the SAE 2"),
        (lambda _: probabilities(torch.tensor(1.0)), "no dictionary axis"),
        (lambda _: participation_ratio(torch.ones(2, 3)), r"\(2, 3\); its last axes"),
        (lambda _: weight_features(torch.full((2, 3), torch.nan)), "nan or infinity"),
        (lambda _: calibration.planted_activations("askew", 2, 4, None, 9), "'askew'; allowed are"),
        (lambda _: make_network("lstm", 4, (1, 8, 8), 2, seed=0), "'lstm': use one of"),
        (lambda _: SGLD(ceiling=0.0), "ceiling is 0.0; give a positive"),
        (lambda _: llc([NETWORK], ONES, ONES, None, at_once=0), "at_once is 0; give at least 1"),
        (lambda _: superpos.measure(NETWORK, ONES, []), "name at least one"),
        (lambda _: superpos.measure(NETWORK, []), "no batch; give at least one"),
        (lambda _: superpos.measure(SAME, HUGE, "0", sae=BRIEF), "at site '0': activations reach"),
        (lambda _: trained(sparse_parity(1, 2), 4, [(0.0, 0)], epochs=1, batch=0, rate=0.1),
         "batch 0; give 0 and 1 or more"),
        (lambda _: rasp.sorting(0), "length is 0; give at least 1"),
        (lambda _: fit_for_epochs(ONES, epochs=[1], batch=0), "batch is 0; give at least 1"),
        (lambda folder: training(folder, at_once=0), "at_once is 0; give at least 1"),
        (lambda _: pythia._tokenized(["a"], no_token, 8, 9), "no document has two tokens"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused(tmp_path, call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call(tmp_path)
    assert "\n" not in str(caught.value)
