"""The toy models' chapter: what it reads off tables whose values were planted."""

import math

import numpy as np
import pandas as pd
import pytest

from superpos.experiments import toy_models as toy

SETTINGS = toy.Settings()
PSI = np.linspace(1.0, 4.0, 12)
RISING, FALLING = PSI, PSI[::-1]
CURVED = (PSI - PSI.mean()) ** 2  # uncorrelated with PSI


def rows(codes, *, panel=False, **changed):
    """One condition's rows, a model for every psi of the weights."""
    fixed = {"l1": SETTINGS.l1, "expansion": SETTINGS.expansion, "neurons": SETTINGS.neurons}
    return pd.DataFrame(
        {
            **fixed, **changed, "keep_weights": panel, "model": range(len(PSI)),
            "psi_weights": PSI, "psi_codes": codes, "frobenius_weights": 2 * PSI,
            "psi_sae_weights": RISING if panel else math.nan,
            "frobenius_sae_weights": FALLING if panel else math.nan,
        }
    )  # fmt: skip


def whole():
    """A panel in which codes agree with the weights, and points of every sweep."""
    return pd.concat(
        [
            rows(RISING, panel=True), rows(RISING), rows(np.full(12, math.nan), l1=10.0),
            rows(FALLING, expansion=1.0), rows(CURVED, expansion=32.0),
            rows(FALLING, neurons=2), rows(RISING, neurons=8), rows(CURVED, neurons=16),
        ],
        ignore_index=True,
    )  # fmt: skip


def test_values_that_were_planted_are_found():
    found = toy.estimates(whole(), SETTINGS)
    expected = {
        "r_weights_frobenius": 1, "r_sae_activations": 1, "r_sae_weights": 1,
        "r_frobenius_sae_weights_gap": 2, "psi_max": 4, "psi_frobenius_sae_max": 4,
        "l1_collapse": 1, "expansion_low": 2, "expansion_high": 1, "size_band": 0,
    }  # fmt: skip
    assert {name: own.value for name, own in found.items()} == pytest.approx(expected, abs=1e-9)
    band = found["size_band"]  # Fisher's interval of twelve models without correlation
    assert band.high == pytest.approx(np.tanh(1.959964 / 3)) and band.low == pytest.approx(
        -band.high
    )
    assert (found["psi_max"].low, found["psi_max"].high) == (4, 4)


def test_a_sweep_has_only_what_varies_there_and_tells_which_models_died():
    half = np.where(PSI < 2.5, math.nan, RISING)
    table = pd.concat([whole(), rows(half, l1=1.0)], ignore_index=True)
    found = toy.stability(table, SETTINGS, "l1").set_index("l1")
    assert list(found.index) == [SETTINGS.l1, 1.0, 10.0]
    assert found["dead"].tolist() == [0, 0.5, 1]
    assert found["r"].tolist()[:2] == pytest.approx([1, 1]) and math.isnan(found.loc[10.0, "r"])
    sizes = toy.stability(table, SETTINGS, "neurons")
    assert sizes["neurons"].tolist() == [2, SETTINGS.neurons, 8, 16]
    assert sizes["r"].tolist() == pytest.approx([-1, 1, 1, 0], abs=1e-9)


def test_what_a_run_does_not_hold_has_no_value():
    panel = rows(RISING, panel=True)
    found = toy.estimates(panel, SETTINGS)
    assert not {"l1_collapse", "expansion_low", "expansion_high", "size_band"} & set(found)
    assert toy.estimates(rows(np.full(12, math.nan), panel=True), SETTINGS) == {}
    dead = pd.concat([panel, rows(np.full(12, math.nan), neurons=8)], ignore_index=True)
    assert "size_band" not in toy.estimates(dead, SETTINGS)
