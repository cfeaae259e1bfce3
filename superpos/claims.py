"""What the paper claims, and by which rule a run reproduces it.

The ledger ``claims.yaml`` gives each claim a region that a run's value must fall into. The
verdict follows from one rule: reproduced if the whole 95% interval lies inside the region, not
reproduced if it lies wholly outside, partly if it straddles an edge.
"""

from __future__ import annotations

import enum
import html
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .settings import PROFILES
from .store import Record, provenance, write_json

LEDGER = Path(__file__).with_name("claims.yaml")
"""The ledger that comes with the package."""

_REQUIRED = {"id", "section", "text", "source", "paper", "region", "profile", "why"}


class ClaimError(ValueError):
    """A malformed ledger, or reported values that do not fit it."""


class Estimate(NamedTuple):
    """A value with its 95% interval."""

    value: float
    low: float
    high: float
    note: str = ""
    """How the interval was made, or why there is none (then low = value = high)."""


class Verdict(enum.Enum):
    """What a run says about a claim."""

    REPRODUCED = "reproduced"
    PARTLY = "partly"
    NOT_REPRODUCED = "not reproduced"
    NOT_TESTED = "not tested at this scale"


_MARKS = {  # a sign and a color that is legible on white and on black
    Verdict.REPRODUCED: ("✔", "#2f9e5f"),
    Verdict.PARTLY: ("◐", "#c07f00"),
    Verdict.NOT_REPRODUCED: ("✘", "#dd4b4b"),
    Verdict.NOT_TESTED: ("–", "#8a8a8a"),
}


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
        The verdict; edges belong to the region.
    """
    if estimate is None or PROFILES.index(profile) < PROFILES.index(claim.profile):
        return Verdict.NOT_TESTED
    low = -math.inf if claim.low is None else claim.low
    high = math.inf if claim.high is None else claim.high
    if low <= estimate.low and estimate.high <= high:
        return Verdict.REPRODUCED
    if estimate.high < low or estimate.low > high:
        return Verdict.NOT_REPRODUCED
    return Verdict.PARTLY


@dataclass(frozen=True)
class ClaimTable:
    """A section's claims beside one run's values; a table in a notebook, text elsewhere.

    Attributes:
        label: The run's profile and what was changed in it.
        rows: Claim, this run's value (None if there is none), and verdict.
    """

    label: str
    rows: list[tuple[Claim, Estimate | None, Verdict]]

    def __str__(self) -> str:
        """Write one paragraph per claim."""
        lines = [f"Claims, this run: {self.label}"]
        for claim, estimate, verdict in self.rows:
            lines.append(f"{_MARKS[verdict][0]} {verdict.value}: {claim.text}")
            lines.append(
                f"    {claim.id}: this run {_number(estimate)}; paper {claim.paper} "
                f"({claim.source}); reproduced if {claim.region}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            [
                f"{html.escape(claim.text)}<br>{_small(f'{claim.id}, {claim.source}')}",
                html.escape(claim.paper),
                html.escape(_number(estimate)) + _note(estimate),
                f'<span title="{html.escape(claim.why)}">{html.escape(claim.region)}</span>',
                _badge(verdict),
            ]
            for claim, estimate, verdict in self.rows
        ]
        heads = ["Claim", "Paper", f"This run ({self.label})", "Reproduced if", "Verdict"]
        return _table(heads, rows)


def report(
    section: str,
    estimates: Mapping[str, Estimate],
    *,
    settings_label: str,
    profile: str,
    store_root: Path | str,
    records: Iterable[Record] = (),
) -> ClaimTable:
    """Judge a run's values and keep them in ``<store_root>/<section>/values.json``.

    Args:
        section: The section's name.
        estimates: Values by claim id, or by its quantity alone (the part after the dot).
        settings_label: The run's profile and what was changed in it.
        profile: The run's profile.
        store_root: Folder of the run's results.
        records: The records behind the values; their devices, dates and commits are kept.

    Returns:
        The section's claims with values and verdicts.

    Raises:
        ClaimError: If an id is not in the ledger or an estimate is malformed.
    """
    claims = {claim.id: claim for claim in load_ledger().values() if claim.section == section}
    values = {
        name if name.startswith(f"{section}.") else f"{section}.{name}": Estimate(*estimate)
        for name, estimate in estimates.items()
    }
    _check_values(values, claims, f"section '{section}'")
    _check_profile(profile, f"section '{section}'")
    write_json(
        _values_path(Path(store_root), section),
        {
            "section": section,
            "profile": profile,
            "label": settings_label,
            "provenance": _summary(records),
            "estimates": {name: estimate._asdict() for name, estimate in values.items()},
        },
    )
    return ClaimTable(settings_label, _judged(claims, values, profile))


@dataclass(frozen=True)
class Run:
    """What one chapter last reported under one profile.

    Attributes:
        profile: The profile.
        label: The profile and what was changed in it.
        provenance: Devices, date, seconds and commits.
        estimates: Values by claim id.
    """

    profile: str
    label: str
    provenance: dict[str, Any]
    estimates: dict[str, Estimate]


@dataclass(frozen=True)
class Scorecard:
    """Every claim of every chapter beside what each profile last reported.

    A claim's standing is the verdict of the largest profile that tested it.

    Attributes:
        claims: All claims of the ledger.
        runs: Runs by section and profile.
    """

    claims: list[Claim]
    runs: dict[tuple[str, str], Run]

    @property
    def profiles(self) -> list[str]:
        """The profiles that have values, in rising order."""
        present = {profile for _, profile in self.runs}
        return [profile for profile in PROFILES if profile in present]

    def verdict(self, claim: Claim, profile: str) -> Verdict:
        """Judge a claim by one profile's values."""
        return judge(claim, self._estimate(claim, profile), profile)

    def standing(self, claim: Claim) -> Verdict:
        """Judge a claim by the largest profile that tested it."""
        verdicts = [self.verdict(claim, profile) for profile in reversed(self.profiles)]
        tested = (verdict for verdict in verdicts if verdict is not Verdict.NOT_TESTED)
        return next(tested, Verdict.NOT_TESTED)

    def counts(self) -> dict[Verdict, int]:
        """Count the claims by their standing."""
        counter = Counter(self.standing(claim) for claim in self.claims)
        return {verdict: counter[verdict] for verdict in Verdict}

    def summary_lines(self) -> list[str]:
        """Return the counts, and the claims that are not fully reproduced, for a terminal."""
        total = len(self.claims)
        lines = [
            f"{_MARKS[verdict][0]} {count} of {total} claims {verdict.value}"
            for verdict, count in self.counts().items()
        ]
        for verdict in (Verdict.NOT_REPRODUCED, Verdict.PARTLY):
            names = [claim.id for claim in self.claims if self.standing(claim) is verdict]
            if names:
                lines.append(f"{verdict.value}: {', '.join(names)}")
        return lines

    def to_json(self) -> str:
        """Return all claims, values and verdicts as JSON text."""
        claims = [
            {
                "id": claim.id,
                "text": claim.text,
                "paper": claim.paper,
                "region": {"low": claim.low, "high": claim.high},
                "standing": self.standing(claim).value,
                "runs": {
                    profile: {
                        "verdict": self.verdict(claim, profile).value,
                        "label": self.runs[claim.section, profile].label,
                        "estimate": estimate._asdict() if estimate else None,
                    }
                    for profile in self.profiles
                    if (claim.section, profile) in self.runs
                    for estimate in [self._estimate(claim, profile)]
                },
            }
            for claim in self.claims
        ]
        counts = {verdict.value: count for verdict, count in self.counts().items()}
        return json.dumps({"counts": counts, "claims": claims}, indent=1, ensure_ascii=False)

    def __str__(self) -> str:
        """Write the counts."""
        return "\n".join(self.summary_lines())

    def _repr_html_(self) -> str:
        counts = " &nbsp; ".join(
            f"{_badge(verdict)}: <b>{count}</b>" for verdict, count in self.counts().items()
        )
        rows = [
            [
                f"{html.escape(claim.text)}<br>{_small(f'{claim.id}, {claim.source}')}",
                html.escape(claim.paper),
                *(self._cell(claim, profile) for profile in self.profiles),
            ]
            for claim in self.claims
        ]
        return f"<p>{counts}</p>" + _table(["Claim", "Paper", *self.profiles], rows)

    def _estimate(self, claim: Claim, profile: str) -> Estimate | None:
        run = self.runs.get((claim.section, profile))
        return run.estimates.get(claim.id) if run else None

    def _cell(self, claim: Claim, profile: str) -> str:
        run, estimate = self.runs.get((claim.section, profile)), self._estimate(claim, profile)
        badge = _badge(self.verdict(claim, profile))
        if run is None or estimate is None:
            return badge
        origin = f"{run.label}; {', '.join(run.provenance['devices'])}; {run.provenance['date']}"
        return f"{badge}<br>{html.escape(_number(estimate))}<br>{_small(origin)}"


