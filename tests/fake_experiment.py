"""A tiny experiment for the tests; worker processes import it.

The environment says what a run does beside computing: FAKE_LOG is a file that gets one line per
run, FAKE_HOLD a file that is made when seed 2 is under way and waited for to vanish.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from superpos.engines import Computing
from superpos.ledger import Estimate
from superpos.settings import PROFILES, setting

SECTION = "fake"
VERSION = 1
TITLE = "A tiny experiment"


@dataclass(frozen=True)
class Condition:
    seed: int
    rates: tuple[float, ...] = (0.1, 0.25)


@dataclass(frozen=True)
class Settings(Computing):
    profile: str = setting("quick", "Set of parameters.", choices=PROFILES)
    seeds: int = setting(3, "Number of seeds.", low=1)
    l1: float = setting(0.1, "Weight of the l1 penalty.", low=0)
    rates: tuple[float, ...] = setting((0.1, 0.25), "Rates.", low=0, high=1)
    limit: int | None = setting(None, "Largest number of samples.", low=1)
    kinds: tuple[str, ...] = setting(("mlp",), "Networks.", choices=("mlp", "cnn"))
    augment: bool = setting(False, "Whether to augment.")


def conditions(settings: Settings) -> list[Condition]:
    return [Condition(seed, settings.rates) for seed in range(settings.seeds)]


def run(condition: Condition, *, device: str) -> list[dict]:
    if "FAKE_LOG" in os.environ:
        with open(os.environ["FAKE_LOG"], "a") as log:
            log.write(f"{condition.seed}\n")
    if condition.seed < 0:
        raise ZeroDivisionError(f"no seed {condition.seed}")
    hold = Path(os.environ.get("FAKE_HOLD", ""))
    if condition.seed == 2 and "FAKE_HOLD" in os.environ:
        hold.touch()
        while hold.exists():
            time.sleep(0.01)
    return [{"rate": rate, "value": condition.seed * rate / 3} for rate in condition.rates]


def estimates(frame, settings) -> dict[str, Estimate]:
    return {"mean": Estimate(frame.value.mean(), frame.value.min(), frame.value.max())}
