"""The scorecard: every chapter's claims beside what each profile last reported.

Chapters keep their values by :mod:`superpos.claims`; they are read here, and judged by the rule of
:mod:`superpos.ledger`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .claims import (
    MARKS,
    badge,
    check_values,
    claim_cells,
    standing_in,
    table_html,
    value_cell,
    values_path,
)
from .files import AnyPath
from .ledger import Claim, ClaimError, Estimate, Verdict, judge, load_ledger
from .settings import PROFILES


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


@dataclass(frozen=True, repr=False)
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
        return self._counts(self.claims)

    def summary_lines(self) -> list[str]:
        """Return the counts, and the claims that are not fully reproduced, for a terminal."""
        total = len(self.claims)
        lines = [
            f"{MARKS[verdict][0]} {count} of {total} claims {verdict.value}"
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

    __repr__ = __str__

    def _repr_html_(self) -> str:
        counts = " &nbsp; ".join(
            f"{badge(verdict)}: <b>{count}</b>" for verdict, count in self.counts().items()
        )
        groups = {
            self._heading(section, claims): [self._row(claim) for claim in claims]
            for section, claims in _by_section(self.claims).items()
        }
        return f"<p>{counts}</p>" + table_html(["Claim", "Paper", *self.profiles], groups)

    def _counts(self, claims: Iterable[Claim]) -> dict[Verdict, int]:
        counter = Counter(self.standing(claim) for claim in claims)
        return {verdict: counter[verdict] for verdict in Verdict}

    def _heading(self, section: str, claims: list[Claim]) -> str:
        counts = [
            f"{count} {verdict.value}" for verdict, count in self._counts(claims).items() if count
        ]
        return f"{section.replace('_', ' ').capitalize()}: {', '.join(counts)}"

    def _row(self, claim: Claim) -> list[str]:
        return [*claim_cells(claim), *(self._cell(claim, profile) for profile in self.profiles)]

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
        verdict, estimate = self.verdict(claim, profile), self._estimate(claim, profile)
        if estimate is None:
            return badge(verdict)
        run = self.runs[claim.section, profile]
        parts = [standing_in(claim, estimate, verdict), run.label]
        parts += [", ".join(run.provenance["devices"]), run.provenance["date"][:10]]
        remark = "; ".join(part for part in parts if part)
        return f"{badge(verdict)}<br>{value_cell(estimate, remark)}"


def scorecard(roots: Mapping[str, AnyPath | str]) -> Scorecard:
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
        for section in _by_section(ledger.values()):
            path = values_path(root, section)
            if path.is_file():
                run = _read_run(path)
                if run.profile != profile:
                    raise ClaimError(f"{path} was reported under '{run.profile}', not '{profile}'")
                check_values(run.estimates, ledger, str(path))
                runs[section, profile] = run
    return Scorecard(list(ledger.values()), runs)


def _by_section(claims: Iterable[Claim]) -> dict[str, list[Claim]]:
    """Group claims by section, in the order in which the sections first appear."""
    groups: dict[str, list[Claim]] = {}
    for claim in claims:
        groups.setdefault(claim.section, []).append(claim)
    return groups


def _read_run(path: AnyPath) -> Run:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        estimates = {
            name: Estimate(
                *(float(value[part]) for part in Estimate._fields[:3]),
                value["note"],
                value.get("stand_in", ""),  # which older files do not have
            )
            for name, value in content["estimates"].items()
        }
        about = {name: content["provenance"][name] for name in ("devices", "date")}
        return Run(content["profile"], content["label"], about, estimates)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClaimError(f"{path} is damaged ({error!r}); run the chapter again") from None
