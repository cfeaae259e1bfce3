"""A run's values beside a chapter's claims: judged, kept and shown as a table.

A chapter reports its values, which are kept in its folder of results; :mod:`superpos.scorecard`
reads what every chapter last reported. :mod:`superpos.ledger` holds the claims and the rule of
the verdicts.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .files import AnyPath, folder, write_json
from .ledger import (
    Claim,
    ClaimError,
    Estimate,
    Verdict,
    agreement,
    check_profile,
    judge,
    load_ledger,
)
from .provenance import provenance
from .record import Record

MARKS = {
    Verdict.REPRODUCED: ("✔", "#2f9e5f"),
    Verdict.PARTLY: ("◐", "#c07f00"),
    Verdict.NOT_REPRODUCED: ("✘", "#dd4b4b"),
    Verdict.STAND_IN: ("≈", "#4c72b0"),
    Verdict.NOT_TESTED: ("–", "#8a8a8a"),
}
"""Each verdict's sign, and its color, which is legible on white and on black."""

_STYLE = 'style="text-align: left; vertical-align: top; white-space: normal; padding: 0.3em 0.6em"'


@dataclass(frozen=True, repr=False)
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
            lines.append(f"{MARKS[verdict][0]} {verdict.value}: {claim.text}")
            if verdict is Verdict.STAND_IN:
                lines.append(f"    {agreement(claim, estimate)}")
            lines.append(
                f"    {claim.id}: this run {_number(estimate)}; paper {claim.paper} "
                f"({claim.source}); reproduced if {claim.region}"
            )
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        heads = ["Claim", "Paper", f"This run ({self.label})", "Reproduced if", "Verdict"]
        rows = [
            [
                *claim_cells(claim),
                value_cell(estimate, estimate.note if estimate else ""),
                f'<span title="{html.escape(claim.why)}">{html.escape(claim.region)}</span>',
                badge(verdict) + _small(standing_in(claim, estimate, verdict)),
            ]
            for claim, estimate, verdict in self.rows
        ]
        return table_html(heads, {"": rows})


def report(
    section: str,
    estimates: Mapping[str, Estimate],
    *,
    settings_label: str,
    profile: str,
    store_root: AnyPath | str,
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
        values_path(store_root, section),
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
    check_values(values, claims, f"section '{section}'")
    check_profile(profile, f"section '{section}'")
    found = [(claim, values.get(claim.id)) for claim in claims.values()]
    return ClaimTable(
        settings_label, [(claim, value, judge(claim, value, profile)) for claim, value in found]
    )


def values_path(root: AnyPath | str, section: str) -> AnyPath:
    """Return where a section's values are kept in a folder of results."""
    return folder(root) / section / "values.json"


def check_values(values: Mapping[str, Estimate], known: Collection[str], where: str) -> None:
    """Refuse values that the ledger does not know or that cannot be.

    Args:
        values: Values by claim id.
        known: The ids allowed.
        where: Where the values come from, for the message.

    Raises:
        ClaimError: If an id is unknown, a number is not finite, or an interval does not hold its
            value or is missing without a note that says why.
    """
    for name, estimate in values.items():
        if name not in known:
            raise ClaimError(f"{where}: '{name}' is not in the ledger; it has: {', '.join(known)}")
        if not all(math.isfinite(number) for number in estimate[:3]):
            raise ClaimError(f"{where}: '{name}' is not finite; leave out what cannot be measured")
        if not estimate.low <= estimate.value <= estimate.high:
            raise ClaimError(f"{where}: the interval of '{name}' does not hold its value")
        if estimate.low == estimate.high and not estimate.note:
            raise ClaimError(f"{where}: '{name}' has no interval; say why in its note")


def claim_cells(claim: Claim) -> list[str]:
    """Return a claim's first two cells as HTML: what is claimed and where; the paper's value."""
    where = _small(f"{claim.id}, {claim.source}")
    return [html.escape(claim.text) + where, html.escape(claim.paper)]


def value_cell(estimate: Estimate | None, remark: str) -> str:
    """Return a value with its interval as HTML, and under it a remark in small print, if any."""
    return _number(estimate) + _small(remark)


def standing_in(claim: Claim, estimate: Estimate | None, verdict: Verdict) -> str:
    """Return what a stand-in was and what came out there, or nothing where there was none."""
    return agreement(claim, estimate) if verdict is Verdict.STAND_IN and estimate else ""


def badge(verdict: Verdict) -> str:
    """Return a verdict as HTML: its sign in its color, and its words."""
    mark, color = MARKS[verdict]
    return (
        f'<span style="white-space: nowrap"><span aria-hidden="true" style="color: {color}; '
        f'font-weight: bold">{mark}</span> {html.escape(verdict.value)}</span>'
    )


def table_html(heads: list[str], groups: Mapping[str, list[list[str]]]) -> str:
    """Return an HTML table that takes its colors from the page around it.

    Args:
        heads: The columns' headings, as text.
        groups: Rows of cells, as HTML, by the heading of the rows, as text; "" for none.
    """
    head = "".join(f'<th scope="col" {_STYLE}>{html.escape(text)}</th>' for text in heads)
    bodies = "".join(_body(heading, rows, len(heads)) for heading, rows in groups.items())
    # The class "dataframe" is the one that Jupyter and the book's theme color in dark mode too.
    return (
        '<table class="dataframe" style="width: 100%">'
        f"<thead><tr>{head}</tr></thead>{bodies}</table>"
    )


def _body(heading: str, rows: list[list[str]], columns: int) -> str:
    first = f'<th scope="rowgroup" colspan="{columns}" {_STYLE}>{html.escape(heading)}</th>'
    cells = ["".join(f"<td {_STYLE}>{cell}</td>" for cell in row) for row in rows]
    lines = [first, *cells] if heading else cells
    return f"<tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody>"


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


def _number(estimate: Estimate | None) -> str:
    if estimate is None:
        return "no value"
    if estimate.low == estimate.high:
        return f"{estimate.value:.3g}"
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _small(text: str) -> str:
    """Return a further line in small print, or nothing."""
    style = "opacity: 0.75; font-size: 0.85em"
    return f'<br><span style="{style}">{html.escape(text)}</span>' if text else ""
