"""An experiment of which nothing but the sweep takes time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SECTION, VERSION, TITLE = "trivial", 1, "Nothing to compute"


@dataclass(frozen=True)
class Condition:
    seed: int


def run(condition: Condition, *, device: str) -> list[dict[str, Any]]:
    return [{"value": condition.seed}]
