"""What computing rows again gives: the value and the gradient of each node of an expression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from runner.language.graph.computation import Computation

Flow = dict[fx.Node, tuple[Any, Tensor | None]]
"""The value of each node, and its gradient; None where it has none."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One row, computed again."""

    computation: Computation
    objective: str
    flow: Flow
    kind: str  # of its step: "forward", "backward", "train", or "first" of the evaluations of L-BFGS


@dataclass(frozen=True, slots=True)
class Replays:
    """The chosen rows that could be computed again."""

    flows: Mapping[int, Replayed]  # by position
    reason: str | None = None  # why there are none, or not of all rows
    differs: float = 0.0  # the largest relative difference of an objective from the recorded one
    reasons: Mapping[int, str] = field(default_factory=dict)  # by position, why a row could not be computed again


NOTHING = Replays({})
"""Before any row is computed again."""
