"""What tests of bad input share: a check that a refusal is one clear sentence."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

JUNK = (
    None, "x", "3", b"3", True, False, 0, -1, 1, 2, 1.5, 2.0, math.nan, math.inf, -math.inf, 1e30,
    10**30, 1e-320, 1j, [1], (), {}, {1: 2}, object, np.float32(2.5), np.int8(3), np.uint64(2**63),
    np.array([1, 2]), torch.tensor(2.0), torch.tensor([1.0, 2.0]), Fraction(1, 4), range(3),
)  # fmt: skip
"""Values of many kinds, of which each place takes some."""


def refusal(kinds, call, *arguments, **options):
    """The sentence with which a call is refused."""
    with pytest.raises(Exception) as caught:
        call(*arguments, **options)
    assert type(caught.value) in (kinds if isinstance(kinds, tuple) else (kinds,)), caught.value
    message = str(caught.value)
    assert message and "\n" not in message and len(message) < 700, message
    return message
