"""What every chapter's notebook does: run its conditions, say where numbers come from, judge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from .claims import ClaimTable, judged, report
from .engines import COMPUTING
from .files import AnyPath
from .record import Record
from .settings import PROFILES, from_values, label, load_profile, profiles_of, project_root
from .source import Source
from .store import Store, default_root, frame
from .sweep import sweep


class Run(NamedTuple):
    """A chapter's records and what they are called."""

    frame: pd.DataFrame
    """One row per record row: the condition's fields and the row's own."""
    records: list[Record]
    """The records, in the order of the conditions."""
    settings: Any
    """The settings behind the conditions."""
    label: str
    """The profile, and what was changed in it."""
    root: AnyPath
    """Folder of the profile's results."""
    section: str
    """The experiment's section."""

    @property
    def source(self) -> Source:
        """Experiment, profile, records, device and dates, for the line under a figure."""
        made = described(self.records)
        return Source(self.section, self.settings.profile, self.label, len(self.records), made)


def run(experiment: Any, settings: Any) -> Run:
    """Compute a chapter's conditions; those already in the store are read.

    Args:
        experiment: a module of `superpos.experiments`.
        settings: its `Settings`.

    Returns:
        Frame, records and label.

    Raises:
        SweepFailed: some conditions raised an error.
    """
    root, records = default_root(settings.profile), computed(experiment, settings)
    name = label(settings, load_profile(experiment.SECTION, settings.profile))
    return Run(frame(records), records, settings, name, root, experiment.SECTION)


def computed(experiment: Any, settings: Any) -> list[Record]:
    """Compute a chapter's conditions, those that are not in the store; errors as of `run`."""
    return sweep(
        experiment,
        experiment.conditions(settings),
        store=Store(default_root(settings.profile)),
        **{name: getattr(settings, name) for name in COMPUTING},
    )


def claims(experiment: Any, settings: Any, run: Run) -> ClaimTable:
    """Judge a chapter's claims by the ledger's rules and keep the values beside the records."""
    return report(
        experiment.SECTION,
        experiment.estimates(run.frame, settings),
        settings_label=run.label,
        profile=settings.profile,
        store_root=run.root,
        records=run.records,
    )


def claims_of(experiment: Any, run: Run) -> ClaimTable:
    """Judge a run that came with the project; nothing is written."""
    return judged(
        experiment.SECTION,
        experiment.estimates(run.frame, run.settings),
        settings_label=run.label,
        profile=run.settings.profile,
    )


def committed(experiment: Any, profile: str) -> Run | None:
    """Records of a larger profile that came with the project, or None if there are none."""
    root = project_root() / "results" / profile
    if profile not in profiles_of(experiment.SECTION):
        return None
    values = {**load_profile(experiment.SECTION, profile), "profile": profile}
    settings = from_values(experiment.Settings, values)
    found = (
        Store(root).read(experiment.SECTION, experiment.VERSION, condition)
        for condition in experiment.conditions(settings)
    )
    records = [record for record in found if record is not None]
    if not records:
        return None
    return Run(frame(records), records, settings, profile, root, experiment.SECTION)


def larger(experiment: Any, settings: Any) -> list[Run]:
    """What came with the project from profiles beyond the one of these settings."""
    beyond = PROFILES[PROFILES.index(settings.profile) + 1 :]
    found = (committed(experiment, profile) for profile in beyond)
    return [run for run in found if run is not None]


def described(records: Iterable[Record]) -> str:
    """Device, days and computing time of records, as the end of a sentence."""
    records = list(records)
    devices = sorted({record.provenance["device"] for record in records})
    days = sorted({record.provenance["date"][:10] for record in records})
    seconds = sum(record.provenance["seconds"] for record in records)
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    time = f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"
    return f"{', '.join(devices)}, {span}, {time} of computing."
