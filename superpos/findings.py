"""A table of measured values for a page: in words, here, in the paper, and where to read on."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .claims import table_html, value_cell
from .ledger import Claim, ClaimError, Estimate
from .scorecard import Scorecard


class Finding(NamedTuple):
    """A claim's value in the words of a page."""

    words: str
    """What was measured."""
    claim: Claim
    """The claim of the ledger."""
    estimate: Estimate | None
    """The value of the largest profile that holds one, or None if no profile does."""
    profile: str
    """That profile, or nothing."""

    @property
    def value(self) -> str:
        """Value and 95% interval as text, or that there is no value."""
        return html.unescape(value_cell(self.estimate, ""))

    @property
    def remark(self) -> str:
        """Profile, what was measured in place of what the claim is about, and the note."""
        found = self.estimate or Estimate(0.0, 0.0, 0.0)
        stand_in = f"on a stand-in: {found.stand_in}" if found.stand_in else ""
        return "; ".join(part for part in (self.profile, stand_in, found.note) if part)


@dataclass(frozen=True, repr=False)
class Findings:
    """Measured values as a table; one is looked up by its claim's id.

    Attributes:
        rows: The values, in the order of the page.
    """

    rows: list[Finding]

    def __getitem__(self, claim: str) -> Finding:
        """The row of a claim's id.

        Raises:
            KeyError: No row has this id.
        """
        for row in self.rows:
            if row.claim.id == claim:
                return row
        raise KeyError(
            f"no row has the claim {claim!r}; the rows have "
            f"{', '.join(row.claim.id for row in self.rows)}."
        )

    def __str__(self) -> str:
        """Write two lines per row."""
        return "\n".join(
            f"{row.words}: {row.value} ({row.remark or 'no profile has it'})\n"
            f"    {row.claim.id}; paper: {row.claim.paper}"
            for row in self.rows
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        heads = ["What was measured", "Here [95% interval]", "In the paper", "Chapter"]
        rows = [
            [
                html.escape(row.words),
                value_cell(row.estimate, row.remark),
                html.escape(row.claim.paper),
                f'<a href="{row.claim.section}.html" title="{html.escape(row.claim.id)}">'
                f"{row.claim.section.replace('_', ' ')}</a>",
            ]
            for row in self.rows
        ]
        return table_html(heads, {"": rows})


def findings(rows: Iterable[tuple[str, str]], card: Scorecard) -> Findings:
    """Look up what was measured.

    Args:
        rows: Words and the id of a claim, one pair per row of the table.
        card: What `superpos.scorecard.scorecard` returns.

    Returns:
        One row per pair, each with the value of the largest profile that holds one.

    Raises:
        ClaimError: If an id is not in the ledger.
    """
    known = {claim.id: claim for claim in card.claims}
    found = []
    for words, name in rows:
        if name not in known:
            raise ClaimError(f"findings: '{name}' is not in the ledger; it has: {', '.join(known)}")
        found.append(Finding(words, known[name], *_largest(known[name], card)))
    return Findings(found)


def _largest(claim: Claim, card: Scorecard) -> tuple[Estimate | None, str]:
    """The value of the largest profile that holds one, and this profile."""
    for profile in reversed(card.profiles):
        run = card.runs.get((claim.section, profile))
        if run is not None and claim.id in run.estimates:
            return run.estimates[claim.id], profile
    return None, ""
