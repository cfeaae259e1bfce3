"""A matrix of activations in a file: read, or refused with the reason and what to do."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import torch

SUFFIXES = (".npy", ".csv")
LARGEST = 100_000_000
"""Entries of a matrix at most: 400 MB as they are computed with."""
WIDEST = 4096
"""Neurons at most: an autoencoder's time and memory grow with their square."""

_INSTEAD = "give `superpos.measure` the network itself, which reads it in batches"
_LAYOUT = "one row for each sample, one column for each neuron"


class UnreadableMatrix(ValueError):
    """A file that is no matrix of activations; says why, and what to do."""


def read_matrix(name: str, content: bytes | None = None) -> torch.Tensor:
    """Read activations from a .npy file or a .csv file of numbers.

    A first line of words in a .csv file is taken for the names of its columns. Nothing is
    unpickled.

    Args:
        name: the file's name, or its path if there is no content.
        content: the file's bytes, such as those of an upload.

    Returns:
        Activations `[samples, neurons]`, float32, all finite.

    Raises:
        UnreadableMatrix: another kind of file, a damaged one, a wrong shape, values that are no
            numbers or not finite, or more of them than can be measured at once.
        OSError: the file cannot be opened.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise UnreadableMatrix(f"{name} must end in .npy or .csv; save the matrix as one of them.")
    if content is None:
        content = Path(name).expanduser().read_bytes()
    if not content:
        raise UnreadableMatrix(f"{name} is empty; a matrix of numbers is needed.")
    array = (_npy if suffix == ".npy" else _csv)(name, content)
    return _checked(name, array)


def _npy(name: str, content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(stream)
    except Exception as error:  # a damaged header raises errors of many kinds
        raise UnreadableMatrix(f"{name} is no .npy file: {error}") from None
    _check_shape(name, shape)
    if dtype.hasobject or dtype.kind not in "bifu":
        raise UnreadableMatrix(
            f"{name} holds {dtype.name}; real numbers are needed, such as float32."
        )
    missing = int(np.prod(shape)) * dtype.itemsize - (len(content) - stream.tell())
    if missing > 0:
        raise UnreadableMatrix(f"{name} is cut off: {missing:,} bytes are missing; save it again.")
    return np.load(io.BytesIO(content), allow_pickle=False)


def _csv(name: str, content: bytes) -> np.ndarray:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableMatrix(f"{name} is no text in UTF-8; save it as a .csv again.") from None
    first = text.split("\n", 1)[0]
    try:
        separator = csv.Sniffer().sniff(first, delimiters=",;\t ").delimiter
    except csv.Error:
        separator = ","
    words = [word.strip().strip('"') for word in first.rstrip().split(separator)]
    plain = [_is_number(word) for word in words if word]
    named = not all(plain)
    if named and any(plain):
        raise UnreadableMatrix(
            f"{name} has both numbers and words in its first line ({first.strip()[:60]}); name all "
            "columns, or none."
        )
    if named and (not words[0] or words[0].startswith("Unnamed")):
        raise UnreadableMatrix(
            f"{name} has a first column without a name, which looks like row numbers; save it "
            "without them (pandas: index=False)."
        )
    if len(words) > 1 and words == [str(number) for number in range(len(words))]:
        raise UnreadableMatrix(
            f"{name} has column numbers for a first line; save it without them (pandas: "
            "header=False), or with names."
        )
    try:
        table = pd.read_csv(
            io.StringIO(text), sep=separator, header=None, skiprows=int(named),
            skipinitialspace=True,
        )  # fmt: skip
    except pd.errors.EmptyDataError:
        raise UnreadableMatrix(f"{name} holds no numbers; {_LAYOUT}.") from None
    except pd.errors.ParserError as error:
        raise UnreadableMatrix(f"{name} has rows of different lengths: {error}") from None
    if named and len(words) != table.shape[1]:
        raise UnreadableMatrix(
            f"{name} names {len(words)} columns but has {table.shape[1]}; one name each is needed."
        )
    _check_shape(name, table.shape)
    for number, column in enumerate(table.columns, 1):
        try:
            numbers = pd.to_numeric(table[column], errors="coerce").astype(np.float64)
        except OverflowError:
            raise UnreadableMatrix(
                f"{name} has a number in column {number} that is too large; divide all by one "
                "number, which F does not see."
            ) from None
        wrong = numbers.isna() & table[column].notna()
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise UnreadableMatrix(
                f"{name} has {str(table[column].iloc[row])!r} in row {row + 1 + named}, column "
                f"{number}; only numbers may follow the first line."
            )
        table[column] = numbers
    return table.to_numpy(dtype=np.float64)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        advice = (
            "put channels last and merge the other axes, as in x.transpose(0, 2, 3, 1)"
            ".reshape(-1, channels)"
            if len(shape) == 4
            else "reshape it first"
        )
        raise UnreadableMatrix(
            f"{name} has shape {shape}; a matrix is needed, {_LAYOUT}: {advice}."
        )
    samples, neurons = shape
    if samples < 2 or neurons < 1:
        raise UnreadableMatrix(
            f"{name} has {samples} samples of {neurons} neurons; at least 2 of 1 are needed."
        )
    if neurons > WIDEST:
        raise UnreadableMatrix(
            f"{name} has {neurons:,} columns, which count as neurons; at most {WIDEST:,} can be "
            f"measured here. If samples are in columns, transpose it; else {_INSTEAD}."
        )
    if samples * neurons > LARGEST:
        raise UnreadableMatrix(
            f"{name} has {samples:,} x {neurons:,} entries, more than {LARGEST:,}: keep "
            f"{LARGEST // neurons:,} samples drawn at random, or {_INSTEAD}."
        )


def _checked(name: str, array: np.ndarray) -> torch.Tensor:
    wrong = ~np.isfinite(array)
    if wrong.any():
        row, column = (int(place[0]) for place in np.nonzero(wrong))
        raise UnreadableMatrix(
            f"{name} has {int(wrong.sum()):,} values that are missing, nan or infinite, the first "
            f"in row {row + 1}, column {column + 1}; remove their samples."
        )
    largest = float(np.abs(array).max())
    if largest > float(np.finfo(np.float32).max):
        raise UnreadableMatrix(
            f"{name} has values up to {largest:.0e}, too large for float32; divide all by one "
            "number, which F does not see."
        )
    if largest > 0 and np.float32(largest) == 0:
        raise UnreadableMatrix(
            f"{name} has values of at most {largest:.0e}, too small for float32; multiply all by "
            "one number."
        )
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
