"""A run's values beside the paper's claims: one chapter's table, and the scorecard of all.

A chapter reports its values, which are kept in its folder of results; the scorecard reads what
every chapter last reported. :mod:`superpos.ledger` holds the claims and the rule of the verdicts.
"""

from __future__ import annotations

import html
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .ledger import Claim, ClaimError, Estimate, Verdict, check_profile, judge, load_ledger
from .settings import PROFILES
from .store import Record, provenance, write_json

_MARKS = {  # a sign and a color that is legible on white and on black
    Verdict.REPRODUCED: ("✔", "#2f9e5f"),
    Verdict.PARTLY: ("◐", "#c07f00"),
    Verdict.NOT_REPRODUCED: ("✘", "#dd4b4b"),
    Verdict.NOT_TESTED: ("–", "#8a8a8a"),
}


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
        heads = ["Claim", "Paper", f"This run ({self.label})", "Reproduced if", "Verdict"]
        rows = [
            [
                *_about(claim),
                _number(estimate) + _small(estimate.note if estimate else ""),
                f'<span title="{html.escape(claim.why)}">{html.escape(claim.region)}</span>',
                _badge(verdict),
            ]
            for claim, estimate, verdict in self.rows
        ]
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
        ClaimError: If an id is not in the ledger, an estimate is malformed, or there is no such
            profile.
    """
    table = judged(section, estimates, settings_label=settings_label, profile=profile)
    values = {claim.id: value for claim, value, _ in table.rows if value is not None}
    write_json(
        _values_path(store_root, section),
        {
            "section": section,
            "profile": profile,
            "label": settings_label,
            "provenance": _summary(records),
            "estimates": {name: estimate._asdict() for name, estimate in values.items()},
        },
    )
    return table


def judged(
    section: str, estimates: Mapping[str, Estimate], *, settings_label: str, profile: str
) -> ClaimTable:
    """Judge a run's values; arguments and errors as for :func:`report`."""
    claims = {claim.id: claim for claim in load_ledger().values() if claim.section == section}
    values = {
        name if name.startswith(f"{section}.") else f"{section}.{name}": Estimate(*estimate)
        for name, estimate in estimates.items()
    }
    _check_values(values, claims, f"section '{section}'")
    check_profile(profile, f"section '{section}'")
    found = [(claim, values.get(claim.id)) for claim in claims.values()]
    return ClaimTable(
        settings_label, [(claim, value, judge(claim, value, profile)) for claim, value in found]
    )


@dataclass(frozen=True)
class Run:
    """What one chapter last reported under one profile.

    Attributes:
        profile: The profile.
        label: The profile and what was changed in it.
        provenance: The records' devices, and the latest of their dates.
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
        verdicts = (self.verdict(claim, profile) for profile in reversed(self.profiles))
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
                    profile: self._judged(claim, profile)
                    for profile in self.profiles
                    if (claim.section, profile) in self.runs
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
            [*_about(claim), *(self._cell(claim, profile) for profile in self.profiles)]
            for claim in self.claims
        ]
        return f"<p>{counts}</p>" + _table(["Claim", "Paper", *self.profiles], rows)

    def _estimate(self, claim: Claim, profile: str) -> Estimate | None:
        run = self.runs.get((claim.section, profile))
        return run.estimates.get(claim.id) if run else None

    def _judged(self, claim: Claim, profile: str) -> dict[str, Any]:
        estimate = self._estimate(claim, profile)
        return {
            "verdict": self.verdict(claim, profile).value,
            "label": self.runs[claim.section, profile].label,
            "estimate": estimate._asdict() if estimate else None,
        }

    def _cell(self, claim: Claim, profile: str) -> str:
        badge, estimate = _badge(self.verdict(claim, profile)), self._estimate(claim, profile)
        if estimate is None:
            return badge
        run = self.runs[claim.section, profile]
        origin = f"{run.label}; {', '.join(run.provenance['devices'])}; {run.provenance['date']}"
        return f"{badge}<br>{_number(estimate)}{_small(origin)}"


def scorecard(roots: Mapping[str, Path | str]) -> Scorecard:
    """Read what every chapter last reported.

    Args:
        roots: Result folders by profile.

    Returns:
        All claims of the ledger with the values found; chapters without values are left open.

    Raises:
        ClaimError: If a file of values is damaged or does not fit the ledger.
    """
    ledger = load_ledger()
    runs = {}
    for profile, root in roots.items():
        for section in dict.fromkeys(claim.section for claim in ledger.values()):
            path = _values_path(root, section)
            if path.is_file():
                run = _read_run(path)
                if run.profile != profile:
                    raise ClaimError(f"{path} was reported under '{run.profile}', not '{profile}'")
                _check_values(run.estimates, ledger, str(path))
                runs[section, profile] = run
    return Scorecard(list(ledger.values()), runs)


def _check_values(values: Mapping[str, Estimate], known: Collection[str], where: str) -> None:
    for name, estimate in values.items():
        if name not in known:
            raise ClaimError(f"{where}: '{name}' is not in the ledger; it has: {', '.join(known)}")
        if not all(math.isfinite(number) for number in estimate[:3]):
            raise ClaimError(f"{where}: '{name}' is not finite; leave out what cannot be measured")
        if not estimate.low <= estimate.value <= estimate.high:
            raise ClaimError(f"{where}: the interval of '{name}' does not hold its value")
        if estimate.low == estimate.high and not estimate.note:
            raise ClaimError(f"{where}: '{name}' has no interval; say why in its note")


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


def _values_path(root: Path | str, section: str) -> Path:
    return Path(root) / section / "values.json"


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


def _about(claim: Claim) -> list[str]:
    """Return a claim's first two cells: what is claimed and where, and the paper's value."""
    where = _small(f"{claim.id}, {claim.source}")
    return [html.escape(claim.text) + where, html.escape(claim.paper)]


def _small(text: str) -> str:
    """Return a further line in small print, or nothing."""
    style = "opacity: 0.75; font-size: 0.85em"
    return f'<br><span style="{style}">{html.escape(text)}</span>' if text else ""


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
