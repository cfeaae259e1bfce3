"""What the paper claims, and by which rule a run reproduces it.

The ledger ``claims.yaml`` gives each claim a region that a run's value must fall into. The
verdict follows from one rule: reproduced if the whole 95% interval lies inside the region, not
reproduced if it lies wholly outside, partly if it straddles an edge.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .settings import PROFILES

LEDGER = Path(__file__).with_name("claims.yaml")
"""The ledger that comes with the package.

:meta hide-value:
"""

_TEXTS = {"id", "section", "text", "source", "profile", "why"}
_REQUIRED = _TEXTS | {"paper", "region"}


class ClaimError(ValueError):
    """A malformed ledger, or reported values that do not fit it."""


class Estimate(NamedTuple):
    """A value with its 95% interval."""

    value: float
    low: float
    high: float
    note: str = ""
    """How the interval was made, or why there is none (then low = value = high)."""
    stand_in: str = ""
    """What was measured in place of what the claim is about, if it was not that."""


class Verdict(enum.Enum):
    """What a run says about a claim."""

    REPRODUCED = "reproduced"
    PARTLY = "partly"
    NOT_REPRODUCED = "not reproduced"
    STAND_IN = "tested on a stand-in"
    NOT_TESTED = "not tested at this scale"


@dataclass(frozen=True)
class Claim:
    """One claim of the ledger.

    Attributes:
        id: ``<section>.<quantity>``.
        section: Section of the paper, such as ``"toy_models"``.
        text: What is claimed, in one sentence.
        source: Where the paper says so.
        paper: The paper's value as text.
        low: Lower edge of the region in which a value supports the claim, or None if open.
        high: Upper edge of that region, or None if open.
        profile: Smallest profile that may test the claim.
        why: Why this region is the rule.
    """

    id: str
    section: str
    text: str
    source: str
    paper: str
    low: float | None
    high: float | None
    profile: str
    why: str

    @property
    def region(self) -> str:
        """The region as text."""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        return f"≥ {self.low:g}" if self.low is not None else f"≤ {self.high:g}"


def load_ledger(path: Path = LEDGER) -> dict[str, Claim]:
    """Read the ledger.

    Args:
        path: A YAML file holding a list of claims.

    Returns:
        The claims by their ids, in the order of the file.

    Raises:
        ClaimError: If an entry is malformed or an id stands twice; names the entry.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list):
        raise ClaimError(f"{path.name} must be a list of claims")
    ledger: dict[str, Claim] = {}
    for number, entry in enumerate(entries, 1):
        claim = _claim(entry, f"{path.name}, entry {number}")
        if claim.id in ledger:
            raise ClaimError(f"{path.name}: the id '{claim.id}' stands twice")
        ledger[claim.id] = claim
    return ledger


def judge(claim: Claim, estimate: Estimate | None, profile: str) -> Verdict:
    """Apply the rule: where does the whole interval lie?

    Args:
        claim: A claim of the ledger.
        estimate: The run's value, or None if it reported none.
        profile: The run's profile.

    Returns:
        The verdict; edges belong to the region. Of a stand-in it is only that it was tested, never
        that the claim is reproduced; :func:`agreement` says what came out there.
    """
    if estimate is None or PROFILES.index(profile) < PROFILES.index(claim.profile):
        return Verdict.NOT_TESTED
    return Verdict.STAND_IN if estimate.stand_in else _placed(claim, estimate)


def agreement(claim: Claim, estimate: Estimate) -> str:
    """Say in words how a stand-in's value stands to the claim's region."""
    words = {
        Verdict.REPRODUCED: "agrees",
        Verdict.PARTLY: "agrees in part",
        Verdict.NOT_REPRODUCED: "disagrees",
    }
    return f"{estimate.stand_in}: {words[_placed(claim, estimate)]}"


def _placed(claim: Claim, estimate: Estimate) -> Verdict:
    """Where the whole interval lies."""
    low = -math.inf if claim.low is None else claim.low
    high = math.inf if claim.high is None else claim.high
    if low <= estimate.low and estimate.high <= high:
        return Verdict.REPRODUCED
    if estimate.high < low or estimate.low > high:
        return Verdict.NOT_REPRODUCED
    return Verdict.PARTLY


def check_profile(profile: str, where: str) -> None:
    """Refuse a profile that does not exist.

    Args:
        profile: Its name.
        where: What names it, for the message.

    Raises:
        ClaimError: If it is not one of :data:`superpos.settings.PROFILES`.
    """
    if profile not in PROFILES:
        raise ClaimError(f"{where}: unknown profile '{profile}'; allowed: {', '.join(PROFILES)}")


def _claim(entry: Any, where: str) -> Claim:
    if not isinstance(entry, dict):
        raise ClaimError(f"{where}: must be a mapping with {', '.join(sorted(_REQUIRED))}")
    where = f"{where} ('{entry.get('id', 'no id')}')"
    if wrong := sorted(set(entry) ^ _REQUIRED):
        raise ClaimError(f"{where}: missing or unknown: {', '.join(wrong)}")
    for name in sorted(_TEXTS):
        if not isinstance(entry[name], str) or not entry[name].strip():
            raise ClaimError(f"{where}: '{name}' must be text")
    texts = {name: entry[name].strip() for name in _TEXTS}
    if not texts["id"].startswith(texts["section"] + "."):
        raise ClaimError(f"{where}: the id must begin with '{texts['section']}.'")
    check_profile(texts["profile"], where)
    low, high = _region(entry["region"], where)
    return Claim(**texts, paper=_paper(entry["paper"], where), low=low, high=high)


def _region(region: Any, where: str) -> tuple[float | None, float | None]:
    edges = region if isinstance(region, dict) else {}
    numbers = all(isinstance(edge, (int, float)) for edge in edges.values())
    if not edges or not numbers or set(edges) - {"low", "high"}:
        raise ClaimError(f"{where}: 'region' must hold numbers low, high, or both")
    low, high = edges.get("low"), edges.get("high")
    if low is not None and high is not None and low >= high:
        raise ClaimError(f"{where}: the region's low {low} must be below its high {high}")
    return low, high


def _paper(paper: Any, where: str) -> str:
    if isinstance(paper, dict) and set(paper) == {"text"}:
        return str(paper["text"])
    if not isinstance(paper, dict) or "value" not in paper or set(paper) - {"value", "pm", "text"}:
        raise ClaimError(f"{where}: 'paper' must hold text, or value with optional pm and text")
    spread = f" ± {paper['pm']}" if "pm" in paper else ""
    return f"{paper['value']}{spread}" + (f" ({paper['text']})" if "text" in paper else "")
