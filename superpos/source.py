"""Where the numbers of a figure come from, as the line under it."""

from __future__ import annotations

import html
from typing import NamedTuple


class Source(NamedTuple):
    """Records of one experiment under one profile."""

    section: str
    """The experiment: `superpos.experiments.<section>`, `notebooks/<section>.ipynb`."""
    profile: str
    """Whose parameters, and the folder of the results."""
    label: str
    """The profile, and what was changed in it."""
    count: int
    """Number of records."""
    made: str
    """Device, days and computing time."""

    def __str__(self) -> str:
        """The source as one sentence or two."""
        return f"Profile {self.label}. {self._counted()}, {self.made}"

    def html(self) -> str:
        """The same with marks that the book turns into links to the code and to the records."""
        section = html.escape(self.section)
        code = f'<code data-module="superpos.experiments.{section}">{section}</code>'
        records = f'<span data-records="{self.profile}/{section}">{self._counted()}</span>'
        return (
            f"Experiment {code}, profile {html.escape(self.label)}: "
            f"{records}, {html.escape(self.made)}"
        )

    def _counted(self) -> str:
        return f"{self.count} record{'' if self.count == 1 else 's'}"