def scorecard(roots: Mapping[str, Path | str]) -> Scorecard:
    """Read what every chapter last reported.

    Args:
        roots: Result folders by profile.

    Returns:
        All claims of the ledger with the values found; chapters without values are left open.

    Raises:
        ClaimError: If a file of values is damaged or does not fit the ledger.
    """
    claims = list(load_ledger().values())
    runs = {}
    for profile, root in roots.items():
        for section in dict.fromkeys(claim.section for claim in claims):
            path = _values_path(Path(root), section)
            if path.is_file():
                run = _read_run(path)
                if run.profile != profile:
                    raise ClaimError(f"{path} was reported under '{run.profile}', not '{profile}'")
                _check_values(run.estimates, {claim.id for claim in claims}, str(path))
                runs[section, profile] = run
    return Scorecard(claims, runs)


def _claim(entry: Any, where: str) -> Claim:
    if not isinstance(entry, dict):
        raise ClaimError(f"{where}: must be a mapping with {', '.join(sorted(_REQUIRED))}")
    where = f"{where} ('{entry.get('id', 'no id')}')"
    if set(entry) != _REQUIRED:
        wrong = ", ".join(sorted(set(entry) ^ _REQUIRED))
        raise ClaimError(f"{where}: missing or unknown: {wrong}")
    for name in sorted(_REQUIRED - {"paper", "region"}):
        if not isinstance(entry[name], str) or not entry[name].strip():
            raise ClaimError(f"{where}: '{name}' must be text")
    if not entry["id"].startswith(entry["section"] + "."):
        raise ClaimError(f"{where}: the id must begin with '{entry['section']}.'")
    _check_profile(entry["profile"], where)
    low, high = _region(entry["region"], where)
    texts = {name: entry[name].strip() for name in _REQUIRED - {"paper", "region"}}
    return Claim(**texts, paper=_paper(entry["paper"], where), low=low, high=high)


