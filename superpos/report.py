"""What a measurement says: one `Superposition` per site, and the `Report` that holds them."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Superposition:
    """Superposition of one site, with what a careful reader asks next."""

    site: str
    """Name of the site."""
    features: float
    """Effective features F, mean over SAE seeds (paper section 3)."""
    neurons: int
    """Number of neurons N."""
    interval: tuple[float, float]
    """95% interval of F from the spread over SAE seeds and over ten parts of the data."""
    by_seed: tuple[float, ...]
    """F of every SAE seed."""
    hill: Mapping[float, float]
    """Hill numbers of order 0, 1, 2 and infinity, means over seeds."""
    explained_variance: float
    """Share of the activations' variance that the autoencoders rebuild; nan if they do not vary."""
    mean_active: float
    """Codes above zero per sample."""
    dead_share: float
    """Share of the dictionary that no sample activates."""
    samples: int
    """Samples (inputs times positions) that F was computed from."""
    converged: bool
    """Whether every autoencoder's loss and F stood still within its rounds."""
    half_change: float
    """Relative change of F when only half of the inputs are used; nan with fewer than ten."""

    @property
    def psi(self) -> float:
        """Superposition psi = F / N."""
        return self.features / self.neurons

    @property
    def psi_interval(self) -> tuple[float, float]:
        """95% interval of psi."""
        return self.interval[0] / self.neurons, self.interval[1] / self.neurons

    @property
    def settled(self) -> bool:
        """Whether F has converged in the number of samples: half of them change it by under 2%."""
        return abs(self.half_change) < 0.02


class Report(Mapping[str, Superposition]):
    """Measurements by site. Prints as a table in a terminal and in a notebook."""

    def __init__(self, sites: Mapping[str, Superposition]) -> None:
        """Hold measurements in the order given."""
        self._sites = dict(sites)

    def __getitem__(self, site: str) -> Superposition:
        """The measurement of one site."""
        if site not in self._sites:
            raise KeyError(f"no site {site!r} in this report; it has {', '.join(self._sites)}.")
        return self._sites[site]

    def __iter__(self) -> Iterator[str]:
        """Names of the sites."""
        return iter(self._sites)

    def __len__(self) -> int:
        """Number of sites."""
        return len(self._sites)

    def to_frame(self) -> pd.DataFrame:
        """One row per site, one column per figure."""
        rows = [
            {
                "site": s.site,
                "neurons": s.neurons,
                "features": s.features,
                "features_low": s.interval[0],
                "features_high": s.interval[1],
                "psi": s.psi,
                **{f"hill_{_order(q)}": value for q, value in s.hill.items()},
                "explained_variance": s.explained_variance,
                "mean_active": s.mean_active,
                "dead_share": s.dead_share,
                "samples": s.samples,
                "converged": s.converged,
                "half_change": s.half_change,
            }
            for s in self.values()
        ]
        return pd.DataFrame(rows).set_index("site")

    def __str__(self) -> str:
        """A table for a terminal."""
        return self._table().to_string(index=False) + "".join(f"\n{n}" for n in self._notes())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """A table for a notebook."""
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._notes())
        return self._table().to_html(index=False, border=0) + notes

    def _table(self) -> pd.DataFrame:
        """The figures as short text."""
        return pd.DataFrame(
            {
                "site": s.site,
                "N": s.neurons,
                "F": f"{s.features:.1f}",
                "95% interval": f"{s.interval[0]:.1f} to {s.interval[1]:.1f}",
                "psi": f"{s.psi:.3f}",
                "variance": _share(s.explained_variance),
                "active": f"{s.mean_active:.1f}",
                "dead": f"{100 * s.dead_share:.0f}%",
                "samples": f"{s.samples:,}",
                "SAE": "converged" if s.converged else "not converged",
                "data": _data(s),
            }
            for s in self.values()
        )

    def _notes(self) -> list[str]:
        """Warnings that a reader must not miss."""
        notes = []
        if loose := [s.site for s in self.values() if not s.converged]:
            notes.append(f"Not converged at {', '.join(loose)}: raise SAEConfig.rounds or .steps.")
        if moving := [s.site for s in self.values() if not s.settled]:
            notes.append(f"F still depends on the number of samples at {', '.join(moving)}.")
        return notes


def _share(value: float) -> str:
    return "none to rebuild" if math.isnan(value) else f"{100 * value:.1f}%"


def _data(s: Superposition) -> str:
    if math.isnan(s.half_change):
        return "too few to tell"
    return "enough" if s.settled else f"F moves {100 * s.half_change:+.0f}%"


def _order(q: float) -> str:
    return "inf" if q == math.inf else f"{q:g}"
