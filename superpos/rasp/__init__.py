"""RASP programs, their interpreter, and their compilation to transformer weights."""

from .compiler import Compiled, classes, compiled
from .language import (
    Aggregate,
    Map,
    RaspError,
    Select,
    SelectorWidth,
    SOp,
    evaluate,
    indices,
    tokens,
)
from .programs import (
    balanced_brackets,
    double_letter,
    histogram,
    reversal,
    shifted_copy,
    sorting,
    sorting_distinct,
)

__all__ = [
    "Aggregate",
    "Compiled",
    "Map",
    "RaspError",
    "SOp",
    "Select",
    "SelectorWidth",
    "balanced_brackets",
    "classes",
    "compiled",
    "double_letter",
    "evaluate",
    "histogram",
    "indices",
    "reversal",
    "shifted_copy",
    "sorting",
    "sorting_distinct",
    "tokens",
]
