"""Orders of samples in which every class is spread evenly."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_order(labels: Tensor, *, generator: torch.Generator) -> Tensor:
    """Shuffle so that every beginning has each class in its share.

    Each class is shuffled, then spread evenly over the whole order. With C classes, the largest
    of share s, no beginning is off by more than 1/2 + s (C - 2) / 2 samples of any class: by less
    than one for classes of about equal size.

    Args:
        labels: Class of each sample, `[samples]`.
        generator: Source of the shuffle.

    Returns:
        Indices of the samples in their new order, `[samples]`, int64.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    places = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = (labels[shuffled] == label).nonzero().squeeze(1)
        places[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return shuffled[places.argsort(stable=True)]
