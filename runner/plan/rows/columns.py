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
"""What the log tells of a tensor of which it keeps statistics, in this order."""

DIGEST_BYTES = 8

TOLD: Mapping[Kept, Mapping[str, tuple[torch.dtype, tuple[int, ...]]]] = {
    "stats": {name: (dtype, ()) for name, dtype in STATISTICS.items()},
    "digest": {"digest": (torch.uint8, (DIGEST_BYTES,))},
}
"""What the log tells of a tensor that it does not keep in full: dtype and shape of each column."""


@dataclass(frozen=True, slots=True)
class Column:
    """One quantity of every row: a named value, a gradient norm, a weight, a gradient, or optimizer state."""

    name: str  # "f", "x1", "x1.grad", "x1.exp_avg"
    role: Role
    dtype: torch.dtype
    shape: tuple[int, ...] | None  # None: varies from row to row
    kept: Kept = "full"  # what the log keeps of its tensors, which rows have whole
    of: Column | None = None  # in a log: the column that this one is a statistic or the digest of

    @property
    def elements(self) -> int | None:
        """Of one value; None where the shape varies."""
        return None if self.shape is None else math.prod(self.shape)

    @property
    def is_digest(self) -> bool:
        """Whether its numbers are the bytes of a digest, which are the same or not, and no more."""
        return self.of is not None and self.of.kept == "digest"

    @property
    def rounded(self) -> torch.dtype:
        """The dtype that its numbers were rounded to as they were computed."""
        return self.dtype if self.of is None else self.of.dtype


def recorded(column: Column) -> tuple[Column, ...]:
    """The columns of the log that tell of a column: itself, or `w1.mean` and its like, or `w1.digest`."""
    if column.kept == "full":
        return (column,)
    return tuple(
        Column(f"{column.name}.{name}", column.role, dtype, shape, of=column)
        for name, (dtype, shape) in TOLD[column.kept].items()
    )
