"""The cells of a column: their values as a numpy array, and which of them are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy

from runner.plan.data.selection.selection import Mask

Kind = Literal["number", "boolean", "text"]

Blocks = Iterator[Mapping[str, "Cells"]]
"""Consecutive rows of some columns, by name; all columns of a block have equal lengths."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Some cells of one column."""

    values: Any  # numpy `(n,)`: numbers, booleans, or strings as objects; anything where missing
    missing: Mask  # NaN counts as missing
    listed: Mask | None = None  # which texts `missing` of the table lists: they are missing, and compare as text

    @property
    def absent(self) -> Mask:
        """Which cells mean a missing value."""
        return self.missing if self.listed is None else self.missing | self.listed


@dataclass(frozen=True, slots=True)
class Table:
    """The columns that a `select` may name.

    `kind` and `blocks` raise a `FileFault` if the file cannot be read.
    """

    file: str  # as messages name it
    names: tuple[str, ...]
    rows: int
    kind: Callable[[str], Kind]
    blocks: Callable[[Sequence[str]], Blocks]


def cells_of_numbers(values: Any) -> Cells:
    """Numbers or booleans as cells: numpy `(n,)` of any numeric dtype."""
    return Cells(values, numpy.isnan(values) if values.dtype.kind == "f" else numpy.zeros(len(values), dtype=bool))
