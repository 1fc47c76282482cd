"""The columns of a run's rows: one quantity each, in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

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


def recorded(column: Column) -> tuple[Column, ...]:
    """The columns of the log for a column: the column itself, or its statistics such as `w1.mean`, or `w1.digest`."""
    if column.kept == "full":
        return (column,)
    return tuple(
        Column(f"{column.name}.{name}", column.role, dtype, shape, of=column)
        for name, (dtype, shape) in REDUCED[column.kept].items()
    )
