"""The columns of a run's rows: one quantity each, in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from runner.errors import did_you_mean
from runner.plan.rows.slices import slice_names

Role = Literal["value", "norm", "weight", "gradient", "state"]
Kept = Literal["full", "stats", "digest"]

STATISTICS: Mapping[str, torch.dtype] = {
    **dict.fromkeys(("mean", "std", "min", "max", "norm"), torch.float64),
    **dict.fromkeys(("zeros", "nonfinite"), torch.int64),
}
"""The statistics that replace a tensor in the log, in this order."""

DIGEST_BYTES = 8

REDUCED: Mapping[Kept, Mapping[str, tuple[torch.dtype, tuple[int, ...]]]] = {
    "stats": {name: (dtype, ()) for name, dtype in STATISTICS.items()},
    "digest": {"digest": (torch.uint8, (DIGEST_BYTES,))},
}
"""The columns that replace a tensor that the log does not store in full: dtype and shape of each."""


@dataclass(frozen=True, slots=True)
class Column:
    """One quantity of every row: a named value, a gradient norm, a weight, a gradient, or optimizer state."""

    name: str  # "f", "x1", "x1.grad", "x1.exp_avg"
    role: Role
    dtype: torch.dtype
    shape: tuple[int, ...] | None  # None: varies from row to row
    kept: Kept = "full"  # how the log stores its tensors; rows always have them in full
    of: Column | None = None  # in a log: the original column of a statistic or digest
    leading: tuple[int, ...] = ()  # lengths of the leading dimensions whose slices have statistics of their own
    only: frozenset[str] | None = None  # the slices whose statistics the log has, without the whole; None: all

    @property
    def elements(self) -> int | None:
        """Number of elements of one value; None if the shape varies."""
        return None if self.shape is None else math.prod(self.shape)

    @property
    def is_digest(self) -> bool:
        """Whether its numbers are the bytes of a digest, which can only be equal or different."""
        return self.of is not None and self.of.kept == "digest"

    @property
    def rounded(self) -> torch.dtype:
        """The dtype in which its numbers were computed, before any statistic."""
        return self.dtype if self.of is None else self.of.dtype


@dataclass(frozen=True, slots=True)
class Piece:
    """What a statistic or a digest covers: a whole tensor, or one of its slices."""

    name: str
    shape: tuple[int, ...] | None
    number: int | None = None  # of the slice, in row-major order; None: the whole tensor


def pieces(column: Column) -> tuple[Piece, ...]:
    """The pieces that the log reduces of a column: the whole, then its slices, unless the log leaves some out."""
    whole = Piece(column.name, column.shape)
    if column.kept != "stats" or column.shape is None:
        return (whole,)
    shape = column.shape[len(column.leading) :]
    names = enumerate(slice_names(column.name, column.leading))
    found = (whole, *(Piece(name, shape, number) for number, name in names))
    return found if column.only is None else tuple(piece for piece in found if piece.name in column.only)


def column_hint(pattern: str, columns: Sequence[Column]) -> str | None:
    """What to write instead of a name or glob that matches no column and no slice."""
    owner, bracket, rest = pattern.partition("[")
    name = owner + rest.partition("]")[2]
    for column in columns if bracket else ():
        if column.name == name:
            slices = slice_names(name, column.leading)
            between = f"the slices of `{name}` are `{slices[0]}` to `{slices[-1]}`" if slices else ""
            return between or f"write `{name}`: it has no slices that are measured"
    names = [column.name for column in columns]
    return did_you_mean(pattern, names, f"columns are {', '.join(names)}")


def recorded(column: Column) -> tuple[Column, ...]:
    """The columns of the log for a column: the column itself, or its statistics such as `w1.mean`, or `w1.digest`.

    Statistics of slices follow those of the whole, as `w1[0].mean`.
    """
    if column.kept == "full":
        return (column,)
    originals = [Column(piece.name, column.role, column.dtype, piece.shape, column.kept) for piece in pieces(column)]
    return tuple(
        Column(f"{of.name}.{name}", of.role, dtype, shape, of=of)
        for of in originals
        for name, (dtype, shape) in REDUCED[column.kept].items()
    )
