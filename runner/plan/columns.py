"""The columns of a run's rows: one quantity each, in a fixed order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Role = Literal["value", "norm", "weight", "gradient", "state"]


@dataclass(frozen=True, slots=True)
class Column:
    """One quantity of every row: a named value, a gradient norm, a weight, a gradient, or optimizer state."""

    name: str  # "f", "x1", "x1.grad", "x1.exp_avg"
    role: Role
    dtype: torch.dtype
    shape: tuple[int, ...] | None  # None: varies from row to row