def _region(region: Any, where: str) -> tuple[float | None, float | None]:
    edges = region if isinstance(region, dict) else {}
    numbers = [edge for edge in edges.values() if isinstance(edge, (int, float))]
    if not edges or set(edges) - {"low", "high"} or len(numbers) < len(edges):
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


def _check_profile(profile: str, where: str) -> None:
    if profile not in PROFILES:
        raise ClaimError(f"{where}: unknown profile '{profile}'; allowed: {', '.join(PROFILES)}")


def _check_values(values: Mapping[str, Estimate], allowed: Iterable[str], where: str) -> None:
    known = list(allowed)
    for name, estimate in values.items():
        if name not in known:
            raise ClaimError(f"{where}: '{name}' is not in the ledger; it has: {', '.join(known)}")
        if not all(math.isfinite(number) for number in estimate[:3]):
            raise ClaimError(f"{where}: '{name}' is not finite; leave out what cannot be measured")
        if not estimate.low <= estimate.value <= estimate.high:
            raise ClaimError(f"{where}: the interval of '{name}' does not hold its value")
        if estimate.low == estimate.high and not estimate.note:
            raise ClaimError(f"{where}: '{name}' has no interval; say why in its note")


def _judged(
    claims: Mapping[str, Claim], values: Mapping[str, Estimate], profile: str
) -> list[tuple[Claim, Estimate | None, Verdict]]:
    return [
        (claim, values.get(claim.id), judge(claim, values.get(claim.id), profile))
        for claim in claims.values()
    ]


def _summary(records: Iterable[Record]) -> dict[str, Any]:
    """Sum up the provenance of the records, or of this process if there are none."""
    origins = [record.provenance for record in records] or [provenance()]
    return {
        "devices": sorted({origin["device"] for origin in origins}),
        "date": max(origin["date"] for origin in origins),
        "seconds": round(sum(origin["seconds"] for origin in origins), 3),
        "commits": sorted({origin["commit"] for origin in origins if origin["commit"]}),
        "torch": sorted({origin["torch"] for origin in origins}),
    }


def _values_path(root: Path, section: str) -> Path:
    return root / section / "values.json"


def _read_run(path: Path) -> Run:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        estimates = {
            name: Estimate(*(float(value[part]) for part in Estimate._fields[:3]), value["note"])
            for name, value in content["estimates"].items()
        }
        about = {name: content["provenance"][name] for name in ("devices", "date")}
        return Run(content["profile"], content["label"], about, estimates)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClaimError(f"{path} is damaged ({error!r}); run the chapter again") from None


def _number(estimate: Estimate | None) -> str:
    if estimate is None:
        return "no value"
    if estimate.low == estimate.high:
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _note(estimate: Estimate | None) -> str:
    return f"<br>{_small(estimate.note)}" if estimate and estimate.note else ""


def _small(text: str) -> str:
    return f'<span style="opacity: 0.75; font-size: 0.85em">{html.escape(text)}</span>'


def _badge(verdict: Verdict) -> str:
    mark, color = _MARKS[verdict]
    return (
        f'<span style="white-space: nowrap"><span aria-hidden="true" style="color: {color}; '
        f'font-weight: bold">{mark}</span> {html.escape(verdict.value)}</span>'
    )


def _table(heads: list[str], rows: list[list[str]]) -> str:
    """Return an HTML table that takes its colors from the page around it."""
    style = "text-align: left; vertical-align: top; white-space: normal; padding: 0.3em 0.6em"
    head = "".join(f'<th style="{style}">{html.escape(text)}</th>' for text in heads)
    body = "".join(
        "<tr>" + "".join(f'<td style="{style}">{cell}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    # The class "dataframe" is the one that Jupyter and the book's theme color in dark mode too.
    return (
        '<table class="dataframe" style="width: 100%">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
